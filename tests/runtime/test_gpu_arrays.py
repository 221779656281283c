"""Laws of arrays on a GPU: denoised as their copy on the host is, after what their library did."""

from __future__ import annotations

import faulthandler
import weakref
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.backends.identity import IdentityBackend
from cycleisp_runtime.cuda import foreign
from cycleisp_runtime.cuda.foreign import gpu_array
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.errors import BackendError, InputError
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.pictures import PictureDenoiser
from tests.helpers import a_bundle, for_pictures
from tests.runtime.fake_cuda import GARBAGE, FakeCuda

Samples = npt.NDArray[Any]

NOISE = NoiseModel.uniform(1e-3, 1e-6)
LEVELS: Any = {"cfa": "GBRG", "black": 60, "white": 1023, "noise": NOISE}


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    """A test that waits for a GPU for ever ends the run, and says where."""
    faulthandler.dump_traceback_later(60, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def cuda() -> Iterator[FakeCuda]:
    """The GPU that the denoiser opens."""
    with pytest.MonkeyPatch.context() as patch:
        cuda = FakeCuda()
        patch.setattr(foreign, "open_driver", lambda: cuda)
        yield cuda


class Library:
    """Another library: it holds an array on the GPU, and works on it in a stream of its own.

    Args:
        cuda: the GPU.
        array: what the work makes the array hold, once it is done.
        gap: bytes between rows.
        facts: entries of the interface that differ; ``without_stream`` is version 2 of it.
    """

    def __init__(
        self,
        cuda: FakeCuda,
        array: Samples,
        *,
        gap: int = 0,
        without_stream: bool = False,
        facts: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        self._cuda, self._like = cuda, array
        pitch = array[0].nbytes + gap
        with cuda.current():
            self.address = cuda.allocate(len(array) * pitch + gap)
            self._stream = cuda.create_stream()
            memory = cuda.block(self.address, len(array) * pitch)
            self._rows = np.lib.stride_tricks.as_strided(
                memory, (len(array), array[0].nbytes), (pitch, 1)
            )
            cuda.launch(self._stream, lambda: self.fill(array), memory)
        strides = (pitch, *array.strides[1:])
        self.__cuda_array_interface__: dict[str, object] = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (int(self.address), False),
            "version": 2 if without_stream else 3,
            **({} if gap == 0 else {"strides": strides}),
            **({} if without_stream else {"stream": int(self._stream)}),
            **facts,
        }

    def fill(self, array: Samples) -> None:
        self._rows[:] = np.ascontiguousarray(array).view(np.uint8).reshape(self._rows.shape)

    def get(self) -> Samples:
        """What the array holds, in whatever stream somebody looks."""
        return np.ascontiguousarray(self._rows).view(self._like.dtype).reshape(self._like.shape)

    def free(self) -> None:
        with self._cuda.current():
            self._cuda.synchronize(self._stream)
            self._cuda.destroy_stream(self._stream)
            self._cuda.free(self.address)


def mosaic(height: int, width: int, dtype: type, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).integers(60, 1024, (height, width)).astype(dtype)


@given(
    height=st.integers(2, 30),
    width=st.integers(2, 30),
    gap=st.sampled_from([0, 2, 4, 100]),
    source_type=st.sampled_from([np.uint16, np.float32]),
    target_type=st.sampled_from([np.uint16, np.float32]),
    without_stream=st.booleans(),
)
def test_a_frame_on_the_gpu_is_denoised_into_the_gpu_as_on_the_host(
    height: int, width: int, gap: int, source_type: type, target_type: type, without_stream: bool
) -> None:
    samples = mosaic(height, width, source_type)
    wanted: Samples = np.empty((height, width), target_type)
    cuda = FakeCuda()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreign, "open_driver", lambda: cuda)
        with Denoiser(a_bundle(), IdentityBackend()) as denoiser:
            denoiser.denoise_into(samples, wanted, **LEVELS)
            source = Library(cuda, samples, gap=gap * samples.itemsize // 2,
                             without_stream=without_stream)  # fmt: skip
            # What the target's library still has to write must not come after what we write.
            target = Library(cuda, np.zeros_like(wanted), gap=gap * wanted.itemsize // 2,
                             without_stream=without_stream)  # fmt: skip
            denoiser.denoise_into(source, target, **LEVELS)  # type: ignore[arg-type]
            with cuda.current():
                cuda.wait_for_others(None)
            np.testing.assert_array_equal(target.get(), wanted)
            source.free()
            target.free()
    cuda.check_nothing_is_left()


def test_the_gap_between_rows_is_not_written(cuda: FakeCuda) -> None:
    target = Library(cuda, np.zeros((6, 8), np.uint16), gap=10)
    with Denoiser(a_bundle(), IdentityBackend()) as denoiser:
        denoiser.denoise_into(mosaic(6, 8, np.uint16), target, **LEVELS)  # type: ignore[arg-type]
        with cuda.current():
            memory = cuda.block(target.address, 6 * 26)[: 6 * 26].reshape(6, 26)
    assert (memory[:, 16:] == GARBAGE).all()
    assert (target.get() > 0).all()


