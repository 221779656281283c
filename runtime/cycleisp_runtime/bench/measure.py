"""All configurations on all frames, taking turns in random order, and what comes of it.

What disturbs a machine for a while, such as heat or another process, then falls on all of them
alike. Times are wall time by ``time.perf_counter``. A GPU's backends return when the result is in
the host's memory, so nothing is left running when the clock stops.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import numpy as np

from cycleisp_runtime.backends import Backend
from cycleisp_runtime.backends.choice import load_on_backend
from cycleisp_runtime.bench.machine import busy_warning, describe_machine
from cycleisp_runtime.bench.peak_memory import PeakMemory, Request, peak_memory, resident_bytes
from cycleisp_runtime.bench.record import (
    Configuration,
    FrameFacts,
    Measured,
    Model,
    Report,
    Sample,
)
from cycleisp_runtime.bench.sensors import Sampler, Sensors
from cycleisp_runtime.bench.summary import LEAST_FOR_DRIFT, clock_warnings, drift, energy, summary
from cycleisp_runtime.bench.workload import Workload, workloads
from cycleisp_runtime.bundle import Bundle, find_bundle
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.errors import BackendError, CycleISPError
from cycleisp_runtime.pictures import PictureDenoiser

__all__ = ["Plan", "load", "run_benchmark"]

IDLE_SECONDS = 2.0
"""How long the power of the idle machine is read."""

PERIOD, SOAK_PERIOD = 0.1, 1.0
"""Seconds between readings of the sensors. Power chips renew theirs every few milliseconds."""

NO_POWER = "nothing told the power of the GPU; where it is no Jetson's: pip install nvidia-ml-py"

LEAST_LIMIT_S = 60.0
"""For the process that measures peak memory, besides ten times what the work took before."""


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        bundle: path or name of a shipped one.
        configurations: as they are asked for.
        files: RAW files, or pictures for a model of pictures, each read, denoised and written; none
            for a synthetic frame or picture in memory.
        size: width and height of that.
        warmup: rounds before the first sample.
        runs: rounds of samples, where it is no soak.
        soak_seconds: how long a soak takes; None for none.
    """

    bundle: str
    configurations: tuple[Configuration, ...]
    files: tuple[Path, ...] = ()
    size: tuple[int, int] = (4000, 3000)
    warmup: int = 2
    runs: int = 10
    soak_seconds: float | None = None


@dataclass
class _Running:
    """A configuration that is ready, and what was measured of it so far."""

    asked: Configuration
    denoiser: Denoiser | PictureDenoiser
    load_seconds: float
    warmup_seconds: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    warnings: dict[str, None] = field(default_factory=dict)

    @property
    def configuration(self) -> Configuration:
        """What runs, where ``asked`` left a choice."""
        backend = self.denoiser.backend
        return msgspec.structs.replace(
            self.asked,
            backend=backend.name,
            precision=backend.precision,
            device=backend.device,
            batch=backend.batch,
        )


def load(bundle: str, configuration: Configuration) -> Denoiser | PictureDenoiser:
    """The denoiser of the bundle's task; raises what ``Denoiser.load`` raises."""
    return load_on_backend(
        _denoiser,
        bundle,
        backend=configuration.backend,
        precision=configuration.precision,
        device=configuration.device,
        threads=configuration.threads,
        memory=configuration.memory,
        batch=configuration.batch,
    )


def _denoiser(bundle: Bundle, backend: Backend, memory: int | None) -> Denoiser | PictureDenoiser:
    kind = PictureDenoiser if bundle.record.task == "srgb" else Denoiser
    return kind(bundle, backend, memory=memory)


