"""A group that is also a command."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from cycleisp_runtime.cli.default_group import DefaultGroup


@click.command()
@click.argument("bundle")
@click.option("--size", type=int, default=1)
def measure(bundle: str, size: int) -> None:
    """Measure a bundle; measure compare compares two."""
    click.echo(f"measure {bundle} {size}")


@click.command()
@click.argument("names", nargs=2)
def compare(names: tuple[str, str]) -> None:
    """Compare two."""
    click.echo(f"compare {names}")


@click.group()
def program() -> None:
    """A program whose command is such a group."""


GROUP = DefaultGroup(measure, compare)
program.add_command(GROUP)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["edge"], "measure edge 1\n"),
        (["edge", "--size", "3"], "measure edge 3\n"),
        (["--size", "3", "edge"], "measure edge 3\n"),
        (["edge", "compare"], None),
        (["./compare"], "measure ./compare 1\n"),
        (["compare", "a", "b"], "compare ('a', 'b')\n"),
        (["compare", "a"], None),
        ([], None),
    ],
)
def test_the_first_word_decides(words: list[str], said: str | None) -> None:
    for result in (
        CliRunner().invoke(GROUP, words),
        CliRunner().invoke(program, ["measure", *words]),
    ):
        assert result.exit_code == (2 if said is None else 0)
        assert said is None or result.output == said


def test_help_and_usage_are_the_default_command_s() -> None:
    shown = CliRunner().invoke(program, ["measure", "--help"]).output
    assert shown.startswith("Usage: program measure [OPTIONS] BUNDLE\n")
    assert "--size" in shown
    assert GROUP.help == measure.help


def test_another_command_has_its_own_help() -> None:
    shown = CliRunner().invoke(program, ["measure", "compare", "--help"]).output
    assert shown.startswith("Usage: program measure compare [OPTIONS] NAMES...\n")
