"""Streams: order, the two policies, what ends them, and that nothing is left running behind."""

from __future__ import annotations

import gc
import itertools
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime import stream as stream_module
from cycleisp_runtime.backends.identity import IdentityBackend
from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.errors import (
    BackendError,
    CalibrationError,
    InputError,
    OutOfMemoryError,
    SettingsError,
)
from cycleisp_runtime.frame import Area, Exposure, RawFrame
from cycleisp_runtime.frame import Camera as MadeBy
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.sources import FrameSource
from cycleisp_runtime.stream import Policy, Stream
from tests.helpers import ROOT, a_bundle
from tests.noisy_frames import gradient, noisy_frame

NOISE = NoiseModel.uniform(1e-3, 1e-6)
PATIENCE_S = 20.0
"""Nothing here takes a second; a test that waits this long has found a hang."""


def a_frame(number: int, height: int = 8, width: int = 10, phase: Phase = Phase.RGGB) -> RawFrame:
    samples = np.full((height, width), number, np.uint16)
    return RawFrame(samples, phase, (0,) * 4, 65535, Area(0, 0, height, width))


def numbers(results: Iterable[object]) -> list[int]:
    return [int(result.frame.samples[0, 0]) for result in results]  # type: ignore[attr-defined]


def a_denoiser() -> Denoiser:
    return Denoiser(a_bundle(), IdentityBackend())


