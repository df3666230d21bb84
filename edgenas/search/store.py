"""A store of measured costs, so that no architecture is evaluated twice, in one search, another, or after a restart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgenas.appending import append_at
from edgenas.costs import CostModel, Genes, Vector
from edgenas.errors import EdgeNASError, FormatError, RunError, UsageError
from edgenas.files import (
    Number,
    ShortText,
    canonical_json_bytes,
    parse_dataclass,
    parse_header_version,
    parse_json,
    read_bytes,
)
from edgenas.search.problem import GeneSpace

_KIND, _VERSION = "evaluations", 1
_REMEDY = "remove that line; what it held is evaluated again"


@dataclass(frozen=True)
class _Evaluation:
    """A line of the file: one cost of one architecture."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    architecture: ShortText
    cost: ShortText
    value: Number


class EvaluationStore:
    """Measured costs of a space's architectures in a file of JSON lines that is only ever appended to.

    It is also the state of a search. Strategies depend on nothing but their arguments and the costs, so that a search
    that was killed resumes when it is called again with the same store: what it had evaluated comes from the file.

    A last line that was cut off by a kill is ignored, and overwritten by the next one.

    Args:
        path: The file, which need not exist yet.
        space: The space of the architectures.
        inputs_digest: The digest of all that the costs depend on besides the architecture, such as weights and device.

    Raises:
        RunError: The file is of another space or of other inputs.
        FormatError: A line is damaged.

    Example:
        >>> import tempfile
        >>> from edgenas import EvaluationStore, MobileNetV3, Problem, search_front
        >>> space = MobileNetV3(width=0.5)
        >>> store = EvaluationStore(tempfile.mkdtemp() + "/evaluations.jsonl", space, "my weights, my board")
        >>> measured = store.cost_model("macs", space.macs)  # in its place stands what measures, and takes seconds
        >>> costs = {"macs": measured, "params": space.params}
        >>> problem = Problem(space, costs, ("macs", "params"), real=["macs"])
        >>> front = search_front(problem, strategy="random", evaluations=20)
        >>> len(store)
        20
    """

    def __init__(self, path: str | Path, space: GeneSpace, inputs_digest: str) -> None:
        self.path = Path(path)
        self._space, self._inputs_digest = space, inputs_digest
        self._values: dict[tuple[str, str], float] = {}
        self._end = 0  # of the complete lines, in bytes
        if self.path.exists():
            self._read()

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"EvaluationStore({str(self.path)!r}, {len(self)} evaluations)"

    def cost_model(self, name: str, model: CostModel) -> CostModel:
        """Return a cost model that asks another one only for architectures that the store does not have.

        These are evaluated one by one, and each is on the disk before the next begins.

        Args:
            name: The cost's name in the store.
            model: Evaluates genes (1, G).
        """

        def look_up_or_evaluate(genes: Genes) -> Vector:
            values = np.empty(len(genes))
            for row, architecture in enumerate(self._space.decode(genes)):
                key = (architecture.id, name)
                if key not in self._values:
                    value = float(np.asarray(model(genes[row : row + 1])).reshape(-1)[0])
                    if not np.isfinite(value):  # the problem names it; nothing is kept of it
                        values[row] = value
                        continue
                    self._append(_Evaluation(*key, value))
                values[row] = self._values[key]
            return values

        return look_up_or_evaluate

    def _append(self, evaluation: _Evaluation) -> None:
        line = _to_line({"architecture": evaluation.architecture, "cost": evaluation.cost, "value": evaluation.value})
        data = line if self._end else self._header() + line
        try:
            append_at(self.path, self._end, data)
        except OSError as error:
            reason = f"cannot be written ({error.strerror})"
            raise EdgeNASError(f"{self.path}: {reason}; free space or choose another folder") from None
        self._end += len(data)
        self._values[evaluation.architecture, evaluation.cost] = evaluation.value

    def _header(self) -> bytes:
        inputs = {"space": self._space.short_hash, "inputs_digest": self._inputs_digest}
        return _to_line({"format": f"edgenas.{_KIND}", "version": _VERSION, **inputs})

    def _read(self) -> None:
        data = read_bytes(self.path)
        lines = data[: data.rfind(b"\n") + 1].splitlines(keepends=True)
        if not lines:
            return
        header = self._parse(lines[0], 1)
        parse_header_version(header, self.path, _KIND, _VERSION)
        if header.get("space") != self._space.short_hash or header.get("inputs_digest") != self._inputs_digest:
            raise RunError(
                f"{self.path}: is the state of another search (space {header.get('space')}, inputs"
                f" {header.get('inputs_digest')}; this search: {self._space.short_hash}, {self._inputs_digest});"
                " give another file"
            )
        for number, line in enumerate(lines[1:], start=2):
            where = f"{self.path}, line {number}"
            try:
                evaluation = parse_dataclass(_Evaluation, self._parse(line, number), where)
            except FormatError:
                raise
            except UsageError as error:
                raise FormatError(f"{error}; {_REMEDY}") from None
            self._values[evaluation.architecture, evaluation.cost] = evaluation.value
        self._end = sum(map(len, lines))

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            return dict(parse_json(line, f"{self.path}, line {number}"))
        except (ValueError, TypeError, RecursionError):
            raise FormatError(f"{self.path}, line {number}: is damaged; {_REMEDY}") from None


def _to_line(value: dict[str, Any]) -> bytes:
    return canonical_json_bytes(value) + b"\n"
