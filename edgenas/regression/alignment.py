"""Which operators of two models belong together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import numpy.typing as npt

from edgenas.profilers import Operator

Pair = tuple[int | None, int | None]
# What a pair is worth. Equal shapes count more than an equal name: exporters number names, so that a layer in front
# moves all names by one.
_SAME, _SAME_SHAPES, _SAME_NAME_AND_TYPE, _SAME_NAME, _SAME_TYPE = 5, 4, 3, 2, 1


def align_operators(before: Sequence[Operator], after: Sequence[Operator]) -> list[Pair]:
    """Pair the operators of two models, by name, type and shapes.

    Both stay in order as far as possible: of all pairings without crossings, one that is worth most is taken
    (S. Needleman and C. Wunsch, Journal of Molecular Biology 48 (1970) 443, without a cost of gaps). Operators that
    are left over and are alike are paired in spite of their order, which runtimes change for parallel branches.

    Returns:
        The places of the operators of each pair, in the order of ``after``; None where there is no partner.
    """
    worth = _worth_of_pairs(before, after)
    pairs = _best_in_order(worth)
    left = [place for place in range(len(before)) if place not in pairs]
    free = sorted(set(range(len(after))) - set(pairs.values()))
    for place in left:
        partner = max(free, key=lambda other: worth[place, other], default=None)
        if partner is not None and worth[place, partner] >= _SAME_NAME_AND_TYPE:
            pairs[place] = partner
            free.remove(partner)
    aligned: list[tuple[float, Pair]] = [(place, (None, place)) for place in free]
    previous = -0.5
    for place in range(len(before)):
        other = pairs.get(place)
        previous = previous if other is None else other + 0.5
        aligned.append((previous, (place, None)) if other is None else (other, (place, other)))
    return [pair for _, pair in sorted(aligned, key=lambda item: item[0])]


def _worth_of_pairs(before: Sequence[Operator], after: Sequence[Operator]) -> npt.NDArray[np.int8]:
    """Return what each pair is worth, of shape (before, after)."""

    def compare(key: Callable[[Operator], Hashable]) -> npt.NDArray[np.bool_]:
        return _are_equal([key(each) for each in before], [key(each) for each in after])

    same_type, same_name = compare(lambda each: each.type), compare(lambda each: each.name)
    same_shapes = compare(lambda each: (each.type, each.input_shapes, each.output_shapes))
    places = {source: place for place, each in enumerate(after) for source in each.sources}
    for place, each in enumerate(before):
        for source in each.sources:
            if source in places:
                same_name[place, places[source]] = True
    cases = [same_shapes & same_name, same_shapes, same_name & same_type, same_name, same_type]
    worths = [_SAME, _SAME_SHAPES, _SAME_NAME_AND_TYPE, _SAME_NAME, _SAME_TYPE]
    return np.select(cases, worths, 0).astype(np.int8)


def _are_equal(first: Sequence[Hashable], second: Sequence[Hashable]) -> npt.NDArray[np.bool_]:
    """Return which of the first equal which of the second, of shape (first, second)."""
    numbers = {value: number for number, value in enumerate(dict.fromkeys([*first, *second]))}
    rows, columns = (np.array([numbers[value] for value in values], np.int64) for values in (first, second))
    return np.equal(rows[:, None], columns[None, :])


def _best_in_order(worth: npt.NDArray[np.int8]) -> dict[int, int]:
    """Return the pairs without crossings that are worth most, by the place of the first."""
    rows, columns = worth.shape
    # best[i, j]: what pairs of the first i and the first j operators are worth at most.
    best = np.zeros((rows + 1, columns + 1), np.int32)
    for row in range(rows):
        paired = np.maximum(best[row, 1:], best[row, :-1] + worth[row])
        best[row + 1, 1:] = np.maximum.accumulate(paired)
    pairs = {}
    row, column = rows, columns
    while row and column:
        if best[row, column] == best[row, column - 1]:
            column -= 1
        elif best[row, column] == best[row - 1, column]:
            row -= 1
        else:
            row, column = row - 1, column - 1
            pairs[row] = column
    return pairs
