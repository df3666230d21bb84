"""Model files before they are sent: what they are, the files that belong to them, their inputs."""

from __future__ import annotations

import gzip
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.devices import Target
from edgenas.devices.fake import FakeDevice
from edgenas.errors import ModelError, UnusableModelsError, UsageError
from edgenas.profilers import ModelInputs
from edgenas.profilers.measure.model_files import ModelFile, count_file_bytes, read_model_files
from edgenas.profilers.measure.protocol import Failed, model_error
from edgenas.runtimes import load_runtime


@pytest.fixture
def onnxruntime() -> Target:
    """This machine's onnxruntime."""
    return Target("localhost")


def zipped() -> bytes:
    path = Path("weights")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"")
    return path.read_bytes()


# -- files that are no models ------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; export the model again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a pointer of Git LFS, not the model"),
        (b"PK\x03\x04 and more", "is a zip archive, such as a PyTorch checkpoint; unpack it, or export the model"),
        (b"PK\x05\x06" + bytes(18), "is a zip archive"),
        (gzip.compress(b"model"), "is compressed; unpack it"),
        (b"\r\n <!DOCTYPE html><html>", "is a text in HTML or XML, such as an error page that was downloaded"),
        (b"<?xml version='1.0'?>", "is a text in HTML or XML"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, such as a Keras model; export the model"),
    ],
)
def test_what_is_no_model_is_named(tmp_path: Path, onnxruntime: Target, content: bytes, said: str) -> None:
    """A file that a model was taken for is named as what it is, before a device is asked."""
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(UnusableModelsError) as error:
        read_model_files([path], onnxruntime)
    assert str(error.value).startswith(f"{path}: {said}")


def test_what_is_no_file_is_named(tmp_path: Path, onnxruntime: Target) -> None:
    """A folder and a pipe are no files; nobody waits for the pipe."""
    folder, pipe = tmp_path / "folder.onnx", tmp_path / "pipe.onnx"
    folder.mkdir()
    os.mkfifo(pipe)
    with pytest.raises(UnusableModelsError) as error:
        read_model_files([folder, pipe], onnxruntime)
    assert error.value.problems == (f"{folder}: is a folder; give a file", f"{pipe}: is no regular file; give a file")


def test_several_bad_files_are_each_named_once(tmp_path: Path, onnxruntime: Target) -> None:
    """Whatever is wrong with each; a file that is given twice is named once."""
    empty, absent, other = tmp_path / "empty.onnx", tmp_path / "absent.onnx", tmp_path / "net.pth"
    empty.touch()
    other.touch()
    with pytest.raises(UnusableModelsError) as error:
        read_model_files([empty, absent, other, empty], onnxruntime)
    assert str(error.value) == (
        f"nothing was measured: {empty}: is empty; export the model again."
        f" {absent}: cannot be read (No such file or directory)."
        f" {other}: onnxruntime runs files ending in .onnx; export the model as one"
    )


def test_endings_may_have_any_case(tmp_path: Path, onnxruntime: Target, conv: Path) -> None:
    """On a device the ending is in lower case, which runtimes look at."""
    path = conv.rename(tmp_path / "CONV.Onnx")
    (file,) = read_model_files([path], onnxruntime)
    assert file.remote_name == f"{file.sha256}.onnx"
    assert count_file_bytes(path) == path.stat().st_size


# -- models of several files -------------------------------------------------------

Split = Callable[..., Path]


@pytest.fixture
def split(tmp_path: Path, conv: Path) -> Split:
    """Save the convolution in a folder with its weights in a file beside it, as exporters do; return the model."""

    def save(folder: str, scale: float = 1.0, location: str = "net.onnx.data") -> Path:
        model = onnx.load(conv)
        weights = onnx.numpy_helper.to_array(model.graph.initializer[0]) * np.float32(scale)
        model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "weights"))
        path = tmp_path / folder / "net.onnx"
        path.parent.mkdir()
        onnx.save(model, path, save_as_external_data=True, location="net.onnx.data", size_threshold=0)
        if location != "net.onnx.data":
            model = onnx.load(path, load_external_data=False)
            for entry in model.graph.initializer[0].external_data:
                if entry.key == "location":
                    entry.value = location
            onnx.save(model, path)
        return path

    return save


