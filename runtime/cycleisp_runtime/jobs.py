"""Which files a batch reads, and which file each of them becomes."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from os.path import realpath
from pathlib import Path
from typing import Literal

from cycleisp_runtime.errors import InputError, OutputError, SettingsError
from cycleisp_runtime.writers import OUTPUT_SUFFIXES

__all__ = ["RAW_SUFFIXES", "Format", "Job", "find_inputs", "plan_jobs"]

Format = Literal["dng", "tif", "png"]

# fmt: off
RAW_SUFFIXES = frozenset({
    ".3fr", ".ari", ".arw", ".bay", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr",
    ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2",
    ".rwl", ".sr2", ".srf", ".srw", ".x3f",
})
# fmt: on
"""What a folder is searched for. A file that is named one by one may have any suffix."""

_OF_FILES = RAW_SUFFIXES.union(OUTPUT_SUFFIXES, (".jpg", ".jpeg"))
"""Who names an output so means a file, not a folder."""


@dataclass(frozen=True)
class Job:
    """One file to read and the file to write."""

    source: Path
    output: Path


def find_inputs(
    names: Iterable[str | os.PathLike[str]],
    *,
    recursive: bool = False,
    outside: Path | None = None,
    suffixes: Collection[str] = RAW_SUFFIXES,
) -> list[Path]:
    """The files that these names stand for, in order, each once.

    A name is a file, a folder (its files by suffix, hidden ones left out) or a pattern such as
    ``shoot/*.nef`` that no shell has expanded. A file that does not exist is left to its reader.

    Args:
        names: files, folders, patterns.
        recursive: look into the folders below a folder too.
        outside: a folder whose files are not inputs when they are found in a search: the output's,
            which may lie inside the folder that is searched.
        suffixes: what a folder is searched for, in lower case.

    Raises:
        InputError: where a folder or pattern stands for no file.
    """
    found: dict[str, Path] = {}  # realpath, because Path.resolve refuses loops of links
    for name in names:
        path = Path(name)
        try:
            for file in _files_of(path, recursive, outside, suffixes):
                found.setdefault(realpath(file), file)
        except OSError as error:
            raise InputError(error.strerror or "cannot be searched", subject=path) from error
    return list(found.values())


def _files_of(
    path: Path, recursive: bool, outside: Path | None, suffixes: Collection[str]
) -> Sequence[Path]:
    if path.is_dir():
        files = sorted(_files_below(path, recursive, outside, suffixes))
        if not files:
            raise InputError(
                "no RAW file in this folder"
                if suffixes is RAW_SUFFIXES
                else f"no file in {', '.join(sorted(suffixes))} in this folder",
                subject=path,
                hint=None if recursive else "--recursive looks into the folders below it",
            )
        return files
    if not path.exists() and glob.has_magic(str(path)):
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  a whole pattern
        files = [file for file in map(Path, matches) if file.is_file()]
        if not files:
            raise InputError("no file matches this pattern", subject=path)
        return files
    return [path]


def _files_below(
    folder: Path, recursive: bool, outside: Path | None, suffixes: Collection[str]
) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            below = recursive and not entry.is_symlink()
            if below and (outside is None or realpath(entry) != realpath(outside)):
                yield from _files_below(entry, recursive, outside, suffixes)
        elif entry.suffix.lower() in suffixes:
            yield entry


def plan_jobs(
    sources: Sequence[Path],
    output: Path,
    *,
    file_format: Format | None = None,
    suffixes: Collection[str] = OUTPUT_SUFFIXES,
    default: str | None = ".dng",
) -> list[Job]:
    """One job per source.

    A single source and an ``output`` with one of the ``suffixes``: that file. Otherwise ``output``
    is a folder, and the files in it are named STEM and the suffix of ``file_format``.

    Args:
        sources: files to read.
        output: the file or the folder to write.
        file_format: of the files in a folder; None for the suffix ``default``.
        suffixes: of files that can be written, in lower case.
        default: None for every source's own suffix.

    Raises:
        SettingsError: where two sources would become one file, format and suffix disagree, or the
            output is named like a file of a kind that is not written.
        OutputError: where the output's folder cannot be, or may not be written to.
    """
    suffix = output.suffix.lower()
    if suffix in _OF_FILES.difference(suffixes) and not output.is_dir():
        raise SettingsError(
            "files of this kind are not written",
            subject=output,
            wanted=f"a name in {', '.join(sorted(suffixes))}, or a folder",
        )
    is_file = suffix in suffixes and not output.is_dir()
    if is_file and len(sources) > 1:
        raise SettingsError(
            "several inputs cannot become one file",
            subject=output,
            met=f"{len(sources)} inputs",
            wanted="a folder",
        )
    if is_file and file_format is not None and not suffix.startswith(f".{file_format}"):
        raise SettingsError(
            "format and suffix disagree", subject=output, met=f"format {file_format}"
        )
    if not output.parent.is_dir():
        raise OutputError(
            "the folder does not exist", subject=output.parent, hint="create it, or write elsewhere"
        )
    folder = output if output.is_dir() else output.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            "the folder cannot be written to", subject=folder, hint="write to another folder"
        )
    if is_file:
        return [Job(source, output) for source in sources]
    if output.exists() and not output.is_dir():
        raise OutputError(
            "not a folder",
            subject=output,
            wanted=f"a folder, or a name in {', '.join(sorted(suffixes))}",
        )
    ending = default if file_format is None else f".{file_format}"
    jobs = [Job(source, output / f"{source.stem}{ending or source.suffix}") for source in sources]
    _refuse_collisions(jobs)
    return jobs


def _refuse_collisions(jobs: Iterable[Job]) -> None:
    taken: dict[str, Job] = {}
    for job in jobs:
        other = taken.setdefault(os.path.normcase(job.output.name), job)
        if other is not job:
            raise SettingsError(
                "two inputs would become the same file",
                subject=job.output,
                met=f"{other.source} and {job.source}",
                hint="give them folders of their own",
            )
