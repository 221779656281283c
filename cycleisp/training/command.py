"""``cycleisp train STAGE``: thin commands over the stages."""

from __future__ import annotations

import sys
from pathlib import Path

import click

__all__ = ["train"]


@click.group()
def train() -> None:
    """Train a network."""


@train.command("raw-denoiser")
@click.option("--recipe", type=click.Path(path_type=Path), help="YAML file of settings.")
@click.option("--resume", is_flag=True, help="Go on from the run's checkpoint.")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
def raw_denoiser(recipe: Path | None, resume: bool, settings: tuple[str, ...]) -> None:
    """Train a small RAW denoiser from clean photographs.

    photographs=FOLDER and output=FOLDER are needed, by recipe or as KEY=VALUE; every other setting
    has a default.
    """
    from cycleisp.training.raw_denoiser import (
        Progress,
        RawDenoiserSettings,
        train_raw_denoiser,
    )
    from cycleisp.training.settings import resolve_settings

    resolved = resolve_settings(RawDenoiserSettings, recipe, settings)
    first: list[Progress] = []

    def report(progress: Progress) -> None:
        if not first:
            first.append(progress)
        elapsed = progress.seconds - first[0].seconds
        done = progress.step - first[0].step
        left = (progress.steps - progress.step) * elapsed / done if done else 0.0
        if progress.quality is not None:
            quality = "  ".join(
                f"{level} {progress.quality[level]:.2f} dB (noisy "
                f"{progress.quality[level + ' noisy']:.2f})"
                for level in ("low", "middle", "high")
            )
            click.echo(f"step {progress.step}/{progress.steps}  {quality}  {left:.0f} s left")
        elif sys.stderr.isatty() and progress.step % 20 == 0:
            line = f"\rstep {progress.step}/{progress.steps}  loss {progress.loss:.4f}"
            click.echo(f"{line}  {left:.0f} s left  ", nl=False, err=True)

    weights = train_raw_denoiser(resolved, resume=resume, report=report)
    click.echo(f"weights: {weights}")
    click.echo(f"settings: {resolved.output / 'settings.yaml'}")
