"""Between targets and file formats: the format that a target runs, and the target that runs a format."""

from __future__ import annotations

from collections.abc import Sequence

from edgenas.devices import Target
from edgenas.errors import UsageError
from edgenas.runtimes import ExportFormat, file_formats, load_runtime, runtime_of_format, variants_by_purpose


def format_of(target: Target) -> ExportFormat:
    """Return the file format that a target runs; UsageError for a runtime that edgenas writes no files for."""
    runtime = load_runtime(target.runtime, "edgenas writes no files for runtime")
    return ExportFormat(runtime.file_format, target.precision)


def target_for(target: Target, export_format: ExportFormat) -> Target | None:
    """Return the target with the same device, threads and CPUs for another format.

    None without a runtime for it, or without the provider that its integers are made for.
    """
    runtime, details = export_format.runtime, export_format.details
    if runtime.name not in target.profile.runtimes:
        return None
    found = Target(target.profile, runtime.name, export_format.stored.precision, target.threads, target.affinity)
    return found if details.provider is None or details.provider in found.providers else None


def combine_formats(formats: Sequence[str], precisions: Sequence[str]) -> tuple[list[ExportFormat], list[str]]:
    """Return every file format with every precision, and a message for each pair that does not exist.

    Raises UsageError for an unknown name and for a precision that none of the formats has.
    """
    names = list(dict.fromkeys(formats))
    known = {name: runtime_of_format(name) for name in names if name in file_formats()}
    combined, skipped = [], []
    for precision in dict.fromkeys(precisions):
        exists = any(precision in runtime.precisions_by_name for runtime in known.values())
        for name in names:
            if exists and name in known and precision not in known[name].precisions_by_name:
                its = ", ".join(known[name].target_precisions)
                skipped.append(f"{name} has no precision {precision}, it has {its}: skipped")
            else:
                combined.append(ExportFormat(name, precision))
    return combined, skipped


def make_for(purpose: str, formats: Sequence[ExportFormat]) -> list[ExportFormat]:
    """Return formats with those replaced that have a variant for a purpose.

    Raises UsageError for an unknown purpose, and where no format has a variant for it.
    """
    variants = variants_by_purpose()
    if purpose not in variants:
        raise UsageError(f"unknown target {purpose!r}; known: {', '.join(variants)}")
    chosen = list(dict.fromkeys(each.made_for(purpose) or each for each in formats))
    if variants[purpose] not in chosen:
        name, precision = variants[purpose].format, variants[purpose].stored.precision
        raise UsageError(
            f"target {purpose} is for {precision} {name.upper()}; give --format {name} --precision {precision}"
        )
    return chosen
