"""Rendered pictures: same size and type out, no seams, clear refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.backends.identity import IdentityBackend
from cycleisp_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cycleisp_runtime.bundle import Bundle
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.errors import BackendError, BundleError, InputError, SettingsError
from cycleisp_runtime.pictures import Picture, PictureDenoiser
from tests.helpers import a_bundle, for_pictures, write_bundle, write_pooling_bundle
from tests.networks import GATES, picture_network, pooling_networks


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    network = picture_network().SerializeToString()
    return Bundle.load(write_bundle(tmp_path / "net.bundle", network, **for_pictures()))


@pytest.fixture
def pooling_bundle(tmp_path: Path) -> Bundle:
    network, statistics = (model.SerializeToString() for model in pooling_networks(3))
    folder = tmp_path / "pooling.bundle"
    write_pooling_bundle(
        folder, network, statistics, gates=GATES, multiple_of=1, **for_pictures(gates="gates")
    )
    return Bundle.load(folder)


def a_picture(height: int, width: int, dtype: type = np.uint8) -> Picture:
    """Waves, and noise, from dark on the left to bright on the right."""
    rng = np.random.default_rng(height * width)
    y, x, colour = np.mgrid[0:height, 0:width, 0:3]
    light = 0.5 + 0.4 * np.sin(y / 5 + colour) * np.cos(x / 7) * (x + 1) / width
    light = np.clip(light + rng.normal(0, 0.05, light.shape), 0, 1)
    picture: Picture = light.astype(np.float32)
    if dtype is not np.float32:
        picture = np.rint(light * np.iinfo(dtype).max).astype(dtype)
    return picture


def psnr(one: Picture, other: Picture) -> float:
    """In dB, peak 1, of float32 pictures."""
    error = np.mean(np.square(one.astype(np.float64) - other))
    return float(-10 * np.log10(error)) if error else np.inf


@given(
    st.integers(2, 70),
    st.integers(2, 70),
    st.sampled_from([np.uint8, np.uint16, np.float32]),
    st.integers(12, 40),
    st.sampled_from([1, 2, 4]),
)
def test_what_the_network_leaves_alone_comes_back_bit_for_bit(
    height: int, width: int, dtype: type, tile: int, multiple_of: int
) -> None:
    bundle = a_bundle(**for_pictures(), multiple_of=multiple_of)
    picture = a_picture(height, width, dtype)
    before = picture.copy()
    with PictureDenoiser(bundle, IdentityBackend()) as denoiser:
        out = denoiser(picture, tile=tile)
    assert out.dtype == picture.dtype
    np.testing.assert_array_equal(out, before)
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize("tile", [24, 32, 50, 100])
def test_tiles_leave_no_seams(bundle: Bundle, tile: int) -> None:
    picture = a_picture(101, 133, np.float32)
    with PictureDenoiser(bundle, OnnxRuntimeBackend(bundle, threads=1)) as denoiser:
        whole = denoiser(picture, tile=512)
        tiled = denoiser(picture, tile=tile)
    assert psnr(whole, picture) < 60  # the network does something
    assert psnr(tiled, whole) > 120


def test_every_type_gives_the_same_picture(bundle: Bundle) -> None:
    codes = a_picture(60, 80, np.uint8)
    with PictureDenoiser(bundle, OnnxRuntimeBackend(bundle, threads=1)) as denoiser:
        eight = denoiser(codes)
        sixteen = denoiser(codes.astype(np.uint16) * 257)
        real = denoiser(codes.astype(np.float32) / 255)
    clipped = np.clip(real, 0, 1)
    # Half a code, and float32 rounding of 65535.
    assert np.abs(eight / 255 - clipped).max() <= 0.5 / 255 + 1e-6
    assert np.abs(sixteen / 65535 - clipped).max() <= 0.5 / 65535 + 1e-6


def test_networks_that_pool_agree_with_the_whole_picture(pooling_bundle: Bundle) -> None:
    picture = a_picture(400, 500, np.float32)
    with PictureDenoiser(pooling_bundle, OnnxRuntimeBackend(pooling_bundle, threads=1)) as denoiser:
        whole = denoiser(picture, tile=1024, exact=True)
        exact = denoiser(picture, tile=128, exact=True)
        fast = denoiser(picture, tile=128)
    assert psnr(exact, whole) > 120
    assert 40 < psnr(fast, whole) < 120  # close, and said to be no more than that


def test_an_array_of_another_library_comes_in_without_a_copy(bundle: Bundle) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    picture = a_picture(40, 50)
    with PictureDenoiser(bundle, OnnxRuntimeBackend(bundle, threads=1)) as denoiser:
        wanted = denoiser(picture)
        out = denoiser(torch.from_numpy(picture))
    np.testing.assert_array_equal(out, wanted)
    assert torch.from_dlpack(out).data_ptr() == out.ctypes.data


@pytest.mark.parametrize(
    ("picture", "line"),
    [
        (np.zeros((8, 8, 4), np.uint8), r"not a picture \(met uint8 \(8, 8, 4\)"),
        (np.zeros((8, 8), np.uint8), "not a picture"),
        (np.zeros((1, 8, 3), np.uint8), "at least 2x2"),
        (np.zeros((8, 8, 3), np.float64), "met float64"),
        (np.full((8, 8, 3), np.nan, np.float32), "NaN or infinity"),
        ([[0, 0, 0]], "not an array that can be read here"),
    ],
)
def test_what_is_no_picture_is_refused(picture: Picture, line: str) -> None:
    with (
        PictureDenoiser(a_bundle(**for_pictures()), IdentityBackend()) as denoiser,
        pytest.raises(InputError, match=line),
    ):
        denoiser(picture)


def test_bundles_for_the_other_task_are_refused_with_the_class_for_them(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"does not denoise RAW.*PictureDenoiser"):
        Denoiser(bundle, IdentityBackend())
    with pytest.raises(BundleError, match=r"rendered pictures.*Denoiser is for RAW"):
        PictureDenoiser(a_bundle(), IdentityBackend())


def test_load_opens_a_backend_and_closes_it(bundle: Bundle) -> None:
    with PictureDenoiser.load(bundle.folder, backend="onnxruntime", device="cpu") as denoiser:
        assert denoiser(a_picture(10, 11)).shape == (10, 11, 3)
    with pytest.raises(BackendError, match="closed"):
        denoiser(a_picture(10, 11))


def test_a_tile_without_room_for_the_halo_is_refused(bundle: Bundle) -> None:
    with (
        PictureDenoiser(bundle, IdentityBackend()) as denoiser,
        pytest.raises(SettingsError, match="too small for the model's halo"),
    ):
        denoiser(a_picture(40, 40), tile=8)


def test_a_memory_budget_makes_smaller_tiles_of_the_same_picture(bundle: Bundle) -> None:
    picture = a_picture(300, 300)
    tiles: list[int] = []
    with PictureDenoiser.load(bundle.folder, device="cpu", memory="130MiB") as small:
        out = small(picture, progress=lambda _done, total: tiles.append(total))
    with PictureDenoiser.load(bundle.folder, device="cpu") as large:
        np.testing.assert_array_equal(out, large(picture))
    assert len(tiles) > 1
    with pytest.raises(SettingsError, match="too little memory for any tile"):
        PictureDenoiser.load(bundle.folder, device="cpu", memory="1MiB")
