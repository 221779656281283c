"""Which backend runs a bundle on this machine, at which precision, and why.

A backend that was asked for by name is that one or an error. ``auto`` takes the fastest that works;
what it passed over, and why, is in the log and in the backend's ``reason``.
"""

from __future__ import annotations

import logging
import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np

from cycleisp_runtime.backends import Backend, Device
from cycleisp_runtime.bundle import Bundle, Precision, find_bundle
from cycleisp_runtime.cores import physical_cores
from cycleisp_runtime.engines.gpu import find_gpu
from cycleisp_runtime.errors import BackendError, SettingsError
from cycleisp_runtime.memory import parse_memory

__all__ = ["AUTO", "BACKENDS", "load_on_backend", "open_backend"]

_Made = TypeVar("_Made")

MEASURED_SIDE = 256
"""Of the tile, in packed samples, on which INT8 is compared with FP16."""

MEASURED_RUNS = 7

MOST_THREADS = 1024
"""More than any machine's cores; ten thousands take all of its memory and cannot be interrupted."""

_log = logging.getLogger(__name__)


def _tensorrt(
    bundle: Bundle, precision: Precision, _device: Device, _threads: int | None
) -> Backend:
    from cycleisp_runtime.backends.tensorrt import TensorRTBackend

    return TensorRTBackend(bundle, precision)


def _onnxruntime(
    bundle: Bundle, precision: Precision, device: Device, threads: int | None
) -> Backend:
    from cycleisp_runtime.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(
        bundle, precision, provider="CPU" if device == "cpu" else "CUDA", threads=threads
    )


def _onnxruntime_tensorrt(
    bundle: Bundle, precision: Precision, _device: Device, threads: int | None
) -> Backend:
    from cycleisp_runtime.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(bundle, precision, provider="Tensorrt", threads=threads)


def _openvino(
    bundle: Bundle, precision: Precision, _device: Device, threads: int | None
) -> Backend:
    from cycleisp_runtime.backends.openvino import OpenVinoBackend

    return OpenVinoBackend(bundle, precision, threads=threads)


def _identity(
    bundle: Bundle, _precision: Precision, _device: Device, _threads: int | None
) -> Backend:
    from cycleisp_runtime.backends.identity import IdentityBackend

    return IdentityBackend(bundle.record.tensors.noisy)


class _Entry(NamedTuple):
    """How a backend is opened, and the devices that it runs on, the fastest first."""

    open: Callable[[Bundle, Precision, Device, int | None], Backend]
    devices: tuple[Device, ...]


BACKENDS = {
    "tensorrt": _Entry(_tensorrt, ("cuda",)),
    "onnxruntime": _Entry(_onnxruntime, ("cuda", "cpu")),
    "onnxruntime-tensorrt": _Entry(_onnxruntime_tensorrt, ("cuda",)),
    "openvino": _Entry(_openvino, ("cpu",)),
    "identity": _Entry(_identity, ("cpu",)),
}
"""Every backend by the name that a user gives."""

AUTO = ("tensorrt", "onnxruntime")
"""Those that ``auto`` tries, the fastest first. They come with the package or with JetPack."""


def load_on_backend(
    make: Callable[[Bundle, Backend, int | None], _Made],
    bundle: str | os.PathLike[str],
    *,
    backend: str,
    precision: Precision | None,
    device: Device | None,
    threads: int | None,
    memory: str | int | None,
    batch: int | None = None,
) -> _Made:
    """The denoiser that ``make`` gives for a bundle and the backend that is opened for it.

    Args:
        make: from the two and a budget of memory in bytes; where it raises, the backend is closed.
        bundle: its name or folder.
        backend: as for ``open_backend``.
        precision: as for ``open_backend``.
        device: as for ``open_backend``.
        threads: as for ``open_backend``.
        memory: a size such as "512MiB", a number of bytes, or None.
        batch: tiles in one run, where memory allows; None for the backend's own number.

    Raises:
        BundleError: where there is no such bundle, or as ``open_backend``.
        SettingsError, BackendError: as ``open_backend``.
    """
    size = parse_memory(memory) if isinstance(memory, str) else memory
    found = find_bundle(bundle)
    opened = open_backend(
        found, backend=backend, precision=precision, device=device, threads=threads
    )
    if batch is not None:
        opened.batch = batch
    try:
        return make(found, opened, size)
    except Exception:
        opened.close()
        raise


