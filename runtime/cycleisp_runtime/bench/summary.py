"""What the samples of a configuration come to: latency, phases, operations, energy, drift."""

from __future__ import annotations

import statistics
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from cycleisp_runtime.bench.peaks import peak
from cycleisp_runtime.bench.record import (
    Configuration,
    Drift,
    Energy,
    FrameFacts,
    Machine,
    Reading,
    Sample,
    Summary,
)
from cycleisp_runtime.bench.statistics import LEAST_SAMPLES, latency, ratio_of_medians, slope

__all__ = [
    "LEAST_FOR_DRIFT",
    "OTHER",
    "clock_warnings",
    "drift",
    "energy",
    "seconds_per_mp",
    "summary",
]

PHASES = {
    "read": "decode",
    "noise": "noise",
    "levels": "pre",
    "noise scale": "pre",
    "cut": "pre",
    "upload": "upload",
    "attention": "compute",
    "network": "compute",
    "download": "download",
    "stitch": "post",
    "write": "write",
}
"""Steps as the denoiser and the batch name them. "noise" estimates it; "risk", which keeps its
name, runs the network on a few crops to tell how far its correction helps."""

OTHER = "other"
"""Between the steps: calls, tables, the benchmark itself."""

LEAST_READINGS = 3
"""Fewer power readings within a configuration's frames tell nothing of it."""

LEAST_FOR_DRIFT = 5 * LEAST_SAMPLES

THROTTLED = 0.95
"""Of the highest clock."""


def summary(
    samples: Sequence[Sample],
    frames: Sequence[FrameFacts],
    configuration: Configuration,
    machine: Machine,
    kmac_per_sample: float,
) -> Summary:
    """Figures over all samples of a configuration, of which there is at least one."""
    phases: dict[str, float] = {}
    for sample in samples:
        for step, seconds in sample.steps.items():
            phase = PHASES.get(step, step)
            phases[phase] = phases.get(phase, 0.0) + seconds
    total = sum(sample.seconds for sample in samples)
    phases[OTHER] = total - sum(phases.values())
    mp = sum(frames[sample.frame].mp for sample in samples)
    compute = phases.get("compute", 0.0)
    best = None
    if configuration.precision is not None and configuration.backend != "identity":
        best = peak(
            machine,
            configuration.precision,
            on_gpu=configuration.device == "cuda",
            threads=configuration.threads,
        )
    known = compute > 0 and configuration.backend != "identity"
    return Summary(
        latency_ms=latency([sample.seconds for sample in samples]),
        mp_per_s=mp / total,
        phases_ms={name: seconds * 1e3 / len(samples) for name, seconds in phases.items()},
        # kMAC per sample times 1e6 samples per MP is 1e9 multiply-adds.
        tops=2 * kmac_per_sample * mp * 1e9 / compute / 1e12 if known else None,
        peak_tops=None if best is None else best.tops,
        peak_source=None if best is None else best.source,
    )


def energy(
    samples: Sequence[Sample], frames: Sequence[FrameFacts], readings: Sequence[Reading]
) -> tuple[Energy, ...]:
    """What every power sensor says of a configuration, from the readings within its frames."""
    begins = [sample.begin_s for sample in samples]

    def within(at_s: float) -> bool:
        place = bisect_right(begins, at_s) - 1
        return place >= 0 and at_s <= begins[place] + samples[place].seconds

    running = [reading.watts for reading in readings if within(reading.at_s)]
    idle = [reading.watts for reading in readings if reading.at_s < 0]
    seconds_in_all = sum(sample.seconds for sample in samples)
    mp = sum(frames[sample.frame].mp for sample in samples)
    found = []
    for sensor in sorted({name for watts in running for name in watts}):
        watts = [each[sensor] for each in running if sensor in each]
        before = [each[sensor] for each in idle if sensor in each]
        if len(watts) >= LEAST_READINGS:
            mean = statistics.fmean(watts)
            found.append(
                Energy(
                    sensor=sensor,
                    watts=mean,
                    idle_watts=statistics.fmean(before) if before else None,
                    joules_per_mp=mean * seconds_in_all / mp,
                    readings=len(watts),
                )
            )
    return tuple(found)


def seconds_per_mp(samples: Sequence[Sample], frames: Sequence[FrameFacts]) -> list[float]:
    """Of every sample, so that frames of different sizes can be compared."""
    return [sample.seconds / frames[sample.frame].mp for sample in samples]


def drift(
    samples: Sequence[Sample], frames: Sequence[FrameFacts], rng: np.random.Generator
) -> Drift | None:
    """How the first fifth of the samples differs from the last; None where they are too few.

    Memory is looked at in the second half only, when pools have grown to what they need.
    """
    if len(samples) < LEAST_FOR_DRIFT:
        return None
    fifth = len(samples) // 5
    seconds = seconds_per_mp(samples, frames)
    ratio = ratio_of_medians(seconds[:fifth], seconds[-fifth:], limit=1.0, rng=rng)
    half = len(samples) // 2
    resident = [
        (index, sample.resident_bytes)
        for index, sample in enumerate(samples)
        if index >= half and sample.resident_bytes is not None
    ]
    rise = slope([index for index, _ in resident], [size for _, size in resident])
    return Drift(
        latency_ratio=ratio.ratio,
        latency_low=ratio.low,
        latency_high=ratio.high,
        p99_ratio=latency(seconds[-fifth:]).p99 / latency(seconds[:fifth]).p99,
        memory_mb_per_1000_frames=rise * 1000 / 1e6 if resident else None,
    )


def clock_warnings(machine: Machine, readings: Sequence[Reading]) -> list[str]:
    """A sentence where the GPU of a Jetson ran below the clock that its power mode allows."""
    running = [reading.mhz for reading in readings if reading.at_s >= 0]
    clocks = [mhz["GPU"] for mhz in running if "GPU" in mhz]
    if not clocks or machine.gpu_mhz is None:
        return []
    usual = statistics.median(clocks)
    if usual >= THROTTLED * machine.gpu_mhz:
        return []
    met = f"{usual:.0f} of {machine.gpu_mhz:.0f} MHz"
    return [f"the GPU ran at {met}: it was throttled, or jetson_clocks has not fixed its clocks"]
