"""TensorRT's builder: a network in, an engine out. ``execution.py`` runs the engine.

TensorRT and TensorRT-RTX have the same classes under two module names. Networks are strongly typed:
precisions are those of the ONNX file, and no flag of the builder changes them. What a release may
lack is looked up by its name, because flags change their values, and the versions of the two
packages say nothing about each other.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType

from cycleisp_runtime.engines.key import TileShapes
from cycleisp_runtime.errors import BackendError, BundleError, OutOfMemoryError

__all__ = ["SETTINGS", "BuildProgress", "Plan", "TensorRT", "find_tensorrt"]

SETTINGS = "strongly typed, without TF32, layers named"
"""What ``TensorRT.build`` sets of its own accord; it belongs to an engine's key. TF32 is off
because an FP32 network is there to be exact."""

PACKAGES = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
"""Modules in the order of preference, and the packages that they come from."""

MAX_ERRORS_SHOWN = 3

BuildProgress = Callable[[str, int, int], None]
"""Called with a phase of the build, its steps done and its steps in all; from another thread."""


@dataclass(frozen=True)
class Plan:
    """What a build gives.

    Attributes:
        content: the serialised engine.
        timings: what was measured, for the next build; empty where nothing was.
        log: TensorRT's, one message per line.
    """

    content: bytes
    timings: bytes
    log: str


class TensorRT:
    """One of the two packages, imported.

    Attributes:
        package: "tensorrt" or "tensorrt-rtx".
        version: of the package.
        module: its Python module.
        log: what TensorRT tells in the whole process, since it keeps its first logger for good.
    """

    def __init__(self, module: ModuleType) -> None:
        self.package = PACKAGES[module.__name__]
        self.version = str(getattr(module, "__version__", "unknown"))
        self.module = module
        self.log: _Log = type("Log", (_Log, module.ILogger), {})()

    def build(
        self,
        network: bytes,
        *,
        tensors: AbstractSet[str],
        shapes: TileShapes,
        workspace_mib: int | None = None,
        timings: bytes = b"",
        progress: BuildProgress | None = None,
    ) -> Plan:
        """The engine of an ONNX network for the GPU of this machine.

        TensorRT-RTX needs no GPU: its engines are finished on the machine that runs them.

        Args:
            network: a self-contained ONNX file.
            tensors: names of all its inputs and outputs.
            shapes: of dimensions 2 and 3 of the inputs where the network leaves them open.
            workspace_mib: memory to try kernels with, in MiB; None for all there is.
            timings: of an earlier build.
            progress: called after every step.

        Raises:
            BundleError: where the network has other inputs or outputs.
            BackendError: where TensorRT does not accept the network or cannot build.
        """
        self.log.messages.clear()
        try:
            return self._build(network, tensors, shapes, workspace_mib, timings, progress)
        except (BackendError, BundleError):
            raise
        except Exception as error:  # its bindings raise whatever pybind11 makes of a failure
            raise self.failure(f"cannot build: {error}") from error

    def _build(
        self,
        network: bytes,
        tensors: AbstractSet[str],
        shapes: TileShapes,
        workspace_mib: int | None,
        timings: bytes,
        progress: BuildProgress | None,
    ) -> Plan:
        trt = self.module
        strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        if strongly_typed is None:
            raise self.failure("knows no strongly typed networks", hint="10.3 and later do")
        builder = trt.Builder(self.log)
        definition = builder.create_network(1 << int(strongly_typed))
        parser = trt.OnnxParser(definition, self.log)
        if not parser.parse(network):
            problems = [str(parser.get_error(index)) for index in range(parser.num_errors)]
            raise self.failure(f"does not accept the network: {'; '.join(problems)}")

        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if workspace_mib is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mib << 20)
        profile = builder.create_optimization_profile()
        inputs = [definition.get_input(index) for index in range(definition.num_inputs)]
        outputs = [definition.get_output(index) for index in range(definition.num_outputs)]
        _check_names({tensor.name for tensor in (*inputs, *outputs)}, tensors)
        for tensor in inputs:
            profile.set_shape(tensor.name, *_sizes(tuple(tensor.shape), shapes))
        if config.add_optimization_profile(profile) < 0:
            raise self.failure("does not accept the shapes")
        # TensorRT-RTX, which is told compute capabilities, times nothing before an engine runs.
        timed = not hasattr(trt, "ComputeCapability")
        if timed:
            # Refused where it does not fit: then everything is measured anew.
            config.set_timing_cache(config.create_timing_cache(timings), False)
        monitor = None
        if hasattr(trt, "IProgressMonitor"):
            monitor_type = type("Monitor", (_Monitor, trt.IProgressMonitor), {})
            monitor = config.progress_monitor = monitor_type(progress)

        # In a thread of its own, or an interrupt would be raised in the middle of TensorRT's
        # calls of the logger, through C++ code that ends the process.
        with ThreadPoolExecutor(1) as thread:
            try:
                engine = thread.submit(
                    builder.build_serialized_network, definition, config
                ).result()
            except KeyboardInterrupt:
                if monitor is not None:
                    monitor.cancelled = True
                raise
        if engine is None:
            raise self.failure("cannot build")
        return Plan(
            content=bytes(engine),
            timings=bytes(config.get_timing_cache().serialize()) if timed else b"",
            log="\n".join(text for _, text in self.log.messages),
        )

    def failure(self, problem: str, hint: str | None = None) -> BackendError:
        """The error of a call that failed, with what TensorRT told of it.

        It is an OutOfMemoryError where TensorRT says so.
        """
        errors = (self.module.ILogger.INTERNAL_ERROR, self.module.ILogger.ERROR)
        logged = [text for severity, text in self.log.messages if severity in errors]
        told = " ".join(logged).lower().replace(" ", "")
        return (OutOfMemoryError if "outofmemory" in told else BackendError)(
            "; ".join([problem, *logged[:MAX_ERRORS_SHOWN]]),
            subject=f"{self.package} {self.version}",
            hint=hint,
        )


@functools.cache
def find_tensorrt() -> TensorRT:
    """TensorRT, or else TensorRT-RTX.

    Raises:
        BackendError: where neither can be imported.
    """
    problems = []
    for name in PACKAGES:
        try:
            return TensorRT(importlib.import_module(name))
        except (ImportError, OSError, RuntimeError) as error:  # noqa: PERF203  two rounds
            problems.append(str(error))
    raise BackendError(
        f"TensorRT is not installed: {'; '.join(problems)}",
        hint="pip install 'cycleisp[rtx]' for desktop GPUs or 'cycleisp[tensorrt]' for all; on a "
        "Jetson use JetPack's own, which a virtual environment sees with --system-site-packages",
    )


class _Log:
    """Keeps every message: layers and the reasons of failures are found nowhere else."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[tuple[object, str]] = []

    def log(self, severity: object, message: str) -> None:
        self.messages.append((severity, message))