def open_backend(
    bundle: Bundle,
    *,
    backend: str = "auto",
    precision: Precision | None = None,
    device: Device | None = None,
    threads: int | None = None,
) -> Backend:
    """A backend that is ready to run the bundle's network; its ``reason`` says why this one.

    Args:
        bundle: a checked bundle.
        backend: a name of ``BACKENDS``, or "auto" for the fastest one that works here.
        precision: None for FP32 on a CPU, and on a GPU for FP16 where the bundle has it, or for
            INT8 where it is measured, now, to be faster.
        device: None for the GPU where the backend can use one, else the CPU.
        threads: of one operator on the CPU, and of what is done on the CPU for a GPU; None for one
            per physical core.

    Raises:
        SettingsError: where there is no backend of this name, it does not run on this device, or
            no machine has use for so many threads.
        BundleError: where the bundle lacks the precision, or its network must not be trusted.
        BackendError: where the backend is not installed or does not accept the network.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise SettingsError(
            "no such backend", subject="backend", met=backend, wanted=", ".join(("auto", *BACKENDS))
        )
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise SettingsError(
            "out of range", subject="threads", met=threads, wanted=f"1..{MOST_THREADS}"
        )
    names = AUTO if backend == "auto" else (backend,)
    places = [(name, where) for name in names for where in BACKENDS[name].devices]
    candidates = [(name, where) for name, where in places if device in (None, where)]
    if not candidates:
        raise SettingsError(
            "the backend does not run there",
            subject=backend,
            met=device,
            wanted=" or ".join(sorted({where for _, where in places})),
        )
    passed_over: list[str] = []
    if len({where for _, where in candidates}) > 1 and (no_gpu := _why_no_gpu()) is not None:
        candidates = [(name, where) for name, where in candidates if where == "cpu"]
        passed_over.append(no_gpu)
    for name, where in candidates:
        try:
            chosen, why = _at_best_precision(bundle, name, precision, where, threads)
        except BackendError as error:  # noqa: PERF203  three rounds at most
            if (name, where) == candidates[-1]:
                raise
            passed_over.append(f"not {name} on {where}: {error}")
            _log.warning("%s", passed_over[-1])
        else:
            chosen.threads = threads or physical_cores()
            chosen.reason = "; ".join([*why, *passed_over]) or "as asked for"
            _log.info("%s: %s", chosen, chosen.reason)
            return chosen
    raise AssertionError("the last candidate returns or raises")


def _why_no_gpu() -> str | None:
    """Why no GPU can be used; None where one can."""
    try:
        return "there is no GPU" if find_gpu() is None else None
    except BackendError as error:
        return str(error)


def _at_best_precision(
    bundle: Bundle, name: str, precision: Precision | None, device: Device, threads: int | None
) -> tuple[Backend, list[str]]:
    """The backend at the precision asked for, or else the best one here, and what decided it."""

    def opened(at: Precision) -> Backend:
        return BACKENDS[name].open(bundle, at, device, threads)

    available = bundle.record.precisions
    if precision is not None:
        return opened(precision), []
    if device == "cpu" or "fp16" not in available:
        return opened("fp32" if "fp32" in available else next(iter(available))), []
    fp16 = opened("fp16")
    if "int8" not in available:
        return fp16, ["the bundle has no int8"]
    try:
        int8 = opened("int8")
    except BackendError as error:
        _log.warning("int8 was not measured: %s", error)
        return fp16, [f"not int8: {error}"]
    seconds = _measure(bundle, fp16, int8)
    faster, slower = (int8, fp16) if seconds[1] < seconds[0] else (fp16, int8)
    slower.close()
    measured = "{:.2f} ms at fp16, {:.2f} ms at int8".format(*(1e3 * each for each in seconds))
    return faster, [f"a tile of {MEASURED_SIDE}x{MEASURED_SIDE} takes {measured}"]


def _measure(bundle: Bundle, *backends: Backend) -> list[float]:
    """Median seconds of each backend for one tile, in turn, after a run to warm up."""
    shape = (1, bundle.record.channels, MEASURED_SIDE, MEASURED_SIDE)
    tile = np.full(shape, 0.25, np.float32)
    pooling = bundle.record.pooling
    gates = None if pooling is None else np.ones((1, pooling.gates, 1, 1), np.float32)
    inputs = bundle.record.tensors.fill(tile, tile, 1.0, gates)
    runs: list[list[float]] = [[] for _ in backends]
    for _ in range(1 + MEASURED_RUNS):
        for backend, seconds in zip(backends, runs, strict=True):
            start = time.perf_counter()
            backend.run(inputs)
            seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds[1:]) for seconds in runs]
