"""Rendered pictures: same size and type out, no seams, clear refusals."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from threading import Thread

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.attention import Attention
from cycleisp_runtime.backends import Backend
from cycleisp_runtime.backends.identity import IdentityBackend
from cycleisp_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cycleisp_runtime.bundle import Bundle
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.errors import (
    BackendError,
    BundleError,
    InputError,
    OutOfMemoryError,
    SettingsError,
)
from cycleisp_runtime.memory import PROCESS_BYTES, bytes_per_packed_sample
from cycleisp_runtime.picture_tiles import HIGHEST, PictureTiles
from cycleisp_runtime.pictures import Picture, PictureDenoiser
from cycleisp_runtime.tiles import plan_tiles
from tests.helpers import a_bundle, for_pictures, write_bundle, write_pooling_bundle
from tests.networks import GATES, picture_network, pooling_networks

LIMIT_S = 60.0
"""Of a test that would hang if it failed."""


class Shrink(Backend):
    """Pulls every sample towards mid-grey, in memory that it keeps, of up to so many a run."""

    name = "shrink"
    precision = "fp32"

    def __init__(self, batch: int = 1) -> None:
        self.batch, self.most, self.refused = batch, 10**9, 0
        self._out = np.empty((0,), np.float32)

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        noisy = inputs["noisy"]
        if noisy.size > 3 * self.most:
            self.refused += 1
            raise OutOfMemoryError("no room")
        if self._out.size < noisy.size:
            self._out = np.empty(noisy.size, np.float32)
        out = np.multiply(noisy, np.float32(0.9), out=self._out[: noisy.size].reshape(noisy.shape))
        out += np.float32(0.05)
        return out


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
        out = denoiser(picture, tile=tile).picture
    assert out.dtype == picture.dtype
    np.testing.assert_array_equal(out, before)
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize("tile", [24, 32, 50, 100])
def test_tiles_leave_no_seams(bundle: Bundle, tile: int) -> None:
    picture = a_picture(101, 133, np.float32)
    with PictureDenoiser(bundle, OnnxRuntimeBackend(bundle, threads=1)) as denoiser:
        whole = denoiser(picture, tile=512).picture
        tiled = denoiser(picture, tile=tile).picture
    assert psnr(whole, picture) < 60  # the network does something
    assert psnr(tiled, whole) > 120


def test_every_type_gives_the_same_picture(bundle: Bundle) -> None:
    codes = a_picture(60, 80, np.uint8)
    with PictureDenoiser(bundle, OnnxRuntimeBackend(bundle, threads=1)) as denoiser:
        eight = denoiser(codes).picture
        sixteen = denoiser(codes.astype(np.uint16) * 257).picture
        real = denoiser(codes.astype(np.float32) / 255).picture
    clipped = np.clip(real, 0, 1)
    # Half a code, and float32 rounding of 65535.
    assert np.abs(eight / 255 - clipped).max() <= 0.5 / 255 + 1e-6
    assert np.abs(sixteen / 65535 - clipped).max() <= 0.5 / 65535 + 1e-6


@given(
    st.integers(2, 40), st.integers(2, 40), st.integers(10, 40), st.sampled_from([1, 2]), st.data()
)
def test_a_tile_is_the_picture_in_0_to_1_and_its_mirror_image(
    height: int, width: int, side: int, multiple_of: int, data: st.DataObject
) -> None:
    plan = plan_tiles(height, width, side=side, halo=3, multiple_of=multiple_of)
    core = data.draw(st.sampled_from(plan.cores))
    picture = a_picture(height, width, np.uint16)
    noisy = np.empty((3, plan.height, plan.width), np.float32)
    PictureTiles(picture, plan).cut(core, noisy)
    reach = [(plan.halo, 2 * side)] * 2
    mirrored = np.pad(picture.transpose(2, 0, 1), [(0, 0), *reach], mode="reflect")
    wanted = mirrored[:, core.top :, core.left :][:, : plan.height, : plan.width]
    np.testing.assert_allclose(noisy, wanted / 65535, rtol=1e-6)  # float32


@given(
    st.integers(2, 60),
    st.integers(2, 60),
    st.sampled_from([np.uint8, np.uint16, np.float32]),
    st.sampled_from([np.uint8, np.uint16, np.float32]),
)
def test_the_target_gets_what_a_call_returns_in_any_type(
    height: int, width: int, source_type: type, target_type: type
) -> None:
    picture = a_picture(height, width, source_type)
    target: Picture = np.empty(picture.shape, target_type)
    with PictureDenoiser(a_bundle(**for_pictures()), Shrink()) as denoiser:
        called = denoiser(picture, tile=24)
        into = denoiser.denoise_into(picture, target, tile=24)
    assert into.warnings == called.warnings == ()
    assert set(into.seconds) == {"cut", "network", "stitch"}
    if source_type is target_type:
        np.testing.assert_array_equal(target, called.picture)
        return
    highest = {kind: HIGHEST[np.dtype(kind)] for kind in (source_type, target_type)}
    apart = np.abs(target / highest[target_type] - called.picture / highest[source_type])
    # Each is rounded to its own codes; float32 is not, but has 24 bits.
    assert apart.max() <= sum(0.5 / each for each in highest.values() if each > 1) + 1e-6


@pytest.mark.parametrize("source_type", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("target_type", [np.uint8, np.float32])
def test_nothing_is_allocated_after_the_first_picture(source_type: type, target_type: type) -> None:
    """Beyond 256 KiB, a hundredth of the picture as float32: indices, a row of pixels, views."""
    picture = a_picture(1501, 1603, source_type)
    target: Picture = np.empty(picture.shape, target_type)
    with PictureDenoiser(a_bundle(**for_pictures()), Shrink()) as denoiser:
        denoiser.denoise_into(picture, target, tile=384)
        tracemalloc.start()
        try:
            for _ in range(3):
                before, _ = tracemalloc.get_traced_memory()
                tracemalloc.reset_peak()
                denoiser.denoise_into(picture, target, tile=384)
                _, peak = tracemalloc.get_traced_memory()
                assert peak - before < 256 << 10
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    ("target", "line"),
    [
        (np.empty((20, 31, 3), np.uint8), r"not like the frame \(met uint8 \(20, 31, 3\)"),
        (np.empty((20, 30, 3), np.float64), r"wanted uint8 or uint16 or float32 \(20, 30, 3\)"),
        (np.broadcast_to(np.uint8(0), (20, 30, 3)), "cannot be written"),
    ],
)
def test_a_target_that_does_not_fit_is_refused(target: Picture, line: str) -> None:
    picture = a_picture(20, 30)
    with PictureDenoiser(a_bundle(**for_pictures()), Shrink()) as denoiser:
        with pytest.raises(InputError, match=line):
            denoiser.denoise_into(picture, target)
        with pytest.raises(InputError, match="shares memory"):
            denoiser.denoise_into(picture, picture)


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_batches_of_tiles_change_nothing_and_are_no_larger_than_memory(batch: int) -> None:
    bundle, picture = a_bundle(**for_pictures()), a_picture(150, 160)
    seen: list[tuple[int, int]] = []
    with PictureDenoiser(bundle, Shrink()) as one, PictureDenoiser(bundle, Shrink(batch)) as many:
        np.testing.assert_array_equal(
            many(picture, tile=64, progress=lambda *done: seen.append(done)).picture,
            one(picture, tile=64).picture,
        )
        assert many.backend.batch == batch
    assert seen[-1] == (9, 9)
    assert len(seen) == -(-9 // batch)
    room = int(PROCESS_BYTES + 2.5 * bytes_per_packed_sample(bundle.record) * 58 * 62)
    with PictureDenoiser(bundle, Shrink(16), memory=room) as bounded:
        seen.clear()
        bounded(picture, tile=64, progress=lambda *done: seen.append(done))
    assert seen[0] == (2, 9)


def test_where_memory_ends_the_next_smaller_tile_finishes_the_picture() -> None:
    bundle, picture = a_bundle(**for_pictures()), a_picture(500, 400)
    with PictureDenoiser(bundle, Shrink()) as denoiser:
        whole = denoiser(picture).picture
    backend = Shrink()
    with PictureDenoiser(bundle, backend) as denoiser:
        backend.most = 260**2
        for _ in range(2):  # the next picture starts where this one ended
            result = denoiser(picture)
            np.testing.assert_array_equal(result.picture, whole)
            assert result.warnings == (
                "memory did not suffice for tiles of 508: up to 448 were used",
                "memory did not suffice for tiles of 408: up to 384 were used",
            )
            assert backend.refused == 2
        backend.most = 150**2
        asked = denoiser(picture, tile=200)
        assert asked.warnings == ("memory did not suffice for tiles of 176: up to 128 were used",)
        backend.most = 260**2
        assert denoiser(picture).warnings == result.warnings  # that was for one picture only
        backend.most = 10
        with pytest.raises(OutOfMemoryError, match=r"smallest tile \(met \d+x\d+ .*; no room"):
            denoiser(picture)


def test_attention_within_a_budget_is_coarser_and_says_so(pooling_bundle: Bundle) -> None:
    picture = a_picture(640, 800)
    with_every_fourth = Attention(pooling_bundle, threads=1).bytes_per_sample * 160 * 200
    memory = PROCESS_BYTES + 2 * with_every_fourth - 1
    backend = OnnxRuntimeBackend(pooling_bundle, threads=1)
    with PictureDenoiser(pooling_bundle, backend, memory=memory) as denoiser:
        (said,) = denoiser(picture).warnings
        assert "one in 5x5 was used" in said
        with pytest.raises(OutOfMemoryError, match=r"640x800 .* allow more memory or leave out"):
            denoiser(picture, exact=True)


def test_threads_take_turns_and_get_what_each_would_get_alone(bundle: Bundle) -> None:
    many = [a_picture(60 + 10 * index, 90) for index in range(8)]
    found: dict[int, Picture] = {}
    with PictureDenoiser.load(bundle.folder, backend="onnxruntime", threads=1) as denoiser:
        alone = [denoiser(picture, tile=50).picture for picture in many]

        def work(index: int) -> None:
            found[index] = denoiser(many[index], tile=50).picture

        threads = [Thread(target=work, args=(index,), daemon=True) for index in range(len(many))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
    for index, picture in enumerate(alone):
        np.testing.assert_array_equal(found[index], picture)


def test_progress_that_uses_the_denoiser_is_an_error_and_no_deadlock() -> None:
    picture = a_picture(20, 30)
    with PictureDenoiser(a_bundle(**for_pictures()), Shrink()) as denoiser:

        def progress(_done: int, _total: int) -> None:
            denoiser(picture)

        with pytest.raises(BackendError, match="at work: its progress must not use it"):
            denoiser(picture, progress=progress)
        denoiser(picture)
    denoiser.close()
    with pytest.raises(BackendError, match="testnet: the denoiser was closed; load it again"):
        denoiser(picture)


def test_networks_that_pool_agree_with_the_whole_picture(pooling_bundle: Bundle) -> None:
    picture = a_picture(400, 500, np.float32)
    with PictureDenoiser(pooling_bundle, OnnxRuntimeBackend(pooling_bundle, threads=1)) as denoiser:
        whole = denoiser(picture, tile=1024, exact=True).picture
        exact = denoiser(picture, tile=128, exact=True).picture
        fast = denoiser(picture, tile=128).picture
    assert psnr(exact, whole) > 120
    assert 40 < psnr(fast, whole) < 120  # close, and said to be no more than that


def test_an_array_of_another_library_comes_in_without_a_copy(bundle: Bundle) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    picture = a_picture(40, 50)
    with PictureDenoiser(bundle, OnnxRuntimeBackend(bundle, threads=1)) as denoiser:
        wanted = denoiser(picture).picture
        out = denoiser(torch.from_numpy(picture)).picture
        target = torch.empty(picture.shape, dtype=torch.uint8)
        denoiser.denoise_into(picture, target)
    np.testing.assert_array_equal(out, wanted)
    np.testing.assert_array_equal(target.numpy(), wanted)
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
        assert denoiser(a_picture(10, 11)).picture.shape == (10, 11, 3)
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
        out = small(picture, progress=lambda _done, total: tiles.append(total)).picture
    with PictureDenoiser.load(bundle.folder, device="cpu") as large:
        np.testing.assert_array_equal(out, large(picture).picture)
    assert len(tiles) > 1
    with pytest.raises(SettingsError, match="too little memory for any tile"):
        PictureDenoiser.load(bundle.folder, device="cpu", memory="1MiB")