def test_a_call_takes_an_array_on_the_gpu(cuda: FakeCuda) -> None:
    samples = mosaic(40, 31, np.uint16)
    with Denoiser(a_bundle(), IdentityBackend()) as denoiser:
        result = denoiser(Library(cuda, samples), **LEVELS).frame.samples  # type: ignore[arg-type]
        again = denoiser(Library(cuda, samples[:20]), **LEVELS).frame.samples  # type: ignore[arg-type]
        np.testing.assert_array_equal(result, denoiser(samples, **LEVELS).frame.samples)
        np.testing.assert_array_equal(again, denoiser(samples[:20], **LEVELS).frame.samples)


def test_a_picture_may_lie_on_the_gpu(cuda: FakeCuda) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    with PictureDenoiser(a_bundle(**for_pictures()), IdentityBackend()) as denoiser:
        result = denoiser(Library(cuda, picture, gap=7))  # type: ignore[arg-type]
    np.testing.assert_array_equal(result.picture, picture)


def test_memory_is_kept_from_frame_to_frame(cuda: FakeCuda) -> None:
    with Denoiser(a_bundle(), IdentityBackend()) as denoiser:
        for height in (40, 40, 12):
            source = Library(cuda, mosaic(height, 30, np.uint16))
            target = Library(cuda, np.zeros((height, 30), np.float32))
            before = cuda.calls.count("allocate_pinned")
            denoiser.denoise_into(source, target, **LEVELS)  # type: ignore[arg-type]
            allocated = cuda.calls.count("allocate_pinned") - before
            assert allocated == (2 if before == 0 else 0)
            source.free()
            target.free()
    cuda.check_nothing_is_left()


@pytest.mark.parametrize("named", [True, False])
def test_only_the_streams_that_matter_are_waited_for(cuda: FakeCuda, named: bool) -> None:
    samples = mosaic(4, 4, np.uint16)
    other = Library(cuda, np.ones((4, 4), np.uint16))
    source = Library(cuda, samples, without_stream=not named)
    with Denoiser(a_bundle(), IdentityBackend()) as denoiser:
        denoiser(source, **LEVELS)  # type: ignore[arg-type]
        assert (other.get() == 1).all() == (not named)


def test_a_library_without_streams_is_taken_at_its_word(cuda: FakeCuda) -> None:
    samples = mosaic(4, 4, np.uint16)
    source = Library(cuda, samples, facts={"stream": None})
    with cuda.current():
        cuda.wait_for_others(None)
    calls = len(cuda.calls)
    with Denoiser(a_bundle(), IdentityBackend()) as denoiser:
        denoiser(source, **LEVELS)  # type: ignore[arg-type]
    assert "wait_for_others" not in cuda.calls[calls:]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"strides": (2, 12)}, r"not contiguous \(met strides \(2, 12\), wanted \(16, 2\)"),
        ({"strides": (-16, 2)}, r"not contiguous .*make it contiguous first"),
        ({"strides": (0, 2)}, "not contiguous"),
        ({"strides": (32, 4)}, "not contiguous"),
        ({"typestr": "|O"}, r"from a GPU \(met object \(6, 8\), wanted numbers"),
        ({"typestr": "<c8"}, r"met complex64"),
        ({"mask": object()}, "masked"),
        ({"shape": ()}, "at least one"),
        ({"shape": (0, 8)}, "at least one"),
        ({"typestr": "<i2"}, r"2-D array of uint16 \(met int16"),
        ({"shape": (48,), "strides": None}, r"wanted uint16 \(H, W\)"),
    ],
)
def test_what_is_no_mosaic_is_refused(
    cuda: FakeCuda, facts: dict[str, object], message: str
) -> None:
    source = Library(cuda, mosaic(6, 8, np.uint16), facts=facts)
    with Denoiser(a_bundle(), IdentityBackend()) as denoiser:
        with pytest.raises(InputError, match=message):
            denoiser(source, **LEVELS)  # type: ignore[arg-type]
        denoiser(mosaic(6, 8, np.uint16), **LEVELS)


@pytest.mark.parametrize(
    ("shape", "facts", "message"),
    [
        ((6, 8), {"typestr": "<u4", "shape": (6, 4)}, "the target is not like the frame"),
        ((6, 9), {}, "the target is not like the frame"),
        ((6, 8), {"read_only": True}, "the target cannot be written"),
    ],
)
def test_a_target_that_does_not_fit_is_refused(
    cuda: FakeCuda, shape: tuple[int, int], facts: dict[str, object], message: str
) -> None:
    target = Library(cuda, np.zeros(shape, np.uint16), facts=facts)
    target.__cuda_array_interface__["data"] = (target.address, "read_only" in facts)
    with (
        Denoiser(a_bundle(), IdentityBackend()) as denoiser,
        pytest.raises(InputError, match=message),
    ):
        denoiser.denoise_into(mosaic(6, 8, np.uint16), target, **LEVELS)  # type: ignore[arg-type]


