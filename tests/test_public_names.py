"""The public names: adding one is a decision, losing one breaks users."""

import inspect
from functools import cached_property
from pathlib import Path
from types import FunctionType

import pytest

import edgenas

PUBLIC = [
    "AccuracyPredictor",
    "Architecture",
    "Baseline",
    "Budget",
    "Bundle",
    "CheckResult",
    "Choice",
    "Deployment",
    "Device",
    "DeviceProfile",
    "EdgeNASError",
    "EvaluationStore",
    "Explanation",
    "ExportFormat",
    "ExportSettings",
    "ExportedBundle",
    "FinetunedSubnet",
    "Front",
    "HoldoutReport",
    "LatencyTable",
    "MeasureSettings",
    "MeasuredModels",
    "MeasuredSubnet",
    "MeasuredTable",
    "Measurement",
    "MeasurementResult",
    "MeasuringRounds",
    "MeasuringSession",
    "MobileNetV3",
    "ModelCheck",
    "ModelInputs",
    "OperatorComparison",
    "OperatorProfile",
    "PartLatency",
    "Prediction",
    "Problem",
    "Progress",
    "ProxylessNAS",
    "RankedModel",
    "RejectedCandidate",
    "ReleasedPredictor",
    "ResNet50D",
    "Run",
    "Schedule",
    "SearchSpace",
    "Stage",
    "Supernet",
    "TableCheck",
    "Target",
    "Validity",
    "VerificationReport",
    "VerifiedBundle",
    "check_device",
    "check_model",
    "compare_operators",
    "compare_results",
    "connect_device",
    "create_profile",
    "import_tables",
    "import_weights",
    "load_profile",
    "load_released",
    "measure_model",
    "measure_models",
    "profile_operators",
    "record_baseline",
    "search_front",
    "set_up_device",
    "verify_bundle",
]


def test_public_names_are_pinned() -> None:
    """The package offers exactly these names."""
    assert sorted(edgenas.__all__) == PUBLIC


def test_dir_lists_the_public_names_only() -> None:
    """dir() shows every public name before any is loaded, and nothing else."""
    assert dir(edgenas) == PUBLIC


def takes_a_path(annotation: str) -> bool:
    """True for the annotation of an argument that may be a path, not for a mapping or a function of paths."""
    return "Path" in annotation and not annotation.startswith(("Mapping[", "Callable["))


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - {"ExportedBundle", "VerificationReport"}))  # edgenas makes these
def test_every_path_may_be_text(name: str) -> None:
    """A public function or method that takes a path also takes its text."""
    value = getattr(edgenas, name)
    methods = {key: getattr(value, key) for key in dir(value) if key == "__init__" or key[0] != "_"}
    functions = methods.values() if inspect.isclass(value) else [value]
    annotations = [
        f"{parameter.name}: {parameter.annotation}"
        for function in functions
        if inspect.isfunction(function) or inspect.ismethod(function)
        for parameter in inspect.signature(function).parameters.values()
        if takes_a_path(str(parameter.annotation))
    ]
    assert [each for each in annotations if "str" not in each] == []


def test_public_name_never_equals_a_package() -> None:
    """Loading a module of edgenas can never shadow a public name."""
    packages = {path.stem for path in Path(edgenas.__file__).parent.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert not packages & set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_documented(name: str) -> None:
    """A public name has a docstring, and so has every public method and property of a class or of its base."""
    value = getattr(edgenas, name)
    assert value.__doc__
    bases = value.__mro__ if inspect.isclass(value) else ()
    kinds = (FunctionType, classmethod, property, cached_property)
    members = {
        key for base in bases for key, member in vars(base).items() if key[0] != "_" and isinstance(member, kinds)
    }
    undocumented = [key for key in members if not any(vars(base)[key].__doc__ for base in bases if key in vars(base))]
    assert undocumented == []
