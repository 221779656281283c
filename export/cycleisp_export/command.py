"""``cycleisp export``: a trained denoiser to a bundle, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cycleisp_export.explain_command import explain
from cycleisp_runtime.cli.default_group import DefaultGroup
from cycleisp_runtime.cli.progress import progress_of_phases

if TYPE_CHECKING:
    from cycleisp_export.precisions import LowerPrecision, RangeMethod

__all__ = ["export"]


def _listed_precisions(
    _context: click.Context, _parameter: click.Parameter, value: str
) -> tuple[str, ...]:
    """The names in a list with commas, without fp32."""
    names = value.split(",")
    unknown = set(names) - {"fp32", "fp16", "int8", "int8-cpu"}
    if unknown:
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: not fp32, fp16, int8 or int8-cpu")
    return tuple(name for name in ("fp16", "int8", "int8-cpu") if name in names)


@click.command("export")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="NAME.bundle",
    help="The folder to write; NAME is the model's name.",
)
@click.option("--data", required=True, help="What it was trained on, in words, for the card.")
@click.option("--data-license", required=True, help="The licence of that data.")
@click.option(
    "--license",
    "license_name",
    metavar="NAME",
    help="The licence of the weights. By default Apache-2.0, for imported weights their terms.",
)
@click.option(
    "--quality",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What benchmarks/quality.py --json wrote about these weights. By default the card states "
    "the run's own last validation; for weights without a run it is measured on --photographs.",
)
@click.option(
    "--precision",
    "precisions",
    default="fp32",
    show_default=True,
    callback=_listed_precisions,
    metavar="fp32,fp16,int8,int8-cpu",
    help="What to export; FP32 is always among it. int8 is for TensorRT, int8-cpu for ONNX "
    "Runtime on CPUs.",
)
@click.option(
    "--photographs",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Clean photographs that the model was not trained on: half of them choose layers, the "
    "loss of FP16 and INT8 is stated on the others.",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="SET.npz",
    help="The set that INT8 is calibrated with, from cycleisp calibrate set.",
)
@click.option(
    "--method",
    type=click.Choice(["percentile", "minmax", "entropy", "modelopt"]),
    default="percentile",
    show_default=True,
    help="How the range of INT8 comes of the calibration set; modelopt is NVIDIA's, if installed.",
)
@click.option(
    "--max-loss-db",
    type=click.FloatRange(0, min_open=True),
    default=0.2,
    show_default=True,
    help="What INT8 may lose at any noise level; as few layers as that needs stay FP16.",
)
@click.option(
    "--qat",
    "fine_tuning_steps",
    type=click.IntRange(min=1),
    metavar="STEPS",
    help="Fine-tune the weights of INT8 for so many steps on what the run learned from; edge "
    "networks only.",
)
@click.option("--force", is_flag=True, help="Replace a bundle that exists.")
def export_bundle(
    model: Path,
    output: Path,
    data: str,
    data_license: str,
    license_name: str | None,
    quality: Path | None,
    precisions: tuple[LowerPrecision, ...],
    photographs: Path | None,
    calibration: Path | None,
    method: RangeMethod,
    max_loss_db: float,
    fine_tuning_steps: int | None,
    force: bool,
) -> None:
    """Export the denoiser MODEL as a bundle for the runtime.

    MODEL is the folder of a run of cycleisp train, or a file NAME.safetensors of such a run or of
    cycleisp weights import; for RAW or sRGB, of any size.

    The graph is compared with the torch network, the context that tiles need and the loss of each
    precision are measured first; nothing is written where a check fails.

    cycleisp export explain BUNDLE tells which layer makes a precision bad.
    """
    from cycleisp_export.fine_tuning import FineTuning
    from cycleisp_export.package import Origin, export_model
    from cycleisp_export.precisions import LowerPrecisions

    run = model if model.is_dir() else model.parent
    lower = LowerPrecisions(
        precisions,
        calibration,
        method,
        max_loss_db,
        progress=lambda sentence: click.echo(sentence, err=True),
        fine_tuning=None if fine_tuning_steps is None else FineTuning(run, fine_tuning_steps),
    )
    with progress_of_phases() as watch:
        exported = export_model(
            model,
            output,
            origin=Origin(data, data_license, license_name),
            quality=quality,
            photographs=photographs,
            force=force,
            lower=lower if precisions else None,
            watch=watch,
        )
    record = exported.bundle.record
    halo = record.halo
    click.echo(
        f"{output}: {record.parameters} parameters, {record.kmac_per_sample} kMAC per sample"
    )
    click.echo(f"largest difference from torch: {exported.parity}")
    exact = "" if halo.exact is None else f", {halo.exact} exact"
    if exported.photographs is not None:
        click.echo(f"quality: measured on {exported.photographs} photographs")
    click.echo(f"halo: {halo.for_90_db} for 90 dB, {halo.for_120_db} for 120 dB{exact}")
    if record.pooling is not None:
        click.echo(
            f"gates of every {record.pooling.decimation}th sample: tiles agree with the frame to "
            f"{record.pooling.agreement_db:.1f} dB"
        )
    for precision, file in record.precisions.items():
        if file.reduction is not None:
            click.echo(f"{precision} loses {file.reduction.loss_in_words()}")


export = DefaultGroup(export_bundle, explain)
