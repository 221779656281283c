"""How every benchmark takes its data and gives its results: options, a plain table, a JSON file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["options", "required", "save", "table"]

_DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Beside the checkout; the data are not part of the repository."""


def options(description: str | None, *, data: bool = True) -> argparse.ArgumentParser:
    """A parser with ``--json`` and, for a benchmark that needs any, ``--data``."""
    parser = argparse.ArgumentParser(description=description)
    if data:
        parser.add_argument(
            "--data",
            type=Path,
            default=_DEFAULT_DATA,
            metavar="FOLDER",
            help="the data of the benchmarks; %(default)s unless given",
        )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write everything that was measured"
    )
    return parser


def required(path: Path) -> Path:
    """The path, where it exists; else the program ends and says what it lacks."""
    if not path.exists():
        sys.exit(f"{path} is not there: this benchmark needs it. Give its data with --data FOLDER.")
    return path


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns under their headers: the first one left-aligned, numbers to the right.

    A column whose header starts with a space is left-aligned as well; the space is taken off.
    """
    left = [index == 0 or name.startswith(" ") for index, name in enumerate(header)]
    lines = [[name.strip() for name in header], *rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if to_the_left else cell.rjust(width)
            for cell, width, to_the_left in zip(line, widths, left, strict=True)
        ).rstrip()
        for line in lines
    )


def save(path: Path | None, results: object) -> None:
    """The results as JSON, where a file was asked for."""
    if path is not None:
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
