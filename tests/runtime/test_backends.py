"""Backends: what they accept, what they give, and how they fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from cycleisp_runtime.backends import Backend
from cycleisp_runtime.backends.identity import IdentityBackend
from cycleisp_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cycleisp_runtime.bundle import Bundle
from cycleisp_runtime.cores import physical_cores
from cycleisp_runtime.errors import BackendError, BundleError
from tests.helpers import NETWORK, a_record, write_bundle
from tests.networks import residual_network


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    network = residual_network().SerializeToString()
    return Bundle.load(write_bundle(tmp_path / "net.bundle", network))


def a_tile(rows: int = 6, columns: int = 8) -> np.ndarray:
    return np.random.default_rng(1).random((1, 4, rows, columns), np.float32)


def inputs(noisy: np.ndarray, variance: np.ndarray, noise_scale: float) -> dict[str, np.ndarray]:
    return a_record().tensors.fill(noisy, variance, noise_scale)


def test_identity_gives_a_copy() -> None:
    tile = a_tile()
    with IdentityBackend() as backend:
        out = backend.run(inputs(tile, tile, 1.0))
    assert out is not tile
    np.testing.assert_array_equal(out, tile)


def test_onnxruntime_runs_the_network_with_all_three_inputs(bundle: Bundle) -> None:
    tile = a_tile()
    with OnnxRuntimeBackend(bundle, threads=1) as backend:
        once = backend.run(inputs(tile, tile, 1.0)) - tile
        doubled = backend.run(inputs(tile, tile, 2.0)) - tile
        other_variance = backend.run(inputs(tile, 2 * tile, 1.0)) - tile
    np.testing.assert_allclose(doubled, 2 * once, atol=1e-6)  # float32 of values around 1
    assert np.abs(other_variance - once).max() > 0.01


def test_onnxruntime_takes_any_tile_shape_and_reuses_its_output(bundle: Bundle) -> None:
    with OnnxRuntimeBackend(bundle, threads=1) as backend:
        first = backend.run(inputs(a_tile(), a_tile(), 1.0))
        assert backend.run(inputs(a_tile(), a_tile(), 0.5)) is first
        assert backend.run(inputs(a_tile(2, 12), a_tile(2, 12), 1.0)).shape == (1, 4, 2, 12)


def test_a_closed_backend_says_so(bundle: Bundle) -> None:
    backend: Backend = OnnxRuntimeBackend(bundle, threads=1)
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.run(inputs(a_tile(), a_tile(), 1.0))


def test_a_tile_that_the_network_cannot_take_is_our_error(bundle: Bundle) -> None:
    with (
        OnnxRuntimeBackend(bundle, threads=1) as backend,
        pytest.raises(BackendError, match=r"fp32\.onnx: ONNX Runtime failed on inputs of"),
    ):
        backend.run(inputs(a_tile(5, 8), a_tile(5, 8), 1.0))


def test_bytes_that_are_no_network_are_our_error(tmp_path: Path) -> None:
    bundle = Bundle.load(write_bundle(tmp_path / "net.bundle", NETWORK))
    with pytest.raises(BackendError, match=r"fp32\.onnx: ONNX Runtime .* does not accept"):
        OnnxRuntimeBackend(bundle, threads=1)


def test_data_outside_the_network_is_refused_before_a_session_exists(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = residual_network()
    weight = model.graph.initializer[0]
    (tmp_path / "secret").write_bytes(weight.raw_data)
    onnx.external_data_helper.set_external_data(weight, location="secret")
    weight.ClearField("raw_data")
    bundle = Bundle.load(write_bundle(tmp_path / "net.bundle", model.SerializeToString()))
    with pytest.raises(BundleError, match="data outside its file"):
        OnnxRuntimeBackend(bundle, threads=1)


def test_a_network_with_other_tensors_than_the_bundle_says_is_refused(tmp_path: Path) -> None:
    network = residual_network().SerializeToString()
    names = a_record().tensors
    for number, other in enumerate(
        [
            structs.replace(names, variance="sigma"),
            structs.replace(names, denoised="output"),
            structs.replace(names, variance=names.noise_scale, noise_scale=names.variance),
        ]
    ):
        folder = write_bundle(tmp_path / f"net{number}.bundle", network, tensors=other)
        with pytest.raises(BundleError, match="not the one that the bundle describes"):
            OnnxRuntimeBackend(Bundle.load(folder), threads=1)


def test_at_least_one_core() -> None:
    assert physical_cores() >= 1
