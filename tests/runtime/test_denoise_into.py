"""Laws of denoising into the caller's arrays: the same samples, no copies, no allocations."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.arrays import frame_of
from cycleisp_runtime.backends import Backend
from cycleisp_runtime.backends.identity import IdentityBackend
from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.cuda.foreign import HostCopies
from cycleisp_runtime.denoiser import Denoised, Denoiser
from cycleisp_runtime.errors import BackendError, InputError, SettingsError
from cycleisp_runtime.frame import Area, FloatFrame, RawFrame
from cycleisp_runtime.noise import NoiseModel
from tests.helpers import a_bundle, write_bundle
from tests.networks import residual_network
from tests.strategies import frames

Samples = npt.NDArray[np.uint16] | npt.NDArray[np.float32]

NOISE = NoiseModel.uniform(1e-3, 1e-6)

LIMIT_S = 60.0
"""Of a test that would hang if it failed."""


class Shrink(Backend):
    """Pulls every sample towards mid-grey, in memory that it keeps."""

    name = "shrink"
    precision = "fp32"

    def __init__(self) -> None:
        self._out = np.empty((0,), np.float32)
        self.seen: set[int] = set()

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        noisy = inputs["noisy"]
        self.seen.add(noisy.ctypes.data)
        if self._out.size < noisy.size:
            self._out = np.empty(noisy.size, np.float32)
        out = np.multiply(noisy, np.float32(0.9), out=self._out[: noisy.size].reshape(noisy.shape))
        out += np.float32(0.05)
        return out


def a_frame(height: int = 300, width: int = 421, *, seed: int = 0) -> RawFrame:
    """A masked border, phase GBRG, black levels per position."""
    samples = np.random.default_rng(seed).integers(0, 1024, (height + 3, width + 5), np.uint16)
    return RawFrame(samples, Phase.GBRG, (60, 61, 62, 63), 1023, Area(1, 2, height, width))


@given(
    frame=frames(),
    strength=st.sampled_from([0.0, 0.3, 1.0]),
    tile=st.sampled_from([10, 16, 512]),
    keep_levels=st.booleans(),
)
def test_the_target_gets_what_a_call_returns(
    frame: RawFrame, strength: float, tile: int, keep_levels: bool
) -> None:
    denoiser = Denoiser(a_bundle(), Shrink())
    called = denoiser(frame, noise=NOISE, strength=strength, tile=tile, keep_levels=keep_levels)
    target = np.empty_like(frame.samples)
    into = denoiser.denoise_into(
        frame, target, noise=NOISE, strength=strength, tile=tile, keep_levels=keep_levels
    )
    np.testing.assert_array_equal(target, called.frame.samples)
    for fact in ("level_scale", "strength", "trust", "expected_gain_db", "residual", "warnings"):
        assert getattr(into, fact) == getattr(called, fact)


@given(frame=frames(), tile=st.sampled_from([10, 512]))
def test_a_float_target_is_the_16_bit_one_before_rounding(frame: RawFrame, tile: int) -> None:
    denoiser = Denoiser(a_bundle(), Shrink())
    rounded, exact = np.empty_like(frame.samples), np.empty(frame.samples.shape, np.float32)
    scale = denoiser.denoise_into(frame, rounded, noise=NOISE, tile=tile).level_scale
    assert denoiser.denoise_into(frame, exact, noise=NOISE, tile=tile).level_scale == 1
    expected = np.clip(exact.astype(np.float64) * scale, 0, 65535)
    # Half a DN of rounding; a DN of way round a reserved value, on either side.
    tolerance = 0.51 + 2 * (frame.reserved_dn is not None)
    np.testing.assert_allclose(rounded, expected, atol=tolerance, rtol=0)


@given(frame=frames(), tile=st.sampled_from([10, 512]))
def test_float_samples_are_denoised_as_the_integers_they_hold(frame: RawFrame, tile: int) -> None:
    whole = RawFrame(frame.visible.copy(), frame.cfa, frame.black, frame.white,
                     Area(0, 0, *frame.visible.shape))  # fmt: skip
    floats = FloatFrame(whole.samples.astype(np.float32), whole.cfa, whole.black, whole.white)
    denoiser = Denoiser(a_bundle(), Shrink())
    of_integers, of_floats = (denoiser(each, noise=NOISE, tile=tile) for each in (whole, floats))
    np.testing.assert_array_equal(of_floats.frame.samples, of_integers.frame.samples)
    assert of_floats.frame.white == of_integers.frame.white
    assert of_floats.frame.black == of_integers.frame.black
    assert of_floats.trust == of_integers.trust


def test_normalised_samples_are_written_at_16_bits_with_their_scale() -> None:
    samples = np.random.default_rng(0).random((40, 60), np.float32)
    result = Denoiser(a_bundle(), IdentityBackend())(
        samples, cfa="BGGR", black=0.0, white=1.0, noise=NOISE
    )
    assert (result.level_scale, result.frame.white) == (32768, 32768.0)
    assert result.frame.cfa is Phase.BGGR
    # Half a step, and float32 of 32768 twice rounded.
    np.testing.assert_allclose(result.frame.samples, samples * 32768.0, atol=0.51)


def test_an_array_is_denoised_as_the_frame_of_it() -> None:
    frame = a_frame()
    samples = np.ascontiguousarray(frame.visible)
    denoiser = Denoiser(a_bundle(), Shrink())
    of_array = denoiser(samples, cfa=frame.cfa, black=frame.black, white=frame.white, noise=NOISE)
    of_frame = denoiser(frame, noise=NOISE)
    np.testing.assert_array_equal(of_array.frame.samples, of_frame.frame.visible)


@pytest.mark.parametrize("target_type", [np.uint16, np.float32])
@pytest.mark.parametrize("source_type", [np.uint16, np.float32])
@pytest.mark.parametrize(("strength", "threads"), [(0.5, 1), (1.0, 1), (0.5, 2)])
def test_nothing_is_allocated_after_the_first_frame(
    source_type: type, target_type: type, strength: float, threads: int
) -> None:
    """Beyond 256 KiB, which is a fortieth of the frame's samples as float32.

    NumPy tells tracemalloc of its arrays. What is left are indices, views, and the 8192 samples
    at a time in which NumPy converts types.
    """
    samples: Samples = a_frame(1501, 1603).samples.astype(source_type)
    target: Samples = np.empty(samples.shape, target_type)
    backend = Shrink()
    backend.threads = threads
    denoiser = Denoiser(a_bundle(), backend)

    def again() -> None:
        denoiser.denoise_into(
            samples, target, cfa="RGGB", black=64, white=1023, noise=NOISE, strength=strength,
            tile=384,
        )  # fmt: skip

    again()
    seen = set(backend.seen)
    tracemalloc.start()
    try:
        for _ in range(5):
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            again()
            _, peak = tracemalloc.get_traced_memory()
            assert peak - before < 256 << 10
    finally:
        tracemalloc.stop()
    assert backend.seen == seen  # the tiles lie where they lay


def test_frames_of_other_sizes_phases_and_types_may_follow_one_another() -> None:
    kinds: list[RawFrame | FloatFrame] = [a_frame(), a_frame(120, 80), a_frame(33, 300)]
    kinds.append(FloatFrame(np.random.default_rng(0).random((50, 70), np.float32), Phase.BGGR,
                            (0.0,) * 4, 1.0))  # fmt: skip
    one = Denoiser(a_bundle(), Shrink())
    for frame in (*kinds, *reversed(kinds)):
        alone = Denoiser(a_bundle(), Shrink())(frame, noise=NOISE, tile=64)
        after_others = one(frame, noise=NOISE, tile=64)
        np.testing.assert_array_equal(after_others.frame.samples, alone.frame.samples)


class Foreign:
    """An array of a library that speaks DLPack and nothing else."""

    def __init__(self, array: Samples, device: int = 1) -> None:
        self.array, self.device = array, device

    def __dlpack__(self, **settings: Any) -> object:  # noqa: ANN401  they are NumPy's own
        return self.array.__dlpack__(**settings)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0


LEVELS = {"cfa": "RGGB", "black": 0, "white": 1023, "noise": NOISE}


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_arrays_of_other_libraries_are_read_where_they_lie(dtype: type) -> None:
    samples: Samples = a_frame().samples.astype(dtype)
    frame = frame_of(Foreign(samples), cfa="RGGB", black=0, white=1023, copies=HostCopies())
    assert frame.samples.ctypes.data == samples.ctypes.data
    assert frame.samples.dtype == dtype


def test_results_speak_dlpack_without_a_copy() -> None:
    result = Denoiser(a_bundle(), IdentityBackend())(a_frame(), noise=NOISE)
    taken = np.from_dlpack(result.frame.samples)
    assert taken.ctypes.data == result.frame.samples.ctypes.data


def test_arrays_on_devices_of_others_are_refused() -> None:
    array = Foreign(np.zeros((4, 4), np.uint16), device=10)  # kDLROCM
    with pytest.raises(BackendError, match=r"memory of a device that .*copy it to the host first"):
        Denoiser(a_bundle(), IdentityBackend())(array, **LEVELS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ("no array", "not an array that can be read here"),
        (np.zeros((4, 4, 3), np.uint16), r"met uint16 \(4, 4, 3\), wanted uint16 \(H, W\)"),
        (np.zeros((4, 4)), r"met float64 \(4, 4\)"),
        (
            np.zeros((1, 4), np.float32),
            r"met float32 \(1, 4\), wanted float32 \(H, W\), at least 2x2",
        ),
    ],
)
def test_what_is_no_mosaic_is_refused(array: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Denoiser(a_bundle(), IdentityBackend())(array, **LEVELS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cfa": None}, "wanted cfa, black and white"),
        ({"cfa": "XTRANS"}, "cfa: no phase .*wanted RGGB or GRBG"),
        ({"noise": None}, "samples of float32 need their noise"),
    ],
)
def test_an_array_without_its_facts_is_refused(changes: dict[str, object], message: str) -> None:
    samples = np.zeros((8, 8), np.float32)
    with pytest.raises(SettingsError, match=message):
        Denoiser(a_bundle(), IdentityBackend())(samples, **{**LEVELS, **changes})  # type: ignore[arg-type]


def test_levels_that_contradict_each_other_or_a_frames_own_are_refused() -> None:
    denoiser = Denoiser(a_bundle(), IdentityBackend())
    samples = np.zeros((8, 8), np.float32)
    with pytest.raises(InputError, match="white level is not above the black"):
        denoiser(samples, cfa="RGGB", black=2, white=1, noise=NOISE)
    with pytest.raises(InputError, match=r"16 bits do not hold the white level .*into float32"):
        denoiser(samples, cfa="RGGB", black=0, white=1e6, noise=NOISE)
    with pytest.raises(SettingsError, match="a frame has its own cfa"):
        denoiser(a_frame(), white=900, noise=NOISE)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (np.empty((303, 425), np.uint16), r"not like the frame \(met uint16 \(303, 425\)"),
        (np.empty((303, 426), np.int32), r"not like the frame \(met int32"),
        (np.broadcast_to(np.uint16(0), (303, 426)), "cannot be written"),
    ],
)
def test_a_target_that_does_not_fit_is_refused(
    target: npt.NDArray[np.generic], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Denoiser(a_bundle(), IdentityBackend()).denoise_into(a_frame(), target, noise=NOISE)


def test_a_frame_is_not_denoised_into_itself() -> None:
    frame = a_frame()
    with pytest.raises(InputError, match="shares memory with the frame"):
        Denoiser(a_bundle(), IdentityBackend()).denoise_into(frame, frame.samples, noise=NOISE)


def test_without_noise_the_frames_own_is_taken_or_estimated() -> None:
    denoiser = Denoiser(a_bundle(), Shrink())
    profiled = denoiser(replace(a_frame(), noise_profile=NOISE))
    given_noise = denoiser(a_frame(), noise=NOISE)
    np.testing.assert_array_equal(profiled.frame.samples, given_noise.frame.samples)


def test_threads_take_turns_and_get_what_each_would_get_alone(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "net.bundle", residual_network().SerializeToString())
    many = [a_frame(60 + 10 * seed, 90, seed=seed) for seed in range(8)]
    with Denoiser.load(folder, backend="onnxruntime", threads=1) as denoiser:
        alone = [denoiser(frame, noise=NOISE, tile=64) for frame in many]
        found: dict[int, Denoised] = {}

        def work(index: int) -> None:
            found[index] = denoiser(many[index], noise=NOISE, tile=64)

        threads = [
            threading.Thread(target=work, args=(index,), daemon=True) for index in range(len(many))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
    for index, result in enumerate(alone):
        np.testing.assert_array_equal(found[index].frame.samples, result.frame.samples)


def test_a_closed_denoiser_says_so() -> None:
    denoiser = Denoiser(a_bundle(), IdentityBackend())
    denoiser.close()
    denoiser.close()
    with pytest.raises(BackendError, match="testnet: the denoiser was closed; load it again"):
        denoiser(a_frame(), noise=NOISE)


def test_progress_that_uses_the_denoiser_is_an_error_and_no_deadlock() -> None:
    denoiser = Denoiser(a_bundle(), IdentityBackend())

    def progress(_done: int, _total: int) -> None:
        denoiser(a_frame(), noise=NOISE)

    with pytest.raises(BackendError, match="at work: its progress must not use it"):
        denoiser(a_frame(), noise=NOISE, progress=progress)
    denoiser(a_frame(), noise=NOISE)


def test_samples_that_are_no_numbers_are_refused() -> None:
    samples = np.full((40, 40), 0.5, np.float32)
    samples[20, 20] = np.nan
    with pytest.raises(BackendError, match=r"NaN or infinity.* check the samples and the noise"):
        Denoiser(a_bundle(), IdentityBackend())(samples, cfa="RGGB", black=0, white=1, noise=NOISE)


class Interrupted(Shrink):
    """Is interrupted in the second tile of the first frame."""

    left = 34  # two runs on each of 16 crops come before

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return super().run(inputs)


def test_after_an_interrupt_the_denoiser_is_as_it_was() -> None:
    denoiser, frame = Denoiser(a_bundle(), Interrupted()), a_frame(500, 700)
    with pytest.raises(KeyboardInterrupt):
        denoiser(frame, noise=NOISE, tile=128)
    again = denoiser(frame, noise=NOISE, tile=128)
    expected = Denoiser(a_bundle(), Shrink())(frame, noise=NOISE, tile=128)
    np.testing.assert_array_equal(again.frame.samples, expected.frame.samples)