def run_benchmark(
    plan: Plan,
    sensors: Sensors,
    rng: np.random.Generator,
    progress: Callable[[str], object] = lambda _: None,
) -> Report:
    """Measure a plan; a configuration that cannot be loaded is left out, with a warning.

    Args:
        plan: what to measure.
        sensors: read while it runs.
        rng: the order of the configurations and the noise of what is synthetic.
        progress: called with a configuration before each of its frames.

    Raises:
        BundleError: where there is no such bundle, or it must not be trusted.
        BackendError: where no configuration can be loaded, or one fails while it runs.
        InputError: where a file cannot be read or denoised.
        SettingsError: where a tile or a name of a backend fits nothing.
    """
    bundle = find_bundle(plan.bundle)
    machine = describe_machine()
    doubt = busy_warning(machine)
    warnings = [] if doubt is None else [doubt]
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    soak = plan.soak_seconds is not None
    with ExitStack() as opened:
        sampler = opened.enter_context(Sampler(sensors, SOAK_PERIOD if soak else PERIOD))
        scratch = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        frames = workloads(bundle.record.task, plan.files, plan.size, scratch, rng)
        if sensors.read(0.0).watts:
            time.sleep(IDLE_SECONDS)
        sampler.begin()
        left_out: list[str] = []
        running = [
            each
            for configuration in plan.configurations
            if (each := _open(plan.bundle, configuration, opened, left_out)) is not None
        ]
        if not running:
            raise BackendError("nothing was measured", met="; ".join(left_out))
        warnings += left_out
        facts = _run(plan, running, frames, sampler, rng, progress)
    if soak and any(len(each.samples) < LEAST_FOR_DRIFT for each in running):
        warnings.append(f"too short to tell a drift, which takes {LEAST_FOR_DRIFT} samples of each")
    peaks = [_peak(plan, each, warnings) for each in running]
    if any(each.denoiser.backend.device == "cuda" for each in running):
        warnings += clock_warnings(machine, sampler.readings)
    if machine.gpu is not None and not any(reading.watts for reading in sampler.readings):
        warnings.append(NO_POWER)
    return Report(
        format="cycleisp-bench/1",
        created=created,
        machine=machine,
        model=Model(bundle.record.name, bundle.sha256, bundle.record.kmac_per_sample),
        frames=facts,
        end_to_end=bool(plan.files),
        measured=tuple(
            Measured(
                configuration=each.configuration,
                reason=each.denoiser.backend.reason,
                load_seconds=each.load_seconds,
                warmup_seconds=tuple(each.warmup_seconds),
                samples=tuple(each.samples),
                summary=summary(
                    each.samples, facts, each.configuration, machine, bundle.record.kmac_per_sample
                ),
                peak_host_bytes=peak.host_bytes,
                device_bytes=peak.device_bytes,
                energy=energy(each.samples, facts, sampler.readings),
                drift=drift(each.samples, facts, rng) if soak else None,
                warnings=tuple(each.warnings),
            )
            for each, peak in zip(running, peaks, strict=True)
        ),
        readings=tuple(sampler.readings),
        warnings=tuple(warnings),
    )


def _open(
    bundle: str, configuration: Configuration, opened: ExitStack, left_out: list[str]
) -> _Running | None:
    """The configuration ready to run, closed with ``opened``; None where it cannot be loaded."""
    begin = time.perf_counter()
    try:
        denoiser = load(bundle, configuration)
    except CycleISPError as error:
        left_out.append(f"{configuration} was left out: {error.reason}")
        return None
    opened.enter_context(denoiser)
    return _Running(configuration, denoiser, time.perf_counter() - begin)


def _run(
    plan: Plan,
    running: Sequence[_Running],
    frames: Sequence[Workload],
    sampler: Sampler,
    rng: np.random.Generator,
    progress: Callable[[str], object],
) -> tuple[FrameFacts, ...]:
    """Fill in samples, round by round; returns what the frames turned out to be."""
    sizes: dict[int, FrameFacts] = {}
    for measured in _rounds(plan, sampler):
        for place in rng.permutation(len(running)):
            each = running[place]
            for index, frame in enumerate(frames):
                progress(f"{each.configuration}, {frame.name}")
                begin = sampler.now()
                done = frame.run(each.denoiser, each.asked.tile)
                seconds = sampler.now() - begin
                each.warnings.update(dict.fromkeys(done.warnings))
                sizes[index] = FrameFacts(frame.name, done.width, done.height)
                if measured:
                    sample = Sample(index, begin, seconds, dict(done.steps), resident_bytes())
                    each.samples.append(sample)
                else:
                    each.warmup_seconds.append(seconds)
    return tuple(sizes[index] for index in sorted(sizes))


def _rounds(plan: Plan, sampler: Sampler) -> Iterator[bool]:
    """Whether the samples of a round count, round by round."""
    for _ in range(plan.warmup):
        yield False
    if plan.soak_seconds is None:
        for _ in range(plan.runs):
            yield True
        return
    end = sampler.now() + plan.soak_seconds
    yield True
    while sampler.now() < end:
        yield True


def _peak(plan: Plan, each: _Running, warnings: list[str]) -> PeakMemory:
    """Its peak memory; a process that fails is a warning, for the times stand."""
    slowest = max(sample.seconds for sample in each.samples) * max(len(plan.files), 1)
    request = Request(
        plan.bundle, each.configuration, tuple(str(file) for file in plan.files), plan.size
    )
    try:
        return peak_memory(request, limit_s=LEAST_LIMIT_S + 10 * (each.load_seconds + slowest))
    except BackendError as error:
        warnings.append(str(error))
        return PeakMemory(None, None)
