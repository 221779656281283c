"""``cycleisp export``: a training run to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cycleisp_export.activation_steps import CalibrationMethod
    from cycleisp_export.precisions import LowerPrecision

__all__ = ["export"]


def _listed_precisions(
    _context: click.Context, _parameter: click.Parameter, value: str
) -> tuple[str, ...]:
    """The names in a list with commas, without fp32."""
    names = value.split(",")
    unknown = set(names) - {"fp32", "fp16", "int8"}
    if unknown:
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: not fp32, fp16 or int8")
    return tuple(name for name in ("fp16", "int8") if name in names)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
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
    "--quality",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What benchmarks/quality.py --json wrote about these weights. By default the card states "
    "the run's own last validation.",
)
@click.option(
    "--precision",
    "precisions",
    default="fp32",
    show_default=True,
    callback=_listed_precisions,
    metavar="fp32,fp16,int8",
    help="What to export; FP32 is always among it.",
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
    type=click.Choice(["percentile", "minmax", "entropy"]),
    default="percentile",
    show_default=True,
    help="How the range of INT8 comes of the calibration set.",
)
@click.option(
    "--max-loss-db",
    type=click.FloatRange(0, min_open=True),
    default=0.2,
    show_default=True,
    help="What INT8 may lose at any noise level; as few layers as that needs stay FP16.",
)
@click.option("--force", is_flag=True, help="Replace a bundle that exists.")
def export(
    run: Path,
    output: Path,
    data: str,
    data_license: str,
    quality: Path | None,
    precisions: tuple[LowerPrecision, ...],
    photographs: Path | None,
    calibration: Path | None,
    method: CalibrationMethod,
    max_loss_db: float,
    force: bool,
) -> None:
    """Export the network that was trained in the folder RUN as a bundle for the runtime.

    The graph is compared with the torch network, the context that tiles need and the loss of each
    precision are measured first; nothing is written where a check fails.
    """
    from cycleisp_export.package import export_run
    from cycleisp_export.precisions import LowerPrecisions

    lower = LowerPrecisions(
        precisions,
        photographs,
        calibration,
        method,
        max_loss_db,
        progress=lambda sentence: click.echo(sentence, err=True),
    )
    exported = export_run(
        run,
        output,
        data=data,
        data_license=data_license,
        quality=quality,
        force=force,
        lower=lower if precisions else None,
    )
    record = exported.bundle.record
    halo = record.halo
    click.echo(
        f"{output}: {record.parameters} parameters, {record.kmac_per_sample} kMAC per sample"
    )
    click.echo(f"largest difference from torch: {exported.parity:.1e} of the noise")
    click.echo(
        f"halo: {halo.for_90_db} for 90 dB, {halo.for_120_db} for 120 dB, {halo.exact} exact"
    )
    for precision, file in record.precisions.items():
        if file.reduction is not None:
            click.echo(f"{precision} loses {file.reduction.loss_in_words()}")
