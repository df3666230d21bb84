"""The accuracy predictor that is fitted to evaluated subnets."""

from __future__ import annotations

import csv
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from edgenas.accuracy import AccuracyPredictor
from edgenas.costs import Genes, Vector
from edgenas.errors import UsageError
from edgenas.space import MobileNetV3


@pytest.fixture(scope="module")
def imagenet(data_folder: Path) -> tuple[MobileNetV3, Genes, Vector]:
    """The published subnets of Once-for-All's MobileNetV3, shuffled: space, genes, ImageNet top-1 as a fraction."""
    space = MobileNetV3(width=1.0, resolutions=(224,))
    architectures, accuracy = [], []
    with (data_folder / "ofa/ofa_mbv3_w1.0_imagenet_top1.csv").open() as file:
        for row in csv.DictReader(file):
            lists = {"ks": row["kernel_sizes"], "e": row["expand_ratios"], "d": row["depths"]}
            config = {name: [int(word) for word in text.split()] for name, text in lists.items()}
            architectures.append(space.from_ofa(config, 224))
            accuracy.append(float(row["top1"]) / 100)
    order = np.random.default_rng(0).permutation(len(accuracy))
    return space, space.encode(architectures)[order], np.array(accuracy)[order]


@pytest.fixture(scope="module")
def published(imagenet: tuple[MobileNetV3, Genes, Vector]) -> AccuracyPredictor:
    """A predictor fitted to 200 of the published subnets."""
    space, genes, accuracy = imagenet
    return AccuracyPredictor(space, genes[:200], accuracy[:200])


def _made_up(space: MobileNetV3, count: int) -> tuple[Genes, Vector]:
    """Accuracies that rise with the genes."""
    genes = space.sample_distinct(count, np.random.default_rng(0))
    return genes, 0.8 + 0.01 * genes.sum(axis=1).astype(np.float64)


def test_it_predicts_imagenet_accuracies_it_has_not_seen(
    imagenet: tuple[MobileNetV3, Genes, Vector], published: AccuracyPredictor
) -> None:
    """From 200 published subnets the other 881 are predicted to a quarter of a point, and ranked."""
    _, genes, accuracy = imagenet
    predicted = published(genes[200:])
    assert np.sqrt(np.mean((predicted - accuracy[200:]) ** 2)) < 0.0025
    assert kendalltau(predicted, accuracy[200:]).statistic > 0.88


def test_its_own_error_is_about_the_one_on_unseen_subnets(
    imagenet: tuple[MobileNetV3, Genes, Vector], published: AccuracyPredictor
) -> None:
    """The cross-validated RMSE and tau that it states are near those on the subnets it has not seen."""
    _, genes, accuracy = imagenet
    predicted = published(genes[200:])
    held_out = np.sqrt(np.mean((predicted - accuracy[200:]) ** 2))
    assert 0.7 < published.rmse / held_out < 1.4
    assert published.kendall_tau == pytest.approx(kendalltau(predicted, accuracy[200:]).statistic, abs=0.04)


def test_a_matrix_is_predicted_as_its_rows_are(
    imagenet: tuple[MobileNetV3, Genes, Vector], published: AccuracyPredictor
) -> None:
    """The vector of a genes matrix holds what each row alone gives."""
    genes = imagenet[1][200:220]
    alone = [float(published(row[None])[0]) for row in genes]
    np.testing.assert_allclose(published(genes), alone, rtol=0, atol=1e-9)


def test_dead_genes_have_no_say(tiny: MobileNetV3) -> None:
    """Genes of skipped blocks do not change a prediction."""
    predictor = AccuracyPredictor(tiny, *_made_up(tiny, 20))
    genes = tiny.sample(20, np.random.default_rng(1))
    scrambled = np.where(tiny.dead_genes(genes), 1, genes)
    assert not np.array_equal(scrambled, genes)
    assert np.array_equal(predictor(scrambled), predictor(genes))


def test_equal_accuracies_are_predicted_as_such(tiny: MobileNetV3) -> None:
    """Where all subnets are equally good, so is every prediction; there is nothing to rank, tau is 0."""
    genes, _ = _made_up(tiny, 20)
    predictor = AccuracyPredictor(tiny, genes, np.full(20, 0.75))
    np.testing.assert_allclose(predictor(tiny.sample(30, np.random.default_rng(1))), 0.75, atol=1e-6)
    assert predictor.kendall_tau == 0
    assert predictor.rmse == pytest.approx(0, abs=1e-6)


