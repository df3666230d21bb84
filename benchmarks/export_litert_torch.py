"""Write TFLite files of subnets with litert-torch, timed: the part of export.py that runs in its environment.

python benchmarks/export_litert_torch.py FOLDER: for each ``ID.safetensors``
there an ``ID.litert_torch.tflite``, and on standard output one JSON line, the
seconds by id. Inputs are channels last, as in our files.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path

import litert_torch
import torch
from safetensors.torch import load_file

import edgenas as en
from edgenas.ofa import Subnet


def convert(weights: Path, size: int) -> float:
    """Write the TFLite file beside the weights and return the seconds from module to file."""
    subnet = Subnet(en.MobileNetV3(resolutions=(size,)).from_id(weights.stem)).eval()
    subnet.load_weights(load_file(weights))
    sample = torch.zeros(1, size, size, 3)
    began = time.monotonic()
    wrapped = litert_torch.to_channel_last_io(subnet, args=[0]).eval()
    litert_torch.convert(wrapped, (sample,)).export(str(weights.with_suffix(".litert_torch.tflite")))
    return time.monotonic() - began


def main() -> None:
    """Convert everything in the folder."""
    folder, size = Path(sys.argv[1]), int(sys.argv[2])
    with contextlib.redirect_stdout(sys.stderr):
        seconds = {path.stem: convert(path, size) for path in sorted(folder.glob("*.safetensors"))}
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
