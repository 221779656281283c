"""How much of a network's correction helps this frame, told without the clean picture.

    noisy samples y = x + n, network f, correction c = f(y) - y, output y + s c

    mean squared error of the output   |n|^2 + 2 s <n, c> + s^2 |c|^2
    best share of the correction       s = -<n, c> / |c|^2

Only <n, c> needs the clean picture, and its expectation does not: it is the sum of
variance_i (df_i/dy_i - 1), which a second run of the network on slightly shaken samples tells
(Stein's unbiased risk estimate). Fine texture that a network takes for noise makes c long and
<n, c> short, so s falls below 1; with it the output is never expected to be worse than the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.bayer import packed_size
from cycleisp_runtime.frame import FloatFrame, RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.tiles import Core, MosaicTiles, TilePlan

__all__ = ["CropMemory", "Risk", "RiskMeter", "measure_risk", "plan_crops"]

CROP = 48
"""Side of a crop in packed samples."""

CROPS_PER_SIDE = 4
"""16 crops of 48x48, 0.15 MP: on 33 training photographs of 1 MP at low noise tiny's strength
differed from the one of the whole frame's truth by 0.030 (rms) and cost 0.004 dB at most; 64x64
differed by 0.027 and cost as much. Of crops of 64x64, 9 cost 0.010 dB and 4 cost 0.030 dB. Two runs
on them are 3 % of the work on a frame of 12 MP."""

CROP_HALO = 4
"""Packed samples around a crop. On 13 frames 4 to 22 of them give the same strength but for the
probe's own error of 0.01; 18, which tiles of the edge model need for 90 dB, cost twice as
much."""

PROBE = 0.05
"""Of the noise. On 50 training photographs 0.02 and 0.1 give the same strength to 0.003 in the
mean; 0.3 already bends the network's response and gives 0.03 less."""

CLIPPED = 2.0
"""Denoised samples closer than this to where the sensor clips, in noise deviations, are left out:
their noise is cut off on one side."""

LEAST_SAMPLES = 4096
"""Fewer leave the strength uncertain by 0.1: a quarter of a million leave 0.01."""

LEAST_SHARE = 0.03
"""Of the noise. The estimate is a difference of large sums, and noise is seldom known to 3 %: it
does not tell 15 dB from more."""

_Planes = npt.NDArray[np.float32]

_Network = Callable[[_Planes, _Planes], _Planes]
"""Noisy planes (1, 4, h, w) and their variance map to denoised planes."""


@dataclass(frozen=True)
class Risk:
    """Sums over samples, in squared normalised units; risks of several crops add up.

    Attributes:
        samples: how many.
        noise: of the variance, E|n|^2.
        agreement: E<n, c>; negative where the correction takes noise off.
        correction: |c|^2.
    """

    samples: int = 0
    noise: float = 0.0
    agreement: float = 0.0
    correction: float = 0.0

    def __add__(self, other: Risk) -> Risk:
        return Risk(
            self.samples + other.samples,
            self.noise + other.noise,
            self.agreement + other.agreement,
            self.correction + other.correction,
        )

    @property
    def is_known(self) -> bool:
        """Whether there are enough samples to say anything."""
        return self.samples >= LEAST_SAMPLES and self.noise > 0

    @property
    def safe_strength(self) -> float:
        """Share of the correction, 0..1, that leaves the least error; 1 where nothing is known."""
        if not self.is_known or self.correction == 0:
            return 1.0
        return min(max(-self.agreement / self.correction, 0.0), 1.0)

    def remaining(self, strength: float) -> float:
        """Expected squared error at this share of the correction, over that of the noisy samples.

        Only where ``is_known``; at least ``LEAST_SHARE``.
        """
        added = 2 * strength * self.agreement + strength**2 * self.correction
        return max(1 + added / self.noise, LEAST_SHARE)

    def expected_gain_db(self, strength: float) -> float | None:
        """dB that the output is closer to the clean picture than the input; None if not known."""
        return -10 * math.log10(self.remaining(strength)) if self.is_known else None


