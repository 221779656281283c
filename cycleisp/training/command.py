"""``cycleisp train STAGE``: thin commands over the stages."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cycleisp.training.loop import Progress

__all__ = ["train"]

_STAGES = {
    "rgb2raw": "Train RGB2RAW: sRGB back into RAW.",
    "raw2rgb": "Train RAW2RGB and the colour branch: RAW into sRGB.",
    "joint": "Tune RGB2RAW, the colour branch and RAW2RGB together.",
    "finetune-sidd": "Tune the pipeline to render the noise of SIDD's cameras.",
    "raw-denoiser": "Train a RAW denoiser.",
    "srgb-denoiser": "Train an sRGB denoiser from synthesised pairs.",
}


@click.group()
def train() -> None:
    """Train networks, stage by stage.

    Settings come from the recipe, and from KEY=VALUE, which wins; `cycleisp train STAGE --settings`
    lists them. The output folder gets settings.yaml (all of them), provenance.json, data.json,
    log.jsonl, a checkpoint, and at the end one NETWORK.safetensors per network.
    """


_recipe = click.option(
    "--recipe", type=click.Path(path_type=Path), metavar="FILE", help="YAML file of settings."
)
_resume = click.option(
    "--resume", is_flag=True, help="Go on from the checkpoint in the output folder, if any."
)


def _stage_command(name: str, help_text: str) -> Callable[..., Any]:
    @train.command(name, help=help_text)
    @_recipe
    @_resume
    @click.option("--settings", "listed", is_flag=True, help="List the settings and stop.")
    @click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
    def command(recipe: Path | None, resume: bool, listed: bool, settings: tuple[str, ...]) -> None:
        from cycleisp.training.recipe import describe_settings, train_stage
        from cycleisp.training.settings import read_recipe

        if listed:
            click.echo(describe_settings(name))
            return
        values = {} if recipe is None else read_recipe(recipe)
        for network in train_stage(
            name, values, settings, resume=resume, report=_ProgressLines(name)
        ):
            click.echo(network)

    return command


for _name, _help in _STAGES.items():
    _stage_command(_name, _help)


@train.command("all")
@click.option(
    "--recipe", type=click.Path(path_type=Path), metavar="FILE", required=True, help="YAML file."
)
@_resume
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
def train_all(recipe: Path, resume: bool, settings: tuple[str, ...]) -> None:
    """Run the stages of a recipe in order; each starts from the networks of those before it.

    KEY=VALUE holds for every stage, STAGE.KEY=VALUE for one. With --resume, stages that are done
    are passed over.
    """
    from cycleisp.training.recipe import train_stages

    for network in train_stages(recipe, settings, resume=resume, report=_ProgressLines):
        click.echo(network)


class _ProgressLines:
    """On stderr: one line per validation and, for someone who watches, one that is overwritten."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._first: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        first = self._first = self._first or progress
        left = (
            (progress.steps - progress.step)
            * (progress.seconds - first.seconds)
            / max(1, progress.step - first.step)
        )
        start = f"{self._stage}  step {progress.step}/{progress.steps}"
        end = f"{timedelta(seconds=round(left))} left"
        clear = "\r\033[K" if sys.stderr.isatty() else ""
        if progress.quality is not None:
            figures = "  ".join(f"{name} {db:.2f}" for name, db in progress.quality.items())
            click.echo(f"{clear}{start}  {figures}  {end}", err=True)
        elif clear and progress.step % 20 == 0:
            click.echo(f"{clear}{start}  loss {progress.loss:.4g}  {end}", nl=False, err=True)
