"""The version of edgenas."""

__version__ = "0.2.0"
