"""The texts of a bundle: its sample script and its model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

RUN_SCRIPT = '''"""Print the label of the sample image: python run.py. Needs numpy and onnxruntime only."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True  # the checksums cover every file of this folder

from preprocess import preprocess

with np.load(HERE / "sample.npz", allow_pickle=False) as sample:
    image = sample["image"]
session = onnxruntime.InferenceSession(str(HERE / "model.onnx"), providers=["CPUExecutionProvider"])
logits = session.run(None, {session.get_inputs()[0].name: preprocess(image)})[0][0]
labels = (HERE / "labels.txt").read_text(encoding="utf-8").split("\\n")
print(labels[int(logits.argmax())])
'''

_CARD = """# Model card

Made by edgenas. `python run.py` runs the sample image with numpy and onnxruntime alone;
`sha256sum -c SHA256SUMS` checks that no file was changed.

## Facts

{facts}

## Input

An image (H, W) or (H, W, C) of bytes; `preprocess.py` turns it into float32 (1, {channels}, {size}, {size}):
times {scale:.6g}, bilinear to {size} x {size}, minus {mean}, divided by {std}.

## Output

`logits` (1, {classes}), in the order of `labels.txt`: {labels}

## Files

| file | what |
|---|---|
| model.onnx | the model |
| preprocess.py, preprocessing.json | from an image to the model's input |
| labels.txt | the name of each class |
| run.py, sample.npz | a sample image, its input, and the logits that the network gave before export |
| card.json | the facts above, for machines |
| SHA256SUMS | checksums |
"""
_LABELS_SHOWN = 20


def model_card(card: Mapping[str, Any], preprocessing: Mapping[str, Any], labels: Sequence[str]) -> str:
    """README.md of a bundle, in Markdown."""
    rows = [f"| {_cell(name)} | {_cell(_text(value))} |" for name, value in card.items()]
    more = f" and {len(labels) - _LABELS_SHOWN} more" if len(labels) > _LABELS_SHOWN else ""
    return _CARD.format(
        facts="\n".join(["| fact | value |", "|---|---|", *rows]),
        classes=len(labels),
        labels=", ".join(labels[:_LABELS_SHOWN]) + more,
        **preprocessing,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
