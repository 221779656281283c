"""Where the noise of a frame is taken from: what was given, what the file says, what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cycleisp_runtime.frame import RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.noise_estimate import Confidence, estimate_noise

__all__ = ["NoiseChoice", "choose_noise"]


@dataclass(frozen=True)
class NoiseChoice:
    """The noise to denoise a frame by.

    Attributes:
        model: shot and read per plane, in normalised units.
        source: "given" by the caller, the file's noise "profile", or an "estimate" from the frame.
        confidence: of an estimate, in a word; None for the other two.
        warnings: what makes it doubtful, one sentence each.
    """

    model: NoiseModel
    source: Literal["given", "profile", "estimate"]
    confidence: Confidence | None = None
    warnings: tuple[str, ...] = ()


def choose_noise(frame: RawFrame, given: NoiseModel | None = None) -> NoiseChoice:
    """The first there is of: the noise given, the frame's noise profile, an estimate from it.

    Raises:
        CalibrationError: where only an estimate could help and there is none, as in a frame that
            is white all over.
    """
    if given is not None:
        return NoiseChoice(given, "given")
    if frame.noise_profile is not None:
        return NoiseChoice(frame.noise_profile, "profile")
    estimate = estimate_noise(frame)
    return NoiseChoice(estimate.model, "estimate", estimate.confidence, estimate.warnings)
