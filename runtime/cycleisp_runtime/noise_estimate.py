"""Shot and read noise of one RAW frame, from nothing but its samples.

Texture looks like noise, and every statistic of a textured block reads high. So a block counts
only if its low frequencies hold no more than noise does under the current estimate; its high
frequencies, which are independent of the low ones for white noise, then give the variance; and a
line through the variances is the next estimate. This is repeated until it stops moving:

    blocks -> first line -> blocks that are flat under it -> variance over signal -> next line

How much of the frame is flat is the measure of trust.

What no look at one frame can tell: white texture (a checker of single pixels) from noise; noise
that a camera already smoothed, of which the high frequencies hold too little.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cycleisp_runtime.errors import CalibrationError
from cycleisp_runtime.frame import RawFrame
from cycleisp_runtime.noise import NoiseModel, read_on_law, shot_on_law
from cycleisp_runtime.noise_blocks import BlockEnergies, code_step, measure_blocks
from cycleisp_runtime.noise_line import (
    FittedLine,
    Points,
    VarianceLine,
    fit_line,
    shot_for_variance,
)

__all__ = ["Confidence", "NoiseEstimate", "estimate_noise"]

Confidence = Literal["high", "good", "fair", "low", "poor"]
"""Estimate over truth of the mid-tone variance, 10 % to 90 % of simulated frames of shot 1e-4 to
1.2e-2: high 0.99 to 1.07, good 0.96 to 1.37, fair 0.90 to 1.35, low 0.76 to 1.30, poor 0.5 to 2."""

_CLASSES: tuple[Confidence, ...] = ("high", "good", "fair", "low", "poor")
_LEAST_FLAT = (0.3, 0.1, 0.03, 0.01)
"""Flat share that each class but the last asks for."""

# Quantiles of the mean square of n independent normal deviates: chi-square over its n degrees.
_FLAT_SHARE = 0.9
_FLAT_LIMIT = 1.5046  # 90 % of 14, the low band: how far a flat block goes
_HIGH_10 = 0.4631  # 10 % of 9, the high band
_HIGH_40 = 0.8174  # 40 % of 9; below the median, for texture and hot pixels only raise

_LEAST_BLOCKS = 20
_BINS = 12
_BIN_BLOCKS = 30
_FLATTEST = 60
_FLATTEST_SHARE = 0.003
"""So many blocks are taken even if fewer pass; 200 of a small frame read 26 times too high."""

_LIT = 2.0
"""Signal over the noise of a dark sample, from where on shot noise is there to be measured."""

_DAMPING = 0.8
_MOST_ROUNDS = 15
_CONVERGED = 0.005

_TEXTURE_LEFT = (
    (math.log(0.003), math.log(1.45)),
    (math.log(0.01), math.log(1.35)),
    (math.log(0.03), math.log(1.20)),
    (math.log(0.1), math.log(1.10)),
    (math.log(0.3), 0.0),
)
"""ln(flat), ln(factor by which the variance still reads high), measured on photographs."""

_BEND = 0.2
"""Residual above which flat blocks do not agree on one line; sensor noise leaves 0.02 to 0.12."""
_PULL = 0.5
_PULLED_FULLY, _PULLED_NOT = 2e-4, 8e-4

_LEAST_SHOT, _MOST_SHOT = 1e-6, 0.1
_COARSE_STEP = 1 / 256
_TRUSTED_BLOCKS = 200


@dataclass(frozen=True)
class NoiseEstimate:
    """What one frame says about its noise.

    Attributes:
        model: one line for the four planes.
        flat: share of the usable blocks without texture, 0..1.
        accepted_blocks: how many blocks the line was fitted to.
        signal_range: 10 % and 90 % point of their means, normalised.
        kept: share of the blocks looked at that were neither clipped nor defective, 0..1.
        mode: "line" if shot and read were both measured; "single" if the flat area has one
            brightness, so that the split between them is the law's; "dark" if there is no signal,
            so that shot is the law's.
        rounds: repetitions until the line stopped moving, at most 15.
        residual: relative distance of the measured variances from the line.
        confidence: in a word; ``flat`` above 0.3, 0.1, 0.03 and 0.01 is high, good, fair and low,
            one class less where anything in ``warnings`` is wrong with the measurement.
        pulled_down: factor on the variance for the sake of texture, 0.5..1; 1 for none.
        warnings: what makes it doubtful, one sentence each.
    """

    model: NoiseModel
    flat: float
    accepted_blocks: int
    signal_range: tuple[float, float]
    kept: float
    mode: Literal["line", "single", "dark"]
    rounds: int
    residual: float
    confidence: Confidence
    pulled_down: float
    warnings: tuple[str, ...]

    @property
    def shot(self) -> float:
        """Shot coefficient of every plane, normalised."""
        return self.model.shot[0]

    @property
    def read(self) -> float:
        """Read variance of every plane, normalised."""
        return self.model.read[0]


@dataclass(frozen=True)
class _FixedPoint:
    """Where the repetition came to rest."""

    line: VarianceLine
    fitted: FittedLine
    accepted: BlockEnergies
    flat: float
    rounds: int


def estimate_noise(frame: RawFrame) -> NoiseEstimate:
    """Shot and read of the picture area, one line for all planes, in normalised units.

    Deterministic, and the same for the same samples under any CFA phase or scale of the levels.
    About 0.2 s for 10 MP; memory does not grow with the frame.

    The variance is divided by what texture still adds at this flat share (1 to 1.45). Where the
    noise is low and the flat blocks do not agree on one line, they hold fine texture in part, and
    a denoiser would take it off: the variance is then divided by 2 for a shot up to 2e-4, by less
    up to 8e-4. What that changes, as dB lost against the true noise (and in the worst of 50
    pictures) with a small network at shot 1e-4: 0.28 (2.1) becomes 0.11 (0.8) on pictures with
    grain of their own, 0.02 (0.2) becomes 0.03 (0.3) on smooth ones. Halving wherever less than a
    tenth of the frame is flat does worse: 0.25 (2.1) and 0.32 (2.0).

    Raises:
        CalibrationError: where all samples are equal, or fewer than 20 blocks are neither clipped
            nor defective.
    """
    step = code_step(frame)
    blocks = measure_blocks(frame) if step else None
    if blocks is None or len(blocks) < _LEAST_BLOCKS:
        raise CalibrationError(
            "the noise cannot be estimated from this frame",
            subject=frame.source,
            met="samples that are all equal" if blocks is None else f"{len(blocks)} usable blocks",
            wanted=f"{_LEAST_BLOCKS} blocks of 8x8 samples of one colour, not clipped",
            hint="give --noise SHOT,READ",
        )
    quantisation = step**2 / 12
    measured = blocks.high >= quantisation / 2
    if measured.sum() >= 100:
        blocks = blocks[measured]

    found = _fixed_point(blocks, quantisation)
    low, high = (float(edge) for edge in np.quantile(found.accepted.mean, [0.1, 0.9]))
    excess = _excess(found.flat)
    corrected = VarianceLine(found.line.shot / excess, found.line.read / excess)
    line, mode = _resolved(corrected, blocks, found.accepted, low, high)
    pull = _pull(line.shot, excess) if mode == "line" and found.fitted.residual > _BEND else 1.0
    shot = min(max(pull * line.shot, _LEAST_SHOT), _MOST_SHOT)
    read = max(pull * line.read, quantisation)

    doubts = list(_doubts(found, mode, step))
    rank = sum(found.flat < least for least in _LEAST_FLAT) + bool(doubts)
    confidence = _CLASSES[min(rank, len(_CLASSES) - 1)]
    if mode == "dark":
        confidence = max(confidence, "low", key=_CLASSES.index)
    if found.flat < _LEAST_FLAT[2] and len(found.accepted) >= _TRUSTED_BLOCKS:
        doubts.append(f"the frame is only {found.flat:.1%} flat: its noise may be 2x off")
    if pull < 1:
        doubts.append(f"the noise estimate was pulled down to {pull:.0%} so that texture survives")
    return NoiseEstimate(
        model=NoiseModel.uniform(shot, read),
        flat=found.flat,
        accepted_blocks=len(found.accepted),
        signal_range=(low, high),
        kept=blocks.kept,
        mode=mode,
        rounds=found.rounds,
        residual=found.fitted.residual,
        confidence=confidence,
        pulled_down=pull,
        warnings=(*doubts, *_black_warning(frame, found)),
    )


def _fixed_point(blocks: BlockEnergies, least_read: float) -> _FixedPoint:
    """The line under which the blocks that look flat have the variance that it says."""
    unit = VarianceLine(0.0, 1.0)
    line = _fit(blocks, unit, 0.1, _HIGH_10, _BINS, least_read).line
    flattest = min(max(_FLATTEST, math.ceil(_FLATTEST_SHARE * len(blocks))), len(blocks))
    moved, rounds = math.inf, 0
    while moved > _CONVERGED and rounds < _MOST_ROUNDS:
        rounds += 1
        texture = blocks.low / line.variance(blocks.mean)
        limit = max(_FLAT_LIMIT, np.partition(texture, flattest - 1)[flattest - 1])
        accepted = blocks[texture <= limit]
        bins = min(max(len(accepted) // _BIN_BLOCKS, 1), _BINS)
        fitted = _fit(accepted, line, 0.4, _HIGH_40, bins, least_read)
        ends = np.quantile(accepted.mean, [0.1, 0.9])
        moved = float(np.abs(fitted.line.variance(ends) / line.variance(ends) - 1).max())
        line = VarianceLine(
            line.shot * (fitted.line.shot / line.shot) ** _DAMPING,
            line.read * (fitted.line.read / line.read) ** _DAMPING,
        )
    passed = max(int(np.count_nonzero(texture <= _FLAT_LIMIT)), 1)
    flat = min(passed / len(blocks) / _FLAT_SHARE, 1.0)
    return _FixedPoint(line, fitted, accepted, flat, rounds)


def _fit(
    blocks: BlockEnergies,
    line: VarianceLine,
    quantile: float,
    expected: float,
    bins: int,
    least_read: float,
) -> FittedLine:
    """The line through the variances of bins of about equal count.

    The quantile is taken of the ratio to ``line``, not of the energy itself, whose scale changes
    within a bin: that read 0.16 to 0.7 of the truth. Blocks of one mean, many where codes are
    coarse, share a bin, so that their order says nothing.
    """
    ratio = blocks.high / line.variance(blocks.mean)
    edges = blocks.mean[np.arange(bins) * len(blocks) // bins]
    starts = np.unique(np.searchsorted(blocks.mean, edges))
    parts = np.split(np.arange(len(blocks)), starts[1:])
    signal = np.array([blocks.mean[part].mean() for part in parts])
    level = np.array([np.quantile(ratio[part], quantile) for part in parts]) / expected
    variance = np.maximum(level * line.variance(signal), least_read)
    count = np.array([float(len(part)) for part in parts])
    return fit_line(Points(signal, variance, count), least_read)


def _excess(flat: float) -> float:
    """The factor by which texture still raises the variance at this flat share."""
    shares, factors = zip(*_TEXTURE_LEFT, strict=True)
    return math.exp(np.interp(math.log(flat), shares, factors))


def _resolved(
    line: VarianceLine, blocks: BlockEnergies, accepted: BlockEnergies, low: float, high: float
) -> tuple[VarianceLine, Literal["line", "single", "dark"]]:
    """The line, with the law in place of what the signal's range does not determine."""
    signal = float(np.median(accepted.mean))
    variance = line.shot * signal + line.read
    lit = np.count_nonzero(accepted.mean > _LIT * math.sqrt(line.read))
    if lit < min(_FLATTEST, len(accepted) / 10):
        return VarianceLine(_shot_of_dark(variance, blocks), variance), "dark"
    if high < 2 * low:
        shot = shot_for_variance(signal, variance, law_factor=1.0)
        return VarianceLine(shot, read_on_law(shot)), "single"
    return line, "line"


