"""Measuring by LiteRT's benchmark_model: its arguments, and whole measurements by a synthetic one behind real adb."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgenas.devices import DeviceProfile, Target
from edgenas.devices.fake import FakeDevice, Reply, Request
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import DeviceError, ModelError, UsageError
from edgenas.pipeline.device_check import check_device
from edgenas.profilers import MeasureSettings, MeasuringRounds, MeasuringSession, ModelInputs
from edgenas.profilers.measure.benchmark_run import (
    BenchmarkRun,
    benchmark_flags,
    benchmark_program_folder,
    find_benchmark_program,
)
from tests.fixtures.adb_machine import AdbMachine

# Prints a recorded result (see test_benchmark_output.py) whose numbers grow with the model; a "bad" model is refused.
SYNTHETIC = r"""#!/system/bin/sh
for argument; do case $argument in --graph=*) model=${argument#--graph=};; esac; done
echo "$@" >>"${model%/*}/../asked"
grep -q bad "$model" && { echo "ERROR: Failed to load model" >&2; exit 1; }
[ "$(wc -c <"$model")" -gt 2000 ] && n=2 || n=1
echo "INFO: count=5 first=${n}05113 curr=${n}02537 min=${n}01758 max=${n}05113 avg=${n}03344 std=4 p5=${n}01758 median=${n}02912 p95=${n}05113"
echo "INFO: count=50 first=${n}09614 curr=${n}05889 min=${n}01842 max=${n}09614 avg=${n}05246 std=13 p5=${n}02107 median=${n}05350 p95=${n}06620"
echo "INFO: Inference timings in us: Init: 1361236, First inference: 125113, Warmup (avg): 115344, Inference (avg): ${n}05246"
echo "INFO: Memory footprint delta from the start of the tool (MB): init=12.5 overall=16"
"""  # noqa: E501 - as it is printed
BATTERY = "Current Battery Service state:\n  status: {}\n  temperature: 271\n"


def phone_profile(name: str = "phone", **litert: Any) -> DeviceProfile:
    return profile_from_dict(
        {
            "name": name,
            "connection": {"kind": "adb"},
            "runtimes": {"litert": {"runner": "benchmark_model", **litert}},
            "default": {"runtime": "litert"},
        },
        name,
    )


def test_threads_and_accelerators_are_its_flags() -> None:
    """Threads, runs and times are those of the target and the settings, options those of the profile."""
    settings = MeasureSettings(min_runs=20, min_seconds=0.5, max_seconds=1, warmup_runs=2, warmup_seconds=0.25)
    options = {"GpuDelegate": {"gpu_precision_loss_allowed": True}, "CPUExecutionProvider": {"xnnpack": False}}
    providers = ["GpuDelegate", "CPUExecutionProvider"]
    flags = benchmark_flags(Target(phone_profile(providers=providers, options=options), threads=4), settings)
    assert flags == [
        "--num_threads=4",
        "--num_runs=20",
        "--min_secs=0.5",
        "--max_secs=75",
        "--warmup_runs=2",
        "--warmup_min_secs=0.25",
        "--use_gpu=true",
        "--gpu_precision_loss_allowed=true",
        "--use_xnnpack=false",
    ]
    npu = phone_profile(providers=["NpuDelegate", "CPUExecutionProvider"])
    assert benchmark_flags(Target(npu), settings)[-1] == "--use_npu=true"


@pytest.mark.parametrize(
    ("litert", "message"),
    [
        ({"providers": ["CUDAExecutionProvider"]}, "has no provider 'CUDAExecutionProvider'"),
        ({"options": {"CPUExecutionProvider": {"graph": "other"}}}, "option 'graph' is none of its flags"),
        ({"options": {"CPUExecutionProvider": {"a=b --c": "x"}}}, "is none of its flags"),
    ],
)
def test_what_it_has_not_is_refused(litert: dict[str, Any], message: str) -> None:
    """Neither a provider nor an option is passed on that is not a flag of its own."""
    with pytest.raises(UsageError, match=message):
        benchmark_flags(Target(phone_profile(**litert)), MeasureSettings())


def test_an_unknown_runner_and_an_absent_program_are_named() -> None:
    """The message names the runtime's own program, or the command that gets it."""
    with pytest.raises(UsageError, match="litert has no runner 'other'; it has benchmark_model"):
        find_benchmark_program(Target(phone_profile(runner="other")))
    with pytest.raises(UsageError, match=r"there is no benchmark_model for it here; run .*device setup empty"):
        find_benchmark_program(Target(phone_profile("empty")))


def test_the_runner_is_part_of_a_target() -> None:
    """Measurements by another program are those of another target; the agent's are as they were."""
    assert Target(phone_profile()).to_dict()["runner"] == "benchmark_model"
    assert Target(phone_profile()).name == "phone-litert-fp32-1t-benchmark_model"
    assert "runner" not in Target("localhost").to_dict()


@pytest.mark.parametrize(
    ("fails", "status", "said"),
    [
        ("chmod", 1, "Read-only file system"),
        ("/fake/benchmark_model", 126, "Permission denied"),
        ("taskset", 127, "not found"),
    ],
)
def test_a_program_that_cannot_be_started_is_no_models_fault(fails: str, status: int, said: str) -> None:
    """A program that the device does not run ends the measurement; no model is refused for it."""
    folder = benchmark_program_folder("phone") / "2.3.0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmark_model").write_text(SYNTHETIC)

    def answer(request: Request) -> Reply:
        return Reply(stderr=f"sh: {fails}: {said}\n", exit_status=status) if request.command[0] == fails else Reply()

    target = Target(phone_profile(), affinity=[0] if fails == "taskset" else None)
    run = BenchmarkRun(FakeDevice(answer), target, ["/fake/model.tflite"], MeasureSettings())
    with pytest.raises(DeviceError, match=f"benchmark_model cannot be started there .*{said}.*--benchmark-model FILE"):
        list(run.iter_answers())


