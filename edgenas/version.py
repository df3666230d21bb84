"""The version of edgenas."""

__version__ = "0.1.0"
