"""``cycleisp bench``: how fast, with how much memory and power; and what became slower."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from cycleisp_runtime.cli import report_warning
from cycleisp_runtime.cli.default_group import DefaultGroup
from cycleisp_runtime.errors import CycleISPError
from cycleisp_runtime.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cycleisp_runtime.bench.compare import Change
    from cycleisp_runtime.bench.record import Report
    from cycleisp_runtime.bench.tables import Table
    from cycleisp_runtime.bundle import Precision

__all__ = ["bench"]

_T = TypeVar("_T")

WIDTH_OF_A_FILE = 180
"""Columns of a table that goes to a file or another program, where nothing wraps."""

MOST_SAMPLES = 500_000_000
"""More than any camera's frame; 1 GB of RAW."""

MOST_MINUTES = 7 * 24 * 60
"""Of a soak: a week."""

_REPORT = click.Path(path_type=Path)


def _each(read: Callable[[str], _T]) -> Callable[..., tuple[_T | None, ...]]:
    """A callback of click for values with commas between them; (None,) where none was given."""

    def values(
        _ctx: click.Context, _param: click.Parameter, text: str | None
    ) -> tuple[_T | None, ...]:
        if text is None:
            return (None,)
        try:
            return tuple(read(word) for word in text.split(","))
        except CycleISPError as error:
            raise click.BadParameter(error.reason) from error

    return values


