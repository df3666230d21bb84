"""Published latency tables: read, refused, written back, and summed; their keys, newer and older."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgenas.errors import FormatError, UsageError
from edgenas.files import read_document, write_document
from edgenas.profilers import LatencyTable, PublishedTables
from edgenas.profilers.latency.published import Entry, is_published_key, published_keys_by_resolution
from edgenas.space import MobileNetV3, ProxylessNAS, ResNet50D, SearchSpace, Stage

# 31 and 32 pixels are both 16 after the stem: the block's parts are the same ones, in two tables.
_SPACE = MobileNetV3(
    width=0.5,
    resolutions=(31, 32),
    classes=10,
    kernel_sizes=(3, 5),
    expand_ratios=(3,),
    depths=(1, 2),
    stages=(Stage(32, 2, "relu", True),),
    head=(64, 64),
)


def _tables(space: SearchSpace = _SPACE) -> PublishedTables:
    """A made-up table for each resolution: means of 1.01 ms, 1.02 ms, ... for the second twice that, and so on."""
    return PublishedTables(
        {
            resolution: {
                key: Entry(50, (number + 1) * (1 + index / 100), 0.01)
                for index, key in enumerate(filter(None, keys.values()), 1)
            }
            for number, (resolution, keys) in enumerate(
                zip(space.resolutions, published_keys_by_resolution(space), strict=True)
            )
        }
    )


def _with(tables: PublishedTables, resolution: int, changes: dict[str, Entry | None]) -> PublishedTables:
    """The tables with some entries replaced, or removed where None."""
    entries = {**tables.tables[resolution], **changes}
    kept = {key: entry for key, entry in entries.items() if entry is not None}
    return PublishedTables({**tables.tables, resolution: kept})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Made-up tables as files."""
    _tables().save(tmp_path / "tables")
    return tmp_path / "tables"


# -- reading and writing ----------------------------------------------------------------


def test_written_tables_are_read_again(folder: Path) -> None:
    """Tables come back from their files, one for each resolution."""
    assert sorted(path.name for path in folder.iterdir()) == ["31_lookup_table.yaml", "32_lookup_table.yaml"]
    loaded = PublishedTables.load(folder)
    assert loaded == _tables()
    assert loaded.resolutions == (31, 32)