class _Monitor:
    """Reports steps, and ends the build at the next one when it was cancelled."""

    def __init__(self, progress: BuildProgress | None) -> None:
        super().__init__()
        self.cancelled = False
        self._progress = progress
        self._steps: dict[str, int] = {}

    def phase_start(self, phase: str, _parent: str | None, steps: int) -> None:
        self._steps[phase] = steps

    def step_complete(self, phase: str, step: int) -> bool:
        if self._progress is not None:
            self._progress(phase, step + 1, self._steps[phase])
        return not self.cancelled

    def phase_finish(self, phase: str) -> None:
        """Nothing: the last step said it."""


def _check_names(met: AbstractSet[str], wanted: AbstractSet[str]) -> None:
    if met != wanted:
        raise BundleError(
            "the network is not the one that the bundle describes",
            met=", ".join(sorted(met)),
            wanted=", ".join(sorted(wanted)),
        )


def _sizes(declared: tuple[int, ...], shapes: TileShapes) -> list[tuple[int, ...]]:
    """The input of one tile at every shape; what the network fixes stays as it is."""
    return [
        tuple(
            size if size >= 0 else open_size
            for size, open_size in zip(declared, (1, 1, *tile), strict=False)
        )
        for tile in (shapes.least, shapes.usual, shapes.most)
    ]