def test_an_array_on_another_gpu_is_refused(cuda: FakeCuda) -> None:
    source = Library(cuda, mosaic(4, 4, np.uint16))
    source.__cuda_array_interface__["data"] = (1 << 50, False)
    with (
        Denoiser(a_bundle(), IdentityBackend()) as denoiser,
        pytest.raises(BackendError, match=r"not in the memory of the first GPU .*CUDA_VISIBLE"),
    ):
        denoiser(source, **LEVELS)  # type: ignore[arg-type]


class SpeaksDLPack:
    """An array of the host that is said to lie on a GPU; its capsule is real."""

    def __init__(self, array: Samples, device: int = 2) -> None:
        self.array, self.device = array, device
        self.streams: list[int] = []

    def __dlpack__(self, *, stream: int) -> object:
        self.streams.append(stream)
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0


@pytest.mark.parametrize("device", [2, 13])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int64])
def test_dlpack_says_what_the_interface_would(device: int, dtype: type) -> None:
    array: Samples = np.arange(60, dtype=dtype).reshape(6, 10)[1:, 2:7]
    source = SpeaksDLPack(array, device)
    found = gpu_array(source)
    assert found is not None
    assert found[:5] == (array.ctypes.data, (5, 5), array.dtype, array.strides[0], True)
    assert found.streams is None  # so that everything is waited for, as it was not asked to wait
    assert source.streams == [-1]


def test_dlpack_keeps_the_memory_as_long_as_it_is_needed() -> None:
    array = np.zeros((4, 4), np.uint16)
    alive = weakref.ref(array)
    found = gpu_array(SpeaksDLPack(array))
    del array
    assert alive() is not None
    del found
    assert alive() is None


def test_what_dlpack_does_not_share_or_we_do_not_take_is_refused() -> None:
    unwritable = np.zeros((4, 4), np.uint16)
    unwritable.flags.writeable = False
    refused: list[tuple[Samples, str]] = [
        (np.zeros((4, 8), np.uint16)[:, ::2], r"not contiguous \(met strides \(16, 4\)"),
        (np.zeros((4, 4), np.complex64), r"from a GPU \(met \|V8 \(4, 4\)"),
        (unwritable, "an array on a GPU that is not shared: .*readonly"),
    ]
    for array, message in refused:
        with pytest.raises(InputError, match=message):
            gpu_array(SpeaksDLPack(array))


def test_without_a_driver_it_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "open_driver", no_driver)
    source = Library(FakeCuda(), mosaic(4, 4, np.uint16))
    with (
        Denoiser(a_bundle(), IdentityBackend()) as denoiser,
        pytest.raises(BackendError, match="no package that calls the CUDA driver"),
    ):
        denoiser(source, **LEVELS)  # type: ignore[arg-type]


def no_driver() -> FakeCuda:
    raise BackendError("no package that calls the CUDA driver")


def test_wherever_the_gpu_fails_it_is_told_and_the_host_goes_on() -> None:
    samples = mosaic(6, 8, np.uint16)

    def live(cuda: FakeCuda, denoiser: Denoiser) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(foreign, "open_driver", lambda: cuda)
            source, target = (Library(cuda, samples) for _ in range(2))
            begun = len(cuda.calls)
            denoiser.denoise_into(source, target, **LEVELS)  # type: ignore[arg-type]
            return begun

    begun = live(whole := FakeCuda(), denoiser := Denoiser(a_bundle(), IdentityBackend()))
    at_work = len(whole.calls)
    assert at_work - begun > 8
    denoiser.close()
    for call in range(begun, at_work):
        with Denoiser(a_bundle(), IdentityBackend()) as denoiser:
            with pytest.raises(BackendError, match="CUDA fails"):
                live(FakeCuda(fault_at=call), denoiser)
            denoiser(samples, **LEVELS)


def test_an_address_inside_of_memory_is_enough(cuda: FakeCuda) -> None:
    """A view that begins in the middle, as CuPy's and torch's do."""
    samples = mosaic(8, 8, np.uint16)
    source = Library(cuda, samples)
    source.__cuda_array_interface__ |= {
        "shape": (6, 4), "strides": (16, 2), "data": (source.address + 2 * 16 + 4, False),
    }  # fmt: skip
    with Denoiser(a_bundle(), IdentityBackend()) as denoiser:
        result = denoiser(source, **LEVELS).frame.samples  # type: ignore[arg-type]
        wanted = denoiser(np.ascontiguousarray(samples[2:, 2:6]), **LEVELS).frame.samples
    np.testing.assert_array_equal(result, wanted)
