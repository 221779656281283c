"""``cycleisp build``: a bundle's network becomes a TensorRT engine in the cache."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from cycleisp_runtime.cli import report_warning
from cycleisp_runtime.cli.progress import progress_of_phases
from cycleisp_runtime.errors import CycleISPError

if TYPE_CHECKING:
    from cycleisp_runtime.bundle import Precision
    from cycleisp_runtime.engines.build import BuildOutcome
    from cycleisp_runtime.engines.key import TileShapes

__all__ = ["build"]


def _tile_shapes(
    _ctx: click.Context, _param: click.Parameter, value: str | None
) -> TileShapes | None:
    """MIN,OPT,MAX as TileShapes."""
    if value is None:
        return None
    from cycleisp_runtime.engines.key import TileShapes

    try:
        return TileShapes.parse(value)
    except CycleISPError as error:
        raise click.BadParameter(error.reason) from error


@click.command()
@click.argument("bundle")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    required=True,
    help="Which of the bundle's networks.",
)
@click.option(
    "--shapes",
    metavar="MIN,OPT,MAX",
    callback=_tile_shapes,
    help="Tiles that the engine accepts, such as 64,512,512 or 64x64,384x512,384x512 (rows x "
    "columns, in packed samples for RAW); made fast for OPT, with memory for MAX. By default all "
    "up to the denoiser's own.",
)
@click.option(
    "--workspace",
    type=click.IntRange(min=1),
    metavar="MIB",
    help="Memory of the GPU that TensorRT may try kernels with; all of it by default.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def build(
    bundle: str,
    precision: Precision,
    shapes: TileShapes | None,
    workspace: int | None,
    as_json: bool,
) -> None:
    """Build the TensorRT engine of BUNDLE for the GPU of this machine.

    BUNDLE is the name of a shipped model or the path of a bundle. The engine is kept in the cache,
    and built again only when something changed that it depends on.
    """
    import msgspec

    from cycleisp_runtime.bundle import find_bundle
    from cycleisp_runtime.engines.build import build_engine

    found = find_bundle(bundle)
    with progress_of_phases() as progress:
        outcome = build_engine(
            found, precision, shapes=shapes, workspace_mib=workspace, progress=progress
        )
    for warning in outcome.warnings:
        report_warning(f"not taken from the cache: {warning}")
    click.echo(msgspec.json.encode(outcome).decode() if as_json else _line(outcome))


def _line(outcome: BuildOutcome) -> str:
    manifest = outcome.manifest
    key = manifest.key
    inputs = Counter(layer.inputs[0] for layer in manifest.layers if layer.inputs)
    layers = ", ".join(f"{count} {datatype}" for datatype, count in inputs.most_common())
    how = "found in the cache" if outcome.from_cache else f"built in {manifest.seconds:.1f} s"
    return (
        f"{manifest.model} {key.precision} -> {outcome.engine}: {key.package} {key.version} for "
        f"{key.gpu.name if key.gpu else 'any GPU'}, {manifest.bytes} bytes, "
        f"layers by input: {layers or 'not told'}; {how}"
    )
