"""Reports that are made up, for what is done with reports."""

from __future__ import annotations

from collections.abc import Sequence

from cycleisp_runtime.bench.record import (
    Configuration,
    FrameFacts,
    Machine,
    Measured,
    Model,
    Reading,
    Report,
    Sample,
)
from cycleisp_runtime.bench.summary import energy, summary
from cycleisp_runtime.engines.gpu import Gpu

__all__ = ["FRAME", "ORIN", "a_machine", "a_report", "samples"]

FRAME = FrameFacts("frame", 2000, 1000)
"""2 MP."""

ORIN = Gpu(name="Orin", compute_capability=(8, 7), multiprocessors=16, driver="12.6")
"""Of an AGX Orin with all of its power."""

STEPS = {"cut": 0.1, "network": 0.7, "stitch": 0.1, "somewhere new": 0.05}
"""Shares of a frame; a twentieth is left for what lies between them."""


def a_machine(**changes: object) -> Machine:
    """A machine of eight AVX2 cores, with facts replaced."""
    facts: dict[str, object] = {
        "board": None,
        "l4t": None,
        "cpu": "A CPU",
        "architecture": "x86_64",
        "cores": 8,
        "cpu_mhz": 3000.0,
        "cpu_features": ("avx2", "fma"),
        "memory_bytes": 1 << 34,
        "gpu": None,
        "gpu_mhz": None,
        "power_mode": None,
        "governor": None,
        "kernel": "6.1",
        "load_average": 0.0,
        "versions": {"python": "3.10.12"},
    }
    return Machine(**{**facts, **changes})  # type: ignore[arg-type]


def samples(seconds: Sequence[float]) -> tuple[Sample, ...]:
    """One after the other, a second from begin to begin."""
    return tuple(
        Sample(0, float(at), each, {step: share * each for step, share in STEPS.items()}, 10**8)
        for at, each in enumerate(seconds)
    )


def a_report(*runs: Sequence[float], machine: Machine | None = None, sha256: str = "0") -> Report:
    """A report whose configurations, tiles of 100, 200, ..., took these seconds."""
    where = machine or a_machine()
    readings = tuple(
        Reading(0.25 * at, {"VDD_IN": 4.0 if at < 0 else 10.0}, {"gpu-thermal": 50.0}, {})
        for at in range(-8, 400)
    )
    measured = []
    for index, seconds in enumerate(runs, start=1):
        configuration = Configuration("onnxruntime", "fp32", "cpu", tile=100 * index)
        taken = samples(seconds)
        measured.append(
            Measured(
                configuration=configuration,
                reason="as asked for",
                load_seconds=0.1,
                warmup_seconds=(9.0, 9.0),
                samples=taken,
                summary=summary(taken, [FRAME], configuration, where, 2.0),
                peak_host_bytes=300 * 10**6,
                device_bytes=None,
                energy=energy(taken, [FRAME], readings),
                drift=None,
                warnings=("<b>odd</b>",),
            )
        )
    return Report(
        format="cycleisp-bench/1",
        created="2026-01-01T00:00:00+00:00",
        machine=where,
        model=Model("testnet", sha256, 2.0),
        frames=(FRAME,),
        end_to_end=False,
        measured=tuple(measured),
        readings=readings,
        warnings=(),
    )
