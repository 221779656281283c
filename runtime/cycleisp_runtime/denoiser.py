"""The denoiser: a RAW frame and its noise in, a cleaner RAW frame of the same size and phase out.

    frame -> tiles of normalised packed samples and their variance -> backend -> frame at 16 bits

Before that a few crops of the frame say how much of the model's correction helps it (``risk.py``);
what is mixed in is that share, one for the whole frame, times the strength that the caller wants.
A denoised value is finer than the sensor's step, so levels and samples are multiplied by the
largest power of two that 16 bits can hold.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.backends import Backend
from cycleisp_runtime.bayer import packed_size
from cycleisp_runtime.bundle import Bundle, Precision, Quality, find_bundle
from cycleisp_runtime.errors import BackendError, BundleError, SettingsError
from cycleisp_runtime.frame import RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.risk import frame_risk
from cycleisp_runtime.stopwatch import Stopwatch
from cycleisp_runtime.tiles import MOST_DN, MosaicTiles, TilePlan, plan_tiles

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["DEFAULT_TILE", "Denoised", "Denoiser", "residual_noise", "unchanged"]

DEFAULT_TILE = 512
"""Packed samples: a sixth of the work goes into halos of 22, about 110 MB into an edge model's
features. Half of it takes a quarter of the memory and spends a third of the work on halos."""

LOW_TRUST = 0.5
"""Below it the frame is hardly denoised, which is said."""

_Tile = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Denoised:
    """A denoised frame and how it came about.

    Attributes:
        frame: samples and levels already multiplied by ``level_scale``.
        level_scale: a power of two.
        strength: share of the model's output in the frame: what was asked for, times ``trust``.
        trust: share of the model's correction that is expected to help this frame, 0..1; 1 where
            too few samples say anything.
        expected_gain_db: PSNR that the frame is expected to have gained; None where not known.
        residual: noise that is left, in normalised units; None where samples are unchanged, so
            that what was known of their noise still holds.
        seconds: by step.
        warnings: what was not done as asked or may disappoint, one sentence each.
    """

    frame: RawFrame
    level_scale: int
    strength: float
    trust: float
    expected_gain_db: float | None
    residual: NoiseModel | None
    seconds: dict[str, float]
    warnings: tuple[str, ...]


class Denoiser:
    """A model that is ready to denoise frames, one after the other; a context manager.

    Args:
        bundle: what is known of the model.
        backend: runs its network; closed by ``close``.

    Raises:
        BundleError: where the model is not for packed Bayer frames.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        record = bundle.record
        if record.task != "raw" or record.channels != 4:
            raise BundleError(
                "the model does not denoise RAW frames",
                subject=record.name,
                met=f"task {record.task}, {record.channels} channels",
                wanted="task raw, 4 channels",
            )
        self.bundle = bundle
        self.backend = backend
        self._noisy = self._variance = np.empty((1, 4, 0, 0), np.float32)

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str],
        *,
        precision: Precision = "fp32",
        threads: int | None = None,
    ) -> Denoiser:
        """The network of a bundle, by path or shipped name, on ONNX Runtime.

        Raises:
            BundleError: where there is no such bundle, or it must not be trusted.
            BackendError: where ONNX Runtime does not accept its network.
        """
        from cycleisp_runtime.backends.onnxruntime import OnnxRuntimeBackend

        found = find_bundle(bundle)
        return cls(found, OnnxRuntimeBackend(found, precision, threads=threads))

    def __call__(
        self,
        frame: RawFrame,
        *,
        noise: NoiseModel,
        strength: float = 1.0,
        tile: int | None = None,
        keep_levels: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Denoised:
        """The denoised frame; masked samples and those that carry ``reserved_dn`` are unchanged.

        Args:
            frame: what the camera delivered.
            noise: its noise, in normalised units.
            strength: how much of the model's correction is used, 0..1, of the share of it that is
                expected to help.
            tile: side of a tile in packed samples, halo included; None for ``DEFAULT_TILE``. A
                frame that is smaller is one tile. Tiles of at least four halos agree with the
                whole frame to 120 dB, smaller ones to 90 dB, which a warning says.
            keep_levels: write at the input's levels instead of 16 bits.
            progress: called with (tiles done, tiles in all).

        Raises:
            SettingsError: where the strength is outside 0..1 or the tile too small for the halo.
            BackendError: where the backend fails or puts out something that is no picture.
        """
        if not 0 <= strength <= 1:
            raise SettingsError("out of range", subject="strength", met=strength, wanted="0..1")
        watch = Stopwatch()
        with watch.step("levels"):
            result = unchanged(frame, keep_levels=keep_levels)
        if strength == 0:
            return result
        plan, plan_warnings = self._plan(frame, DEFAULT_TILE if tile is None else tile)
        tiles = MosaicTiles(frame, noise, plan)
        noisy, variance = self._buffers(plan)
        with watch.step("noise scale"):
            noise_scale = tiles.noise_scale(noisy[0], variance[0])
        with watch.step("risk"):
            risk = frame_risk(
                frame,
                noise,
                lambda samples, its_variance: self._run(samples, its_variance, noise_scale),
                halo=self.bundle.record.halo.for_90_db,
                multiple_of=self.bundle.record.multiple_of,
            )
        trust = risk.safe_strength
        share = strength * trust
        for done, core in enumerate(plan.cores, start=1):
            with watch.step("cut"):
                tiles.cut(core, noisy[0], variance[0])
            with watch.step("network"):
                denoised = self._run(noisy, variance, noise_scale)
            with watch.step("stitch"):
                tiles.stitch(
                    core,
                    denoised[0],
                    result.frame.visible,
                    strength=share,
                    level_scale=result.level_scale,
                )
            if progress is not None:
                progress(done, len(plan.cores))
        return replace(
            result,
            strength=share,
            trust=trust,
            expected_gain_db=risk.expected_gain_db(share),
            residual=(
                noise.scaled(risk.remaining(share))
                if risk.is_known
                else residual_noise(self.bundle.record.quality, noise, share)
            ),
            seconds=watch.seconds,
            warnings=(
                *result.warnings,
                *plan_warnings,
                *self._noise_warnings(noise),
                *_trust_warnings(trust),
            ),
        )

    def close(self) -> None:
        """Give the backend's and the tiles' memory back; the denoiser cannot be used afterwards."""
        self.backend.close()
        self._noisy = self._variance = np.empty((1, 4, 0, 0), np.float32)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _plan(self, frame: RawFrame, side: int) -> tuple[TilePlan, list[str]]:
        """Tiles for this frame, with the better halo where it leaves half of a tile's side."""
        halo, warnings = self.bundle.record.halo.for_120_db, []
        if side < 4 * halo:
            halo = self.bundle.record.halo.for_90_db
            warnings.append(
                f"tiles of {side} packed samples have room for a halo of {halo} only: they agree "
                "with the whole frame to 90 dB instead of 120"
            )
        rows, columns = packed_size(frame.area.height, frame.area.width, frame.cfa)
        plan = plan_tiles(
            rows, columns, side=side, halo=halo, multiple_of=self.bundle.record.multiple_of
        )
        return plan, warnings

    def _buffers(self, plan: TilePlan) -> tuple[_Tile, _Tile]:
        """Memory for one noisy tile and its variance, kept from frame to frame."""
        shape = (1, 4, plan.height, plan.width)
        if self._noisy.shape != shape:
            self._noisy = np.empty(shape, np.float32)
            self._variance = np.empty(shape, np.float32)
        return self._noisy, self._variance

    def _run(self, noisy: _Tile, variance: _Tile, noise_scale: float) -> _Tile:
        """One tile through the backend, its output checked."""
        tensors = self.bundle.record.tensors
        denoised = self.backend.run(tensors.fill(noisy, variance, noise_scale))
        fit = denoised.shape == noisy.shape
        if not fit or not np.isfinite(denoised).all():
            raise BackendError(
                f"the network's output {self.bundle.record.tensors.denoised!r} is not a picture",
                subject=f"{self.bundle.record.name} on {self.backend.name}",
                met="NaN or infinity" if fit else f"shape {denoised.shape}",
                wanted="finite numbers" if fit else f"shape {noisy.shape}",
                hint="check the noise that was given, or use another model",
            )
        return denoised

    def _noise_warnings(self, noise: NoiseModel) -> list[str]:
        trained = self.bundle.record.noise_range
        doubt = None if trained is None else trained.doubt(noise.mean_shot)
        return [] if doubt is None else [doubt]


def unchanged(frame: RawFrame, *, keep_levels: bool = False) -> Denoised:
    """A copy of the frame at the output's levels, nothing denoised.

    The levels are multiplied by the largest power of two with which white and every sample still
    fit 16 bits; by 1 where ``keep_levels`` asks for it or the frame reserves a DN for defects.
    """
    level_scale, warnings = 1, []
    if frame.reserved_dn is not None and not keep_levels:
        warnings.append(
            f"the file marks defective samples by the value {frame.reserved_dn}: levels were kept"
        )
    elif not keep_levels:
        highest = max(frame.white, int(frame.samples.max()))
        while highest * level_scale * 2 <= MOST_DN:
            level_scale *= 2
    scaled = frame.with_samples(frame.samples * np.uint16(level_scale), scale=level_scale)
    return Denoised(
        scaled,
        level_scale,
        strength=0.0,
        trust=1.0,
        expected_gain_db=None,
        residual=None,
        seconds={},
        warnings=tuple(warnings),
    )


def _trust_warnings(trust: float) -> list[str]:
    if trust >= LOW_TRUST:
        return []
    used = f"{trust:.0%} of the model's correction was used"
    return [f"{used}: the frame has fine texture, or other noise than was told"]


def residual_noise(quality: tuple[Quality, ...], noise: NoiseModel, strength: float) -> NoiseModel:
    """What is left of ``noise``, by the bundle's own measurements: for frames that say too little.

    The mean squared error falls by the ratio r = 10^(-gain / 10), with the gain in dB interpolated
    over log shot; mixing in a share s of the output leaves (1 - s)^2 + (1 - (1 - s)^2) r of it.
    """
    levels = sorted(
        (level.shot, level.denoised_db - level.noisy_db)
        for level in quality
        if level.shot is not None
    )
    shots, gains = zip(*levels, strict=True)
    gain = float(np.interp(math.log(noise.mean_shot), np.log(shots), gains))
    ratio = min(10 ** (-gain / 10), 1.0)
    kept = (1 - strength) ** 2
    return noise.scaled(kept + (1 - kept) * ratio)
