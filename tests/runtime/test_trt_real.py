"""Engines built for real, without a GPU, by TensorRT-RTX where it is installed.

It cannot run them there; what its builder made of the network stands in its log. ``make`` does not
install it: it is proprietary and of 240 MB. ``pip install 'cycleisp[rtx]'`` makes these tests run.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cycleisp_runtime.backends.tensorrt import TensorRTBackend
from cycleisp_runtime.bundle import Precision, find_bundle, shipped_bundles
from cycleisp_runtime.cli import main
from cycleisp_runtime.engines.build import build_engine
from cycleisp_runtime.engines.cache import EngineCache
from cycleisp_runtime.engines.execution import Execution
from cycleisp_runtime.engines.gpu import find_gpu
from cycleisp_runtime.engines.key import TileShapes
from cycleisp_runtime.engines.tensorrt import TensorRT
from cycleisp_runtime.errors import BackendError
from tests.runtime.fake_tensorrt import RELEASES

tensorrt_rtx = pytest.importorskip(
    "tensorrt_rtx", reason="needs the extra rtx", exc_type=ImportError
)

DATATYPES = {"fp32": "Float", "fp16": "Half", "int8": "Int8"}
"""TensorRT's words for what a convolution of each precision reads."""

NETWORKS = [
    (name, precision)
    for name in sorted(shipped_bundles())
    for precision in find_bundle(name).record.precisions
    if precision != "int8-cpu"  # which is for ONNX Runtime
]


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of a user that hold nothing yet, and no other TensorRT than RTX."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    found = TensorRT(tensorrt_rtx)
    monkeypatch.setattr("cycleisp_runtime.engines.build.find_tensorrt", lambda: found)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize(("name", "precision"), NETWORKS)
def test_shipped_networks_build(name: str, precision: Precision) -> None:
    shapes = TileShapes((64, 64), (128, 128), (256, 256))
    steps: list[tuple[str, int, int]] = []
    outcome = build_engine(
        find_bundle(name),
        precision,
        shapes=shapes,
        workspace_mib=256,
        progress=lambda *step: steps.append(step),
    )
    assert outcome.warnings == ()
    assert Path(outcome.engine).stat().st_size == outcome.manifest.bytes > 100_000
    assert outcome.manifest.activation_bytes
    assert {phase for phase, _, _ in steps} >= {"Building engine"}
    assert all(0 < done <= total for _, done, total in steps)


@pytest.mark.parametrize(("name", "precision"), NETWORKS)
def test_convolutions_compute_at_the_precision_that_the_bundle_says(
    name: str, precision: Precision
) -> None:
    bundle = find_bundle(name)
    reduction = bundle.record.precisions[precision].reduction
    kept = reduction.kept if reduction else {}
    convolutions = {
        layer.name.rpartition("_U")[0]: layer.inputs[0]
        for layer in build_engine(bundle, precision).manifest.layers
        if layer.kind == "correlation"
    }
    assert len(convolutions) > 5
    assert convolutions == {
        node: DATATYPES[kept.get(node, precision).partition(":")[0]] for node in convolutions
    }


def test_the_command_builds_once_and_info_tells_the_layers() -> None:
    arguments = ("build", "tiny", "--precision", "fp32", "--shapes", "64,128,256", "--json")
    first, second = run(*arguments), run(*arguments)
    assert (first.exit_code, first.stderr) == (0, "")
    outcomes = [json.loads(result.stdout) for result in (first, second)]
    assert [outcome["from_cache"] for outcome in outcomes] == [False, True]
    assert outcomes[0]["manifest"] == outcomes[1]["manifest"]
    told = run("info", outcomes[0]["engine"])
    assert told.exit_code == 0
    assert "tiles           64x64 to 256x256, fast for 128x128" in told.stdout
    assert "correlation     Float -> Float: head_" in told.stdout


def test_the_fakes_have_the_names_of_the_real_package() -> None:
    release = f"tensorrt_rtx {tensorrt_rtx.__version__}"
    if release not in RELEASES:
        pytest.skip(f"{release} is not among the releases that the fakes know")
    for kind, names in RELEASES[release].items():
        there = tensorrt_rtx if kind == "(module)" else getattr(tensorrt_rtx, kind)
        assert {*names} <= {*dir(there)}, kind


@pytest.mark.skipif(find_gpu() is not None, reason="there is a GPU")
def test_without_a_gpu_an_engine_is_refused_in_one_line() -> None:
    bundle = find_bundle("tiny")
    outcome = build_engine(bundle, "fp32", shapes=TileShapes((64, 64), (64, 64), (64, 64)))
    engine = EngineCache().open(Path(outcome.engine))
    tensors = {*bundle.record.tensors.inputs, bundle.record.tensors.denoised}
    with pytest.raises(BackendError, match=r"^tensorrt-rtx .*: (cannot load|does not accept) the"):
        Execution(TensorRT(tensorrt_rtx), engine, tensors)
    with pytest.raises(BackendError, match="there is no GPU that CUDA may use"):
        TensorRTBackend(bundle, "fp32")


def test_what_is_no_network_is_refused_by_its_parser() -> None:
    with pytest.raises(BackendError, match=r"^tensorrt-rtx .*does not accept the network"):
        TensorRT(tensorrt_rtx).build(
            b"no network", tensors=frozenset(), shapes=TileShapes((8, 8), (8, 8), (8, 8))
        )