@given(
    st.lists(
        st.builds(
            Entry,
            st.integers(1, 10**6),
            st.floats(min_value=0, exclude_min=True, allow_infinity=False),
            st.floats(min_value=0, allow_infinity=False),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_valid_entry_survives(tmp_path_factory: pytest.TempPathFactory, entries: list[Entry]) -> None:
    """Counts, means and deviations of any size are the same bits after writing and reading."""
    folder = tmp_path_factory.mktemp("tables")
    tables = PublishedTables({64: {f"Conv-input:64x64x3-output:32x32x{n}": each for n, each in enumerate(entries, 1)}})
    tables.save(folder)
    assert PublishedTables.load(folder) == tables


def test_published_files_are_written_back_byte_for_byte(data_folder: Path, tmp_path: Path) -> None:
    """The Note10 tables, read and written, are the same bytes."""
    source = data_folder / "ofa" / "note10"
    PublishedTables.load(source).save(tmp_path)
    names = sorted(path.name for path in source.glob("*.yaml"))
    assert len(names) == 5
    assert [(tmp_path / name).read_bytes() for name in names] == [(source / name).read_bytes() for name in names]


def test_names_of_files_mean_nothing(folder: Path) -> None:
    """The resolution of a table is that of its stem, whatever its file is called."""
    (folder / "31_lookup_table.yaml").rename(folder / "Phone (new).YML")
    (folder / "32_lookup_table.yaml").rename(folder / "31_lookup_table.yaml")
    assert PublishedTables.load(folder) == _tables()


def test_a_single_file_is_a_table(folder: Path) -> None:
    """The path of a file, whatever its ending, gives the table of its resolution alone."""
    path = (folder / "32_lookup_table.yaml").rename(folder / "phone.txt")
    assert PublishedTables.load(path).tables == {32: _tables().tables[32]}


@pytest.mark.parametrize("indent", [None, 1, "\t"])
def test_tables_as_json(tmp_path: Path, indent: Any) -> None:
    """JSON is read as well, indented or not, numbers with an exponent included."""
    entries = {key: {"count": 5, "mean": 1e-05, "std": 2e-06} for key in _tables().tables[31]}
    (tmp_path / "phone.json").write_text(json.dumps(entries, indent=indent))
    loaded = PublishedTables.load(tmp_path)
    assert loaded.tables == {31: dict.fromkeys(entries, Entry(5, 1e-05, 2e-06))}


def test_a_variance_gives_the_deviation(tmp_path: Path) -> None:
    """An entry with a variance of 0.09 ms^2 has a standard deviation of 0.3 ms."""
    (tmp_path / "phone.yaml").write_text("Conv-input:64x64x3-output:32x32x8: {count: 5, mean: 1.0, var: 0.09}\n")
    (entry,) = PublishedTables.load(tmp_path).tables[64].values()
    assert entry.std_ms == pytest.approx(0.3, rel=1e-15)


# -- what is refused --------------------------------------------------------------------


@pytest.mark.parametrize("value", ["0.0", "-0.5", ".nan", ".inf", "-.inf"])
def test_an_impossible_mean_is_refused_with_the_keys(folder: Path, value: str) -> None:
    """Zero, negative, NaN and infinite means are refused, with the file and every key that has one."""
    path = folder / "32_lookup_table.yaml"
    document = yaml.safe_load(path.read_text())
    first, last = next(iter(document)), list(document)[-1]
    for key in (first, last):
        document[key]["mean"] = yaml.safe_load(value)
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(FormatError) as refused:
        PublishedTables.load(folder)
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert "mean must be above 0" in message
    assert "2 entries are not" in message
    assert first in message
    assert last in message


@pytest.mark.parametrize(("field", "value"), [("count", 0), ("count", -3), ("std", -0.1), ("std", float("nan"))])
def test_an_impossible_count_or_deviation_is_refused(field: str, value: float) -> None:
    """A count below one, and a deviation that is negative or no number, are refused."""
    key = next(iter(_tables().tables[31]))
    name = field if field == "count" else f"{field}_ms"
    changes: Any = {name: value}
    wrong = replace(_tables().tables[31][key], **changes)
    with pytest.raises(FormatError, match=rf"table of 31 pixels: .* 1 entries are not: {key}"):
        _with(_tables(), 31, {key: wrong})


@pytest.mark.parametrize(
    "entry",
    [
        "1.5",
        "{count: 5, mean: 1.0}",
        "{count: 5, mean: 1.0, std: 0.1, median: 1.0}",
        "{count: 5.0, mean: 1.0, std: 0.1}",
        "{count: true, mean: 1.0, std: 0.1}",
        "{count: 5, mean: fast, std: 0.1}",
        "{count: 5, mean: 1.0, std: null}",
        "[5, 1.0, 0.1]",
        "{count: 5, mean: 1.0, var: 0.1, std: 0.1}",
        "{count: 5, mean: 1.0, var: wide}",
    ],
)
def test_a_malformed_entry_is_refused_with_its_key(tmp_path: Path, entry: str) -> None:
    """An entry that is not count, mean and either std or var as numbers is refused, naming the file and the key."""
    path = tmp_path / "64_lookup_table.yaml"
    path.write_text(f"Conv-input:64x64x3-output:32x32x8: {entry}\n")
    with pytest.raises(FormatError, match=r"64_lookup_table.yaml: .* 1 have not: Conv-input:64x64x3-output:32x32x8"):
        PublishedTables.load(tmp_path)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "{}", "Conv: [", "\x00\x01"])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    """Nothing, a list, words and broken YAML are no table; the message names the file."""
    (tmp_path / "64_lookup_table.yaml").write_text(text)
    with pytest.raises(FormatError, match=r"64_lookup_table\.yaml"):
        PublishedTables.load(tmp_path)


def test_a_cut_file_is_refused(folder: Path) -> None:
    """A file that ends in the middle of an entry is refused."""
    path = folder / "31_lookup_table.yaml"
    path.write_bytes(path.read_bytes().rstrip()[:-15])
    with pytest.raises(FormatError, match=r"31_lookup_table\.yaml"):
        PublishedTables.load(folder)


@given(at=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_any_damage_is_harmless(tmp_path_factory: pytest.TempPathFactory, at: float, byte: int) -> None:
    """With any byte changed, the file is read as a table or refused on one line."""
    folder = tmp_path_factory.mktemp("tables")
    _tables().save(folder)
    path = folder / "31_lookup_table.yaml"
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] = byte
    path.write_bytes(data)
    message = ""
    try:
        PublishedTables.load(folder).to_latency_table(_SPACE, "t")
    except UsageError as error:
        message = str(error)
    assert "\n" not in message


@pytest.mark.parametrize("value", ["-0.1", ".nan", ".inf"])
def test_an_impossible_variance_is_refused(tmp_path: Path, value: str) -> None:
    """A variance that is negative or not finite is refused with its key."""
    (tmp_path / "a.yaml").write_text(f"Conv-input:64x64x3-output:32x32x8: {{count: 5, mean: 1.0, var: {value}}}\n")
    with pytest.raises(
        FormatError, match=r"std \(or var\) 0 or more, and all finite, but 1 entries are not: Conv-input"
    ):
        PublishedTables.load(tmp_path)


def test_an_unknown_key_is_refused(folder: Path) -> None:
    """A key that is no published table's is named."""
    path = folder / "31_lookup_table.yaml"
    path.write_text(path.read_text() + "DeformableConv-input:1x1x1: {count: 1, mean: 1.0, std: 0.0}\n")
    with pytest.raises(FormatError, match=r"31_lookup_table\.yaml: has 1 unknown keys: DeformableConv-input:1x1x1"):
        PublishedTables.load(folder)


@pytest.mark.parametrize(
    ("stems", "found"),
    [
        ((), "but there is none"),
        (("31x31x3", "32x32x3"), "but these begin Conv-input:31x31x, Conv-input:32x32x;"),
        (("31x32x3",), "its stem reads 31x32"),
    ],
)
def test_a_table_without_one_resolution_is_refused(tmp_path: Path, stems: tuple[str, ...], found: str) -> None:
    """A table whose stem is missing, not square, or of two resolutions is refused, naming the file."""
    entry = "{count: 1, mean: 1.0, std: 0.0}"
    keys = ("Conv_1-input:1x1x8-output:1x1x8", *(f"Conv-input:{stem}-output:16x16x8" for stem in stems))
    (tmp_path / "small.yaml").write_text("".join(f"{key}: {entry}\n" for key in keys))
    with pytest.raises(FormatError) as refused:
        PublishedTables.load(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path / 'small.yaml'}: must ")
    assert found in str(refused.value)


def test_two_tables_of_one_resolution_are_refused(folder: Path) -> None:
    """Nothing tells which of two tables of a resolution counts: both are named."""
    first, again = folder / "31_lookup_table.yaml", folder / "again.yml"
    again.write_bytes(first.read_bytes())
    with pytest.raises(FormatError, match=f"{again}: is of 31 pixels, as is {first}; move one away"):
        PublishedTables.load(folder)


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    """Other files and hidden ones are no tables; the message has the endings of those that are."""
    (tmp_path / "README.md").write_text("words")
    (tmp_path / "._31.yaml").write_bytes(b"\x00")
    with pytest.raises(UsageError, match=r"has no latency tables \(files \.yaml, \.yml, \.json\)"):
        PublishedTables.load(tmp_path)


def test_missing_entries_are_listed() -> None:
    """A table that lacks entries of the space is refused with their keys and resolutions."""
    keys = list(_tables().tables[32])
    incomplete = _with(_tables(), 32, {keys[1]: None, keys[4]: None})
    with pytest.raises(FormatError) as refused:
        incomplete.to_latency_table(_SPACE, "t")
    message = str(refused.value)
    assert "miss 2 entries that the space needs" in message
    assert f"{keys[1]} at 32, {keys[4]} at 32;" in message


def test_tables_of_another_width_are_refused() -> None:
    """Hundreds of missing keys are counted, and the message says that the width decides."""
    wider = replace(_SPACE, width=2.0)
    with pytest.raises(FormatError, match=r"miss \d+ entries .*; give the width and the choices that they"):
        _tables().to_latency_table(wider, "t")


def test_resolutions_without_a_table_are_listed() -> None:
    """A space with a resolution that no table is of is refused, listing what there is and what is not."""
    with pytest.raises(UsageError, match=r"tables of resolutions 31, 32, but none of 48, 64,"):
        _tables().to_latency_table(replace(_SPACE, resolutions=(31, 48, 64)), "t")


def test_a_family_without_tables_is_refused() -> None:
    """No published table is of ResNet-50D."""
    with pytest.raises(UsageError, match="but the space is of resnet"):
        _tables().to_latency_table(ResNet50D(resolutions=(32,)), "t")


# -- noise ------------------------------------------------------------------------------


def test_noisy_entries_by_hand() -> None:
    """Of deviations of 5%, 10% and 15%, the last is over 10%, and the last two are over 8%."""
    keys = [f"Conv-input:64x64x3-output:32x32x{number}" for number in (8, 16, 24)]
    tables = PublishedTables({64: {key: Entry(9, 2.0, std) for key, std in zip(keys, (0.1, 0.2, 0.3), strict=True)}})
    ((resolution, key, variation),) = tables.noisy_entries()
    assert (resolution, key) == (64, keys[2])
    assert variation == pytest.approx(0.15)
    assert [found for _, found, _ in tables.noisy_entries(0.08)] == keys[1:]


# -- the table of a space -----------------------------------------------------------------


def test_a_network_costs_the_sum_of_its_entries() -> None:
    """Every architecture costs what its parts' entries say in the table of its own resolution."""
    tables = _tables()
    table = tables.to_latency_table(_SPACE, "t")
    genes = _SPACE.sample_distinct(_SPACE.size, np.random.default_rng(0))
    keys = dict(zip(_SPACE.resolutions, published_keys_by_resolution(_SPACE), strict=True))
    expected = [
        sum(
            tables.tables[each.resolution][keys[each.resolution][part.key] or ""].mean_ms
            for part in each.parts.values()
        )
        for each in _SPACE.decode(genes)
    ]
    np.testing.assert_allclose(table.latency_ms(genes), expected, rtol=1e-12)


def test_equal_parts_cost_what_their_resolution_says() -> None:
    """The classifier is the same part at both resolutions, with an entry of its own in each table."""
    raised = _with(_tables(), 32, {"Logits-input:1x1x32-output:10": Entry(1, 100.0, 0.0)})
    genes = _SPACE.encode([_SPACE.smallest, _SPACE.smallest.at_resolution(32)])
    before, after = (
        _tables().to_latency_table(_SPACE, "t").latency_ms(genes),
        raised.to_latency_table(_SPACE, "t").latency_ms(genes),
    )
    assert after[0] == before[0]
    assert after[1] - before[1] == pytest.approx(100.0 - _tables().tables[32]["Logits-input:1x1x32-output:10"].mean_ms)


def test_older_tables_are_summed_as_they_were() -> None:
    """A ProxylessNAS network costs stem, blocks by ratio, feature mix, and Logits, which counts the pooling."""
    space = ProxylessNAS(resolutions=(64,))
    tables = _tables(space)
    lists = {"ks": [3] * 21, "e": [3, 6, 4] * 7, "d": [2, 2, 2, 2, 2, 1]}
    widths, strides = [16, 24, 40, 80, 96, 192, 320], [2, 2, 2, 1, 2, 1]
    keys = ["Conv-input:64x64x3-output:32x32x32"]
    keys += ["expanded_conv-input:32x32x32-output:32x32x16-expand:1-kernel:3-stride:1-idskip:0"]
    size = 32
    for stage, stride in enumerate(strides):
        for place in range(lists["d"][stage]):
            entry, out, step = widths[stage + (place > 0)], widths[stage + 1], stride if place == 0 else 1
            ratio, after = lists["e"][4 * stage + place], size // step
            shapes = f"input:{size}x{size}x{entry}-output:{after}x{after}x{out}"
            keys.append(f"expanded_conv-{shapes}-expand:{ratio}-kernel:3-stride:{step}-idskip:{int(place > 0)}")
            size = after
    keys += ["Conv_1-input:2x2x320-output:2x2x1280", "Logits-input:2x2x1280-output:1000"]
    genes = space.encode([space.from_ofa(lists, 64)])
    expected = sum(tables.tables[64][key].mean_ms for key in keys)
    np.testing.assert_allclose(tables.to_latency_table(space, "t").latency_ms(genes), [expected], rtol=1e-12)


def test_a_published_table_claims_no_measurement() -> None:
    """A published table has no holdout report, names its source, and counts memory as activations and weights."""
    table = _tables().to_latency_table(_SPACE, "t")
    genes = _SPACE.sample(20, np.random.default_rng(0))
    assert table.holdout is None
    assert not table.synthetic
    assert table.source == "published tables of 31, 32 pixels; nothing was measured here"
    np.testing.assert_allclose(table.peak_bytes(genes), _SPACE.activation_bytes(genes) + _SPACE.weight_bytes(genes))


def test_a_published_table_comes_back_from_its_file(tmp_path: Path) -> None:
    """Saved and loaded it predicts the same bits, and saving it again gives the same bytes."""
    table = _tables().to_latency_table(_SPACE, "t")
    path, again = tmp_path / "table.json", tmp_path / "again.json"
    table.save(path)
    loaded = LatencyTable.load(path, _SPACE)
    loaded.save(again)
    genes = _SPACE.sample(50, np.random.default_rng(0))
    assert again.read_bytes() == path.read_bytes()
    assert np.array_equal(loaded.latency_ms(genes), table.latency_ms(genes))
    assert (loaded.holdout, loaded.source, loaded.inputs_digest) == (None, table.source, table.inputs_digest)


def test_a_published_table_without_a_cost_is_refused(tmp_path: Path) -> None:
    """A part that has no cost at any resolution, or a negative one, is counted and named."""
    path = tmp_path / "table.json"
    keys = [part.key for part in _SPACE.distinct_parts]
    _tables().to_latency_table(_SPACE, "t").save(path)
    body = read_document(path, "latency_table", 9)
    costs = {**body["parts_ms"], keys[2]: [None, None], keys[3]: [-1.0, 1.0]}
    write_document(path, "latency_table", 9, {**body, "parts_ms": costs})
    with pytest.raises(FormatError, match="has no cost for 2 parts, the first is " + keys[2]):
        LatencyTable.load(path, _SPACE)


def test_other_entries_make_another_table() -> None:
    """The digest of a table depends on its entries."""
    key = next(iter(_tables().tables[31]))
    other = _with(_tables(), 31, {key: Entry(1, 9.0, 0.0)})
    assert (
        _tables().to_latency_table(_SPACE, "t").inputs_digest == _tables().to_latency_table(_SPACE, "t").inputs_digest
    )
    assert other.to_latency_table(_SPACE, "t").inputs_digest != _tables().to_latency_table(_SPACE, "t").inputs_digest


# -- keys -------------------------------------------------------------------------------


def test_keys_of_mobilenet_v3_by_hand() -> None:
    """At width 1.2 and 224 pixels the newer keys have middle channels, squeeze-excite and h-swish."""
    (keys,) = published_keys_by_resolution(MobileNetV3(width=1.2, resolutions=(224,)))
    assert set(keys.values()) >= {
        "Conv-input:224x224x3-output:112x112x24",
        "expanded_conv-input:112x112x24-output:112x112x24-expand:24-kernel:3-stride:1-idskip:1-se:0-hs:0",
        "expanded_conv-input:112x112x24-output:56x56x32-expand:144-kernel:7-stride:2-idskip:0-se:0-hs:0",
        "expanded_conv-input:28x28x48-output:28x28x48-expand:192-kernel:5-stride:1-idskip:1-se:1-hs:0",
        "expanded_conv-input:28x28x48-output:14x14x96-expand:144-kernel:3-stride:2-idskip:0-se:0-hs:1",
        "expanded_conv-input:7x7x192-output:7x7x192-expand:1152-kernel:3-stride:1-idskip:1-se:1-hs:1",
        "Conv_1-input:7x7x192-output:7x7x1152",
        "AvgPool2D-input:7x7x1152-output:1x1x1152",
        "Conv_2-input:1x1x1152-output:1x1x1536",
        "Logits-input:1x1x1536-output:1000",
    }


def test_keys_of_proxyless_by_hand() -> None:
    """At width 1.0 and 224 pixels the older keys have the ratio, no more, and Logits reads the whole feature map."""
    (keys,) = published_keys_by_resolution(ProxylessNAS(resolutions=(224,)))
    assert set(keys.values()) >= {
        "Conv-input:224x224x3-output:112x112x32",
        "expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:3-stride:1-idskip:0",
        "expanded_conv-input:112x112x16-output:56x56x24-expand:3-kernel:5-stride:2-idskip:0",
        "expanded_conv-input:7x7x192-output:7x7x192-expand:6-kernel:7-stride:1-idskip:1",
        "Conv_1-input:7x7x320-output:7x7x1280",
        "Logits-input:7x7x1280-output:1000",
        None,  # the pooling
    }
    assert not any("-se:" in key or key.startswith("AvgPool2D") for key in keys.values() if key is not None)


def test_every_resolution_has_its_own_keys() -> None:
    """The last feature map has ceil(resolution / 32) pixels a side: 5 at 160, 6 at 176."""
    first, second = published_keys_by_resolution(MobileNetV3(width=1.2, resolutions=(160, 176)))
    assert "Conv_1-input:5x5x192-output:5x5x1152" in first.values()
    assert "Conv_1-input:6x6x192-output:6x6x1152" in second.values()
    assert "Conv_1-input:6x6x192-output:6x6x1152" not in first.values()


def test_a_family_without_published_keys_is_refused() -> None:
    """ResNet-50D has no published tables; the message names the families that have."""
    with pytest.raises(UsageError, match=r"families mobilenet_v3 and proxyless, but the space is of resnet"):
        published_keys_by_resolution(ResNet50D())


@given(width=st.floats(0.1, 3.0), resolution=st.integers(32, 320), proxyless=st.booleans())
def test_generated_keys_are_recognised(width: float, resolution: int, proxyless: bool) -> None:
    """Every key of any space, newer or older, has a published key's form."""
    family = ProxylessNAS if proxyless else MobileNetV3
    (keys,) = published_keys_by_resolution(
        family(width=width, resolutions=(resolution,), depths=(2,), kernel_sizes=(3,))
    )
    assert all(is_published_key(key) for key in keys.values() if key is not None)


@given(st.text(max_size=60))
def test_other_text_is_no_key(text: str) -> None:
    """Text that does not begin with a known operator's name is no key."""
    assert not is_published_key(text)


@pytest.mark.parametrize(
    "key",
    [
        "Conv_3-input:1x1x8-output:1x1x8",
        "Conv-input:8x8-output:8x8x8",
        "Conv-input:0x8x3-output:4x4x8",
        "Conv-input:8888888888x8x3-output:4x4x8",
        "Logits-input:1x1x8-output:1x1x10",
        "expanded_conv-input:8x8x8-output:8x8x8-expand:24-kernel:3-stride:1-idskip:2",
        "expanded_conv-input:8x8x8-output:8x8x8-expand:24-kernel:3-stride:1-idskip:1-se:1",
        "Conv-input:8x8x3-output:4x4x8 ",
        "Conv-input:8x8x3-output:4x4x8\n",
    ],
)
def test_a_nearly_right_key_is_none(key: str) -> None:
    """A key with a wrong operator, shape, flag or blank is none."""
    assert not is_published_key(key)


# -- the Note10, as published -------------------------------------------------------------


@pytest.fixture(scope="module")
def note10(data_folder: Path) -> PublishedTables:
    """The Once-for-All authors' tables of a Samsung Note10."""
    return PublishedTables.load(data_folder / "ofa" / "note10")


@pytest.fixture(scope="module")
def note10_space(note10: PublishedTables) -> MobileNetV3:
    """The space that they were made for."""
    return MobileNetV3(width=1.2, resolutions=note10.resolutions)


def test_the_note10_tables_are_of_exactly_this_space(note10: PublishedTables, note10_space: MobileNetV3) -> None:
    """The space's keys are those of the files: none misses, none is left over."""
    for resolution, keys in zip(note10_space.resolutions, published_keys_by_resolution(note10_space), strict=True):
        assert set(keys.values()) == set(note10.tables[resolution])


def test_the_published_subnet_on_the_note10(note10: PublishedTables, note10_space: MobileNetV3) -> None:
    """The authors' subnet takes 24.73 ms at 192 pixels."""
    config = {
        "ks": [5, 3, 0, 0, 5, 3, 0, 0, 7, 7, 3, 0, 5, 5, 7, 3, 3, 3, 5, 0],
        "e": [3, 3, 0, 0, 4, 4, 0, 0, 6, 3, 4, 0, 4, 4, 4, 3, 6, 6, 6, 0],
        "d": [2, 2, 3, 4, 3],
    }
    genes = note10_space.encode([note10_space.from_ofa(config, 192)])
    assert note10.to_latency_table(note10_space, "note10").latency_ms(genes)[0] == pytest.approx(24.73, abs=0.005)


@pytest.mark.parametrize(("resolution", "slowest", "fastest"), [(224, 92.40, 17.77), (160, 47.77, 9.89)])
def test_the_range_of_the_note10(
    note10: PublishedTables, note10_space: MobileNetV3, resolution: int, slowest: float, fastest: float
) -> None:
    """The largest and the smallest subnet take what the authors' tables sum to."""
    both = [each.at_resolution(resolution) for each in (note10_space.largest, note10_space.smallest)]
    latency = note10.to_latency_table(note10_space, "note10").latency_ms(note10_space.encode(both))
    assert latency == pytest.approx([slowest, fastest], abs=0.005)


def test_noisy_entries_of_the_note10(note10: PublishedTables) -> None:
    """Over 10% are the feature mix and the classifier, at each of the five resolutions."""
    noisy = note10.noisy_entries()
    assert {key.partition("-")[0] for _, key, _ in noisy} == {"Conv_2", "Logits"}
    assert len(noisy) == 10
    assert max(variation for _, _, variation in noisy) == pytest.approx(0.135, abs=0.001)


@pytest.mark.slow
def test_a_million_architectures_take_seconds(note10: PublishedTables, note10_space: MobileNetV3) -> None:
    """Parameters, MACs and latency of a million architectures take under 20 s of one processor, loaded or not."""
    genes = note10_space.sample(1_000_000, np.random.default_rng(0))
    table = note10.to_latency_table(note10_space, "note10")
    began = time.process_time()
    for cost in (note10_space.params, note10_space.macs, table.latency_ms):
        assert cost(genes).shape == (1_000_000,)
    assert time.process_time() - began < 20


# -- the Pixel 1, as published ------------------------------------------------------------


@pytest.fixture(scope="module")
def pixel_file(data_folder: Path) -> Path:
    """The ProxylessNAS authors' table of a Pixel 1."""
    return data_folder / "ofa" / "proxyless_pixel" / "pixel_trim.yaml"


_PIXEL_SPACE = ProxylessNAS(resolutions=(224,), expand_ratios=(3, 6))
_PIXEL_ENDS = [
    "Conv-input:224x224x3-output:112x112x32",
    "expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:3-stride:1-idskip:0",
    "Conv_1-input:7x7x320-output:7x7x1280",
    "Logits-input:7x7x1280-output:1000",
]
_PIXEL_CASES = {
    "two blocks a stage, kernel 3, expand 3": (
        {"ks": [3] * 21, "e": [3] * 21, "d": [2, 2, 2, 2, 2, 1]},
        [
            "112x112x16-output:56x56x24-expand:3-kernel:3-stride:2-idskip:0",
            "56x56x24-output:56x56x24-expand:3-kernel:3-stride:1-idskip:1",
            "56x56x24-output:28x28x40-expand:3-kernel:3-stride:2-idskip:0",
            "28x28x40-output:28x28x40-expand:3-kernel:3-stride:1-idskip:1",
            "28x28x40-output:14x14x80-expand:3-kernel:3-stride:2-idskip:0",
            "14x14x80-output:14x14x80-expand:3-kernel:3-stride:1-idskip:1",
            "14x14x80-output:14x14x96-expand:3-kernel:3-stride:1-idskip:0",
            "14x14x96-output:14x14x96-expand:3-kernel:3-stride:1-idskip:1",
            "14x14x96-output:7x7x192-expand:3-kernel:3-stride:2-idskip:0",
            "7x7x192-output:7x7x192-expand:3-kernel:3-stride:1-idskip:1",
            "7x7x192-output:7x7x320-expand:3-kernel:3-stride:1-idskip:0",
        ],
    ),
    "other depths, kernels and ratios": (
        {
            "ks": [5, 7, 0, 0, 3, 5, 7, 0, 7, 7, 7, 7, 3, 3, 0, 0, 5, 5, 3, 0, 7],
            "e": [6, 3, 0, 0, 3, 3, 6, 0, 6, 6, 6, 3, 3, 6, 0, 0, 6, 6, 3, 0, 6],
            "d": [2, 3, 4, 2, 3, 1],
        },
        [
            "112x112x16-output:56x56x24-expand:6-kernel:5-stride:2-idskip:0",
            "56x56x24-output:56x56x24-expand:3-kernel:7-stride:1-idskip:1",
            "56x56x24-output:28x28x40-expand:3-kernel:3-stride:2-idskip:0",
            "28x28x40-output:28x28x40-expand:3-kernel:5-stride:1-idskip:1",
            "28x28x40-output:28x28x40-expand:6-kernel:7-stride:1-idskip:1",
            "28x28x40-output:14x14x80-expand:6-kernel:7-stride:2-idskip:0",
            "14x14x80-output:14x14x80-expand:6-kernel:7-stride:1-idskip:1",
            "14x14x80-output:14x14x80-expand:6-kernel:7-stride:1-idskip:1",
            "14x14x80-output:14x14x80-expand:3-kernel:7-stride:1-idskip:1",
            "14x14x80-output:14x14x96-expand:3-kernel:3-stride:1-idskip:0",
            "14x14x96-output:14x14x96-expand:6-kernel:3-stride:1-idskip:1",
            "14x14x96-output:7x7x192-expand:6-kernel:5-stride:2-idskip:0",
            "7x7x192-output:7x7x192-expand:6-kernel:5-stride:1-idskip:1",
            "7x7x192-output:7x7x192-expand:3-kernel:3-stride:1-idskip:1",
            "7x7x192-output:7x7x320-expand:6-kernel:7-stride:1-idskip:0",
        ],
    ),
}


@pytest.mark.parametrize(("lists", "blocks"), _PIXEL_CASES.values(), ids=list(_PIXEL_CASES))
def test_subnets_on_the_pixel_by_hand(pixel_file: Path, lists: dict[str, Any], blocks: list[str]) -> None:
    """A subnet takes the sum of its entries in the authors' file."""
    document = yaml.safe_load(pixel_file.read_text())
    keys = [*_PIXEL_ENDS, *(f"expanded_conv-input:{block}" for block in blocks)]
    expected = sum(document[key]["mean"] for key in keys)
    table = PublishedTables.load(pixel_file).to_latency_table(_PIXEL_SPACE, "pixel")
    genes = _PIXEL_SPACE.encode([_PIXEL_SPACE.from_ofa(lists)])
    np.testing.assert_allclose(table.latency_ms(genes), [expected], rtol=1e-12)


def test_the_pixel_has_no_ratio_of_four(pixel_file: Path) -> None:
    """The published choices need entries that the file lacks: the message says to name the file's own."""
    with pytest.raises(FormatError, match=r"miss 33 entries .*expand:4-.* give the width and the choices .*--choices"):
        PublishedTables.load(pixel_file).to_latency_table(ProxylessNAS(resolutions=(224,)), "pixel")


def test_noisy_entries_of_the_pixel(pixel_file: Path) -> None:
    """The classifier's variance of 0.150 ms^2 is a deviation of 41% of its mean of 0.935 ms; nine others exceed 10%."""
    noisy = {key: variation for _, key, variation in PublishedTables.load(pixel_file).noisy_entries()}
    assert len(noisy) == 10
    assert noisy["Logits-input:7x7x1280-output:1000"] == pytest.approx(0.414, abs=0.001)
