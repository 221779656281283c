"""The most memory that one configuration takes, in a process that does nothing else.

In the process of the benchmark all configurations are loaded at once, so none of them could be told
from the others. Run as a module it is that process: a request on stdin, an answer on stdout.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import numpy as np

from cycleisp_runtime.bench.nvml import Nvml
from cycleisp_runtime.bench.record import Configuration
from cycleisp_runtime.bench.workload import workloads
from cycleisp_runtime.bundle import find_bundle
from cycleisp_runtime.errors import BackendError

__all__ = ["PeakMemory", "Request", "peak_memory", "resident_bytes"]


class Request(msgspec.Struct, frozen=True):
    """What to run: a bundle in a configuration, on these files or something of this size."""

    bundle: str
    configuration: Configuration
    files: tuple[str, ...]
    size: tuple[int, int]


class PeakMemory(msgspec.Struct, frozen=True):
    """Bytes of the process, and of the GPU; None where the system does not tell."""

    host_bytes: int | None
    device_bytes: int | None


def peak_memory(request: Request, *, limit_s: float) -> PeakMemory:
    """What a process takes that loads the configuration and denoises every frame once.

    Raises:
        BackendError: where it fails or takes longer than ``limit_s``.
    """
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "cycleisp_runtime.bench.peak_memory"],
            input=msgspec.json.encode(request),
            capture_output=True,
            timeout=limit_s,
            check=True,
        )
        return msgspec.json.decode(answer.stdout, type=PeakMemory)
    except (subprocess.SubprocessError, msgspec.DecodeError) as error:
        raise BackendError(
            f"peak memory was not measured: {error}", subject=str(request.configuration)
        ) from error


def resident_bytes(*, highest: bool = False) -> int | None:
    """Memory of this process now, or at its highest; None where /proc does not tell.

    Not ``ru_maxrss``, which a child inherits from the process that started it.
    """
    name = "VmHWM" if highest else "VmRSS"
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _measure(request: Request) -> PeakMemory:
    from cycleisp_runtime.bench.measure import load

    nvml = Nvml.open()
    before = None if nvml is None else nvml.used_bytes()
    with tempfile.TemporaryDirectory() as scratch:
        frames = workloads(
            find_bundle(request.bundle).record.task,
            [Path(file) for file in request.files],
            request.size,
            Path(scratch),
            np.random.default_rng(0),
        )
        with load(request.bundle, request.configuration) as denoiser:
            for frame in frames:
                frame.run(denoiser, request.configuration.tile)
            after = None if nvml is None else nvml.used_bytes()
    device = None if before is None or after is None else after - before
    return PeakMemory(resident_bytes(highest=True), device)


if __name__ == "__main__":
    wanted = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    sys.stdout.buffer.write(msgspec.json.encode(_measure(wanted)))
