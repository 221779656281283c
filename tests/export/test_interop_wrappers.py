"""A wrapped network computes what the network computes, from one tensor."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from cycleisp_export.baked_noise import BakedNoise, baked_noise
from cycleisp_export.graph import TENSORS
from cycleisp_export.wrappers import (
    FRAME_MEAN,
    darktable_graph,
    mosaic_graph,
    packed_graph,
    picture_graph,
)
from cycleisp_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cycleisp_runtime.bayer import Phase, pack, unpack
from cycleisp_runtime.bundle import Bundle, find_bundle
from cycleisp_runtime.errors import (
    BackendError,
    BundleError,
    CycleISPError,
    InputError,
    SettingsError,
)
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.tiles import LEAST_NOISE_SCALE
from tests.helpers import ROOT, write_bundle
from tests.networks import residual_network

Samples = npt.NDArray[np.float32]
Make = Callable[[Bundle], onnx.ModelProto]

TOLERANCE = 1e-6
"""The same nodes on the same inputs; only the variance and its mean are summed in another order."""

NOISE = BakedNoise(
    NoiseModel((1.1e-3, 1.0e-3, 0.9e-3, 1.3e-3), (1e-6, 2e-6, 3e-6, 4e-6)), "noise of a test"
)
"""Other in every plane, so that exchanged planes show."""

SIZES = [(16, 16), (18, 30), (22, 10)]
"""Of packed frames: multiples of 2, but not all of 4."""

PHASES = pytest.mark.parametrize("phase", Phase, ids=[phase.value for phase in Phase])


@pytest.fixture(name="bundle", params=["tiny", "edge"])
def shipped_bundle(request: pytest.FixtureRequest) -> Bundle:
    return find_bundle(request.param)


@pytest.fixture(name="small")
def small_bundle(tmp_path: Path) -> Bundle:
    network = residual_network().SerializeToString(deterministic=True)
    return Bundle.load(write_bundle(tmp_path / "small.bundle", network))


def signal(shape: tuple[int, ...]) -> Samples:
    """Normalised samples below black and above white among them."""
    return np.random.default_rng(sum(shape)).uniform(-0.05, 1.1, shape).astype(np.float32)


def run(proto: onnx.ModelProto, samples: Samples) -> Samples:
    """What ONNX Runtime makes of the graph's one input."""
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (only,) = session.get_inputs()
    (output,) = session.run(None, {only.name: samples})
    result: Samples = output
    return result


def metadata(proto: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in proto.metadata_props}


def core(bundle: Bundle, packed: Samples, noise_scale: float | None = None) -> Samples:
    """What the runtime makes of a packed frame (4, h, w) with the same noise."""
    variance = NOISE.model.variance(packed)
    scale = float(np.sqrt(variance.mean(dtype=np.float64))) if noise_scale is None else noise_scale
    with OnnxRuntimeBackend(bundle, threads=1) as backend:
        denoised: Samples = backend.run(TENSORS.fill(packed[None], variance[None], scale))[0].copy()
    return denoised


@pytest.mark.parametrize("size", SIZES)
def test_packed_frames_come_out_as_from_the_network(bundle: Bundle, size: tuple[int, int]) -> None:
    packed = signal((4, *size))
    (wrapped,) = run(packed_graph(bundle, NOISE), packed[None])
    np.testing.assert_allclose(wrapped, core(bundle, packed), rtol=0, atol=TOLERANCE)


def test_every_frame_of_a_batch_has_its_own_noise_scale(bundle: Bundle) -> None:
    packed = signal((2, 4, 16, 20)) * np.array([0.1, 1.0], np.float32).reshape(2, 1, 1, 1)
    wrapped = run(packed_graph(bundle, NOISE), packed)
    expected = np.stack([core(bundle, frame) for frame in packed])
    np.testing.assert_allclose(wrapped, expected, rtol=0, atol=TOLERANCE)