@pytest.mark.slow
class TestOnAMachine:
    """Behind the real adb and adbd, without Python, by the synthetic program."""

    @pytest.fixture
    def target(self, bare_phone: AdbMachine) -> Target:
        folder = benchmark_program_folder("phone") / "2.3.0"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "benchmark_model").write_text(SYNTHETIC)
        bare_phone.set_answer("dumpsys", BATTERY.format(3))
        runtimes = {"litert": {"runner": "benchmark_model"}}
        return Target(bare_phone.profile(runtimes=runtimes))

    def test_models_are_measured_in_rounds(self, target: Target, bare_phone: AdbMachine, tmp_path: Path) -> None:
        """A process of each model in turn; its median, memory and conditions are those that were printed."""
        asked = bare_phone.root / "data/local/tmp/edgenas/asked"
        asked.unlink(missing_ok=True)
        for name, size in (("small", 1000), ("large", 4000)):
            (tmp_path / f"{name}.tflite").write_bytes(bytes(size))
        rounds = MeasuringRounds([tmp_path / "small.tflite", tmp_path / "large.tflite"], target)
        with MeasuringSession(target) as session:
            session.measure(rounds)
        small, large = rounds.outcomes()
        assert not isinstance(small, ModelError)
        assert not isinstance(large, ModelError)
        assert small is not None
        assert large is not None
        assert (small.median_ms, large.median_ms) == (105.35, 205.35)
        (first, *_) = small.measurements
        assert len(small.measurements) == 6
        assert [each.round for each in small.measurements] == [each.round for each in large.measurements]
        assert first.peak_bytes == 16 << 20
        assert first.versions["litert"] == "2.3.0"
        assert first.conditions_after["charging"] is False
        assert first.conditions_after["battery_temperature_c"] == 27.1
        assert first.validity.status == "unverified"
        graphs = [line.rpartition("--graph=")[2] for line in asked.read_text().splitlines()]
        assert len(set(graphs[:2])) == 2
        assert graphs == graphs[:2] * 6

    def test_a_phone_that_charges_is_not_valid(self, target: Target, bare_phone: AdbMachine, tmp_path: Path) -> None:
        """Its numbers are kept, and rejected with the remedy."""
        bare_phone.set_answer("dumpsys", BATTERY.format(2))
        (tmp_path / "model.tflite").write_bytes(bytes(1000))
        with MeasuringSession(target) as session:
            (found,) = session.iter_measurements([tmp_path / "model.tflite"])
        assert not isinstance(found, ModelError)
        assert found.validity.status == "rejected"
        assert found.validity.reasons[0].startswith("it charges, which heats it")

    def test_a_model_that_it_refuses_is_named(self, target: Target, tmp_path: Path) -> None:
        """The program's own last line says why."""
        (tmp_path / "model.tflite").write_bytes(b"bad")
        with MeasuringSession(target) as session:
            (found,) = session.iter_measurements([tmp_path / "model.tflite"])
        assert isinstance(found, ModelError)
        assert "is refused by litert 2.3.0 (ERROR: Failed to load model)" in str(found)

    def test_what_only_the_agent_can_is_refused(self, target: Target, tmp_path: Path) -> None:
        """Inputs of one's own cannot be given to it, and it lists no operators."""
        (tmp_path / "model.tflite").write_bytes(bytes(1000))
        with MeasuringSession(target) as session, pytest.raises(UsageError, match="makes up its inputs"):
            list(session.iter_measurements([tmp_path / "model.tflite"], inputs=ModelInputs({"image": (1, 3)})))
        with MeasuringSession(target) as session, pytest.raises(ModelError, match="lists no operators"):
            session.list_operators([tmp_path / "model.tflite"], MeasureSettings(), ModelInputs())

    def test_a_check_runs_a_small_model(self, target: Target) -> None:
        """edgenas device check needs no Python there; what is not known makes a warning."""
        results = {result.name: result for result in check_device(target)}
        assert list(results) == ["connection", "lock", "runtime", "conditions"]
        assert results["runtime"].status == "ok"
        assert results["runtime"].found.startswith("litert 2.3.0 by benchmark_model")
        assert results["conditions"].status == "warning"