def a_stream(source: Iterable[RawFrame], **options: object) -> Stream:
    options = {"noise": NOISE, "timeout_s": PATIENCE_S} | options
    return Stream(a_denoiser(), source, **options)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    """Every test ends with as many threads as it began with."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + PATIENCE_S
    while left := set(threading.enumerate()) - before:
        assert time.monotonic() < deadline, left
        gc.collect()
        time.sleep(0.01)


class Camera(FrameSource):
    """Gives these frames, then waits until it is stopped."""

    def __init__(self, frames: Iterable[RawFrame] = ()) -> None:
        self.frames = list(frames)
        self.given = 0
        self.stopped = threading.Event()
        self.ended = threading.Event()

    def __iter__(self) -> Iterator[RawFrame]:
        try:
            for frame in self.frames:
                yield frame
                self.given += 1
            self.stopped.wait()
        finally:
            self.ended.set()

    def stop(self) -> None:
        self.stopped.set()


@given(count=st.integers(0, 20), depth=st.integers(1, 5))
def test_every_frame_comes_out_once_and_in_order(count: int, depth: int) -> None:
    stream = a_stream(map(a_frame, range(count)), depth=depth)
    assert numbers(stream) == list(range(count))
    assert (stream.statistics.frames, stream.statistics.dropped) == (count, 0)
    assert list(stream) == []


def test_a_source_waits_for_room() -> None:
    camera = Camera(map(a_frame, range(9)))
    with a_stream(camera, depth=2) as stream:
        assert numbers([next(stream)]) == [0]
        time.sleep(0.2)  # enough for a source that did not wait to have given all
        assert camera.given <= 3
    assert camera.ended.is_set()


def test_the_newest_frames_displace_the_oldest() -> None:
    first_is_taken, all_are_given = threading.Event(), threading.Event()

    def source() -> Iterator[RawFrame]:
        yield a_frame(0)
        first_is_taken.wait(PATIENCE_S)
        yield from map(a_frame, range(1, 10))
        all_are_given.set()

    stream = a_stream(source(), depth=2, policy="drop-oldest")
    assert numbers([next(stream)]) == [0]
    first_is_taken.set()
    assert all_are_given.wait(PATIENCE_S)
    assert numbers(stream) == [8, 9]
    assert stream.statistics.dropped == 7


def test_sizes_and_phases_may_change_from_frame_to_frame() -> None:
    frames = [
        a_frame(1),
        a_frame(2, 9, 13, Phase.GBRG),
        a_frame(3, 40, 2, Phase.BGGR),
    ]
    results = list(a_stream(frames))
    for result, frame in zip(results, frames, strict=True):
        np.testing.assert_array_equal(result.frame.samples, frame.samples)
        assert result.frame.cfa is frame.cfa


def test_what_is_no_frame_is_refused_behind_the_frames_before_it() -> None:
    stream = a_stream([a_frame(1), np.zeros((4, 4), np.float32)])  # type: ignore[list-item]
    assert numbers([next(stream)]) == [1]
    with pytest.raises(InputError, match=r"no RawFrame .*met ndarray, wanted RawFrame"):
        next(stream)
    assert list(stream) == []


def test_samples_of_another_type_are_refused_behind_the_frames_before_them() -> None:
    def source() -> Iterator[RawFrame]:
        yield a_frame(1)
        yield replace(a_frame(2), samples=np.ones((8, 10), np.float32))

    stream = a_stream(source())
    assert numbers([next(stream)]) == [1]
    with pytest.raises(InputError, match=r"met float32 \(8, 10\), wanted uint16"):
        next(stream)
    assert list(stream) == []


def test_a_sources_own_exception_comes_out_in_its_place() -> None:
    def source() -> Iterator[RawFrame]:
        yield from map(a_frame, range(3))
        raise ZeroDivisionError("the source's own")

    stream = a_stream(source(), depth=5)
    assert numbers(next(stream) for _ in range(3)) == [0, 1, 2]
    with pytest.raises(ZeroDivisionError, match="the source's own"):
        next(stream)
    assert list(stream) == []


@pytest.mark.parametrize("given_before", [0, 2])
def test_a_stalled_source_is_an_error_in_time(given_before: int) -> None:
    camera = Camera(map(a_frame, range(given_before)))
    stream = a_stream(camera, timeout_s=0.2)
    assert numbers(next(stream) for _ in range(given_before)) == list(range(given_before))
    with pytest.raises(InputError, match=r"the source stalls \(met no frame for 0.2 s\)"):
        next(stream)
    assert camera.ended.wait(PATIENCE_S)
    assert list(stream) == []


class FailingBackend(IdentityBackend):
    """Fails on the third tile and after it, until it is mended."""

    def __init__(self, error: BackendError) -> None:
        super().__init__()
        self.error, self.left = error, 2.0

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().run(inputs)


@pytest.mark.parametrize("error", [BackendError, OutOfMemoryError])
def test_a_backends_failure_ends_the_stream_and_another_may_follow(
    error: type[BackendError],
) -> None:
    camera, backend = Camera(map(a_frame, range(9))), FailingBackend(error("the device is lost"))
    denoiser = Denoiser(a_bundle(), backend)
    stream = Stream(denoiser, camera, noise=NOISE)
    with pytest.raises(error, match="the device is lost"):
        list(stream)
    assert camera.ended.is_set()
    assert list(stream) == []
    backend.left = math.inf
    assert numbers(Stream(denoiser, map(a_frame, range(9)), noise=NOISE)) == list(range(9))


def test_an_interrupt_ends_the_stream() -> None:
    class Interrupted(IdentityBackend):
        def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
            raise KeyboardInterrupt(len(inputs))

    camera = Camera([a_frame(1)])
    with pytest.raises(KeyboardInterrupt):
        next(Stream(Denoiser(a_bundle(), Interrupted()), camera, noise=NOISE))
    assert camera.ended.is_set()


def test_closing_stops_the_source_and_twice_is_once() -> None:
    camera = Camera(map(a_frame, range(9)))
    stream = a_stream(camera)
    next(stream)
    stream.close()
    stream.close()
    assert camera.ended.is_set()
    assert list(stream) == []


def test_a_source_may_close_the_stream_that_it_feeds() -> None:
    closed = threading.Event()

    def source() -> Iterator[RawFrame]:
        yield a_frame(1)
        stream.close()
        closed.set()
        yield a_frame(2)

    stream = a_stream(source())
    assert len(list(stream)) <= 1
    assert closed.wait(PATIENCE_S)


def test_a_stream_that_is_dropped_is_closed() -> None:
    camera = Camera(map(a_frame, range(9)))
    for _ in a_stream(camera):
        break
    gc.collect()
    assert camera.ended.wait(PATIENCE_S)


def test_a_stream_that_was_never_asked_starts_nothing() -> None:
    before, camera = threading.active_count(), Camera([a_frame(1)])
    stream = a_stream(camera)
    assert threading.active_count() == before
    stream.close()
    assert list(stream) == []
    assert not camera.ended.wait(0.1)  # enough for a thread that was started all the same


def test_a_generator_is_closed_in_its_own_thread() -> None:
    closed_in: list[threading.Thread] = []

    def source() -> Iterator[RawFrame]:
        try:
            while True:
                yield a_frame(1)
        finally:
            closed_in.append(threading.current_thread())

    with a_stream(source()) as stream:
        next(stream)
    (thread,) = closed_in
    assert thread is not threading.current_thread()


def test_a_source_that_waits_without_end_does_not_keep_the_program_from_ending() -> None:
    program = """if True:
        import threading
        from cycleisp_runtime import stream
        from tests.runtime.test_stream import a_frame, a_stream

        def source():
            yield a_frame(1)
            threading.Event().wait()

        stream._JOIN_S = 0.1
        with a_stream(source()) as results:
            next(results)
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=ROOT, timeout=60, check=True
    )


def test_what_the_device_lost_is_in_the_statistics() -> None:
    camera = Camera([a_frame(1)])
    camera.lost = 7
    with a_stream(camera) as stream:
        next(stream)
        assert stream.statistics.lost == 7


