"""``cycleisp train STAGE``: thin commands over the stages."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cycleisp.training.raw_denoiser import Progress

__all__ = ["train"]


@click.group()
def train() -> None:
    """Train a network."""


@train.command("raw-denoiser")
@click.option(
    "--recipe",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="YAML file of settings, such as zoo/tiny.yaml.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on from the checkpoint in the output folder, if one is there.",
)
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
def raw_denoiser(recipe: Path | None, resume: bool, settings: tuple[str, ...]) -> None:
    """Train a small RAW denoiser from clean photographs.

    Settings come from the recipe, and from KEY=VALUE, which wins. photographs=FOLDER and
    output=FOLDER are needed; size=tiny or size=edge picks the network; steps, batch, patch,
    learning_rate, seed, threads and the rest have defaults. The output folder gets settings.yaml
    (all of them), log.jsonl (PSNR at low, middle and high noise), a checkpoint, and at the end
    weights.safetensors for `cycleisp export`.
    """
    from cycleisp.training.raw_denoiser import RawDenoiserSettings, train_raw_denoiser
    from cycleisp.training.settings import resolve_settings

    resolved = resolve_settings(RawDenoiserSettings, recipe, settings)
    weights = train_raw_denoiser(resolved, resume=resume, report=_ProgressLines())
    click.echo(weights)


class _ProgressLines:
    """On stderr: one line per validation and, for someone who watches, one that is overwritten."""

    def __init__(self) -> None:
        self._first: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        first = self._first = self._first or progress
        left = (
            (progress.steps - progress.step)
            * (progress.seconds - first.seconds)
            / max(1, progress.step - first.step)
        )
        start = f"step {progress.step}/{progress.steps}"
        end = f"{timedelta(seconds=round(left))} left"
        clear = "\r\033[K" if sys.stderr.isatty() else ""
        if progress.quality is not None:
            db = progress.quality
            levels = "  ".join(
                f"{level} {db[f'{level} noisy']:.2f} -> {db[level]:.2f} dB"
                for level in ("low", "middle", "high")
            )
            click.echo(f"{clear}{start}  {levels}  {end}", err=True)
        elif clear and progress.step % 20 == 0:
            click.echo(f"{clear}{start}  loss {progress.loss:.4f}  {end}", nl=False, err=True)
