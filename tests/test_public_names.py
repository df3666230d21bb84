"""The public names: adding one is a decision, losing one breaks users."""

from pathlib import Path

import edgenas

PUBLIC = [
    "Architecture",
    "Budget",
    "Bundle",
    "EdgeNASError",
    "ExportFormat",
    "Front",
    "LatencyTable",
    "Measurement",
    "MeasurementResult",
    "MobileNetV3",
    "ProxylessNAS",
    "ResNet50D",
    "Run",
    "Supernet",
    "Target",
    "check_latency",
    "connect_device",
    "load_profile",
    "load_released",
    "measure_model",
    "measure_models",
    "record_baseline",
]


def test_public_names_are_pinned() -> None:
    """The package offers exactly these names."""
    assert sorted(edgenas.__all__) == PUBLIC


def test_public_names_are_listed() -> None:
    """dir() shows every public name before any is loaded."""
    assert set(PUBLIC) <= set(dir(edgenas))


def test_public_name_never_equals_a_room() -> None:
    """Loading a room's module can never shadow a public name."""
    rooms = {path.stem for path in Path(edgenas.__file__).parent.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert not rooms & set(PUBLIC)