def test_it_is_deterministic(tiny: MobileNetV3) -> None:
    """Two predictors from the same subnets agree to the bit, and the global generator is left alone."""
    genes, accuracy = _made_up(tiny, 30)
    state = np.random.get_state(legacy=False)["state"]["key"]
    one, two = (AccuracyPredictor(tiny, genes, accuracy) for _ in range(2))
    assert np.array_equal(one(genes), two(genes))
    assert (one.rmse, one.kendall_tau) == (two.rmse, two.kendall_tau)
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], state)


def test_it_says_how_good_it_is(tiny: MobileNetV3) -> None:
    """Printed, it states how many subnets, their range, and its cross-validated error and rank correlation."""
    genes, _ = _made_up(tiny, 10)
    predictor = AccuracyPredictor(tiny, genes, np.linspace(0.9, 0.95, 10))
    pattern = (
        r"10 evaluated subnets, accuracy 90\.0% to 95\.0%;"
        r" 5-fold cross-validation: RMSE \d\.\d\d points, Kendall tau -?\d\.\d\d"
    )
    assert re.fullmatch(pattern, str(predictor))
    assert repr(predictor) == f"AccuracyPredictor(10 evaluated subnets, {tiny!r})"


def test_too_few_subnets_are_refused(tiny: MobileNetV3) -> None:
    """With fewer than ten subnets there is nothing to cross-validate."""
    genes, accuracy = _made_up(tiny, 9)
    with pytest.raises(UsageError, match="at least 10 evaluated subnets, but got 9"):
        AccuracyPredictor(tiny, genes, accuracy)


def test_its_uncertainty_covers_what_it_has_not_seen(
    imagenet: tuple[MobileNetV3, Genes, Vector], published: AccuracyPredictor
) -> None:
    """About 95% of 881 unseen subnets are within 1.96 standard deviations, which are a few tenths of a point."""
    _, genes, accuracy = imagenet
    std = published.accuracy_std(genes[200:])
    within = np.abs(published(genes[200:]) - accuracy[200:]) <= 1.96 * std
    assert 0.85 < within.mean() <= 1.0
    assert 0.0003 < np.median(std) < 0.005


def test_its_uncertainty_grows_with_the_distance(tiny: MobileNetV3) -> None:
    """What it was fitted to is surer than what differs in many choices."""
    genes, _ = _made_up(tiny, 40)
    few, far = genes[genes[:, 0] == 0], genes[genes[:, 0] == 1]  # of one resolution, and of the other
    rng = np.random.default_rng(0)
    predictor = AccuracyPredictor(tiny, few, 0.8 + 0.01 * few.sum(axis=1) + rng.normal(0, 0.001, len(few)))
    assert predictor.accuracy_std(few).max() < predictor.accuracy_std(far).min()
    assert predictor.distances(few).tolist() == [0] * len(few)
    assert predictor.distances(far).min() >= 1


def test_distances_are_counted_by_hand(tiny: MobileNetV3) -> None:
    """Of ten subnets at the smallest resolution, one at another resolution differs in one choice from itself."""
    genes = tiny.sample_distinct(200, np.random.default_rng(0))
    genes = genes[genes[:, 0] == 0][:10]
    predictor = AccuracyPredictor(tiny, genes, np.linspace(0.8, 0.9, 10))
    others = genes[:3].copy()
    others[1:, 0] = 1
    assert predictor.distances(others).tolist() == [0, 1, 1]


def test_errors_are_given_by_distance(published: AccuracyPredictor) -> None:
    """The cross-validated errors of 200 subnets are in three groups by distance, all of whose subnets are 200."""
    groups = published.errors_by_distance
    assert [group.subnets for group in groups] == [67, 67, 66]
    assert all(one.most <= other.least for one, other in itertools.pairwise(groups))
    squares = sum(group.subnets * group.rmse**2 for group in groups) / 200
    assert np.sqrt(squares) == pytest.approx(published.rmse)
