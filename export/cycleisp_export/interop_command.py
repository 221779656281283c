"""``cycleisp convert``: a bundle to what programs that know nothing of bundles can load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from cycleisp_runtime.cli import report_warning
from cycleisp_runtime.cli.noise_option import noise_model
from cycleisp_runtime.errors import SettingsError
from cycleisp_runtime.text import printable

if TYPE_CHECKING:
    from cycleisp_runtime.noise import NoiseModel

__all__ = ["convert"]


@click.command()
@click.argument("bundle")
@click.option("--target", required=True, type=click.Choice(["darktable", "triton", "one-input"]))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="ID.dtmodel for darktable, the model's folder for triton, an .onnx file for one-input.",
)
@click.option(
    "--noise",
    metavar="SHOT,READ",
    callback=noise_model,
    help="The noise to bake in: variance = SHOT x + READ, in units of the normalised signal.",
)
@click.option(
    "--profile",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Noise profile of a camera, to bake in its noise at --iso.",
)
@click.option("--iso", type=float, help="ISO value to read off --profile.")
@click.option(
    "--mosaic",
    type=click.Choice(["RGGB", "GRBG", "GBRG", "BGGR"]),
    help="one-input: take and give the mosaic of this CFA in place of packed planes.",
)
@click.option("--force", is_flag=True, help="Replace an output that exists.")
def convert(
    bundle: str,
    target: Literal["darktable", "triton", "one-input"],
    output: Path,
    noise: NoiseModel | None,
    profile: Path | None,
    iso: float | None,
    mosaic: str | None,
    force: bool,
) -> None:
    """Convert BUNDLE, a folder or the name of a shipped model, for other programs.

    darktable: for its neural restore. triton: a model of Triton Inference Server, with the inputs
    of the network. one-input: a plain ONNX that takes one tensor.

    darktable and one-input feed no noise, so that it is baked in where a RAW network must be told
    of it: give --noise, or --profile and --iso.
    """
    from cycleisp_export.baked_noise import baked_noise
    from cycleisp_export.darktable import write_darktable
    from cycleisp_export.triton import write_triton
    from cycleisp_export.wrappers import write_one_input
    from cycleisp_runtime.bayer import Phase
    from cycleisp_runtime.bundle import find_bundle

    if mosaic is not None and target != "one-input":
        raise SettingsError("only one-input takes a mosaic", subject="--mosaic", met=target)
    source = find_bundle(bundle)
    told = source.record.task == "raw"
    if mosaic is not None and not told:
        raise SettingsError("a network for pictures takes no mosaic", subject="--mosaic")
    baked = None
    if told and target != "triton":
        baked = baked_noise(noise, profile, iso)
    elif (noise, profile, iso) != (None, None, None):
        reason = "triton takes the noise with every request" if told else "sRGB has no noise model"
        raise SettingsError(reason, met="baked-in noise")
    if target == "triton":
        write_triton(source, output, force=force)
    elif target == "darktable":
        write_darktable(source, baked, output, force=force)
    else:
        write_one_input(source, baked, Phase(mosaic) if mosaic else None, output, force=force)
    if baked is None:
        click.echo(f"{output}: {source.record.name} for {target}")
        return
    click.echo(f"{output}: {source.record.name} for {target}, {printable(str(baked))}")
    trained = source.record.noise_range
    doubt = None if trained is None else trained.doubt(baked.model.mean_shot)
    if doubt is not None:
        report_warning(doubt)
