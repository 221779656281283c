"""``cycleisp weights``: published weights, made ours to load."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["weights"]


@click.group()
def weights() -> None:
    """Weights that the authors of CycleISP publish."""


@weights.command("import")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.pth")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="NAME.safetensors",
    help="The file to write; NAME.json beside it says what it is and where it came from.",
)
@click.option("--force", is_flag=True, help="Replace files that exist.")
def import_(file: Path, output: Path, force: bool) -> None:
    """Turn a checkpoint that you downloaded from the authors into safetensors.

    Which network it is, its tensors tell. Those weights are for non-commercial use only.
    """
    from cycleisp.weights import import_weights

    imported = import_weights(file, output, force=force)
    click.echo(f"{output}: {imported.model} {imported.size}")
    click.echo(imported.terms, err=True)
