"""The speed probe between the runs of a model."""

from __future__ import annotations

from typing import cast

from edgenas.on_device.speed_probe import ProbeSamples, SpeedProbe


def test_probing_takes_a_twentieth_of_the_time() -> None:
    """The work takes some time; two samples after the first take a tenth of the time between two."""
    probe_samples = ProbeSamples(SpeedProbe())
    probe_samples.take_sample(4)
    probe_samples.take_sample(5)
    assert probe_samples.every_ns > 0
    assert probe_samples.spent_ns == probe_samples.every_ns // 10
    assert len(probe_samples.probe_times) == 5
    assert min(probe_samples.probe_times) > 0


class Script:
    """A probe of given times."""

    every_ns = 1

    def __init__(self, *probe_times: float) -> None:
        self._left = iter(probe_times)

    def __call__(self) -> float:
        return next(self._left)


def test_a_run_has_the_median_of_the_samples_around_it() -> None:
    """Three on each side where there are as many; one that was disturbed changes little."""
    probe_samples = ProbeSamples(cast(SpeedProbe, Script(1.0, 2.0, 9.0, 3.0, 4.0, 5.0)))
    for runs in (2, 3, 4, 5, 6):
        probe_samples.take_sample(runs)
    assert probe_samples.probe_times == [2.5, 2.5, 3.0, 3.5, 4.0, 4.5]
