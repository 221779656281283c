"""Building engines: against the names of every release of TensorRT, with a fake of it."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cycleisp_runtime.bundle import Bundle, find_bundle
from cycleisp_runtime.engines import build
from cycleisp_runtime.engines.build import build_engine
from cycleisp_runtime.engines.cache import EngineCache
from cycleisp_runtime.engines.gpu import Gpu
from cycleisp_runtime.engines.key import TileShapes
from cycleisp_runtime.engines.layers import Layer
from cycleisp_runtime.engines.tensorrt import PACKAGES, Plan, TensorRT, find_tensorrt
from cycleisp_runtime.errors import BackendError, BundleError, SettingsError
from tests.helpers import NETWORK, a_record, write_bundle
from tests.runtime.fake_tensorrt import RELEASES, fake_tensorrt

TENSORS = frozenset({"noisy", "variance", "noise_scale", "denoised"})
SHAPES = TileShapes((16, 32), (64, 96), (128, 160))
TOO_OLD = "tensorrt 8.6.1"
SUPPORTED = [release for release in RELEASES if release != TOO_OLD]
JETPACK_6 = "tensorrt 10.3.0"
RTX = "tensorrt_rtx 1.7.1.116"
ORIN = Gpu("Orin", (8, 7), 16, "CUDA 12060, 540.4.0")


Use = Callable[..., None]
"""Takes a module of TensorRT and a GPU."""


def fake_build(module: ModuleType, **changes: object) -> Plan:
    arguments: dict[str, Any] = {"tensors": TENSORS, "shapes": SHAPES, **changes}
    return TensorRT(module).build(NETWORK, **arguments)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle, and a user's folders that hold nothing yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Bundle.load(write_bundle(tmp_path / "testnet.bundle", NETWORK))


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Makes ``build_engine`` see a release of TensorRT and a GPU."""

    def install(module: ModuleType, gpu: Gpu | None = ORIN) -> None:
        tensorrt = TensorRT(module)
        monkeypatch.setattr(build, "find_tensorrt", lambda: tensorrt)
        monkeypatch.setattr(build, "find_gpu", lambda: gpu)

    return install


@pytest.mark.parametrize("release", SUPPORTED)
def test_every_release_has_every_name_that_a_build_uses(release: str) -> None:
    module = fake_tensorrt(release)
    steps: list[tuple[str, int, int]] = []
    plan = fake_build(module, workspace_mib=64, progress=lambda *step: steps.append(step))
    calls = module.calls
    assert plan.content == b"engine of " + NETWORK
    assert calls["network_flags"] == 1 << module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert calls["cleared"] == module.BuilderFlag.TF32
    assert calls["pool"] == (module.MemoryPoolType.WORKSPACE, 64 << 20)
    assert calls["config"].profiling_verbosity == module.ProfilingVerbosity.DETAILED
    assert calls["shapes"] == {
        "noisy": ((1, 4, 16, 32), (1, 4, 64, 96), (1, 4, 128, 160)),
        "variance": ((1, 4, 16, 32), (1, 4, 64, 96), (1, 4, 128, 160)),
        "noise_scale": ((1, 1, 1, 1),) * 3,
    }
    assert steps == [("Building engine", done, 3) for done in (1, 2, 3)]


@pytest.mark.parametrize(
    "name",
    [
        "Builder.create_optimization_profile",
        "Builder.build_serialized_network",
        "BuilderFlag.TF32",
        "IBuilderConfig.set_memory_pool_limit",
        "INetworkDefinition.get_output",
        "IOptimizationProfile.set_shape",
        "ITensor.shape",
        "ITimingCache.serialize",
        "OnnxParser.parse",
        "ProfilingVerbosity.DETAILED",
    ],
)
def test_a_name_that_a_release_lacks_is_noticed(name: str) -> None:
    with pytest.raises(BackendError, match=r"tensorrt 10\.3\.0: cannot build: .*no.*attribute|no "):
        fake_build(fake_tensorrt(JETPACK_6, without=name), workspace_mib=64)