def plan_crops(rows: int, columns: int, *, halo: int, multiple_of: int) -> TilePlan:
    """Crops spread evenly over a packed frame (rows, columns), whatever its tiles may be.

    A frame of less than 192x192 is covered. The outermost cells are left out: some of their samples
    are mirror images of others. ``halo`` and ``CROP`` are rounded up to ``multiple_of``.
    """
    halo, side = (-(-length // multiple_of) * multiple_of for length in (halo, CROP))
    cores = tuple(
        Core(top, left, height, width)
        for top, height in _stretches(rows, side, multiple_of)
        for left, width in _stretches(columns, side, multiple_of)
    )
    return TilePlan(cores, halo, side + 2 * halo, side + 2 * halo)


class CropMemory:
    """Arrays in which the risk of a crop of this shape is measured, kept from crop to crop."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        floats = np.empty((5, *shape), np.float32)
        self.map, self.denoised, self.variance, self.deviation, self.shaken = floats
        self.above, self.below = np.empty((2, *shape), np.bool_)


class RiskMeter:
    """Tells the risk of a network on one frame after the other, in memory of its own.

    Args:
        halo: packed samples that the network sees beyond a core; more than ``CROP_HALO`` are not
            used.
        multiple_of: what sides and places of its tiles are multiples of, in packed samples.
    """

    def __init__(self, *, halo: int, multiple_of: int) -> None:
        self._halo, self._multiple_of = min(halo, CROP_HALO), multiple_of
        plan = plan_crops(0, 0, halo=self._halo, multiple_of=multiple_of)
        shape = (1, 4, plan.height, plan.width)
        self._noisy = np.empty(shape, np.float32)
        self._memory = CropMemory(shape)
        # Always the same, so that a frame has one safe strength; another one for every crop, or
        # their errors would add up.
        rng = np.random.default_rng(0)
        self._signs = rng.choice(np.array([-1, 1], np.int8), (CROPS_PER_SIDE**2, *shape))

    def measure(self, frame: RawFrame | FloatFrame, noise: NoiseModel, run: _Network) -> Risk:
        """The risk on this frame, from crops that do not depend on its tiles.

        Args:
            frame: what the camera delivered.
            noise: its noise, in normalised units.
            run: the network.
        """
        rows, columns = packed_size(frame.area.height, frame.area.width, frame.cfa)
        plan = plan_crops(rows, columns, halo=self._halo, multiple_of=self._multiple_of)
        tiles = MosaicTiles(frame, noise, plan)
        risk = Risk()
        for core, signs in zip(plan.cores, self._signs, strict=False):
            tiles.cut(core, self._noisy[0], self._memory.map[0])
            inner = (
                slice(plan.halo, plan.halo + core.height),
                slice(plan.halo, plan.halo + core.width),
            )
            risk += measure_risk(
                run,
                self._noisy,
                noise,
                inner=inner,
                black_end=tiles.black_end,
                signs=signs,
                memory=self._memory,
            )
        return risk


def measure_risk(
    run: _Network,
    noisy: _Planes,
    noise: NoiseModel,
    *,
    inner: tuple[slice, slice],
    black_end: tuple[float, ...],
    signs: npt.NDArray[np.int8],
    memory: CropMemory,
) -> Risk:
    """The risk of a network on one crop.

    C. M. Stein, "Estimation of the mean of a multivariate normal distribution", Annals of
    Statistics 9(6), 1981, for the expectation; S. Ramani, T. Blu, M. Unser, "Monte-Carlo SURE",
    IEEE TIP 17(9), 2008, theorem 2, for the derivatives by one random probe. The variance is taken
    at the denoised samples, which know the signal better than the noisy ones.

    Args:
        run: the network.
        noisy: (1, 4, h, w) float32, normalised, R, Gr, Gb, B.
        noise: of these samples.
        inner: rows and columns that count; the rest is halo.
        black_end: normalised value of DN 0 per plane, where samples are clipped; white is 1.
        signs: of the probe, 1 or -1 by chance, shaped like ``noisy``.
        memory: for this shape; overwritten.
    """
    denoised, deviation, shaken = memory.denoised, memory.deviation, memory.shaken
    denoised[...] = run(noisy, noise.variance(noisy, out=memory.map))
    variance = noise.variance(denoised, out=memory.variance)
    np.sqrt(variance, out=deviation)

    probe = np.multiply(signs, deviation, out=shaken)
    probe *= np.float32(PROBE)
    shaken += noisy
    response = run(shaken, noise.variance(shaken, out=memory.map))
    agreement = np.subtract(response, denoised, out=shaken)
    agreement *= deviation
    agreement *= signs

    deviation *= np.float32(CLIPPED)
    distance = np.subtract(denoised, deviation, out=memory.map)
    np.greater(distance, np.asarray(black_end, np.float32)[:, None, None], out=memory.above)
    distance = np.add(denoised, deviation, out=memory.map)
    np.less(distance, np.float32(1), out=memory.below)
    kept = np.logical_and(memory.above, memory.below, out=memory.below)[..., inner[0], inner[1]]
    correction = np.square(np.subtract(denoised, noisy, out=denoised), out=denoised)

    def total(values: _Planes) -> float:
        return float(values[..., inner[0], inner[1]].sum(where=kept, dtype=np.float64))

    return Risk(
        samples=int(np.count_nonzero(kept)),
        noise=total(variance),
        agreement=total(agreement) / PROBE - total(variance),
        correction=total(correction),
    )


def _stretches(length: int, side: int, multiple_of: int) -> Iterator[tuple[int, int]]:
    """Starts and lengths of at most ``CROPS_PER_SIDE`` crops along one axis, without overlap."""
    first, last = multiple_of, length - 1
    step = max(side, (last - first) // CROPS_PER_SIDE)
    begin = first + (step - side) // 2
    for index in range(CROPS_PER_SIDE):
        start = (begin + index * step) // multiple_of * multiple_of
        if start < last:
            yield start, min(side, last - start)
