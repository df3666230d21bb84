"""The generated texts of a bundle: the script that runs its sample, and its model card."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

from edgenas.data import preprocess, to_image_size
from edgenas.runtimes import runtime_of_format

_SCRIPT = '''"""Print the label of the sample image: python run.py. Needs numpy and {runtime} only."""

import sys
from pathlib import Path

import numpy as np
{imports}

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True  # the checksums cover every file of this folder

from preprocess import preprocess

with np.load(HERE / "sample.npz", allow_pickle=False) as sample:
    image = sample["image"]
{body}
labels = (HERE / "labels.txt").read_text(encoding="utf-8").split("\\n")
print(labels[int(logits.argmax())])
'''
_CARD = """# Model card

Made by edgenas. `python run.py` runs the sample image with numpy and {runtime} alone;
`sha256sum -c SHA256SUMS` checks that no file was changed, `edgenas verify .` that the model does what it did.

## Facts

{facts}

## Input

An image (H, W) or (H, W, C) of bytes; `preprocess.py` turns it into float32 {shape} ({layout}):
{part} bilinear to {height} x {width}, times {scale:.6g}, minus {mean}, divided by {std}.

## Output

Logits (1, {classes}), in the order of `labels.txt`: {labels}

## Files

| file | what |
|---|---|
| {model} | the model |
| preprocess.py, preprocessing.json | from an image to the model's input |
| labels.txt | the name of each class |
| run.py, sample.npz | a sample image, its input, the logits of this file and those of the network before export |
| card.json | the facts above, for machines |
| SHA256SUMS | checksums |
"""
_MAX_LABELS_SHOWN = 20


def bundle_scripts(file_format: str) -> dict[str, bytes]:
    """Return the programs of a bundle by file name; ``verify`` compares them byte by byte."""
    runtime = runtime_of_format(file_format)
    script = _SCRIPT.format(runtime=runtime.package, imports=runtime.script_import, body=runtime.script_body)
    return {"preprocess.py": inspect.getsource(preprocess).encode(), "run.py": script.encode()}


def render_model_card(
    file_format: str, card: Mapping[str, Any], preprocessing: Mapping[str, Any], labels: Sequence[str]
) -> str:
    """Return README.md of a bundle, the model card in Markdown."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in card.items()}
    rows = [f"| {_escape_table_cell(name)} | {_escape_table_cell(text)} |" for name, text in texts.items()]
    more = f" and {len(labels) - _MAX_LABELS_SHOWN} more" if len(labels) > _MAX_LABELS_SHOWN else ""
    channels, crop = preprocessing["channels"], preprocessing["crop"]
    height, width = to_image_size(preprocessing["size"])
    shape = (1, height, width, channels) if preprocessing["layout"] == "NHWC" else (1, channels, height, width)
    part = f"its middle square, {crop:.6g} of the shorter side," if crop else "the whole of it,"
    return _CARD.format(
        **preprocessing,
        runtime=runtime_of_format(file_format).package,
        model=f"model.{file_format}",
        height=height,
        width=width,
        shape=shape,
        part=part,
        facts="\n".join(["| fact | value |", "|---|---|", *rows]),
        classes=len(labels),
        labels=", ".join(labels[:_MAX_LABELS_SHOWN]) + more,
    )


def _escape_table_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