@PHASES
@pytest.mark.parametrize("size", SIZES)
def test_mosaics_of_every_phase_come_out_as_from_the_network(
    bundle: Bundle, phase: Phase, size: tuple[int, int]
) -> None:
    height, width = 2 * size[0], 2 * size[1]
    mosaic = signal((height, width))
    # Whole RGGB cells whose packed sides are multiples of 2: 3 more where 1 comes before.
    row, column = phase.red
    reflected = np.pad(mosaic, ((row, 3 * row), (column, 3 * column)), mode="reflect")
    denoised = core(bundle, pack(reflected, Phase.RGGB))
    wrapped = run(mosaic_graph(bundle, NOISE, phase), mosaic[None, None])
    assert wrapped.shape == (1, 1, height, width)
    expected = unpack(denoised, phase, height, width)
    np.testing.assert_allclose(wrapped[0, 0], expected, rtol=0, atol=TOLERANCE)


@PHASES
def test_darktable_gets_the_network_back_by_site_colour(bundle: Bundle, phase: Phase) -> None:
    tile = 48
    sensor = signal((2 * tile + 2, 2 * tile + 2))
    # With force_rggb darktable starts its tiles at a red sample of the sensor.
    row, column = phase.red
    region = sensor[row : row + 2 * tile, column : column + 2 * tile]
    packed = pack(region, Phase.RGGB)
    (camera_rgb,) = run(darktable_graph(bundle, NOISE, tile), packed[None])
    assert camera_rgb.shape == (3, 2 * tile, 2 * tile)

    # At every sample it takes the channel of that sample's colour.
    rows, columns = np.indices(region.shape)
    site = 2 * ((rows + row) % 2) + (columns + column) % 2
    channel = np.array(["RGB".index(colour) for colour in phase.value])[site]
    taken = np.take_along_axis(camera_rgb, channel[None], axis=0)[0]
    grey_frame = NOISE.model.mean_shot * FRAME_MEAN + NOISE.model.mean_read
    denoised = core(bundle, packed, noise_scale=float(np.sqrt(grey_frame)))
    expected = unpack(denoised, Phase.RGGB, *region.shape)
    np.testing.assert_allclose(taken, expected, rtol=0, atol=TOLERANCE)


def test_tiles_of_one_frame_are_treated_alike(bundle: Bundle) -> None:
    """A tile's own brightness has no say; the exact halo of tiny and edge is at most 36."""
    halo, tile = bundle.record.halo.exact, 96
    assert halo is not None
    dark = 0.1 * signal((1, 4, tile, tile))
    beside = dark.copy()
    beside[..., tile - 4 :] += 0.8
    graph = darktable_graph(bundle, NOISE, tile)
    far = 2 * (tile - 4 - halo)
    np.testing.assert_array_equal(run(graph, dark)[..., :far], run(graph, beside)[..., :far])


@pytest.mark.parametrize(
    ("make", "multiple", "stated", "refused"),
    [
        (lambda bundle: packed_graph(bundle, NOISE), "2", (1, 4, 18, 22), (1, 4, 18, 21)),
        (
            lambda bundle: mosaic_graph(bundle, NOISE, Phase.BGGR),
            "4",
            (1, 1, 36, 44),
            (1, 1, 34, 44),
        ),
    ],
    ids=["packed", "mosaic"],
)
def test_sides_are_multiples_of_what_the_graph_states(
    small: Bundle,
    make: Make,
    multiple: str,
    stated: tuple[int, ...],
    refused: tuple[int, ...],
) -> None:
    graph = make(small)
    assert metadata(graph)["sides_multiple_of"] == multiple
    assert run(graph, signal(stated)).shape == stated
    with pytest.raises(Exception, match="SpaceToDepth"):
        run(graph, signal(refused))


def test_a_black_frame_without_read_noise_stays_a_number(bundle: Bundle) -> None:
    silent = BakedNoise(NoiseModel.uniform(1e-3, 0.0), "no read noise")
    black = np.zeros((1, 4, 8, 8), np.float32)
    with OnnxRuntimeBackend(bundle, threads=1) as backend:
        expected = backend.run(TENSORS.fill(black, np.zeros_like(black), LEAST_NOISE_SCALE)).copy()
    wrapped = run(packed_graph(bundle, silent), black)
    assert np.isfinite(wrapped).all()
    np.testing.assert_array_equal(wrapped, expected)


GRAPHS = pytest.mark.parametrize(
    "make",
    [
        lambda bundle: packed_graph(bundle, NOISE),
        lambda bundle: mosaic_graph(bundle, NOISE, Phase.GRBG),
        lambda bundle: darktable_graph(bundle, NOISE, 64),
    ],
    ids=["packed", "mosaic", "darktable"],
)


