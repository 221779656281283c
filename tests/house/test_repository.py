"""What git holds: small, free of secrets, and meaningful on any machine."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

from tests.house.checkout import ROOT, tracked_files

FILE_LIMIT_BYTES = 4_000_000
TOTAL_LIMIT_BYTES = 40_000_000

# A path of the machine where something was written means nothing on another.
MACHINE_PATHS = re.compile(
    r"(?<![\w.])/(?:work|root|opt/(?:pypi|wheels))/|\.(?:\.)/shared|/\.pyenv/"
)
SECRETS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_\w{36}|\bglpat-\w{20}"
)


def text_files() -> list[tuple[Path, str]]:
    """Every tracked file that is text, with what it says."""
    contents = [(path, (ROOT / path).read_bytes()) for path in tracked_files()]
    return [(path, data.decode("utf-8")) for path, data in contents if is_text(data)]


def is_text(data: bytes) -> bool:
    try:
        return "\0" not in data.decode("utf-8")
    except UnicodeDecodeError:
        return False


def test_files_are_small() -> None:
    sizes = {path: (ROOT / path).stat().st_size for path in tracked_files()}
    assert [path for path, size in sizes.items() if size > FILE_LIMIT_BYTES] == []
    assert sum(sizes.values()) <= TOTAL_LIMIT_BYTES


def test_no_file_speaks_of_one_machine() -> None:
    found = [
        (str(path), match[0])
        for path, text in text_files()
        for match in MACHINE_PATHS.finditer(text)
    ]
    assert found == []


def test_no_file_holds_a_secret() -> None:
    assert [str(path) for path, text in text_files() if SECRETS.search(text)] == []


def test_every_foreign_file_is_in_the_notice() -> None:
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    patterns = re.findall(r"^((?:examples|tests)/[^\s,]+)", notice, re.MULTILINE)
    foreign = [
        path
        for path in tracked_files()
        if (path.is_relative_to("tests/data") and path.suffix not in {".json", ".md"})
        or path.suffix.lower() == ".dng"
    ]
    assert foreign
    covered = [p for p in foreign if any(fnmatch.fnmatch(p.as_posix(), each) for each in patterns)]
    assert covered == foreign