def read_one(path: Path, target: Target) -> ModelFile:
    (file,) = read_model_files([path], target)
    return file


def test_all_files_of_a_model_count(split: Split) -> None:
    """8 x 3 x 3 x 3 weights of four bytes lie beside the model."""
    path = split("a")
    assert count_file_bytes(path) == path.stat().st_size + 864


def test_a_model_changes_with_the_file_beside_it(split: Split, onnxruntime: Target) -> None:
    """Other weights in an unchanged model give another hash, which baselines and logs compare."""
    path = split("a")
    content, before = path.read_bytes(), read_one(path, onnxruntime)
    weights = path.with_name("net.onnx.data")
    weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])
    after = read_one(path, onnxruntime)
    assert path.read_bytes() == content
    assert before.sha256 != after.sha256


def test_models_whose_files_have_equal_names_are_apart_on_a_device(split: Split, onnxruntime: Target) -> None:
    """Each is sent with its own weights, under names of their content."""
    paths = [split("a"), split("b", scale=2.0)]
    sent: dict[str, bytes] = {}

    class Recording(FakeDevice):
        def push(self, local: str | Path, name: str, sha256: str | None = None) -> str:
            sent[name] = Path(local).read_bytes()
            return super().push(local, name, sha256)

    for number, file in enumerate(read_model_files(paths, onnxruntime)):
        file.push(Recording(), paths[0].parent)
        (entry,) = (
            each
            for each in onnx.load_model_from_string(sent[file.remote_name]).graph.initializer[0].external_data
            if each.key == "location"
        )
        assert sent[entry.value] == paths[number].with_name("net.onnx.data").read_bytes()
    assert len(sent) == 4


def test_a_file_that_a_model_names_and_that_is_missing_is_named(split: Split, onnxruntime: Target) -> None:
    """The remedy is to copy it, too."""
    path = split("a")
    path.with_name("net.onnx.data").unlink()
    with pytest.raises(UsageError) as error:
        read_one(path, onnxruntime)
    assert str(error.value) == f"{path}: names 'net.onnx.data', which is not beside it; copy that file there, too"


@pytest.mark.parametrize("location", ["../conv.onnx", "/etc/hostname", "link"])
def test_a_file_outside_of_the_models_folder_is_refused(split: Split, onnxruntime: Target, location: str) -> None:
    """Neither a path nor a link leads out of it: a model of others must not send files of the user."""
    path = split("a", location=location)
    path.with_name("link").symlink_to("/etc/hostname")
    with pytest.raises(UsageError, match=rf"net\.onnx: names '{location}' outside of its folder; save it with its"):
        read_one(path, onnxruntime)


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("", "names '', which is not beside it"),
        ("*/_ORT_MEM_ADDR_/*", r"names '\*/_ORT_MEM_ADDR_/\*', which is not beside it"),
        ("a\0b", r"names 'a\\x00b', which is no file; export the model again"),
        ("x" * 5000, "names 'x{200}', which is no file"),
    ],
)
def test_a_name_of_no_file_is_refused(split: Split, onnxruntime: Target, location: str, said: str) -> None:
    """An empty name, an address in memory, a NUL, and a name that is too long."""
    with pytest.raises(UsageError, match=said):
        read_one(split("a", location=location), onnxruntime)


def test_names_that_are_no_text_do_no_harm(split: Split, onnxruntime: Target) -> None:
    """Bytes that are no UTF-8, as the name of the file and of the operator."""
    path = split("a")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"Conv", b"Con\xff"))
    assert load_runtime("onnxruntime").read_precision(path.read_bytes()) == "fp32"
    path.write_bytes(content.replace(b"net.onnx.data", b"net.onnx.dat\xff"))
    with pytest.raises(UsageError, match="which is not beside it"):
        read_one(path, onnxruntime)


def test_a_model_that_is_a_link_may_have_its_files_where_it_leads(
    tmp_path: Path, split: Split, onnxruntime: Target
) -> None:
    """Stores of models keep files by hash in one folder and link to them from another."""
    stored = split("store")
    links = tmp_path / "links"
    links.mkdir()
    for name in ("net.onnx", "net.onnx.data"):
        (links / name).symlink_to(stored.with_name(name))
    assert read_one(links / "net.onnx", onnxruntime).sha256 == read_one(stored, onnxruntime).sha256


