"""A report as one HTML page with charts, which needs no network."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

from cycleisp_runtime.bench.record import Report
from cycleisp_runtime.bench.tables import (
    Table,
    energy_table,
    latency_table,
    machine_facts,
    notes,
    phase_names,
    phase_table,
    warnings,
)
from cycleisp_runtime.charts import Series, bar_chart, line_chart
from cycleisp_runtime.html_page import html_page

__all__ = ["report_page"]

MOST_POINTS = 500
"""Of one line: more than a screen shows."""


def report_page(report: Report) -> str:
    """The page: facts, tables, warnings, latency, phases, memory, sensors over time."""
    doubts = warnings(report)
    parts = [
        _list(f"{name}: {text}" for name, text in machine_facts(report).items()),
        _html_table(latency_table(report)),
        _list(notes(report)),
        *(["<h2>Warnings</h2>", _list(doubts)] if doubts else []),
        "<h2>Latency</h2>",
        _latency_chart(report),
        "<h2>Where the time goes</h2>",
        _phase_chart(report),
        _html_table(phase_table(report)),
        "<h2>Memory</h2>",
        _memory_chart(report),
    ]
    energy = energy_table(report)
    if energy.rows:
        parts += ["<h2>Energy</h2>", _html_table(energy)]
    parts += _sensor_charts(report)
    return html_page(f"cycleisp bench: {report.model.name}", "\n".join(parts))


def _latency_chart(report: Report) -> str:
    series = []
    for each in report.measured:
        ms = sorted(sample.seconds * 1e3 for sample in each.samples)
        points = [(value, (rank + 1) / len(ms)) for rank, value in enumerate(ms)]
        series.append(Series(str(each.configuration), _thinned(points)))
    return line_chart(
        "Share of frames that took no longer", series, x_label="ms per frame", y_label="share"
    )


def _phase_chart(report: Report) -> str:
    labels = [str(each.configuration) for each in report.measured]
    phases = {
        name: [each.summary.phases_ms.get(name, 0.0) for each in report.measured]
        for name in phase_names(report)
    }
    return bar_chart("Mean time by phase", labels, phases, x_label="ms per frame")


def _memory_chart(report: Report) -> str:
    labels = [str(each.configuration) for each in report.measured]
    series = {
        name: [math.nan if size is None else size / 1e6 for size in sizes]
        for name, sizes in {
            "process": [each.peak_host_bytes for each in report.measured],
            "GPU": [each.device_bytes for each in report.measured],
        }.items()
        if any(size is not None for size in sizes)
    }
    return bar_chart("Peak memory, one process per configuration", labels, series, x_label="MB")


def _sensor_charts(report: Report) -> list[str]:
    charts = []
    for title, unit in (("Power", "watts"), ("Temperature", "celsius"), ("Clocks", "mhz")):
        values = [(reading.at_s, getattr(reading, unit)) for reading in report.readings]
        names = sorted({name for _, found in values for name in found})
        series = [
            Series(name, _thinned([(at, found[name]) for at, found in values if name in found]))
            for name in names
        ]
        if series:
            charts.append(line_chart(title, series, x_label="s", y_label=unit))
    return charts


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most about ``MOST_POINTS`` of them, the last one included."""
    step = math.ceil(len(points) / MOST_POINTS)
    return [*points[:-1:step], *points[-1:]] if step > 1 else points


def _list(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in table.headers)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in table.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
