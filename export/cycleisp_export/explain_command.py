"""``cycleisp export explain``: the layer from which a bundle's lower precision departs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cycleisp_runtime.bundle import Precision

__all__ = ["explain"]


@click.command()
@click.argument("bundle")
@click.option(
    "--precision",
    type=click.Choice(["fp16", "int8", "int8-cpu"]),
    default="int8",
    show_default=True,
    help="What is compared with FP32.",
)
@click.option(
    "--below",
    "threshold_db",
    type=float,
    default=5.0,
    show_default=True,
    metavar="DB",
    help="A layer under this SNR departs from FP32. A step that is far off leaves 0 to 5 dB. In "
    "the shipped tiny and edge, which lose less than 0.1 dB, almost all layers have 5 to 45 dB in "
    "INT8, and all have 53 or more in FP16.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object; a layer that is equal has null."
)
def explain(bundle: str, precision: Precision, threshold_db: float, as_json: bool) -> None:
    """Name the first layer of BUNDLE whose output departs from that of FP32.

    BUNDLE is a folder or the name of a shipped model. Every layer's SNR is measured on made-up
    frames at low, middle and high noise, with the types that the file states. All that feeds the
    layer that is named still has the SNR asked for.
    """
    import msgspec

    from cycleisp_export.explain import explain as layers_of
    from cycleisp_export.layer_snr import first_below
    from cycleisp_runtime.bundle import find_bundle
    from cycleisp_runtime.text import printable

    layers = layers_of(find_bundle(bundle), precision)
    departs = first_below(layers, threshold_db)
    if as_json:
        facts = {"precision": precision, "below_db": threshold_db, "departs": departs}
        click.echo(msgspec.json.encode({**facts, "layers": layers}).decode())
        return
    width = max(len(printable(layer.name)) for layer in layers)
    for layer in layers:
        snr = "  equal" if layer.snr_db is None else f"{layer.snr_db:7.2f} dB"
        mark = "  <- departs" if layer is departs else ""
        click.echo(f"{printable(layer.name):<{width}}  {layer.kind:<13}  {layer.type}  {snr}{mark}")
    if departs is None:
        click.echo(f"no layer is below {threshold_db:g} dB")
    else:
        click.echo(f"first below {threshold_db:g} dB: {printable(departs.name)}")
