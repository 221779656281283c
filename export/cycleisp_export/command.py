"""``cycleisp export``: a training run to a bundle."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["export"]


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
@click.option("--force", is_flag=True, help="Replace a bundle that exists.")
def export(
    run: Path, output: Path, data: str, data_license: str, quality: Path | None, force: bool
) -> None:
    """Export the network that was trained in the folder RUN as a bundle for the runtime.

    The graph is compared with the torch network and the context that tiles need is measured first;
    nothing is written where a check fails.
    """
    from cycleisp_export.package import export_run

    exported = export_run(
        run, output, data=data, data_license=data_license, quality=quality, force=force
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
