"""The checkout as git sees it, and the code that its pages show."""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = [
    "ROOT",
    "blocks",
    "package_folders",
    "setup_cfg",
    "shell_blocks",
    "shell_commands",
    "tracked_files",
]

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def tracked_files() -> list[Path]:
    """Files that are in git or would be added, relative to the root; skips where git has no say."""
    # Tests may run as another user than the owner of the checkout, which git refuses by default.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others"]
    try:
        listing = subprocess.run(
            [*command, "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = {Path(name) for name in listing.stdout.split("\0") if name}
    return sorted(path for path in paths if (ROOT / path).is_file())


def setup_cfg() -> configparser.ConfigParser:
    """setup.cfg, parsed."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def package_folders() -> dict[str, Path]:
    """Folder of each of the four packages, relative to the root, as setup.cfg maps them."""
    lines = setup_cfg()["options"]["package_dir"].split("\n")
    moved = dict(line.split(" = ") for line in lines if line)
    names = {name.split(".")[0] for name in setup_cfg()["options"]["packages"].split()}
    return {name: Path(moved.get(name, name)) for name in sorted(names)}


def blocks(page: Path, language: str) -> Iterator[str]:
    """Every fenced block in this language of a Markdown page."""
    for fence in _FENCE.finditer((ROOT / page).read_text(encoding="utf-8")):
        if fence["language"] == language:
            yield fence["text"]


def shell_blocks(page: Path) -> Iterator[str]:
    """Every shell block of a page, prompts and their output removed."""
    yield from blocks(page, "sh")
    for text in blocks(page, "console"):
        yield "\n".join(line[2:] for line in text.split("\n") if line.startswith("$ "))


def shell_commands(page: Path) -> Iterator[list[str]]:
    """The commands of these blocks, each as its words."""
    for block in shell_blocks(page):
        for line in block.replace("\\\n", " ").split("\n"):
            words = shlex.split(line, comments=True)
            if words:
                yield words