@GRAPHS
def test_the_graph_is_valid_and_says_where_it_comes_from(bundle: Bundle, make: Make) -> None:
    proto = make(bundle)
    onnx.checker.check_model(proto, full_check=True)
    assert (len(proto.graph.input), len(proto.graph.output)) == (1, 1)
    names = [node.name for node in proto.graph.node]
    assert len(set(names)) == len(names)
    said = metadata(proto)
    assert said["bundle_sha256"] == bundle.sha256
    assert said["weights_sha256"] == bundle.record.provenance.weights_sha256
    assert said["license"] == bundle.record.license
    assert "shot 0.0011 0.001 0.0009 0.0013, read 1e-06 2e-06 3e-06 4e-06" in said["noise"]


@GRAPHS
def test_the_graph_is_the_same_every_time_and_tells_of_no_machine(
    bundle: Bundle, make: Make
) -> None:
    first = make(bundle).SerializeToString(deterministic=True)
    assert make(bundle).SerializeToString(deterministic=True) == first
    proto = onnx.load_model_from_string(first)
    for tensor in proto.graph.initializer:
        tensor.ClearField("raw_data")
    paths = rb"/\w+/|\w:\\|site-packages|\.py\b|" + re.escape(str(Path.home()).encode())
    assert not re.search(paths, proto.SerializeToString())


def test_raw_networks_are_none_for_pictures(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"not a network for pictures \(met raw, wanted srgb"):
        picture_graph(bundle)


@GRAPHS
def test_other_tasks_than_raw_are_refused(tmp_path: Path, make: Make) -> None:
    network = residual_network().SerializeToString()
    folder = write_bundle(tmp_path / "photo.bundle", network, task="srgb")
    with pytest.raises(BundleError, match=r"photo.bundle: .*RAW networks only \(met srgb"):
        make(Bundle.load(folder))


def test_a_network_with_names_of_the_wrapper_is_refused(tmp_path: Path) -> None:
    proto = residual_network()
    for node in proto.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == "cells":
                    names[index] = "wrapper.signal"
    folder = write_bundle(tmp_path / "odd.bundle", proto.SerializeToString())
    with pytest.raises(BackendError, match="cannot be wrapped"):
        packed_graph(Bundle.load(folder), NOISE)


def test_a_network_that_is_not_what_the_bundle_says_is_refused(tmp_path: Path) -> None:
    proto = residual_network()
    del proto.graph.input[2]
    proto.graph.initializer.append(
        onnx.numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "noise_scale")
    )
    folder = write_bundle(tmp_path / "odd.bundle", proto.SerializeToString())
    with pytest.raises(BundleError, match="not the one that the bundle describes"):
        packed_graph(Bundle.load(folder), NOISE)


PROFILES = ROOT / "tests" / "data" / "noise_profiles"


def test_the_noise_of_a_camera_is_read_off_its_profile() -> None:
    baked = baked_noise(None, PROFILES / "pmn_sony_a7s2.json", 50)
    assert baked.origin == "Sony A7S II, per-ISO calibration, ISO 50"
    assert baked.model.shot == (3.01273e-06,) * 4
    # The row noise of the profile is part of every sample's variance.
    assert baked.model.read == pytest.approx((4.10183e-09 + 7.77832e-11,) * 4)


@pytest.mark.parametrize(
    ("given", "profile", "iso", "error", "problem"),
    [
        (None, None, None, SettingsError, "not determined"),
        (None, "pmn_sony_a7s2.json", None, SettingsError, "both of --profile and --iso"),
        (None, None, 100.0, SettingsError, "both of --profile and --iso"),
        (NOISE.model, "pmn_sony_a7s2.json", 100.0, SettingsError, "not determined"),
        (NOISE.model, None, 100.0, SettingsError, "not determined"),
        (None, "pmn_sony_a7s2.json", -1.0, SettingsError, "not an ISO value"),
        (None, "nothing.json", 100.0, InputError, "cannot be read"),
    ],
)
def test_noise_that_is_not_determined_is_refused(
    given: NoiseModel | None,
    profile: str | None,
    iso: float | None,
    error: type[CycleISPError],
    problem: str,
) -> None:
    with pytest.raises(error, match=problem):
        baked_noise(given, PROFILES / profile if profile else None, iso)