def test_a_release_without_strong_typing_is_refused() -> None:
    with pytest.raises(BackendError, match=r"8\.6\.1: knows no strongly typed.*10\.3 and later"):
        fake_build(fake_tensorrt(TOO_OLD))


@pytest.mark.parametrize("release", SUPPORTED)
def test_only_rtx_times_nothing(release: str) -> None:
    plan = fake_build(fake_tensorrt(release), timings=b"earlier")
    assert plan.timings == (b"" if "rtx" in release else b"earlier measured")


def test_what_the_parser_and_the_builder_say_is_told() -> None:
    with pytest.raises(BackendError, match="does not accept the network: error 0: unknown operat"):
        fake_build(fake_tensorrt(JETPACK_6, parses=False))
    with pytest.raises(BackendError, match="cannot build; no kernel for head"):
        fake_build(fake_tensorrt(JETPACK_6, builds=False))


def test_a_network_with_other_tensors_is_refused() -> None:
    with pytest.raises(BundleError, match=r"not the one .* wanted denoised, noisy, picture"):
        fake_build(fake_tensorrt(RTX), tensors={"noisy", "denoised", "picture"})


def test_an_interrupt_ends_the_build_at_the_next_step() -> None:
    """The build goes on in its thread until TensorRT asks whether it shall."""
    interrupted = threading.Event()

    def interrupt_once() -> None:
        # The handler runs in the main thread, which must have its turn before and after.
        time.sleep(0.1)
        if not interrupted.is_set():
            interrupted.set()
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

    module = fake_tensorrt(JETPACK_6, while_building=interrupt_once)
    with pytest.raises(KeyboardInterrupt):
        fake_build(module)
    assert module.calls["cancelled"]


def test_where_nothing_is_installed_the_extras_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PACKAGES:
        monkeypatch.setitem(sys.modules, name, None)
    find_tensorrt.cache_clear()
    with pytest.raises(BackendError, match=r"cycleisp\[rtx\].*cycleisp\[tensorrt\].*JetPack"):
        find_tensorrt()


def test_a_package_whose_libraries_are_missing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:

    def broken(_name: str) -> None:
        raise OSError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", broken)
    find_tensorrt.cache_clear()
    with pytest.raises(BackendError, match=r"libnvinfer\.so\.10"):
        find_tensorrt()


def test_tensorrt_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    for release in (RTX, JETPACK_6):
        monkeypatch.setitem(sys.modules, release.split()[0], fake_tensorrt(release))
    find_tensorrt.cache_clear()
    found = find_tensorrt()
    find_tensorrt.cache_clear()
    assert (found.package, found.version) == ("tensorrt", "10.3.0")


def test_int8_for_cpus_is_refused_before_anything_is_built(bundle: Bundle, use: Use) -> None:
    use(fake_tensorrt(JETPACK_6))
    with pytest.raises(SettingsError, match=r"for ONNX Runtime on a CPU .*wanted int8"):
        build_engine(bundle, "int8-cpu")


def test_an_engine_is_built_once(bundle: Bundle, use: Use) -> None:
    use(fake_tensorrt(JETPACK_6))
    first = build_engine(bundle, "fp32")
    second = build_engine(bundle, "fp32")
    assert (first.from_cache, second.from_cache) == (False, True)
    assert second.manifest == first.manifest
    manifest = first.manifest
    assert (manifest.model, manifest.activation_bytes) == ("testnet", 54_329_856)
    assert manifest.layers == (
        Layer("start_myl0_0", "shape_call", (), ()),
        Layer("head_U22_myl0_4", "correlation", ("Half",), ("Float",)),
    )
    assert (manifest.key.package, manifest.key.version) == ("tensorrt", "10.3.0")
    assert manifest.key.gpu == ORIN
    assert Path(first.engine).read_bytes() == b"engine of " + NETWORK


