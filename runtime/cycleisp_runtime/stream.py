"""Frames one after the other: a source in a thread of its own, a bounded queue, the denoiser.

    source -> queue of at most ``depth`` frames -> denoiser, in the caller's thread -> results

So reading, unpacking and waiting for the camera go on while the network runs. Order is kept. Every
frame may have a size and a phase of its own.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import numpy as np

from cycleisp_runtime.errors import CalibrationError, InputError, SettingsError
from cycleisp_runtime.frame import RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.noise_source import NoiseChoice, choose_noise
from cycleisp_runtime.sources import FrameSource

if TYPE_CHECKING:
    from typing_extensions import Self

    from cycleisp_runtime.denoised import Denoised
    from cycleisp_runtime.denoiser import Denoiser

__all__ = ["WINDOW", "Policy", "Stream", "StreamStatistics"]

Policy = Literal["block", "drop-oldest"]
"""What a full queue does: the source waits, or the oldest frame in it makes room for the newest."""

WINDOW = 1000
"""Frames that statistics look back on: a stream may run for months."""

_JOIN_S = 10.0
"""A small file is decoded by then; a source that has not ended by then cannot be interrupted."""


@dataclass(frozen=True)
class StreamStatistics:
    """How a stream fares.

    Attributes:
        frames: denoised so far.
        dropped: frames that the queue dropped because the denoiser was slower than the source.
        lost: frames that the device lost or delivered damaged, where the source can tell.
        fps: results per second, over the last ``WINDOW``; None before the second.
        latency_p50_ms: from the source's delivery to the result, median over the last ``WINDOW``;
            None before the first, as the two that follow.
        latency_p90_ms: the same, exceeded by one frame in ten.
        latency_p99_ms: the same, exceeded by one frame in a hundred.
    """

    frames: int
    dropped: int
    lost: int
    fps: float | None
    latency_p50_ms: float | None
    latency_p90_ms: float | None
    latency_p99_ms: float | None


class Stream(Iterator["Denoised"]):
    """Denoised frames in the source's order; an iterator, and a context manager that closes it.

    The source's thread starts with the first frame asked for. Whatever ends the stream, an
    exception or an interrupt among them, stops and joins it; the stream then holds no more frames.
    An iterator that waits without end cannot be interrupted: its thread, a daemon, is left behind.

    The noise is the one given, else what a frame declares, else an estimate from the first frame.
    The estimate is kept until a frame has other levels, ISO or camera, or ``noise_every`` frames
    have passed; where a later frame allows none, the former is kept and the result warns.

    Args:
        denoiser: an open denoiser; used by nobody else meanwhile.
        source: RawFrames of any sizes and phases; iterated in another thread, and closed at the end
            where it is a generator.
        depth: frames that may wait.
        policy: what happens to the next one.
        noise: of all frames, in normalised units.
        noise_every: frames after which the noise is estimated anew; None for never.
        strength: share of the model's correction, of what is expected to help, 0..1.
        keep_levels: results at the frames' own levels instead of 16 bits.
        timeout_s: how long the source may take for one frame.

    Raises:
        SettingsError: where a number is out of range, or there is no such policy.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        source: Iterable[RawFrame],
        *,
        depth: int = 2,
        policy: Policy = "block",
        noise: NoiseModel | None = None,
        noise_every: int | None = None,
        strength: float = 1.0,
        keep_levels: bool = False,
        timeout_s: float = 30.0,
    ) -> None:
        for name, value in (("depth", depth), ("noise_every", noise_every)):
            if value is not None and value < 1:
                raise SettingsError("out of range", subject=name, met=value, wanted="1 or more")
        if policy not in ("block", "drop-oldest"):
            raise SettingsError(
                "unknown policy", subject="policy", met=policy, wanted="block | drop-oldest"
            )
        self._denoiser = denoiser
        self._feed = _Feed(source, depth, policy)
        self._noise = _StreamNoise(noise, noise_every)
        self._strength = strength
        self._keep_levels = keep_levels
        self._timeout_s = timeout_s
        self._frames = 0
        self._results: deque[tuple[float, float]] = deque(maxlen=WINDOW)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Denoised:
        """The next denoised frame.

        Raises:
            StopIteration: where the source has ended or the stream was closed.
            InputError: where the source gave no frame in time, or something that is no RawFrame.
            CalibrationError: where the first frame shows no noise to estimate and none was given.
            BackendError: where the backend fails.
            Exception: what the source raises, after the frames that it gave before.
        """
        try:
            frame, arrived = self._feed.next(self._timeout_s)
            choice = self._noise.of(frame)
            denoised = self._denoiser(
                frame,
                noise=choice.model,
                strength=self._strength,
                keep_levels=self._keep_levels,
            )
        except BaseException:
            self.close()
            raise
        now = perf_counter()
        self._frames += 1
        self._results.append((now, now - arrived))
        return replace(denoised, warnings=(*frame.warnings, *choice.warnings, *denoised.warnings))

    @property
    def noise(self) -> NoiseChoice | None:
        """What the last frame was denoised by, and where it is known from."""
        return self._noise.choice

    @property
    def statistics(self) -> StreamStatistics:
        """Until now."""
        times, latencies = zip(*self._results, strict=True) if self._results else ((), ())
        p50, p90, p99 = (
            (float(1000 * each) for each in np.percentile(latencies, (50, 90, 99)))
            if latencies
            else (None, None, None)
        )
        return StreamStatistics(
            frames=self._frames,
            dropped=self._feed.dropped,
            lost=self._feed.lost,
            fps=(len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else None,
            latency_p50_ms=p50,
            latency_p90_ms=p90,
            latency_p99_ms=p99,
        )

    def close(self) -> None:
        """Stop the source and join its thread; what waits is given up. May be called twice."""
        self._feed.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_feed"):  # not where the arguments were refused
            self.close()


class _StreamNoise:
    """The noise of each frame of a stream, an estimate being kept as long as it holds."""

    def __init__(self, given: NoiseModel | None, every: int | None) -> None:
        self.choice: NoiseChoice | None = None
        self._given = given
        self._every = every
        self._age = 0
        self._circumstances: object = None

    def of(self, frame: RawFrame) -> NoiseChoice:
        """What to denoise this frame by; its warnings are those of a new estimate."""
        circumstances = (frame.black, frame.white, frame.exposure.iso, frame.camera)
        old = self.choice
        holds = (
            old is not None
            and frame.noise_profile is None
            and circumstances == self._circumstances
            and self._age != self._every
        )
        if old is not None and holds:
            self._age += 1
            self.choice = replace(old, warnings=())
            return self.choice
        try:
            self.choice = choose_noise(frame, self._given)
        except CalibrationError as error:
            if old is None:
                raise
            self.choice = replace(
                old, warnings=(f"the noise of an earlier frame is used: {error}",)
            )
        self._age, self._circumstances = 1, circumstances
        return self.choice


class _Feed:
    """The source's thread and the queue that it fills; knows nothing of the stream it feeds."""

    def __init__(self, source: Iterable[RawFrame], depth: int, policy: Policy) -> None:
        self.dropped = 0
        self._source = source
        self._depth = depth
        self._policy = policy
        self._waiting: deque[tuple[RawFrame, float]] = deque()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="cycleisp-source", daemon=True)

    @property
    def lost(self) -> int:
        """Frames that the source's device lost."""
        return self._source.lost if isinstance(self._source, FrameSource) else 0

    def next(self, timeout_s: float) -> tuple[RawFrame, float]:
        """The frame that has waited longest, and when it came.

        Raises:
            StopIteration: where the source has ended.
            InputError: where no frame comes in time.
            BaseException: what ended the source.
        """
        with self._changed:
            if not self._ended and self._thread.ident is None:
                self._thread.start()
            came = self._changed.wait_for(lambda: self._waiting or self._ended, timeout_s)
            if self._waiting:
                frame = self._waiting.popleft()
                self._changed.notify_all()
                return frame
            error, self._error = self._error, None
        if not came:
            raise InputError(
                "the source stalls",
                subject="stream",
                met=f"no frame for {timeout_s:g} s",
                hint="check the camera, or allow a longer timeout_s",
            )
        if error is not None:
            raise error
        raise StopIteration

    def stop(self) -> None:
        """End the source and its thread; what waits is given up."""
        with self._changed:
            self._ended = True
            self._waiting.clear()
            self._changed.notify_all()
        if isinstance(self._source, FrameSource):
            self._source.stop()
        # The thread itself comes here where the garbage collector finds a lost stream in it.
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        error = None
        try:
            frames = iter(self._source)
            with closing(frames) if isinstance(frames, Generator) else nullcontext():
                for frame in frames:
                    if not self._put(frame):
                        break
        except BaseException as failure:  # noqa: BLE001  it is raised again where it is waited for
            error = failure
        with self._changed:
            self._error = None if self._ended else error
            self._ended = True
            self._changed.notify_all()

    def _put(self, frame: RawFrame) -> bool:
        """Whether the stream still wants frames, once this one waits for its turn."""
        if not isinstance(frame, RawFrame):
            raise InputError(
                "the source gives something that is no RawFrame",
                subject="stream",
                met=type(frame).__name__,
                wanted="RawFrame",
            )
        arrived = perf_counter()
        with self._changed:
            if self._policy == "block":
                self._changed.wait_for(lambda: len(self._waiting) < self._depth or self._ended)
            elif len(self._waiting) == self._depth:
                self._waiting.popleft()
                self.dropped += 1
            if not self._ended:
                self._waiting.append((frame, arrived))
                self._changed.notify_all()
            return not self._ended
