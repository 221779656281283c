"""What the pages say can be typed, followed and believed."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
from pathlib import Path

import click
import pytest

from cycleisp_runtime.cli import main
from tests.house.checkout import (
    ROOT,
    blocks,
    setup_cfg,
    shell_blocks,
    shell_commands,
    tracked_files,
)

_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
_TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)
_SECTION = re.compile(r"^## (\d+\.\d+\.\d+)\b", re.MULTILINE)


def pages() -> list[Path]:
    return [path for path in tracked_files() if path.suffix == ".md"]


def commands(program: str) -> list[tuple[str, list[str]]]:
    """Words that follow this program in the pages, each with the page that shows them."""
    return [
        (str(page), words[1:])
        for page in pages()
        for words in shell_commands(page)
        if words[0] == program
    ]


def test_the_readme_leads_with_the_demo_and_the_tests() -> None:
    shown = [words for words in shell_commands(Path("README.md")) if words[0] == "make"]
    assert shown[:2] == [["make", "demo"], ["make", "test"]]


def test_every_shell_block_parses() -> None:
    for page in pages():
        for block in shell_blocks(page):
            check = subprocess.run(
                ["bash", "-n"], input=block, capture_output=True, text=True, check=False
            )
            assert (page, check.stderr) == (page, "")


def test_every_make_target_exists() -> None:
    targets = set(_TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    for page, words in commands("make"):
        assert (page, {word for word in words if "=" not in word} - targets) == (page, set())


def test_every_option_of_ours_exists() -> None:
    assert commands("cycleisp")
    for page, words in commands("cycleisp"):
        command: click.Command = main
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            name = words.pop(0)
            found = command.get_command(click.Context(command), name)
            assert found is not None, f"{page}: {name}"
            command = found
        parameters = command.get_params(click.Context(command))
        known = {option for each in parameters for option in each.opts}
        used = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert (page, command.name, used - known) == (page, command.name, set())


def test_every_extra_exists() -> None:
    extras = set(setup_cfg()["options.extras_require"])
    for page in pages():
        text = (ROOT / page).read_text(encoding="utf-8")
        named = {
            name
            for group in re.findall(r"cycleisp\[([\w,-]+)\]", text)
            for name in group.split(",")
        }
        assert (page, named - extras) == (page, set())


def test_every_script_shown_exists() -> None:
    for page, words in commands("python"):
        if words[0].endswith(".py"):
            assert (ROOT / words[0]).is_file(), f"{page}: {words[0]}"


def test_every_import_shown_works() -> None:
    for page in pages():
        for block in blocks(page, "python"):
            for node in ast.walk(ast.parse(block, str(page))):
                if isinstance(node, ast.ImportFrom):
                    module = importlib.import_module(str(node.module))
                    missing = [each.name for each in node.names if not hasattr(module, each.name)]
                    assert (page, module.__name__, missing) == (page, module.__name__, [])


def test_every_relative_link_leads_somewhere() -> None:
    for page in pages():
        for target in _LINK.findall((ROOT / page).read_text(encoding="utf-8")):
            assert (ROOT / page.parent / target).exists(), f"{page}: {target}"


def test_the_architecture_names_files_that_exist() -> None:
    text = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
    standing = re.sub(r"\*Later.*?(?=\||\n\n)", "", text, flags=re.DOTALL)
    named = set(re.findall(r"`([\w/]+\.(?:py|cfg|txt))`", standing))
    assert named
    paths = [path.as_posix() for path in tracked_files()]
    assert [
        name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in paths)
    ] == []


def test_the_changelog_speaks_of_this_version() -> None:
    sections = _SECTION.findall((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert sections[0] == setup_cfg()["metadata"]["version"]


@pytest.mark.parametrize("command", ["denoise", "info", "train", "export"])
def test_every_command_has_help(command: str) -> None:
    found = main.get_command(click.Context(main), command)
    assert found is not None
    assert found.help