def _shot_of_dark(read: float, blocks: BlockEnergies) -> float:
    """The law's shot, or less where lit blocks, texture and all, hold less noise than that.

    Sensors lie above the law, so that the shot it gives for their read noise is up to 15 times
    too high: a black sky would blur the town below it.
    """
    lit = blocks[blocks.mean > _LIT * math.sqrt(read)]
    if len(lit) < _FLATTEST:
        return shot_on_law(read)
    most = float(np.quantile((lit.high / _HIGH_10 - read) / lit.mean, 0.1))
    return min(shot_on_law(read), max(most, _LEAST_SHOT))


def _pull(shot: float, excess: float) -> float:
    """The factor that, with the division by ``excess``, halves the variance; 1 at high noise."""
    most = min(_PULL * excess, 1.0)
    ends = math.log(_PULLED_FULLY), math.log(_PULLED_NOT)
    return float(np.interp(math.log(shot), ends, (most, 1.0)))


def _doubts(found: _FixedPoint, mode: str, step: float) -> Iterator[str]:
    if mode == "dark":
        yield "what is flat holds no signal: shot was not measured but follows a common law"
    if mode == "single":
        yield "what is flat has one brightness: the split into shot and read follows a common law"
    if found.fitted.residual > _BEND:
        yield "flat areas disagree about the noise, as fine texture makes them do"
    if len(found.accepted) < _TRUSTED_BLOCKS:
        yield f"the frame is {found.flat:.1%} flat: only {len(found.accepted)} blocks were measured"
    if step >= _COARSE_STEP:
        yield f"codes are {step:.1%} of the range apart, so that rounding hides part of the noise"
    if mode == "line" and not _LEAST_SHOT <= found.line.shot <= _MOST_SHOT:
        yield f"the shot found is outside {_LEAST_SHOT:g} to {_MOST_SHOT:g}, what sensors have"


def _black_warning(frame: RawFrame, found: _FixedPoint) -> Iterator[str]:
    """A black level below the true one shows as negative read noise in the free fit."""
    shot, read = found.fitted.unbounded
    if read < -3e-4 * shot and found.flat >= 0.1 and shot > 1.1 * found.line.shot:
        offset = -read / shot * (frame.white - min(frame.black))
        yield f"the black level may be too low by {offset:.2g} DN"
