"""``cycleisp info``: what the reader understood of a frame, what is known of a model or engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from cycleisp_runtime.cli import report_error
from cycleisp_runtime.errors import CycleISPError
from cycleisp_runtime.text import printable

if TYPE_CHECKING:
    from cycleisp_runtime.describe import BundleFacts, EngineFacts, EstimateFacts, FrameFacts
    from cycleisp_runtime.engines.gpu import Gpu
    from cycleisp_runtime.frame import Exposure
    from cycleisp_runtime.noise import NoiseModel

__all__ = ["info"]


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per file.")
def info(files: tuple[str, ...], as_json: bool) -> None:
    """Show what a RAW file, a model or an engine says.

    A model is the folder of a bundle or the name of a shipped one; an engine is a file that
    cycleisp build put into the cache. Exits with 1 if any FILE could not be read; the others are
    shown all the same.
    """
    import msgspec

    from cycleisp_runtime.describe import describe

    failed = False
    for file in files:
        try:
            facts = describe(file)
        except CycleISPError as error:
            report_error(str(error))
            failed = True
            if as_json:
                facts_of_failure = {"file": printable(file), "error": printable(error)}
                click.echo(msgspec.json.encode(facts_of_failure).decode())
            continue
        if as_json:
            click.echo(msgspec.json.encode(facts).decode())
            continue
        click.echo(facts.file)
        for label, text in _rows(facts):
            click.echo(f"  {label:<15} {printable(text)}")
    if failed:
        raise click.exceptions.Exit(1)


def _rows(facts: FrameFacts | BundleFacts | EngineFacts) -> Iterator[tuple[str, str]]:
    from cycleisp_runtime.describe import BundleFacts, FrameFacts

    if isinstance(facts, FrameFacts):
        return _frame_rows(facts)
    return _bundle_rows(facts) if isinstance(facts, BundleFacts) else _engine_rows(facts)


def _frame_rows(facts: FrameFacts) -> Iterator[tuple[str, str]]:
    width, height = facts.size
    top, left, *_ = facts.area
    stored_width, stored_height = facts.stored_size
    yield "camera", facts.camera or "unknown"
    yield (
        "picture",
        f"{width}x{height} {facts.cfa} at ({left}, {top}) of {stored_width}x{stored_height} stored",
    )
    varies = f" and more along {' and '.join(facts.black_varies)}" if facts.black_varies else ""
    yield (
        "levels",
        f"black {_numbers(facts.black)}{varies}, white {facts.white:g}, from {facts.levels_from}",
    )
    yield "white balance", _numbers(facts.white_balance) if facts.white_balance else "none usable"
    yield "colour matrix", "; ".join(map(_numbers, facts.color_matrix or [])) or "none"
    yield "orientation", str(facts.orientation)
    yield "exposure", _exposure(facts.exposure) or "unknown"
    yield "noise profile", _noise(facts.noise_profile) if facts.noise_profile else "none"
    yield "noise estimate", _estimate(facts.noise_estimate)
    for warning in (*facts.warnings, *facts.noise_estimate.warnings):
        yield "warning", warning


def _bundle_rows(facts: BundleFacts) -> Iterator[tuple[str, str]]:
    record = facts.record
    yield "model", f"{record.name}, {record.task}: {record.description}"
    yield "licence", record.license
    yield "hash", facts.sha256
    yield "size", f"{record.parameters} parameters, {record.kmac_per_sample:g} kMAC per sample"
    halo = record.halo
    exact = "never exact" if halo.exact is None else f"exact with {halo.exact}"
    yield "halo", f"{halo.for_90_db} for 90 dB, {halo.for_120_db} for 120 dB, {exact}"
    if record.noise_range is not None:
        yield "noise range", str(record.noise_range)
    for precision, file in record.precisions.items():
        yield precision, f"{file.file}, {file.bytes} bytes, runs on {', '.join(file.runs_on)}"
        if file.reduction is not None:
            yield f"{precision} loses", file.reduction.loss_in_words()
            for layer, reason in file.reduction.kept.items():
                yield f"{precision} keeps", f"{layer} at {reason}"
    made = record.provenance
    yield "trained on", f"{made.data} ({made.data_license})"
    yield "trained for", f"{made.steps} steps, {made.hours:g} hours, until {made.date}"
    for level in record.quality:
        others = "".join(f", {name} {db:.2f}" for name, db in level.baselines_db.items())
        gained = f"{level.noisy_db:.2f} -> {level.denoised_db:.2f} dB{others}"
        if level.shot is None:
            yield level.level, gained
        else:
            yield f"{level.level} noise", f"shot {level.shot:g}: {gained}"


def _engine_rows(facts: EngineFacts) -> Iterator[tuple[str, str]]:
    manifest = facts.manifest
    key = manifest.key
    yield "model", f"{manifest.model}, {key.precision}"
    yield "built by", f"{key.package} {key.version} in {manifest.seconds:.1f} s; {key.settings}"
    yield "for", _gpu(key.gpu)
    shapes = key.shapes
    sizes = ("{}x{}".format(*shape) for shape in (shapes.least, shapes.usual, shapes.most))
    yield "tiles", "{0} to {2}, fast for {1} (rows x columns)".format(*sizes)
    most = manifest.activation_bytes
    yield "memory", f"{manifest.bytes} bytes, {most or 'unknown'} more for the largest tile"
    for layer in manifest.layers:
        yield layer.kind, f"{_words(layer.inputs)} -> {_words(layer.outputs)}: {layer.name}"


def _gpu(gpu: Gpu | None) -> str:
    if gpu is None:
        return "any GPU that the package runs on"
    capability = "{}.{}".format(*gpu.compute_capability)
    return f"{gpu.name} ({capability}, {gpu.multiprocessors} multiprocessors), {gpu.driver}"


def _words(datatypes: tuple[str, ...]) -> str:
    return " ".join(datatypes) or "-"


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def _noise(model: NoiseModel) -> str:
    return f"shot {_numbers(model.shot)}, read {_numbers(model.read)} (R, Gr, Gb, B)"


def _estimate(estimate: EstimateFacts) -> str:
    if estimate.model is None:
        return f"none: {estimate.problem}"
    shot, read = estimate.model.mean_shot, estimate.model.mean_read
    return f"shot {shot:.3g}, read {read:.3g}, {estimate.confidence} confidence"


def _exposure(exposure: Exposure) -> str:
    known = (
        ("ISO {:g}", exposure.iso),
        ("{:.6g} s", exposure.shutter_s),
        ("f/{:g}", exposure.aperture),
        ("{:g} mm", exposure.focal_length_mm),
        ("bias {:+g} EV", exposure.bias_ev),
        ("{}", exposure.taken),
    )
    return ", ".join(text.format(value) for text, value in known if value is not None)
