"""Power, temperature and clocks while a benchmark runs, read from sysfs and, where it helps, NVML.

Every sensor is a function that gives its values by name. One that is absent, gated or not allowed
gives nothing and disturbs nothing: what counts is a number, not that a driver is there.

Names and units of hwmon: Linux, Documentation/hwmon/{sysfs-interface,ina3221,ina238}.rst; of
thermal zones, devfreq and RAPL: Documentation/ABI/testing/sysfs-class-{thermal,devfreq,powercap}.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cycleisp_runtime.bench.nvml import Nvml
from cycleisp_runtime.bench.record import Reading

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "ClockFiles",
    "Sampler",
    "Sensors",
    "find_sensors",
    "gpu_clock_files",
    "number_in",
    "text_in",
]

Sensor = Callable[[], Mapping[str, float]]

POWER_CHIPS = ("ina3221", "ina238")
"""Of Jetsons: three rails, or one."""

WHOLE_MODULE = ("VDD_IN", "VIN")
"""Rails that all power passes through: Orin Nano and NX, Thor."""

SUM_OF_RAILS = "sum of rails"

GPU_NODES = ("gpu", "gv11b", "ga10b")
"""Names of a Jetson's GPU in the device tree: Orin, Xavier, Orin with JetPack 5."""

COLDEST = -40.0
"""In degrees Celsius, of NVIDIA's modules. The zone of a block without power may give -256."""


class Sensors(NamedTuple):
    """All sensors of a machine, by what they measure: watts, degrees Celsius, MHz."""

    watts: tuple[Sensor, ...] = ()
    celsius: tuple[Sensor, ...] = ()
    mhz: tuple[Sensor, ...] = ()

    def read(self, at_s: float) -> Reading:
        """What they say now, under this time."""
        return Reading(at_s, _merged(self.watts), _merged(self.celsius), _merged(self.mhz))


class ClockFiles(NamedTuple):
    """Files of a GPU's clock in Hz: the present one and the highest of the power mode."""

    present: Path
    highest: Path


def find_sensors(root: Path = Path("/")) -> Sensors:
    """The sensors of this machine.

    Args:
        root: folder that holds ``sys``, for tests.
    """
    nvml = Nvml.open()
    gpu = () if nvml is None else ((nvml.watts,), (nvml.celsius,), (nvml.mhz,))
    clocks = gpu_clock_files(root)
    return Sensors(
        (lambda: _rails(root), Rapl(root), *(gpu[0] if gpu else ())),
        (lambda: _temperatures(root), *(gpu[1] if gpu else ())),
        (lambda: _clocks(root, clocks), *(gpu[2] if gpu else ())),
    )


class Sampler:
    """Reads sensors in a thread of its own, so that no frame waits for them; a context manager.

    Args:
        sensors: what to read.
        period: seconds between two readings.
    """

    def __init__(self, sensors: Sensors, period: float) -> None:
        self._sensors, self._period = sensors, period
        self._begin = time.perf_counter()
        self._taken: list[Reading] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="cycleisp-sensors", daemon=True)

    @property
    def readings(self) -> list[Reading]:
        """All of them, their times counted from ``begin``."""
        return [
            msgspec.structs.replace(each, at_s=each.at_s - self._begin)
            for each in self._taken.copy()
        ]

    def begin(self) -> None:
        """Set the clock to 0, which makes the readings so far those of an idle machine."""
        self._begin = time.perf_counter()

    def now(self) -> float:
        """Seconds since ``begin``."""
        return time.perf_counter() - self._begin

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stop.wait(self._period):
            self._taken.append(self._sensors.read(time.perf_counter()))


class Rapl:
    """Watts of an x86 CPU's packages, from the energy that they took since the reading before.

    The counters are readable by root alone on most systems, and wrap around.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._zones = sorted((root / "sys/class/powercap").glob("intel-rapl:[0-9]"))
        self._before: dict[Path, tuple[float, float]] = {}

    def __call__(self) -> dict[str, float]:
        """By package; nothing on the first call."""
        watts = {}
        for zone in self._zones:
            microjoules, now = number_in(zone / "energy_uj"), time.perf_counter()
            if microjoules is None:
                continue
            before = self._before.get(zone)
            self._before[zone] = microjoules, now
            if before is not None:
                taken = microjoules - before[0]
                if taken < 0:
                    taken += number_in(zone / "max_energy_range_uj") or 0.0
                watts[f"RAPL {text_in(zone / 'name')}"] = taken / 1e6 / (now - before[1])
        return watts


def gpu_clock_files(root: Path = Path("/")) -> ClockFiles | None:
    """The clock of a Jetson's GPU; None where devfreq knows none."""
    for device in sorted((root / "sys/class/devfreq").glob("*")):
        node = text_in(device / "device/of_node/name")
        if node in GPU_NODES or device.name.startswith("gpu-gpc"):
            return ClockFiles(device / "cur_freq", device / "max_freq")
    return None


def text_in(path: Path) -> str | None:
    """A small file's text without its NUL or line end; None where it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8", "replace").strip("\0\n ") or None
    except OSError:
        return None


def number_in(path: Path) -> float | None:
    """A small file's number; None where it cannot be read or is none."""
    try:
        return float(text_in(path) or "")
    except ValueError:
        return None


def _merged(sensors: Sequence[Sensor]) -> dict[str, float]:
    return {name: value for sensor in sensors for name, value in sensor().items()}


def _rails(root: Path) -> dict[str, float]:
    """Watts by rail of a Jetson's power chips; numbers of hwmon change from boot to boot."""
    watts: dict[str, float] = {}
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        name = text_in(chip / "name")
        if name not in POWER_CHIPS:
            continue
        microwatts = number_in(chip / "power1_input")
        if microwatts is not None:
            watts[text_in(chip / "label") or text_in(chip / "in1_label") or name] = microwatts / 1e6
            continue
        for rail in (1, 2, 3):  # 4 to 6 are the voltages of shunts, 7 their sum
            label = text_in(chip / f"in{rail}_label")
            millivolts = number_in(chip / f"in{rail}_input")
            milliamperes = number_in(chip / f"curr{rail}_input")
            if label not in (None, "NC") and millivolts is not None and milliamperes is not None:
                watts[label] = millivolts * milliamperes / 1e6
    if watts and not any(rail in watts for rail in WHOLE_MODULE):
        watts[SUM_OF_RAILS] = sum(watts.values())
    return watts


def _temperatures(root: Path) -> dict[str, float]:
    """Degrees by thermal zone, without those of blocks that have no power."""
    found = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        name, millidegrees = text_in(zone / "type"), number_in(zone / "temp")
        if name is not None and millidegrees is not None and millidegrees / 1e3 > COLDEST:
            found[name] = millidegrees / 1e3
    return found


def _clocks(root: Path, gpu: ClockFiles | None) -> dict[str, float]:
    files = {"CPU": (root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", 1e3)}
    if gpu is not None:
        files["GPU"] = (gpu.present, 1e6)
    found = {name: (number_in(path), units) for name, (path, units) in files.items()}
    return {name: value / units for name, (value, units) in found.items() if value is not None}