def test_weights_in_a_nested_graph_belong_to_a_model(tmp_path: Path, onnxruntime: Target) -> None:
    """A constant in a branch of an If may lie in another file, too."""
    value = onnx.numpy_helper.from_array(np.ones(4, np.float32), "v")
    onnx.external_data_helper.set_external_data(value, "branch.data")
    value.ClearField("raw_data")
    branch = onnx.helper.make_graph(
        [onnx.helper.make_node("Constant", [], ["c"], value=value)],
        "branch",
        [],
        [onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, [4])],
    )
    node = onnx.helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, [])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4])],
    )
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(UsageError, match=r"names 'branch\.data', which is not beside it"):
        read_one(path, onnxruntime)


# -- errors of the device ----------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("refused", "is refused by onnxruntime 1.2 (why); check the file with onnx.checker and export it again"),
        ("failed run", "fails when it is run by onnxruntime 1.2 (why); its inputs may not suit it: give others with"),
        ("broken runtime", "cannot be run, as no model can by onnxruntime 1.2 (why); install it: python3 -m pip"),
        ("inputs", "why"),
        ("agent", "cannot be run, by a fault of edgenas (why); please report it"),
    ],
)
def test_an_error_says_whose_fault_it_is(onnxruntime: Target, reason: Any, said: str) -> None:
    """The runtime's refusal, inputs that do not suit, a broken runtime, wrong inputs and our own faults differ."""
    answer = Failed("failed", 0, reason, "why")
    error = model_error(ModelFile(Path("net.onnx"), "0" * 64), answer, {"onnxruntime": "1.2"}, onnxruntime)
    assert isinstance(error, ModelError)
    assert str(error).startswith(f"net.onnx: {said}")


def test_an_error_names_the_users_files(onnxruntime: Target) -> None:
    """On a device files are called by their hash; the user knows them by their names."""
    model = ModelFile(Path("a/net.onnx"), "0" * 64, parts={"1.data": Path("a/net.data")})
    answer = Failed("failed", 0, "refused", f"/work/{'0' * 64}.onnx wants /work/1.data")
    assert "(net.onnx wants net.data)" in str(model_error(model, answer, {}, onnxruntime))


# -- inputs ------------------------------------------------------------------------


def test_shapes_are_read() -> None:
    """A name may hold a = sign and an x; the word scalar is a single number."""
    found = ModelInputs.parse(["image=1x3x224x224", "a=x=2", "x:0=scalar"])
    assert found.shapes == {"image": (1, 3, 224, 224), "a=x": (2,), "x:0": ()}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["image"], "--shape must be like image=1x3x224x224, but got 'image'"),
        (["=1x3"], "--shape must be like image=1x3x224x224, but got '=1x3'"),
        (["image="], "--shape must be like image=1x3x224x224, but got 'image='"),
        (["image=1x-1"], "--shape must be like image=1x3x224x224, but got 'image=1x-1'"),
        (["image=1x\uff11"], "--shape must be like image=1x3x224x224, but got 'image=1x\uff11'"),
        (["x=1", "x=1"], "--shape gives input 'x' twice; give it once"),
        (["x=0x3"], "the shape of input 'x' must have at most 16 sizes above 0 and 268435456 numbers, but is 0x3"),
        (["x=999999999x999999999"], "268435456 numbers, but is 999999999x999999999"),
        (["x=" + "x".join(["1"] * 17)], "at most 16 sizes"),
    ],
)
def test_what_is_no_shape_is_refused(texts: list[str], said: str) -> None:
    """The message has the rule and the text."""
    with pytest.raises(UsageError) as error:
        ModelInputs.parse(texts)
    assert said in str(error.value)


@given(st.lists(st.tuples(st.text(min_size=1), st.lists(st.integers(1, 2**29), max_size=18)), max_size=3))
def test_every_shape_is_read_back_or_refused(shapes: list[tuple[str, list[int]]]) -> None:
    """What is written as a shape is that shape, or breaks a rule: repeated names, too many numbers or dimensions."""
    texts = [f"{name}={'x'.join(map(str, shape)) or 'scalar'}" for name, shape in shapes]
    try:
        found = ModelInputs.parse(texts)
    except UsageError:
        names = [name for name, _ in shapes]
        too_large = [shape for _, shape in shapes if len(shape) > 16 or np.prod(shape, dtype=object) > 2**28]
        assert len(set(names)) < len(names) or too_large
        return
    assert found.shapes == {name: tuple(shape) for name, shape in shapes}


