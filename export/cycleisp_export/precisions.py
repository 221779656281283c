"""A network at the precisions below FP32, each within its budget of dB."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import onnx

from cycleisp.models.edge import EdgeDenoiser
from cycleisp_calibration.set_file import CalibrationSet, load_calibration_set
from cycleisp_export.activation_steps import CalibrationMethod, activation_steps
from cycleisp_export.graph import NumberTypes, edge_graph
from cycleisp_export.half_range import check_half_range, nodes_beyond_half
from cycleisp_export.loss import Graph, JudgedTiles, Losses, read_clean_tiles
from cycleisp_export.typed_graph import TypedGraph
from cycleisp_export.verify import OnnxGraph, check_graph
from cycleisp_runtime.bundle import NoiseRange, Reduction
from cycleisp_runtime.errors import BackendError, SettingsError

__all__ = [
    "FP16_MOST_LOSS_DB",
    "LowerPrecision",
    "LowerPrecisions",
    "Reduced",
    "Reducer",
    "lower_precisions",
]

FP16_MOST_LOSS_DB = 0.02

_CHOICE_SHARE = 0.75
"""Of the budget: layers are chosen on other photographs than those that it is kept on."""

LowerPrecision = Literal["fp16", "int8"]


@dataclass(frozen=True)
class LowerPrecisions:
    """What is wanted below FP32.

    Attributes:
        precisions: which.
        photographs: folder of clean photographs, none of which trained or calibrates the network,
            to measure losses on.
        calibration: set that ``cycleisp calibrate set`` made, which INT8 needs.
        method: how the range of activations comes of it.
        max_loss_db: what INT8 may lose at any noise level.
        progress: called with a sentence on what was found, now and then.
    """

    precisions: tuple[LowerPrecision, ...]
    photographs: Path | None
    calibration: Path | None
    method: CalibrationMethod
    max_loss_db: float
    progress: Callable[[str], None]


@dataclass(frozen=True)
class Reduced:
    """A network at a lower precision, and what it costs."""

    proto: onnx.ModelProto
    reduction: Reduction


def lower_precisions(
    model: EdgeDenoiser, metadata: Mapping[str, str], noise: NoiseRange, wanted: LowerPrecisions
) -> Iterator[tuple[LowerPrecision, Reduced]]:
    """Every wanted precision of a network.

    Args:
        model: the network; float32 weights on the CPU.
        metadata: written into every file.
        noise: that training covered.
        wanted: what, made of and judged by what.

    Raises:
        SettingsError: where photographs are missing, or for INT8 the calibration set.
        InputError: where one of them cannot be read.
        CalibrationError: where the set is of another kind of network, or does not determine steps.
        BackendError: where a precision leaves its range or budget.
    """
    if wanted.photographs is None:
        raise SettingsError(
            "the loss of FP16 and INT8 is measured on photographs",
            hint="give a folder of clean ones with --photographs",
        )
    tiles = None
    if "int8" in wanted.precisions:
        if wanted.calibration is None:
            raise SettingsError(
                "INT8 needs a calibration set",
                hint="make one by cycleisp calibrate set and give it with --calibration",
            )
        tiles = load_calibration_set(wanted.calibration, task="raw")
    reducer = Reducer(model, metadata, noise, read_clean_tiles(wanted.photographs))
    if "fp16" in wanted.precisions:
        yield "fp16", reducer.half()
    if tiles is not None:
        yield "int8", reducer.int8(tiles, wanted.method, wanted.max_loss_db, wanted.progress)


class Reducer:
    """Makes lower precisions of one network, and refuses those that cost too much.

    Args:
        model: the network; float32 weights on the CPU.
        metadata: written into every file.
        noise: that training covered.
        clean: clean packed planes (4, h, w) float32 of photographs, at least two. Every second one
            is what losses are stated on; layers are chosen on the others.
    """

    def __init__(
        self,
        model: EdgeDenoiser,
        metadata: Mapping[str, str],
        noise: NoiseRange,
        clean: list[npt.NDArray[np.float32]],
    ) -> None:
        self._model, self._metadata, self._noise = model, metadata, noise
        self._proto = self._graph(NumberTypes())
        self._typed = TypedGraph(self._proto)
        self._single = frozenset(nodes_beyond_half(self._typed, self._proto, noise))
        reference = OnnxGraph(self._proto)
        self._choice = JudgedTiles(clean[::2], reference)
        self._stated = JudgedTiles(clean[1::2], reference)

    def half(self) -> Reduced:
        """FP16 between noise normalisation and final addition, computed with true FP16 values.

        Raises:
            BackendError: where it leaves the range of FP16 or loses more than FP16_MOST_LOSS_DB.
        """
        proto = self._half_graph({})
        return Reduced(proto, self._judged("FP16", TypedGraph(proto), FP16_MOST_LOSS_DB))

    def int8(
        self,
        tiles: CalibrationSet,
        method: CalibrationMethod,
        max_loss_db: float,
        progress: Callable[[str], None],
    ) -> Reduced:
        """INT8 in as many convolutions as the budget allows, FP16 in the rest.

        Convolutions are kept at FP16 in the order of what they lose where they alone are quantised.

        Args:
            tiles: of a RAW network.
            method: how steps come of them.
            max_loss_db: the largest loss allowed at any noise level.
            progress: called with a sentence on every loss that was measured.

        Raises:
            CalibrationError: where the tiles do not determine the steps.
            BackendError: where no convolution can be quantised within the budget.
        """
        steps = activation_steps(self._typed, self._proto, tiles.arrays, method)
        alone: dict[str, Losses] = {}
        for name, step in steps.items():
            alone[name] = self._choice_losses({name: step})
            progress(f"{name} alone in INT8 loses {_worst_level(alone[name])}")
        by_loss = sorted(alone, key=lambda name: max(alone[name].values()), reverse=True)
        for kept in range(len(by_loss)):
            taken = {name: steps[name] for name in by_loss[kept:]}
            losses = self._choice_losses(taken)
            progress(f"{len(taken)} of {len(steps)} layers in INT8 lose {_worst_level(losses)}")
            if max(losses.values()) <= _CHOICE_SHARE * max_loss_db:
                break
        else:
            raise _over_budget("a single layer in INT8", losses, max_loss_db)
        proto = self._half_graph(taken)
        reduction = self._judged("INT8", OnnxGraph(proto), max_loss_db)
        reasons = {
            name: f"fp16: alone in INT8 it loses {_worst_level(alone[name])}"
            for name in by_loss[:kept]
        }
        return Reduced(
            proto,
            msgspec.structs.replace(
                reduction,
                kept={**reasons, **reduction.kept},
                calibration=f"{method}, set {tiles.record.sha256}",
            ),
        )

    def _graph(self, types: NumberTypes) -> onnx.ModelProto:
        return edge_graph(self._model, self._metadata, types)

    def _choice_losses(self, steps: Mapping[str, float]) -> Losses:
        """With these steps. What is not INT8 computes in FP32: faster, and no other result."""
        graph = OnnxGraph(self._graph(NumberTypes(steps=steps)))
        return self._choice.losses(graph)[0]

    def _half_graph(self, steps: Mapping[str, float]) -> onnx.ModelProto:
        proto = self._graph(NumberTypes(half=True, single=self._single, steps=steps))
        check_graph(proto)
        check_half_range(TypedGraph(proto), self._noise)
        return proto

    def _judged(self, what: str, graph: Graph, budget: float) -> Reduction:
        mean, worst = self._stated.losses(graph)
        if not max(mean.values()) <= budget:  # so that NaN is refused
            raise _over_budget(what, mean, budget)
        return Reduction(
            photographs=self._stated.pictures,
            loss_db=_rounded(mean),
            worst_loss_db=_rounded(worst),
            kept=dict.fromkeys(sorted(self._single), "fp32: its values leave the range of FP16"),
        )


def _rounded(losses: Losses) -> Losses:
    return {level: round(loss, 3) + 0.0 for level, loss in losses.items()}  # + 0.0: no -0.0


def _worst_level(losses: Losses) -> str:
    level = max(losses, key=lambda each: losses[each])
    return f"{losses[level]:.3f} dB at {level} noise"


def _over_budget(what: str, losses: Losses, budget: float) -> BackendError:
    return BackendError(
        f"{what} loses too much", met=_worst_level(losses), wanted=f"at most {budget:g} dB"
    )
