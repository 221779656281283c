"""The machine that a benchmark runs on, as files of Linux and the installed packages tell it."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cycleisp_runtime.bench.record import Machine
from cycleisp_runtime.bench.sensors import gpu_clock_files, number_in, text_in
from cycleisp_runtime.cores import physical_cores
from cycleisp_runtime.engines.gpu import Gpu, find_gpu
from cycleisp_runtime.errors import BackendError

__all__ = ["FEATURES", "busy_warning", "describe_machine"]

PACKAGES = (
    "cycleisp",
    "numpy",
    "rawpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "pycuda",
    "cuda-bindings",
)
"""Whose versions a latency may depend on."""

FEATURES = frozenset({"avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "asimd", "asimddp"})
"""CPU flags that ``peaks.py`` knows, as /proc/cpuinfo writes them."""

MODE_SECONDS = 4
"""nvpmodel has been seen to hang."""

QUIET_LOAD = 0.5
"""Processes that want a CPU, on average over a minute, from which others disturb the figures."""

_RELEASE = re.compile(r"# R(\d+) \(release\), REVISION: ([\d.]+)")


def describe_machine(root: Path = Path("/")) -> Machine:
    """What is known of this machine.

    Args:
        root: folder that holds ``proc``, ``sys`` and ``etc``, for tests.
    """
    cpuinfo = text_in(root / "proc/cpuinfo") or ""
    board = text_in(root / "proc/device-tree/model")
    clocks = gpu_clock_files(root)
    return Machine(
        board=board,
        l4t=_l4t(text_in(root / "etc/nv_tegra_release") or ""),
        cpu=_field(cpuinfo, "model name") or board or platform.machine(),
        architecture=platform.machine(),
        cores=physical_cores(),
        cpu_mhz=_cpu_mhz(root, cpuinfo),
        cpu_features=tuple(sorted(FEATURES & _flags(cpuinfo))),
        memory_bytes=_memory_bytes(text_in(root / "proc/meminfo") or ""),
        gpu=_gpu(),
        gpu_mhz=_mhz(clocks.highest, 1e6) if clocks else None,
        power_mode=_power_mode(),
        governor=text_in(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        kernel=platform.release(),
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        versions=_versions(),
    )


def busy_warning(machine: Machine) -> str | None:
    """A sentence where other processes were running before the benchmark began."""
    load = machine.load_average
    if load is None or load < QUIET_LOAD:
        return None
    return f"the machine was not quiet: {load:.1f} processes wanted a CPU in the minute before"


def _l4t(release: str) -> str | None:
    found = _RELEASE.match(release)
    return f"{found[1]}.{found[2]}" if found else None


def _field(cpuinfo: str, name: str) -> str | None:
    found = re.search(rf"^{name}\s*: (.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else None


def _flags(cpuinfo: str) -> set[str]:
    """x86 calls them flags, ARM features."""
    return set((_field(cpuinfo, "flags") or _field(cpuinfo, "Features") or "").split())


def _cpu_mhz(root: Path, cpuinfo: str) -> float | None:
    highest = _mhz(root / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", 1e3)
    present = _field(cpuinfo, "cpu MHz")
    return highest or (float(present) if present else None)


def _mhz(path: Path, units_per_mhz: float) -> float | None:
    value = number_in(path)
    return None if value is None else value / units_per_mhz


def _memory_bytes(meminfo: str) -> int | None:
    found = re.search(r"^MemTotal:\s+(\d+) kB", meminfo, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _gpu() -> Gpu | None:
    try:
        return find_gpu()
    except BackendError:
        return None  # the backend that needs it says why it does not work


def _power_mode() -> str | None:
    """The name of the mode, whose number means something else on every module and JetPack."""
    try:
        answer = subprocess.run(
            ["nvpmodel", "-q"], capture_output=True, text=True, timeout=MODE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    found = re.search(r"NV Power Mode: *(\S+)", answer.stdout)
    return found[1] if found else None


def _versions() -> dict[str, str]:
    installed = {name: found for name in PACKAGES if (found := _version(name)) is not None}
    return {"python": platform.python_version(), **installed}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
