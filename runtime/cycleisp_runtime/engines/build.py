"""From a bundle to an engine in the cache."""

from __future__ import annotations

import hashlib
import logging
import time

import msgspec

from cycleisp_runtime.bundle import Bundle, Precision
from cycleisp_runtime.engines.cache import EngineCache, Manifest
from cycleisp_runtime.engines.gpu import find_gpu
from cycleisp_runtime.engines.key import EngineKey, TileShapes
from cycleisp_runtime.engines.layers import activation_bytes, layers
from cycleisp_runtime.engines.tensorrt import SETTINGS, BuildProgress, TensorRT, find_tensorrt
from cycleisp_runtime.errors import BackendError, SettingsError

__all__ = ["BuildOutcome", "build_engine", "engine_key"]


_log = logging.getLogger(__name__)


class BuildOutcome(msgspec.Struct, frozen=True):
    """An engine and how it came about.

    Attributes:
        engine: its path in the cache.
        manifest: what is known of it.
        from_cache: it was there already.
        warnings: what was not taken from the cache, and why.
    """

    engine: str
    manifest: Manifest
    from_cache: bool
    warnings: tuple[str, ...] = ()


def engine_key(
    tensorrt: TensorRT,
    bundle: Bundle,
    precision: Precision,
    shapes: TileShapes | None = None,
    workspace_mib: int | None = None,
) -> EngineKey:
    """Everything that the engine of this network depends on, here and now.

    Args:
        tensorrt: what builds or runs it.
        bundle: a checked bundle.
        precision: which of its networks.
        shapes: of tiles; None for all up to the denoiser's default.
        workspace_mib: memory to try kernels with, in MiB; None for all there is.

    Raises:
        BundleError: where the bundle lacks the precision.
        SettingsError: where the network accepts no such tiles, or the precision is for CPUs.
        BackendError: where the driver does not work.
    """
    if precision == "int8-cpu":
        raise SettingsError(
            "this precision is for ONNX Runtime on a CPU", met=precision, wanted="int8"
        )
    network = bundle.model(precision)
    shapes = shapes or TileShapes.default(bundle.record)
    shapes.check(bundle.record.multiple_of)
    return EngineKey(
        network_sha256=hashlib.sha256(network).hexdigest(),
        precision=precision,
        shapes=shapes,
        workspace_mib=workspace_mib,
        settings=SETTINGS,
        package=tensorrt.package,
        version=tensorrt.version,
        gpu=find_gpu(),
    )


def build_engine(
    bundle: Bundle,
    precision: Precision,
    *,
    shapes: TileShapes | None = None,
    workspace_mib: int | None = None,
    progress: BuildProgress | None = None,
) -> BuildOutcome:
    """The engine of one of the bundle's networks for this machine, built where the cache has none.

    What the cache refuses to give is built again, and said.

    Args:
        bundle: a checked bundle.
        precision: which of its networks.
        shapes: of tiles; None for all up to the denoiser's default.
        workspace_mib: memory to try kernels with, in MiB; None for all there is.
        progress: called after every step of the build; None to have the build logged.

    Raises:
        BundleError: where the bundle lacks the precision or its network must not be trusted.
        SettingsError: where the network accepts no such tiles.
        BackendError: where TensorRT is missing or fails, or the cache's folder is not private.
        OutputError: where the cache cannot be written.
    """
    tensorrt = find_tensorrt()
    key = engine_key(tensorrt, bundle, precision, shapes, workspace_mib)
    cache = EngineCache()
    warnings: list[str] = []
    try:
        cached = cache.load(key)
    except BackendError as error:
        warnings.append(str(error))
    else:
        if cached is not None:
            return BuildOutcome(str(cached.path), cached.manifest, from_cache=True)

    maker = (tensorrt.package, tensorrt.version, key.gpu)
    try:
        timings = cache.load_timings(*maker)
    except BackendError as error:
        warnings.append(str(error))
        timings = b""
    if progress is None:  # nobody else says why nothing happens for minutes
        _log.warning("building the engine of %s %s, once", bundle.record.name, precision)
    started = time.perf_counter()
    plan = tensorrt.build(
        bundle.model(precision),
        tensors=frozenset((*bundle.record.tensors.inputs, bundle.record.tensors.denoised)),
        shapes=key.shapes,
        workspace_mib=workspace_mib,
        timings=timings,
        progress=progress,
    )
    manifest = Manifest(
        format="cycleisp-engine/1",
        model=bundle.record.name,
        key=key,
        sha256=hashlib.sha256(plan.content).hexdigest(),
        bytes=len(plan.content),
        activation_bytes=activation_bytes(plan.log),
        seconds=round(time.perf_counter() - started, 3),
        layers=layers(plan.log),
    )
    engine = cache.store(manifest, plan.content)
    if plan.timings:
        cache.store_timings(*maker, plan.timings)
    return BuildOutcome(str(engine.path), manifest, from_cache=False, warnings=tuple(warnings))