def test_statistics_of_a_stream_look_back_on_its_last_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = threading.current_thread()
    arrivals, results = itertools.count(0.0, 1.0), itertools.count(10.0, 2.0)

    def clock() -> float:
        return next(results if threading.current_thread() is ours else arrivals)

    monkeypatch.setattr(stream_module, "perf_counter", clock)
    monkeypatch.setattr(stream_module, "WINDOW", 3)
    stream = a_stream(map(a_frame, range(9)))
    assert stream.statistics.fps is stream.statistics.latency_p50_ms is None
    next(stream)
    assert (stream.statistics.fps, stream.statistics.latency_p99_ms) == (None, 10_000)
    list(stream)
    seen = stream.statistics
    assert (seen.frames, seen.fps) == (9, 0.5)
    # The last three took 16, 17 and 18 s.
    assert seen.latency_p50_ms == pytest.approx(17_000)
    assert seen.latency_p90_ms == pytest.approx(17_800)
    assert seen.latency_p99_ms == pytest.approx(17_980)


def scene(shot: float, seed: int = 0, iso: float | None = None) -> RawFrame:
    frame = noisy_frame(gradient(256, 256, 0.5), shot, 1e-6, seed=seed)
    return replace(frame, exposure=Exposure(iso=iso))


def shots(frames: list[RawFrame], **options: object) -> list[float]:
    """The shot coefficient that each frame is denoised by."""
    stream = Stream(a_denoiser(), frames, **options)  # type: ignore[arg-type]
    met = []
    for _ in stream:
        assert stream.noise is not None
        met.append(stream.noise.model.mean_shot)
    return met


def test_the_first_frames_noise_is_kept() -> None:
    first, second, third = shots([scene(1e-3), scene(4e-3, 1), scene(4e-3, 2)])
    assert first == second == third == pytest.approx(1e-3, rel=0.3)


def test_noise_is_estimated_anew_when_asked() -> None:
    frames = [scene(1e-3), scene(4e-3, 1), scene(4e-3, 2)]
    first, second, third = shots(frames, noise_every=2)
    assert first == second != third == pytest.approx(4e-3, rel=0.3)


@pytest.mark.parametrize(
    "change",
    [
        {"exposure": Exposure(iso=400)},
        {"camera": MadeBy(model="another")},
        {"black": (1.0,) * 4},
        {"white": 65534},
        {"noise_profile": NoiseModel.uniform(4e-3, 1e-6)},
    ],
    ids=str,
)
def test_noise_is_taken_anew_when_a_frame_says_that_it_may_have_changed(
    change: dict[str, Any],
) -> None:
    frames = [scene(1e-3, iso=100), replace(scene(4e-3, 1, iso=100), **change)]
    first, second = shots(frames)
    assert second > 2 * first


def test_given_and_declared_noise_come_before_estimates() -> None:
    declared = replace(scene(1e-3), noise_profile=NoiseModel.uniform(2e-3, 1e-6))
    assert shots([declared, scene(1e-3)])[0] == pytest.approx(2e-3)
    assert shots([declared, scene(1e-3)], noise=NOISE) == pytest.approx([1e-3, 1e-3])


def test_a_frame_that_shows_no_noise_takes_the_former_and_says_so() -> None:
    white = scene(1e-3).with_samples(np.full((256, 256), 65535, np.uint16))
    frames = [scene(1e-3), scene(1e-3), white, white]
    said = [result.warnings for result in Stream(a_denoiser(), frames, noise_every=2)]
    assert any("the noise of an earlier frame is used" in line for line in said.pop(2))
    assert said == [(), (), ()]
    with pytest.raises(CalibrationError):
        next(Stream(a_denoiser(), [white]))


def test_warnings_of_the_source_and_of_the_denoiser_come_with_the_result() -> None:
    frame = replace(a_frame(1), warnings=("cut off",))
    (result,) = a_stream([frame], noise=NoiseModel.uniform(0.1, 1e-6))
    assert result.warnings[0] == "cut off"
    assert "outside of the model's training range" in result.warnings[1]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"depth": 0}, r"depth: out of range \(met 0"),
        ({"noise_every": 0}, r"noise_every: out of range \(met 0"),
        ({"policy": "drop-newest"}, "unknown policy .*wanted block"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, object], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        a_stream([], **options)


def test_settings_that_the_denoiser_refuses_end_the_stream() -> None:
    stream = a_stream([a_frame(1), a_frame(2)], strength=1.1)
    with pytest.raises(SettingsError, match="strength: "):
        next(stream)
    assert list(stream) == []


@pytest.mark.parametrize("policy", ["block", "drop-oldest"])
def test_ten_streams_at_once_keep_their_frames_apart(policy: Policy) -> None:
    streams = [a_stream(map(a_frame, [each] * 5), policy=policy, depth=5) for each in range(10)]
    for _ in range(5):
        assert numbers(next(stream) for stream in streams) == list(range(10))
