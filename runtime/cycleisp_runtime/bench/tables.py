"""A report as tables of text, for the terminal and for pages; and sample by sample as CSV."""

from __future__ import annotations

import csv
import io
from typing import NamedTuple

import msgspec

from cycleisp_runtime.bench.record import Drift, Measured, Report

__all__ = [
    "Table",
    "energy_table",
    "latency_table",
    "machine_facts",
    "notes",
    "phase_names",
    "phase_table",
    "samples_csv",
    "warnings",
]


class Table(NamedTuple):
    """Texts: the first column names the row, the others hold numbers."""

    headers: list[str]
    rows: list[list[str]]


def latency_table(report: Report) -> Table:
    """A row per configuration: milliseconds per frame, speed, operations, memory."""
    headers = ["configuration", "n", "mean ms", "p50", "p90", "p95", "p99", "MP/s"]
    headers += ["TOP/s", "of peak", "host MB", "GPU MB"]
    return Table(headers, [_latency_row(each) for each in report.measured])


def phase_table(report: Report) -> Table:
    """A row per configuration: mean milliseconds per frame by phase."""
    phases = phase_names(report)
    rows = [
        [str(each.configuration), *(f"{each.summary.phases_ms.get(p, 0.0):.1f}" for p in phases)]
        for each in report.measured
    ]
    return Table(["mean ms", *phases], rows)


def phase_names(report: Report) -> list[str]:
    """Phases of all configurations, in the order in which a frame passes them."""
    return list(dict.fromkeys(name for each in report.measured for name in each.summary.phases_ms))


def energy_table(report: Report) -> Table:
    """A row per configuration and power sensor; no rows where nothing measures power."""
    return Table(
        ["configuration", "sensor", "W", "idle W", "J/MP", "J/MP above idle", "readings"],
        [
            [
                str(each.configuration),
                energy.sensor,
                f"{energy.watts:.2f}",
                "" if energy.idle_watts is None else f"{energy.idle_watts:.2f}",
                f"{energy.joules_per_mp:.3f}",
                ""
                if energy.idle_watts is None
                else f"{energy.joules_per_mp * (1 - energy.idle_watts / energy.watts):.3f}",
                str(energy.readings),
            ]
            for each in report.measured
            for energy in each.energy
        ],
    )


def machine_facts(report: Report) -> dict[str, str]:
    """What was measured, on what, by name; without what is not known."""
    machine, gpu = report.machine, report.machine.gpu
    mp = ", ".join(f"{frame.name} ({frame.mp:.3g} MP)" for frame in report.frames)
    facts = {
        "model": f"{report.model.name}, bundle {report.model.sha256[:12]}, "
        f"{report.model.kmac_per_sample} kMAC per sample",
        "frames": f"{mp}, {'file to file' if report.end_to_end else 'from memory to memory'}",
        "board": machine.board and f"{machine.board}, L4T {machine.l4t or 'unknown'}",
        "CPU": f"{machine.cpu}, {machine.cores} cores",
        "GPU": gpu and f"{gpu.name}, {gpu.multiprocessors} multiprocessors, {gpu.driver}",
        "power mode": machine.power_mode,
        "governor": machine.governor,
        "system": f"{machine.architecture}, {machine.kernel}",
        "versions": ", ".join(f"{name} {what}" for name, what in machine.versions.items()),
        "date": report.created,
    }
    return {name: text for name, text in facts.items() if text}


def notes(report: Report) -> list[str]:
    """How to read the figures, and what came of a soak, a sentence each."""
    protocol = (
        "Wall time per frame, warm-up left out; configurations took turns in random order; "
        "percentiles on the line between samples (numpy linear)."
    )
    sources = dict.fromkeys(
        f"{each.configuration.precision} {each.summary.peak_tops:.3g} TOP/s, "
        f"{each.summary.peak_source}"
        for each in report.measured
        if each.summary.peak_tops is not None
    )
    lines = [protocol, *(f"Peak: {source}." for source in sources)]
    drifts = [
        f"{each.configuration}: {_drift_in_words(each.drift)}"
        for each in report.measured
        if each.drift is not None
    ]
    hottest = max((max(each.celsius.values(), default=0) for each in report.readings), default=0)
    if drifts and hottest:
        before = max(report.readings[0].celsius.values(), default=0)
        drifts.append(f"Hottest sensor: {before:.1f} C at the beginning, {hottest:.1f} C at most.")
    return [*lines, *drifts]


def warnings(report: Report) -> list[str]:
    """What makes the figures doubtful, and what the denoiser said of frames, each once."""
    of_frames = [text for each in report.measured for text in each.warnings]
    return list(dict.fromkeys([*report.warnings, *of_frames]))


def samples_csv(report: Report) -> str:
    """A row per sample, with its configuration and the seconds of its steps."""
    rows = [
        {
            **msgspec.structs.asdict(each.configuration),
            "frame": report.frames[sample.frame].name,
            "mp": report.frames[sample.frame].mp,
            "begin_s": sample.begin_s,
            "seconds": sample.seconds,
            "resident_bytes": sample.resident_bytes,
            **{f"{step}_s": seconds for step, seconds in sample.steps.items()},
        }
        for each in report.measured
        for sample in each.samples
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _drift_in_words(drift: Drift) -> str:
    memory = drift.memory_mb_per_1000_frames
    slope = "not known" if memory is None else f"{memory:+.2f} MB per 1,000 frames"
    return (
        f"median latency of the last fifth {drift.latency_ratio:.3f} times that of the first "
        f"(95 %: {drift.latency_low:.3f} to {drift.latency_high:.3f}), p99 {drift.p99_ratio:.3f} "
        f"times; memory {slope}."
    )


def _latency_row(each: Measured) -> list[str]:
    facts, ms = each.summary, each.summary.latency_ms
    share = None if facts.tops is None or facts.peak_tops is None else facts.tops / facts.peak_tops
    return [
        str(each.configuration),
        str(ms.n),
        *(f"{value:.1f}" for value in (ms.mean, ms.p50, ms.p90, ms.p95, ms.p99)),
        f"{facts.mp_per_s:.2f}",
        "" if facts.tops is None else f"{facts.tops:.3f}",
        "" if share is None else f"{share:.0%}",
        *(
            "" if size is None else f"{size / 1e6:.0f}"
            for size in (each.peak_host_bytes, each.device_bytes)
        ),
    ]
