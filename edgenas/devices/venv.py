"""Where ``edgenas device setup`` installs runtimes on a device, and where a profile without python has them used."""

from __future__ import annotations

BASE = "~/.cache/edgenas"  # on the device, unless the profile names a work_dir
VENV_PYTHON = "venv/bin/python"  # below BASE or work_dir
