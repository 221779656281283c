"""``cycleisp export``: a training run to a bundle."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["export"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="NAME.bundle")
@click.option("--data", required=True, help="What it was trained on, for the card.")
@click.option("--data-license", required=True, help="The licence of that data.")
@click.option("--quality", type=click.Path(path_type=Path), help="Figures of benchmarks/quality.py.")
@click.option("--force", is_flag=True, help="Replace a bundle that exists.")
def export(
    run: Path, output: Path, data: str, data_license: str, quality: Path | None, force: bool
) -> None:
    """Export the network of the training folder RUN as a bundle."""
    from cycleisp_export.package import export_run

    exported = export_run(
        run, output, data=data, data_license=data_license, quality=None, force=force
    )
    record = exported.bundle.record
    halo = record.halo
    click.echo(f"{output}: {record.parameters} parameters, {record.kmac_per_sample} kMAC per sample")
    click.echo(f"largest difference from torch: {exported.parity:.1e} of the noise")
    click.echo(f"halo: {halo.for_90_db} for 90 dB, {halo.for_120_db} for 120 dB, {halo.exact} exact")
