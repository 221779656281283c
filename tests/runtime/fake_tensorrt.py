"""TensorRT as each release has it: the same behaviour, under exactly the names of that release.

``tests/data/tensorrt_names.json`` lists the public names of the classes that a builder needs, read
from the bindings of every release. A name that is not in the list raises AttributeError here, as it
does there, so that a build against this fake fails where it would fail for real.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any, Protocol

from tests.helpers import ROOT
from tests.runtime.fake_cuda import FakeCuda
from tests.runtime.fake_execution import ENGINE, runtime_class

__all__ = ["LOG", "RELEASES", "fake_tensorrt"]

RELEASES: dict[str, dict[str, list[str]]] = json.loads(
    (ROOT / "tests" / "data" / "tensorrt_names.json").read_text(encoding="utf-8")
)

LOG = """\
Total Activation Memory: 54329856 bytes
Layers:
Name: start_myl0_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , \
StreamId: 0, Metadata:
Name: head_U22_myl0_4, LayerType: correlation, Inputs: [ { Name: cells.1_myl0, Dimensions: \
[1,32,-1,-1], Datatype: Half, Format: (Arbitrary) Format with stride order = [5,2,1,0,4,3] }], \
Constants: [ { Name: dconst_myl0, Dimensions: [32,32,3,3], Datatype: Float, Format: (NHWC) \
Channel major format }], Outputs: [ { Name: head.1_myl0, Dimensions: [1,32,-1,-1], Datatype: \
Float, Format: (NHWC) Channel major format }], TacticName: __myelin_CASK_STUB, StreamId: 0, \
Metadata: [ONNX Layer: head]
"""
"""Shortened from a log of TensorRT-RTX 1.7, data types changed to tell inputs from outputs."""

TENSORS = {"noisy": (-1, 4, -1, -1), "variance": (-1, 4, -1, -1), "noise_scale": (-1, 1, 1, 1)}
STEPS = 3


class Logger(Protocol):
    """A subclass of ILogger."""

    def log(self, severity: int, message: str) -> None:
        """Take one message."""


def fake_tensorrt(
    release: str,
    *,
    without: str = "",
    parses: bool = True,
    builds: bool = True,
    while_building: Callable[[], None] = lambda: None,
    cuda: FakeCuda | None = None,
    fails: Mapping[str, str] = MappingProxyType({}),
) -> ModuleType:
    """The module of a release such as "tensorrt 10.3.0"; ``module.calls`` records what was asked.

    Args:
        release: a key of ``RELEASES``.
        without: a name such as "Builder.create_network" that shall be missing as well.
        parses: whether the parser takes the network.
        builds: whether the builder succeeds.
        while_building: called at every step of a build.
        cuda: the GPU that engines run on.
        fails: functions of the runtime that fail, and what is logged then.
    """
    names = {
        kind: {name for name in public if f"{kind}.{name}" != without}
        for kind, public in RELEASES[release].items()
    }
    calls: dict[str, Any] = {}

    def only_named(kind: str) -> Callable[[type], type]:
        """Hide what the release does not have; a missing class stays missing."""

        def hide(behaviour: type) -> type:
            def check(name: str) -> None:
                if not name.startswith("_") and name not in names[kind]:
                    raise AttributeError(f"{release}: {kind} has no {name}")

            class Hidden(behaviour):  # type: ignore[misc]
                def __getattribute__(self, name: str) -> object:
                    check(name)
                    return super().__getattribute__(name)

                def __setattr__(self, name: str, value: object) -> None:
                    check(name)
                    super().__setattr__(name, value)

            return Hidden

        return hide

    @only_named("ITensor")
    class Tensor:
        def __init__(self, name: str, shape: tuple[int, ...]) -> None:
            self.name, self.shape = name, shape

    @only_named("INetworkDefinition")
    class Network:
        num_inputs = len(TENSORS)
        num_outputs = 1

        def get_input(self, index: int) -> object:
            return Tensor(*list(TENSORS.items())[index])

        def get_output(self, index: int) -> object:
            assert index == 0
            return Tensor("denoised", (-1, 4, -1, -1))

    @only_named("OnnxParser")
    class Parser:
        num_errors = 1

        def __init__(self, network: object, logger: object) -> None:
            calls["parser"] = (network, logger)

        def parse(self, model: bytes) -> bool:
            calls["model"] = model
            return parses

        def get_error(self, index: int) -> object:
            return f"error {index}: unknown operator"

    @only_named("IOptimizationProfile")
    class Profile:
        def set_shape(self, tensor: str, *shapes: tuple[int, ...]) -> None:
            least, usual, most = shapes
            calls["shapes"][tensor] = (least, usual, most)

    @only_named("ITimingCache")
    class TimingCache:
        def __init__(self, content: bytes) -> None:
            self._content = content

        def serialize(self) -> bytes:
            return self._content + b" measured"

    @only_named("IBuilderConfig")
    class Config:
        def __init__(self) -> None:
            self.progress_monitor: Any = None

        def clear_flag(self, flag: object) -> None:
            calls["cleared"] = flag

        def set_memory_pool_limit(self, pool: object, pool_size: int) -> None:
            calls["pool"] = (pool, pool_size)

        def add_optimization_profile(self, profile: object) -> int:
            assert isinstance(profile, Profile)
            return 0

        def create_timing_cache(self, content: bytes) -> object:
            return TimingCache(content)

        def set_timing_cache(self, cache: object, ignore_mismatch: bool) -> bool:
            assert not ignore_mismatch
            self._cache = cache
            return True

        def get_timing_cache(self) -> object:
            return self._cache

    @only_named("Builder")
    class Builder:
        def __init__(self, logger: Logger) -> None:
            self._logger = logger

        def create_network(self, flags: int) -> object:
            calls["network_flags"] = flags
            return Network()

        def create_builder_config(self) -> object:
            return Config()

        def create_optimization_profile(self) -> object:
            return Profile()

        def build_serialized_network(self, _network: object, config: Config) -> bytes | None:
            calls["config"] = config
            monitor = config.progress_monitor
            monitor.phase_start("Building engine", None, STEPS)
            for step in range(STEPS):
                while_building()
                if not monitor.step_complete("Building engine", step):
                    calls["cancelled"] = True
                    return None
            monitor.phase_finish("Building engine")
            for line in LOG.splitlines():
                self._logger.log(module.ILogger.VERBOSE, line)
            if not builds:
                self._logger.log(module.ILogger.ERROR, "no kernel for head")
                return None
            model: bytes = calls["model"]
            return ENGINE + model

    def constants(kind: str) -> SimpleNamespace:
        return SimpleNamespace(**{name: n for n, name in enumerate(sorted(names[kind]))})

    package, version = release.split()
    module: Any = ModuleType(package)
    module.__version__ = version
    module.calls = calls
    everything = {
        "Builder": Builder,
        "OnnxParser": Parser,
        "ILogger": type("ILogger", (), vars(constants("ILogger"))),
        "IProgressMonitor": type("IProgressMonitor", (), {}),
        "ComputeCapability": SimpleNamespace(),
        **{
            kind: constants(kind)
            for kind in (
                "BuilderFlag",
                "DataType",
                "MemoryPoolType",
                "NetworkDefinitionCreationFlag",
                "ProfilingVerbosity",
                "TensorIOMode",
            )
        },
    }
    everything["Runtime"] = runtime_class(
        only_named,
        calls.setdefault("shapes", {}),
        cuda or FakeCuda(),
        SimpleNamespace(**everything),
        fails,
    )
    for name in names["(module)"] & everything.keys():
        setattr(module, name, everything[name])
    return module  # type: ignore[no-any-return]
