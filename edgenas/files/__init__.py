"""Writing and reading files: whole or not at all, with header and checksum, as plain data and as dataclasses."""

from edgenas.files.digests import canonical_json_bytes, digest_of_inputs, sha256_hex
from edgenas.files.disk import (
    TEMPORARY_SUFFIX,
    cache_folder,
    check_regular_file,
    opened_without_links,
    read_bytes,
    write_bytes,
)
from edgenas.files.documents import (
    MAX_DOCUMENT_BYTES,
    Schema,
    Upgrade,
    oldest_version,
    parse_header_version,
    read_document,
    rename_keys,
    write_document,
)
from edgenas.files.plain_data import parse_json, read_yaml
from edgenas.files.tensors import read_tensors_and_body, write_tensors
from edgenas.files.typed import (
    Amount,
    Count,
    Fraction,
    Milliseconds,
    Number,
    ShortText,
    check_keys,
    format_suggestion,
    format_value,
    parse_dataclass,
)

__all__ = [
    "MAX_DOCUMENT_BYTES",
    "TEMPORARY_SUFFIX",
    "Amount",
    "Count",
    "Fraction",
    "Milliseconds",
    "Number",
    "Schema",
    "ShortText",
    "Upgrade",
    "cache_folder",
    "canonical_json_bytes",
    "check_keys",
    "check_regular_file",
    "digest_of_inputs",
    "format_suggestion",
    "format_value",
    "oldest_version",
    "opened_without_links",
    "parse_dataclass",
    "parse_header_version",
    "parse_json",
    "read_bytes",
    "read_document",
    "read_tensors_and_body",
    "read_yaml",
    "rename_keys",
    "sha256_hex",
    "write_bytes",
    "write_document",
    "write_tensors",
]
