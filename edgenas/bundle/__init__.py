"""A bundle: the folder that is deployed, with everything needed to run the model and to verify it."""

from __future__ import annotations

from edgenas.bundle.bundle import Bundle, check_replaceable, open_bundle, write_bundle
from edgenas.bundle.check import VerifiedBundle

__all__ = ["Bundle", "VerifiedBundle", "check_replaceable", "open_bundle", "write_bundle"]