@given(st.text())
def test_any_text_is_a_shape_or_one_line(text: str) -> None:
    """Whatever is typed, the answer is a shape or a UsageError."""
    try:
        ((name, shape),) = ModelInputs.parse([text]).shapes.items()
    except UsageError as error:
        assert "--shape must be like" in str(error) or "the shape of input" in str(error)  # noqa: PT017
        return
    assert text.startswith(f"{name}=")
    assert all(size > 0 for size in shape)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: np.savez(path, x=np.array([{}], dtype=object)), "must hold arrays of numbers or text; write it"),
        (
            lambda path: path.write_bytes(b"no archive"),
            "must hold arrays of numbers or text; write it with numpy.savez",
        ),
        (lambda path: path.write_bytes(b""), "must hold arrays of numbers or text"),
        (lambda path: path.write_bytes(zipped()), "must hold arrays of numbers or text"),
        (lambda path: path.mkdir(), "is a folder; give a file"),
        (lambda path: None, r"cannot be read \(No such file or directory\)"),
        (lambda path: os.mkfifo(path), "is no regular file"),
    ],
)
def test_what_is_no_archive_of_arrays_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], Any], said: str
) -> None:
    """Python objects, other files and folders; no object is unpickled."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "inputs.npz"
    write(path)
    with pytest.raises(UsageError, match=rf"inputs\.npz: {said}"):
        ModelInputs(file=path)


def test_an_array_alone_is_refused(tmp_path: Path) -> None:
    """It has no name."""
    path = tmp_path / "x.npy"
    np.save(path, np.ones(3))
    with pytest.raises(UsageError, match=r"x\.npy: must hold arrays"):
        ModelInputs(file=path)


def test_arrays_that_are_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is that after unpacking, and nothing is unpacked to find it."""
    path = tmp_path / "inputs.npz"
    np.savez_compressed(path, x=np.zeros(1000, np.uint8))
    monkeypatch.setattr("edgenas.profilers.measure.model_files._MAX_ARRAY_BYTES", 1000)
    with pytest.raises(UsageError, match=r"inputs\.npz: has 1128 bytes of arrays, but at most 1000 can be given"):
        ModelInputs(file=path)


def test_shapes_beside_arrays_are_refused(tmp_path: Path) -> None:
    """The arrays have shapes."""
    path = tmp_path / "inputs.npz"
    np.savez(path, x=np.ones(3))
    with pytest.raises(UsageError, match=r"inputs\.npz: its arrays have shapes; leave out --shape"):
        ModelInputs.parse(["x=3"], path)


# -- precision ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operator", "half", "precision"),
    [
        ("Relu", False, "fp32"),
        ("Relu", True, "fp16"),
        ("DequantizeLinear", False, "int8"),
        ("QLinearConv", False, "int8"),
        ("ConvInteger", False, "int8"),
        ("DynamicQuantizeLinear", False, "int8"),
    ],
)
def test_the_precision_of_an_onnx_file_is_read(operator: str, half: bool, precision: str) -> None:
    """By its operators, whichever way it was quantized, and the type of its weights."""
    weights = onnx.numpy_helper.from_array(np.ones(3, np.float16 if half else np.float32), "w")
    graph = onnx.helper.make_graph([onnx.helper.make_node(operator, ["w"], ["y"])], "g", [], [], [weights])
    data = onnx.helper.make_model(graph).SerializeToString()
    assert load_runtime("onnxruntime").read_precision(data) == precision


@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_a_damaged_file_has_no_precision_and_no_parts(runtime: str, tmp_path: Path) -> None:
    """The runtime on the device refuses it."""
    damaged: Sequence[bytes] = (b"m" * 100, bytes(100), b"\x1c\0\0\0TFL3", b"\xff" * 7)
    for data in damaged:
        assert load_runtime(runtime).read_precision(data) is None
        assert not load_runtime(runtime).read_parts(tmp_path / "net", data).locations