@pytest.mark.parametrize(
    ("release", "gpu", "shapes", "workspace_mib"),
    [
        ("tensorrt 11.4.0.106", ORIN, None, None),
        (JETPACK_6, Gpu("Orin", (8, 7), 8, ORIN.driver), None, None),
        (JETPACK_6, Gpu("Orin", (8, 7), 16, "CUDA 12060, 540.5.0"), None, None),
        (JETPACK_6, ORIN, SHAPES, None),
        (JETPACK_6, ORIN, None, 512),
        (RTX, None, None, None),
    ],
)
def test_what_an_engine_depends_on_makes_another(
    bundle: Bundle,
    use: Use,
    release: str,
    gpu: Gpu | None,
    shapes: TileShapes | None,
    workspace_mib: int | None,
) -> None:
    use(fake_tensorrt(JETPACK_6))
    first = build_engine(bundle, "fp32")
    use(fake_tensorrt(release), gpu)
    other = build_engine(bundle, "fp32", shapes=shapes, workspace_mib=workspace_mib)
    assert not other.from_cache
    assert other.engine != first.engine


def test_what_was_measured_serves_the_next_build(bundle: Bundle, use: Use) -> None:
    use(fake_tensorrt(JETPACK_6))
    build_engine(bundle, "fp32")
    build_engine(bundle, "fp32", shapes=SHAPES)
    key = build_engine(bundle, "fp32").manifest.key
    timings = EngineCache().load_timings(key.package, key.version, key.gpu)
    assert timings == b" measured measured"


def test_what_the_cache_refuses_is_built_again_and_said(bundle: Bundle, use: Use) -> None:
    use(fake_tensorrt(JETPACK_6))
    first = build_engine(bundle, "fp32")
    engine = Path(first.engine)
    engine.write_bytes(b"Engine of " + NETWORK)
    (timings,) = engine.parent.glob("*.timings")
    timings.write_bytes(b"forged")
    second = build_engine(bundle, "fp32")
    assert not second.from_cache
    assert len(second.warnings) == 2
    assert "not the one that was built" in second.warnings[0]
    assert "altered, or not written by this user" in second.warnings[1]
    assert engine.read_bytes() == b"engine of " + NETWORK
    assert build_engine(bundle, "fp32").warnings == ()


def test_a_failed_build_leaves_nothing(bundle: Bundle, use: Use) -> None:
    use(fake_tensorrt(JETPACK_6, builds=False))
    with pytest.raises(BackendError, match="no kernel for head"):
        build_engine(bundle, "fp32")
    assert list(EngineCache().folder.glob("*")) == []


def test_shapes_that_the_model_cannot_have_are_refused(bundle: Bundle, use: Use) -> None:
    use(fake_tensorrt(JETPACK_6))
    with pytest.raises(SettingsError, match=r"met 15, 64, 64, wanted multiples of 2"):
        build_engine(bundle, "fp32", shapes=TileShapes((15, 16), (64, 64), (64, 64)))
    with pytest.raises(SettingsError, match="MIN <= OPT <= MAX"):
        build_engine(bundle, "fp32", shapes=TileShapes((16, 16), (64, 64), (64, 32)))


@pytest.mark.parametrize("name", ["tiny", "edge"])
def test_shipped_bundles_have_shapes(name: str) -> None:
    record = find_bundle(name).record
    shapes = TileShapes.default(record)
    shapes.check(record.multiple_of)
    assert shapes.most == (512, 512)


def test_shapes_are_squares_or_rows_and_columns() -> None:
    assert TileShapes.parse("64,384x512,512") == TileShapes((64, 64), (384, 512), (512, 512))


@pytest.mark.parametrize(
    "text", ["", "64", "64,64", "64,64,64,64", "64,a,64", "1x2x3,4,5", "-1,2,3"]
)
def test_other_words_for_shapes_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="MIN,OPT,MAX"):
        TileShapes.parse(text)


def test_default_shapes_keep_to_the_multiple_of_the_model() -> None:
    record = a_record(multiple_of=24)
    shapes = TileShapes.default(record)
    assert shapes == TileShapes((24, 24), (504, 504), (504, 504))
