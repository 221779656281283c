"""Which layers are quantised, and how finely, so that a budget of dB is kept.

Calibration tells how far values reach, not how much their fine differences matter. A frame with
much noise has small features whose rounding costs most, while few values at the far end matter at
all. So a range may first be narrowed as long as the layer alone loses less by it. Then layers are
kept at a higher precision, those that lose most alone first, until the rest fits the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from cycleisp_export.loss import JudgedTiles, Losses
from cycleisp_export.verify import OnnxGraph
from cycleisp_runtime.errors import BackendError

__all__ = ["NARROWER", "Choice", "Rounded", "choose_layers", "over_budget", "worst_level"]

NARROWER = (0.7, 0.5)
"""Factors on a calibrated range that are tried for RAW, whose features are in units of the noise.
In sRGB they follow the picture: what the few photographs here do not reach, others do."""

MOST_CLIPPED_DB = 0.002
"""That a narrower range may cost at any level of noise. Photographs with denser texture than those
that layers are chosen on lose much more where it is clipped."""

Rounded = Callable[[Sequence[str], Mapping[str, float]], onnx.ModelProto]
"""The graph in which these layers are in INT8, with these steps of tensors."""


@dataclass(frozen=True)
class Choice:
    """What is quantised.

    Attributes:
        layers: names of those in INT8.
        steps: of their tensors.
        kept: what each of the other layers loses alone, in words.
    """

    layers: tuple[str, ...]
    steps: dict[str, float]
    kept: dict[str, str]


def choose_layers(
    tiles: JudgedTiles,
    rounded: Rounded,
    tensors: Mapping[str, Sequence[str]],
    steps: Mapping[str, float],
    most_loss_db: float,
    progress: Callable[[str], None],
    narrower: Sequence[float],
) -> Choice:
    """As many layers as lose no more than ``most_loss_db`` at any noise level.

    Args:
        tiles: what losses are measured on.
        rounded: makes graphs.
        tensors: the tensors of every layer that are rounded, by the layer's name.
        steps: of all these tensors, as they were calibrated.
        most_loss_db: mean over the tiles.
        progress: called with a sentence on every loss that was measured.
        narrower: factors on the range of a tensor that are tried.

    Raises:
        BackendError: where a single layer is too much.
    """
    chosen, alone = _narrowed(tiles, rounded, tensors, steps, progress, narrower)
    by_loss = sorted(alone, key=lambda name: max(alone[name].values()), reverse=True)
    for kept in range(len(by_loss)):
        layers = by_loss[kept:]
        lost, _ = tiles.losses(OnnxGraph(rounded(layers, chosen)))
        progress(f"{len(layers)} of {len(by_loss)} layers in INT8 lose {worst_level(lost)}")
        if max(lost.values()) <= most_loss_db:
            reasons = {name: worst_level(alone[name]) for name in by_loss[:kept]}
            return Choice(tuple(layers), chosen, reasons)
    raise over_budget("a single layer in INT8", lost, most_loss_db)


def worst_level(losses: Losses) -> str:
    """The largest loss, in words."""
    level = max(losses, key=lambda each: losses[each])
    return f"{losses[level]:.3f} dB at {level} noise"


def over_budget(what: str, losses: Losses, budget: float) -> BackendError:
    """The error of a precision that loses more than it may."""
    return BackendError(
        f"{what} loses too much", met=worst_level(losses), wanted=f"at most {budget:g} dB"
    )


def _narrowed(
    tiles: JudgedTiles,
    rounded: Rounded,
    tensors: Mapping[str, Sequence[str]],
    steps: Mapping[str, float],
    progress: Callable[[str], None],
    narrower: Sequence[float],
) -> tuple[dict[str, float], dict[str, Losses]]:
    """The steps with which each layer alone loses least, and these losses by layer.

    Args are those of ``choose_layers``.
    """
    chosen = dict(steps)
    alone: dict[str, Losses] = {}
    narrowed: set[str] = set()
    for name, of_layer in tensors.items():
        alone[name], _ = tiles.losses(OnnxGraph(rounded([name], chosen)))
        for tensor in of_layer:
            if tensor in narrowed:  # by the layer that it comes from
                continue
            narrowed.add(tensor)
            for factor in narrower:
                finer = {**chosen, tensor: factor * steps[tensor]}
                found, _ = tiles.losses(OnnxGraph(rounded([name], finer)))
                clipped = max(found[level] - loss for level, loss in alone[name].items())
                if clipped > MOST_CLIPPED_DB or sum(found.values()) >= sum(alone[name].values()):
                    break
                chosen, alone[name] = finer, found
        progress(f"{name} alone in INT8 loses {worst_level(alone[name])}")
    return chosen, alone
