"""The denoiser: a RAW frame and its noise in, a cleaner RAW frame of the same size and phase out.

    frame -> tiles of normalised packed samples and their variance -> backend -> frame at 16 bits

Before that a few crops of the frame say how much of the model's correction helps it (``risk.py``);
what is mixed in is that share, one for the whole frame, times the strength that the caller wants.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.arrays import SupportsDLPack, frame_of, target_of
from cycleisp_runtime.attention import Attention, frame_gates
from cycleisp_runtime.backends import Backend, Device, RunFrame
from cycleisp_runtime.backends.checked import run_checked
from cycleisp_runtime.backends.choice import load_on_backend
from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.bundle import Bundle, Precision
from cycleisp_runtime.cuda.foreign import HostCopies
from cycleisp_runtime.cuda.passes import FramePasses
from cycleisp_runtime.denoised import Denoised, Denoising, residual_noise, untouched, with_frame
from cycleisp_runtime.errors import BundleError, SettingsError
from cycleisp_runtime.frame import FloatFrame, RawFrame
from cycleisp_runtime.levels import choose_level_scale, copy_scaled
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.noise_source import NoiseChoice, choose_noise
from cycleisp_runtime.plane_threads import PlaneThreads
from cycleisp_runtime.risk import RiskMeter
from cycleisp_runtime.stopwatch import Stopwatch
from cycleisp_runtime.tile_runner import DEFAULT_TILE, TileRunner
from cycleisp_runtime.tiles import Core, MosaicTiles, TilePlan
from cycleisp_runtime.turns import TakesTurns

if TYPE_CHECKING:
    from cycleisp_runtime.stream import Policy, Stream

__all__ = ["DEFAULT_TILE", "Denoised", "Denoiser", "Denoising"]

LOW_TRUST = 0.5
"""Below it the frame is hardly denoised, which is said."""

_Tiles = npt.NDArray[np.float32]
_Samples = npt.NDArray[np.uint16] | npt.NDArray[np.float32]
_Source = RawFrame | FloatFrame | SupportsDLPack
_Levels = tuple[float, float, float, float]
_Progress = Callable[[int, int], None]


class Denoiser(TakesTurns):
    """A model that is ready to denoise frames, one after the other; a context manager.

    Frames may differ in size, phase and type. Memory for tiles is kept, and made anew where a frame
    needs tiles of another shape.

    Threads may share it: their calls take turns, and each gives what it would give alone. One
    denoiser per thread, each with its share of the cores, gets more done.

    Args:
        bundle: what is known of the model.
        backend: runs its network; closed by ``close``.
        memory: bytes for everything but the frames, the rest of the process included; they choose
            the tile. None for ``DEFAULT_TILE``.

    Raises:
        BundleError: where the model is not for packed Bayer frames.
        SettingsError: where so little memory holds no tile of this model.
    """

    def __init__(self, bundle: Bundle, backend: Backend, *, memory: int | None = None) -> None:
        record = bundle.record
        if record.task != "raw" or record.channels != 4:
            raise BundleError(
                "the model does not denoise RAW frames",
                subject=record.name,
                met=f"task {record.task}, {record.channels} channels",
                wanted="task raw, 4 channels",
                hint="PictureDenoiser is for rendered pictures",
            )
        super().__init__(record.name)
        self.bundle = bundle
        self.backend = backend
        self._planes = PlaneThreads(backend.threads)
        self._runner = TileRunner(record, batch=backend.batch, memory=memory, planes=self._planes)
        self._risk = RiskMeter(halo=record.halo.for_90_db, multiple_of=record.multiple_of)
        self._attention = (
            None
            if record.pooling is None
            else Attention(bundle, threads=backend.threads, memory=memory)
        )
        self._part = np.empty((2, 4, 64, 512), np.float32)
        """What the noise scale is taken from at a time; both fit a cache of 1 MiB."""
        self._copies = HostCopies()

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str],
        *,
        backend: str = "auto",
        precision: Precision | None = None,
        device: Device | None = None,
        threads: int | None = None,
        memory: str | int | None = None,
    ) -> Denoiser:
        """The network of a bundle, by path or shipped name, on a backend as ``open_backend`` says.

        Args:
            bundle: its name or folder.
            backend: a backend's name, or "auto" for the fastest one that works here.
            precision: None for the best one that the backend runs.
            device: None for the GPU where the backend can use one, else the CPU.
            threads: of one operator on the CPU, and of a pass before or after it; None for one per
                physical core.
            memory: for everything but the frames, such as "512MiB", or a number of bytes.

        Raises:
            BundleError: where there is no such bundle, it must not be trusted, or it is not for
                RAW.
            SettingsError: where there is no such backend, or so little memory holds no tile.
            BackendError: where the backend is missing or does not accept the network.
        """
        return load_on_backend(
            lambda found, opened, size: cls(found, opened, memory=size),
            bundle,
            backend=backend,
            precision=precision,
            device=device,
            threads=threads,
            memory=memory,
        )

    def __call__(
        self,
        source: _Source,
        *,
        cfa: Phase | str | None = None,
        black: float | _Levels | None = None,
        white: float | None = None,
        noise: NoiseModel | None = None,
        strength: float = 1.0,
        tile: int | None = None,
        exact: bool = False,
        keep_levels: bool = False,
        progress: _Progress | None = None,
    ) -> Denoised:
        """The denoised frame; masked samples and those that carry ``reserved_dn`` are unchanged.

        Args:
            source: what the camera delivered: a frame, or an array (H, W) of uint16 or float32,
                NumPy's or one that speaks DLPack, which is read where it lies in host memory; on
                a GPU, where ``__cuda_array_interface__`` will do too, it is copied to the host.
            cfa: of an array, the phase at its top left corner.
            black: of an array, one level or one per cell position, row by row, in its own units.
            white: of an array, the level of saturation.
            noise: in normalised units; None for what the frame declares, else an estimate from it,
                which float32 samples do not allow.
            strength: how much of the model's correction is used, 0..1, of the share of it that is
                expected to help.
            tile: side of a tile in packed samples, halo included; None for what memory allows. A
                frame that is smaller is one tile. Tiles of at least four halos agree with the
                whole frame to 120 dB, smaller ones to 90 dB, which a warning says.
            exact: attention of a network that pools is taken from the whole frame, in the memory
                of the whole frame as one tile; else from every n-th sample, as memory allows.
            keep_levels: write at the input's levels instead of 16 bits.
            progress: called with (tiles done, tiles in all). Must not use this denoiser.

        Raises:
            InputError: where an array is not of this kind, or levels contradict each other.
            SettingsError: where the strength is outside 0..1, the tile too small for the halo, or
                an array comes without levels or noise.
            CalibrationError: where no noise is given and the frame does not tell it.
            OutOfMemoryError: where memory does not suffice for the smallest tile, or for attention.
            BackendError: where the backend fails or puts out something that is no picture, the
                array lies on a GPU that cannot be reached, or the denoiser was closed.
        """
        with self._turn():
            frame = frame_of(source, cfa=cfa, black=black, white=white, copies=self._copies)
            samples = np.empty(frame.samples.shape, np.uint16)
            denoising = self._denoise(
                frame, samples, noise, strength, tile, exact, keep_levels, progress
            )
            return with_frame(denoising, frame, samples)

    def denoise_into(
        self,
        source: _Source,
        target: SupportsDLPack,
        *,
        cfa: Phase | str | None = None,
        black: float | _Levels | None = None,
        white: float | None = None,
        noise: NoiseModel | None = None,
        strength: float = 1.0,
        tile: int | None = None,
        exact: bool = False,
        keep_levels: bool = False,
        progress: _Progress | None = None,
    ) -> Denoising:
        """How ``target``, an array of the caller's, was filled with the denoised samples.

        After the first frame of a size nothing is allocated that grows with frames or tiles, as
        long as the noise is given. Where this raises, ``target`` may be half written.

        Args:
            source: as for a call.
            target: (H, W), the shape of the stored samples: uint16, at 16 bits, levels multiplied
                by the ``level_scale`` that is returned; or float32, at the input's levels, neither
                rounded nor clipped. Shares no memory with ``source``. One on a GPU is filled when
                this returns, for every stream.
            cfa: as for a call.
            black: as for a call.
            white: as for a call.
            noise: as for a call.
            strength: as for a call.
            tile: as for a call.
            exact: as for a call.
            keep_levels: as for a call.
            progress: as for a call.

        Raises:
            InputError: where the target is no such array, or as for a call.
            SettingsError, CalibrationError, OutOfMemoryError, BackendError: as for a call.
        """
        with self._turn():
            frame = frame_of(source, cfa=cfa, black=black, white=white, copies=self._copies)
            with target_of(target, frame.samples, self._copies) as samples:
                return self._denoise(
                    frame, samples, noise, strength, tile, exact, keep_levels, progress
                )

    def stream(
        self,
        source: Iterable[RawFrame],
        *,
        depth: int = 2,
        policy: Policy = "block",
        noise: NoiseModel | None = None,
        noise_every: int | None = None,
        strength: float = 1.0,
        keep_levels: bool = False,
        timeout_s: float = 30.0,
    ) -> Stream:
        """Denoised frames in the source's order: an iterator, and a context manager.

        Args:
            source: RawFrames of any sizes and phases; iterated in another thread.
            depth: frames that may wait.
            policy: what a full queue does: "block" lets the source wait, "drop-oldest" makes room.
            noise: of all frames, in normalised units; None for what frames declare, else an
                estimate from the first, kept as long as it holds.
            noise_every: frames after which the noise is estimated anew; None for never.
            strength: share of the model's correction, of what is expected to help, 0..1.
            keep_levels: results at the frames' own levels instead of 16 bits.
            timeout_s: how long the source may take for one frame.

        Raises:
            SettingsError: where a number is out of range, or there is no such policy.
        """
        from cycleisp_runtime.stream import Stream

        return Stream(
            self,
            source,
            depth=depth,
            policy=policy,
            noise=noise,
            noise_every=noise_every,
            strength=strength,
            keep_levels=keep_levels,
            timeout_s=timeout_s,
        )

    def _give_back(self) -> None:
        self.backend.close()
        self._copies.close()
        self._runner.close()
        self._planes.close()
        if self._attention is not None:
            self._attention.close()

    def _denoise(
        self,
        frame: RawFrame | FloatFrame,
        target: _Samples,
        noise: NoiseModel | None,
        strength: float,
        tile: int | None,
        exact: bool,
        keep_levels: bool,
        progress: _Progress | None,
    ) -> Denoising:
        """Fill ``target`` in this thread's turn; the arguments are those of a call."""
        if not 0 <= strength <= 1:
            raise SettingsError("out of range", subject="strength", met=strength, wanted="0..1")
        record, watch = self.bundle.record, Stopwatch()
        with watch.step("levels"):
            kept = keep_levels or target.dtype == np.float32
            level_scale, warnings = (1, []) if kept else choose_level_scale(frame)
            if strength == 0 or frame.visible.size < target.size:
                copy_scaled(frame.samples, level_scale, target)
        if strength == 0:
            return untouched(level_scale, warnings)
        choice = _noise_of(frame, noise)
        with watch.step("noise scale"):
            whole = MosaicTiles(frame, choice.model, TilePlan((), 0, 0, 0), self._planes)
            noise_scale = whole.noise_scale(*self._part)
        gates = None
        if self._attention is not None:
            with watch.step("attention"):
                gates, coarser = frame_gates(
                    self._attention, frame, choice.model, noise_scale, exact=exact
                )
            warnings += coarser

        def network(noisy: _Tiles, variance: _Tiles) -> _Tiles:
            inputs = record.tensors.fill(noisy, variance, noise_scale, gates)
            return run_checked(self.backend, record, inputs, self._planes)

        with watch.step("risk"):
            risk = self._risk.measure(frame, choice.model, network)
        trust = risk.safe_strength
        share = strength * trust

        def on_backend(run_frame: RunFrame, plan: TilePlan) -> Iterator[Core]:
            stand_in = np.broadcast_to(np.float32(0), (1, 4, plan.height, plan.width))
            passes = FramePasses(
                frame,
                choice.model,
                plan,
                target[frame.area.slices],
                strength=share,
                level_scale=level_scale,
            )
            return run_frame(passes, record.tensors.fill(stand_in, stand_in, noise_scale, gates))

        run_frame = self.backend.run_frame
        tile_warnings = self._runner.run(
            frame,
            choice.model,
            network,
            target[frame.area.slices],
            on_backend=run_frame and partial(on_backend, run_frame),
            side=tile,
            strength=share,
            level_scale=level_scale,
            watch=watch,
            progress=progress,
        )
        doubt = (
            None if record.noise_range is None else record.noise_range.doubt(choice.model.mean_shot)
        )
        return Denoising(
            level_scale,
            strength=share,
            trust=trust,
            expected_gain_db=risk.expected_gain_db(share),
            residual=(
                choice.model.scaled(risk.remaining(share))
                if risk.is_known
                else residual_noise(record.quality, choice.model, share)
            ),
            seconds=watch.seconds,
            warnings=(
                *warnings,
                *choice.warnings,
                *tile_warnings,
                *([] if doubt is None else [doubt]),
                *_trust_warnings(trust),
            ),
        )


def _noise_of(frame: RawFrame | FloatFrame, given: NoiseModel | None) -> NoiseChoice:
    if isinstance(frame, RawFrame):
        return choose_noise(frame, given)
    if given is None:
        raise SettingsError("samples of float32 need their noise", wanted="noise=NoiseModel(...)")
    return NoiseChoice(given, "given")


def _trust_warnings(trust: float) -> list[str]:
    if trust >= LOW_TRUST:
        return []
    used = f"{trust:.0%} of the model's correction was used"
    return [f"{used}: the frame has fine texture, or other noise than was told"]