def _count(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise click.BadParameter(f"{word!r} is not a number from 1 on")
    return int(word)


def _bytes(word: str) -> int:
    from cycleisp_runtime.memory import parse_memory

    return parse_memory(word)


def _precision(word: str) -> str:
    if word not in ("fp32", "fp16", "int8", "int8-cpu"):
        raise click.BadParameter(f"{word!r} is not fp32, fp16, int8 or int8-cpu")
    return word


def _size(_ctx: click.Context, _param: click.Parameter, text: str) -> tuple[int, int]:
    words = text.partition("x")
    width, height = _count(words[0]), _count(words[2])
    if width * height > MOST_SAMPLES:
        raise click.BadParameter(f"{text!r} is more than {MOST_SAMPLES // 10**6} megapixels")
    return width, height


@click.command("bench")
@click.argument("bundle")
@click.option(
    "--frames",
    multiple=True,
    metavar="FILE",
    help="A RAW file (for a model of rendered pictures, a picture), folder or pattern, as often as "
    "you like: each file is read, denoised and written every time. By default something synthetic "
    "in memory.",
)
@click.option(
    "--size",
    default="4000x3000",
    show_default=True,
    metavar="WxH",
    callback=_size,
    help="Of what is synthetic.",
)
@click.option(
    "--backend",
    "backends",
    default="auto",
    show_default=True,
    metavar="NAME,...",
    callback=_each(str),
    help="What runs the network: onnxruntime, openvino, tensorrt, identity; auto takes the best.",
)
@click.option(
    "--precision",
    "precisions",
    metavar="fp32,...",
    callback=_each(_precision),
    help="Which of the model's networks; the best that the backend runs by default.",
)
@click.option(
    "--tile",
    "tiles",
    metavar="N,...",
    callback=_each(_count),
    help="Side of a tile in packed samples, or pixels.",
)
@click.option(
    "--batch",
    "batches",
    metavar="N,...",
    callback=_each(_count),
    help="Tiles in one run of the network, where memory allows; the backend's own by default.",
)
@click.option(
    "--memory",
    "budgets",
    metavar="SIZE,...",
    callback=_each(_bytes),
    help="Memory for everything but the frames, such as 512MiB: it chooses the tile.",
)
@click.option(
    "--threads",
    metavar="N,...",
    callback=_each(_count),
    help="Threads of the network; one per physical core by default.",
)
@click.option("--warmup", type=click.IntRange(min=0), default=2, show_default=True, metavar="N")
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    metavar="N",
    help="Rounds after the warm-up; in each, every configuration denoises every frame.",
)
@click.option(
    "--soak",
    type=click.FloatRange(0, MOST_MINUTES, min_open=True),
    metavar="MINUTES",
    help="Rounds for this long instead: how latency and memory drift.",
)
@click.option("--json", "json_file", type=_REPORT, help="Write all samples and figures.")
@click.option("--csv", "csv_file", type=_REPORT, help="Write a row per sample.")
@click.option("--html", "html_file", type=_REPORT, help="Write a page with charts.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
def measure(
    bundle: str,
    frames: tuple[str, ...],
    size: tuple[int, int],
    backends: tuple[str, ...],
    precisions: tuple[Precision | None, ...],
    tiles: tuple[int | None, ...],
    batches: tuple[int | None, ...],
    budgets: tuple[int | None, ...],
    threads: tuple[int | None, ...],
    warmup: int,
    runs: int,
    soak: float | None,
    json_file: Path | None,
    csv_file: Path | None,
    html_file: Path | None,
    force: bool,
) -> None:
    """Measure latency, memory and power of BUNDLE, a shipped model's name or a bundle's path.

    Where an option holds several values with commas between them, all their combinations take turns
    in one run. "cycleisp bench compare A.json B.json" tells what became slower between two runs.
    """
    import msgspec
    import numpy as np

    from cycleisp_runtime.bench.measure import Plan, run_benchmark
    from cycleisp_runtime.bench.page import report_page
    from cycleisp_runtime.bench.record import Configuration
    from cycleisp_runtime.bench.sensors import find_sensors
    from cycleisp_runtime.bench.tables import samples_csv
    from cycleisp_runtime.bundle import find_bundle
    from cycleisp_runtime.jobs import RAW_SUFFIXES, find_inputs
    from cycleisp_runtime.picture_files import PICTURE_SUFFIXES
    from cycleisp_runtime.writers.atomic import atomic_output, check_output

    outputs: list[tuple[Path | None, Callable[[Report], bytes]]] = [
        (json_file, msgspec.json.encode),
        (csv_file, lambda report: samples_csv(report).encode()),
        (html_file, lambda report: report_page(report).encode()),
    ]
    for path, _ in outputs:
        if path is not None:
            check_output(path, source=None, force=force)
    of_pictures = find_bundle(bundle).record.task == "srgb"
    suffixes = PICTURE_SUFFIXES if of_pictures else RAW_SUFFIXES
    plan = Plan(
        bundle,
        tuple(
            Configuration(backend, precision, None, tile, batch, memory, count)
            for backend, precision, tile, batch, memory, count in product(
                backends, precisions, tiles, batches, budgets, threads
            )
        ),
        files=tuple(find_inputs(frames, suffixes=suffixes)),
        size=size,
        warmup=warmup,
        runs=runs,
        soak_seconds=None if soak is None else 60 * soak,
    )
    with _progress() as progress:
        report = run_benchmark(plan, find_sensors(), np.random.default_rng(0), progress)
    _show(report)
    for path, encoded in outputs:
        if path is not None:
            with atomic_output(path, source=None, force=force) as file:
                file.write(encoded(report))


@click.command()
@click.argument("before", type=_REPORT, metavar="A.json")
@click.argument("after", type=_REPORT, metavar="B.json")
@click.option(
    "--threshold",
    type=click.FloatRange(min=0),
    default=0.05,
    show_default=True,
    help="How much slower counts, as a share.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of the changes.")
def compare(before: Path, after: Path, threshold: float, as_json: bool) -> None:
    """Tell what became slower from report A to report B, of the same machine, model and frames.

    Exits with 1 where one is slower by more than the threshold, with a confidence of 95 %.
    """
    import msgspec
    import numpy as np

    from cycleisp_runtime.bench.compare import compare_reports
    from cycleisp_runtime.bench.record import read_report

    reports = read_report(before), read_report(after)
    changes = compare_reports(*reports, threshold=threshold, rng=np.random.default_rng(0))
    for report, name in zip(reports, (before, after), strict=True):
        for warning in report.warnings:
            report_warning(f"{name}: {warning}")
    if as_json:
        click.echo(msgspec.json.encode(changes).decode())
    else:
        _print_table(_change_table(changes, threshold))
    if any(change.regression for change in changes):
        raise click.exceptions.Exit(1)


bench = DefaultGroup(measure, compare)


def _show(report: Report) -> None:
    """Facts, tables and notes on stdout, warnings on stderr."""
    from cycleisp_runtime.bench.tables import (
        energy_table,
        latency_table,
        machine_facts,
        notes,
        phase_table,
        warnings,
    )

    for name, text in machine_facts(report).items():
        click.echo(f"{name:<12}{printable(text)}")
    for table in (latency_table(report), phase_table(report), energy_table(report)):
        if table.rows:
            _print_table(table)
    for each in report.measured:
        click.echo(
            f"{each.configuration}: {printable(each.reason)}; loaded in {each.load_seconds:.2f} s"
        )
    for line in notes(report):
        click.echo(line)
    for warning in warnings(report):
        report_warning(warning)


def _change_table(changes: list[Change], threshold: float) -> Table:
    from cycleisp_runtime.bench.tables import Table

    headers = ["configuration", "A ms/MP", "B ms/MP", "B / A", "95 % interval"]
    headers += [f"sure of > {1 + threshold:.2f}", ""]
    return Table(
        headers,
        [
            [
                str(change.configuration),
                f"{change.before_ms_per_mp:.2f}",
                f"{change.after_ms_per_mp:.2f}",
                f"{change.ratio:.3f}",
                f"{change.low:.3f} to {change.high:.3f}",
                f"{change.confidence:.1%}",
                "REGRESSION" if change.regression else "",
            ]
            for change in changes
        ],
    )


def _print_table(table: Table) -> None:
    """A table on stdout, its lines as long as it needs where nobody's terminal folds them."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=box.SIMPLE_HEAD)
    for index, header in enumerate(table.headers):
        shown.add_column(header, justify="left" if index == 0 else "right")
    for row in table.rows:
        shown.add_row(*(Text(printable(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE).print(shown)


@contextmanager
def _progress() -> Iterator[Callable[[str], object]]:
    """What runs, on stderr where it is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield lambda _configuration: None
        return

    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status("loading") as status:
        yield lambda what: status.update(Text(printable(what)))
