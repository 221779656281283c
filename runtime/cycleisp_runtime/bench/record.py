"""What a benchmark measured, as the JSON that keeps every sample."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cycleisp_runtime.backends import Device
from cycleisp_runtime.bundle import Precision
from cycleisp_runtime.engines.gpu import Gpu
from cycleisp_runtime.errors import InputError

__all__ = [
    "Configuration",
    "Drift",
    "Energy",
    "FrameFacts",
    "Latency",
    "Machine",
    "Measured",
    "Model",
    "Reading",
    "Report",
    "Sample",
    "Summary",
    "read_report",
]

MAX_REPORT_BYTES = 1 << 28
"""A day's soak of a 30 fps stream takes a fifth of it."""


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the report."""


class Configuration(_Record, frozen=True):
    """One way to run the model; None stands for the denoiser's own choice.

    Attributes:
        backend: what runs the network; "auto" only where it was not chosen yet.
        precision: the bundle's network.
        device: where it runs.
        tile: side of a tile in packed samples, or pixels.
        batch: tiles in one run of the network, where memory allows.
        memory: budget in bytes.
        threads: of the network.
    """

    backend: str = "auto"
    precision: Precision | None = None
    device: Device | None = None
    tile: int | None = None
    batch: int | None = None
    memory: int | None = None
    threads: int | None = None

    def __str__(self) -> str:
        chosen = {
            "on": self.device,
            "tile": self.tile,
            "batch": self.batch,
            "MiB": None if self.memory is None else self.memory >> 20,
            "threads": self.threads,
        }
        facts = [f"{name} {value}" for name, value in chosen.items() if value is not None]
        return " ".join([self.backend, *([self.precision] if self.precision else []), *facts])


class Sample(_Record, frozen=True):
    """One frame, once.

    Attributes:
        frame: index into the report's frames.
        begin_s: when it began, in seconds since the benchmark did.
        seconds: from end to end.
        steps: seconds by step, as the denoiser names them.
        resident_bytes: memory of the process afterwards; None where the system does not tell.
    """

    frame: Annotated[int, Meta(ge=0)]
    begin_s: float
    seconds: Annotated[float, Meta(gt=0)]
    steps: dict[str, float]
    resident_bytes: int | None


class Latency(_Record, frozen=True):
    """Milliseconds per frame over n samples; percentiles as ``statistics.latency`` states."""

    n: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    least: float
    most: float


class Energy(_Record, frozen=True):
    """What one power sensor says of one configuration.

    Attributes:
        sensor: its name; what it covers differs from machine to machine.
        watts: mean while frames of this configuration ran.
        idle_watts: mean before the benchmark began; None where nothing was read then.
        joules_per_mp: watts times seconds per MP.
        readings: how many of the sensor's readings fell into those frames.
    """

    sensor: str
    watts: float
    idle_watts: float | None
    joules_per_mp: float
    readings: int


class Summary(_Record, frozen=True):
    """What the samples of a configuration come to.

    Attributes:
        latency_ms: of the whole frame.
        mp_per_s: MP per second, over all frames.
        phases_ms: mean per frame, by phase; they and "other" add up to the mean latency.
        tops: 1e12 operations per second while the network ran, 2 per multiply-add, halos not
            counted: work that is worth something; None where no time of the network is known.
        peak_tops: of the device, dense, at this precision; None where the table does not know it.
        peak_source: where the peak comes from.
    """

    latency_ms: Latency
    mp_per_s: float
    phases_ms: dict[str, float]
    tops: float | None
    peak_tops: float | None
    peak_source: str | None


class Drift(_Record, frozen=True):
    """How a long run changed, from its first fifth to its last.

    Attributes:
        latency_ratio: median of the last fifth over that of the first.
        latency_low: lower end of the 95 % interval of that ratio.
        latency_high: its upper end.
        p99_ratio: 99th percentile of the last fifth over that of the first.
        memory_mb_per_1000_frames: slope of resident memory in the second half, least squares;
            None where the system does not tell.
    """

    latency_ratio: float
    latency_low: float
    latency_high: float
    p99_ratio: float
    memory_mb_per_1000_frames: float | None


class Measured(_Record, frozen=True):
    """One configuration and everything measured of it.

    Attributes:
        configuration: what ran.
        reason: why this backend and precision, where the program chose.
        load_seconds: from the bundle to a denoiser that is ready.
        warmup_seconds: frames before the first sample, which no figure includes.
        samples: in the order in which they ran.
        summary: what they come to.
        peak_host_bytes: resident memory at its highest in a process of its own that loads this
            configuration and denoises one frame; None where the system does not tell.
        device_bytes: memory of the GPU that such a process takes; None without NVML.
        energy: by power sensor, none where there is none.
        drift: of a soak that took long enough; None otherwise.
        warnings: one sentence each.
    """

    configuration: Configuration
    reason: str
    load_seconds: float
    warmup_seconds: tuple[float, ...]
    samples: Annotated[tuple[Sample, ...], Meta(min_length=1)]
    summary: Summary
    peak_host_bytes: int | None
    device_bytes: int | None
    energy: tuple[Energy, ...]
    drift: Drift | None
    warnings: tuple[str, ...]


class Machine(_Record, frozen=True):
    """Where it ran.

    Attributes:
        board: model as the device tree names it, such as that of a Jetson; None elsewhere.
        l4t: NVIDIA's Linux for Tegra, such as "36.4.3"; None elsewhere.
        cpu: its model.
        architecture: of the machine, such as "aarch64".
        cores: physical ones that the process may use.
        cpu_mhz: highest clock, or the present one where only that is told; None where nothing is.
        cpu_features: those of its instructions that the table of peaks knows.
        memory_bytes: of the whole machine.
        gpu: as CUDA sees it; None without.
        gpu_mhz: highest clock of a Jetson's GPU in this power mode; None elsewhere.
        power_mode: name of nvpmodel's mode; None elsewhere.
        governor: of the first CPU's clock; None where the system does not tell.
        kernel: version of the operating system.
        load_average: processes that wanted a CPU in the minute before.
        versions: of Python and of the packages that matter, by name.
    """

    board: str | None
    l4t: str | None
    cpu: str
    architecture: str
    cores: int
    cpu_mhz: float | None
    cpu_features: tuple[str, ...]
    memory_bytes: int | None
    gpu: Gpu | None
    gpu_mhz: float | None
    power_mode: str | None
    governor: str | None
    kernel: str
    load_average: float | None
    versions: dict[str, str]


class Model(_Record, frozen=True):
    """Which bundle was measured."""

    name: str
    sha256: str
    kmac_per_sample: float


class FrameFacts(_Record, frozen=True):
    """A frame or picture that every configuration denoised; the size of what is seen of it."""

    name: str
    width: Annotated[int, Meta(ge=1)]
    height: Annotated[int, Meta(ge=1)]

    @property
    def mp(self) -> float:
        """1e6 samples of the mosaic, or pixels of a picture."""
        return self.width * self.height / 1e6


class Reading(_Record, frozen=True):
    """What the sensors said at one moment, by their names.

    Attributes:
        at_s: seconds since the benchmark began; negative while the machine was still idle.
        watts: power.
        celsius: temperatures.
        mhz: clocks.
    """

    at_s: float
    watts: dict[str, float]
    celsius: dict[str, float]
    mhz: dict[str, float]


class Report(_Record, frozen=True):
    """A whole benchmark.

    Attributes:
        format: version of this schema.
        created: date and time in UTC, ISO 8601.
        machine: where it ran.
        model: what ran.
        frames: what it ran on.
        end_to_end: whether samples include reading and writing files.
        measured: by configuration.
        readings: of all sensors, in the order of time.
        warnings: what makes the figures doubtful, one sentence each.
    """

    format: Literal["cycleisp-bench/1"]
    created: str
    machine: Machine
    model: Model
    frames: tuple[FrameFacts, ...]
    end_to_end: bool
    measured: Annotated[tuple[Measured, ...], Meta(min_length=1)]
    readings: tuple[Reading, ...]
    warnings: tuple[str, ...]

    def __post_init__(self) -> None:
        frames = range(len(self.frames))
        if any(sample.frame not in frames for each in self.measured for sample in each.samples):
            raise ValueError("a sample is of a frame that the report does not list")


def read_report(path: Path) -> Report:
    """The report in this JSON file.

    Raises:
        InputError: where it cannot be read or is no report of this version.
    """
    try:
        if path.stat().st_size > MAX_REPORT_BYTES:
            raise InputError("too large for a benchmark's report", subject=path)
        encoded = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot be read: {(error.strerror or str(error)).lower()}", subject=path
        ) from error
    try:
        return msgspec.json.decode(encoded, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"not a benchmark's report of this version: {error}",
            subject=path,
            hint="cycleisp bench --json FILE writes one",
        ) from error
