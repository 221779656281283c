"""``cycleisp stream``: frames of a camera, a pipeline or a recording, denoised as they come."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

import click

from cycleisp_runtime.cli import report_warning
from cycleisp_runtime.cli.layout_option import dump_layout
from cycleisp_runtime.cli.model_options import ModelOptions, model_options
from cycleisp_runtime.cli.noise_option import noise_model
from cycleisp_runtime.errors import InputError

if TYPE_CHECKING:
    from cycleisp_runtime.noise import NoiseModel
    from cycleisp_runtime.readers import DumpLayout
    from cycleisp_runtime.stream import Policy, Stream, StreamStatistics

__all__ = ["stream"]

_REFRESH_S = 0.25


@click.command()
@click.argument("source")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="SINK",
    help="A folder, for DNGs; a file in .raw, for 16-bit frames one behind the other; "
    "'gst:PIPELINE' without a source; or none.",
)
@click.option("--force", is_flag=True, help="Replace outputs that exist.")
@click.option(
    "--layout",
    metavar="TEXT",
    callback=dump_layout,
    help="How frames lie in memory, for cameras, pipelines and recordings: width=768, height=512, "
    "cfa=RGGB, packing=mipi10, black=64, and bits, white, stride, offset if need be; one text, no "
    "spaces. A Jetson's V4L2 frames have packing=high16le, which needs bits.",
)
@click.option("--frames", type=click.IntRange(min=1), metavar="N", help="Stop after so many.")
@click.option(
    "--policy",
    type=click.Choice(["block", "drop-oldest"]),
    default="block",
    show_default=True,
    help="Where the denoiser is slower than the source: the source waits, or the oldest frame that "
    "waits is dropped.",
)
@click.option(
    "--depth",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    metavar="N",
    help="Frames that may wait.",
)
@click.option(
    "--model",
    default="edge",
    show_default=True,
    metavar="BUNDLE",
    help="The name of a shipped model, or the path of a bundle.",
)
@click.option(
    "--noise",
    metavar="SHOT,READ",
    callback=noise_model,
    help="variance = SHOT x + READ, in units of the normalised signal. By default what the frames "
    "declare, else an estimate from the first.",
)
@click.option(
    "--noise-every",
    type=click.IntRange(min=1),
    metavar="N",
    help="Estimate the noise anew every N frames.",
)
@click.option(
    "--strength",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Share of the model's correction, of what is expected to help the frame.",
)
@click.option(
    "--keep-levels", is_flag=True, help="Write at the source's levels instead of all 16 bits."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@model_options
def stream(
    options: ModelOptions,
    source: str,
    output: str,
    force: bool,
    layout: DumpLayout | None,
    frames: int | None,
    policy: Policy,
    depth: int,
    model: str,
    noise: NoiseModel | None,
    noise_every: int | None,
    strength: float,
    keep_levels: bool,
    as_json: bool,
) -> None:
    """Denoise the frames of SOURCE as they come.

    SOURCE is a folder of RAW files, a recording of packed frames, a V4L2 device such as
    /dev/video0, or 'gst:PIPELINE' without a sink. Ctrl-C ends a stream; what was written stays.
    """
    import msgspec

    from cycleisp_runtime.sinks.choice import open_sink
    from cycleisp_runtime.sinks.files import packed_layout
    from cycleisp_runtime.sources.choice import open_source

    taken = open_source(source, layout)
    ended_by: BaseException | None = None
    warned: set[str] = set()
    layout_out = None
    with (
        options.load(model) as denoiser,
        open_sink(output, source=source, force=force) as write,
        denoiser.stream(
            taken,
            depth=depth,
            policy=policy,
            noise=noise,
            noise_every=noise_every,
            strength=strength,
            keep_levels=keep_levels,
        ) as results,
        _live_line(results) as refresh,
    ):
        try:
            for result in islice(results, frames):
                write(result)
                layout_out = layout_out or packed_layout(result.frame)
                for warning in result.warnings:
                    if warning not in warned:
                        report_warning(f"{source}: {warning}")
                        warned.add(warning)
                refresh()
        except (InputError, KeyboardInterrupt) as error:
            if layout_out is None:
                raise  # so that no empty file is left behind
            ended_by = error
    statistics = results.statistics
    if as_json:
        used = results.noise
        summary = {
            "source": source,
            "output": output,
            "model": denoiser.bundle.record.name,
            "backend": denoiser.backend.name,
            "precision": denoiser.backend.precision,
            "layout": layout_out,
            "noise": None
            if used is None
            else {
                "source": used.source,
                "shot": used.model.mean_shot,
                "read": used.model.mean_read,
            },
            "statistics": statistics,
            "warnings": sorted(warned),
            "error": None if ended_by is None else str(ended_by) or "interrupted",
        }
        click.echo(msgspec.json.encode(summary).decode())
    else:
        click.echo(f"{source} -> {output}: {_words(statistics)}")
    if ended_by is not None:
        raise ended_by


def _words(statistics: StreamStatistics) -> str:
    p50, p99 = statistics.latency_p50_ms, statistics.latency_p99_ms
    rate = "" if statistics.fps is None else f", {statistics.fps:.1f} fps"
    latency = "" if p50 is None else f", latency {p50:.0f} ms, p99 {p99:.0f} ms"
    return (
        f"{statistics.frames} frames{rate}{latency}, "
        f"{statistics.dropped} dropped, {statistics.lost} lost"
    )


@contextmanager
def _live_line(results: Stream) -> Iterator[Callable[[], None]]:
    """A line on stderr that says how the stream fares, where someone watches; call it at will."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    shown = -_REFRESH_S

    def refresh() -> None:
        nonlocal shown
        if time.monotonic() - shown > _REFRESH_S:
            shown = time.monotonic()
            click.echo(f"{_words(results.statistics)}\x1b[K\r", err=True, nl=False)

    yield refresh
    click.echo(err=True)
