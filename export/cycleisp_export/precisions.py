"""A network at the precisions below FP32, each within its budget of dB."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
import onnx

from cycleisp_calibration.set_file import CalibrationSet, load_calibration_set
from cycleisp_export.activation_steps import CalibrationMethod, activation_steps
from cycleisp_export.cpu_int8 import cpu_int8_graph, rounded_tensors
from cycleisp_export.exportable import Exportable, exportable
from cycleisp_export.fine_tuning import FineTuning, fine_tuned, stage_of_run
from cycleisp_export.graph import NumberTypes
from cycleisp_export.half_range import check_half_range, nodes_beyond_half
from cycleisp_export.layer_choice import choose_layers, over_budget
from cycleisp_export.loss import Graph, JudgedTiles, Losses, read_clean_tiles
from cycleisp_export.typed_graph import TypedGraph
from cycleisp_export.verify import OnnxGraph, check_graph
from cycleisp_runtime.bundle import NoiseRange, Reduction
from cycleisp_runtime.errors import SettingsError

__all__ = [
    "FP16_MOST_LOSS_DB",
    "Calibrated",
    "LowerPrecision",
    "LowerPrecisions",
    "Reduced",
    "Reducer",
    "lower_precisions",
    "stated_on",
]

FP16_MOST_LOSS_DB = 0.02

_CHOICE_SHARE = 0.75
"""Of the budget: layers are chosen on other photographs than those that it is kept on."""

LowerPrecision = Literal["fp16", "int8", "int8-cpu"]


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
        fine_tuning: of the weights of INT8; None for those of training.
        progress: called with a sentence on what was found, now and then.
    """

    precisions: tuple[LowerPrecision, ...]
    photographs: Path | None
    calibration: Path | None
    method: CalibrationMethod
    max_loss_db: float
    progress: Callable[[str], None]
    fine_tuning: FineTuning | None = None


@dataclass(frozen=True)
class Reduced:
    """A network at a lower precision, and what it costs."""

    proto: onnx.ModelProto
    reduction: Reduction


@dataclass(frozen=True)
class Calibrated:
    """What INT8 is made from.

    Attributes:
        network: with the weights that are rounded.
        steps: of what its convolutions take and give, by tensor.
        origin: where the steps come from, in words.
    """

    network: Exportable
    steps: Mapping[str, float]
    origin: str


def lower_precisions(
    network: Exportable,
    metadata: Mapping[str, str],
    noise: NoiseRange | None,
    wanted: LowerPrecisions,
) -> Iterator[tuple[LowerPrecision, Reduced]]:
    """Every wanted precision of a network.

    Args:
        network: float32 weights on the CPU.
        metadata: written into every file.
        noise: that training covered; None for a network that is told of none.
        wanted: what, made of and judged by what.

    Raises:
        SettingsError: where photographs are missing, or for INT8 the calibration set, or the
            network is one that is neither quantised nor fine-tuned.
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
    if set(wanted.precisions) & {"int8", "int8-cpu"}:
        if wanted.calibration is None:
            raise SettingsError(
                "INT8 needs a calibration set",
                hint="make one by cycleisp calibrate set and give it with --calibration",
            )
        if network.tensors.gates is not None:
            raise SettingsError(
                "INT8 is for edge networks, which do not pool over the frame",
                hint="export this one at fp32 and fp16",
            )
        tiles = load_calibration_set(wanted.calibration, task=network.task)
    clean = read_clean_tiles(wanted.photographs, network.task)
    reducer = Reducer(network, metadata, noise, clean)
    if "fp16" in wanted.precisions:
        yield "fp16", reducer.half()
    if tiles is None:
        return
    calibrated = reducer.calibrated(tiles, wanted.method)
    if wanted.fine_tuning is not None:
        calibrated = reducer.fine_tuned(calibrated, wanted.fine_tuning, wanted.progress)
    if "int8" in wanted.precisions:
        yield "int8", reducer.int8(calibrated, wanted.max_loss_db, wanted.progress)
    if "int8-cpu" in wanted.precisions:
        yield "int8-cpu", reducer.cpu_int8(calibrated, wanted.max_loss_db, wanted.progress)


def stated_on(clean: Sequence[npt.NDArray[np.float32]]) -> Sequence[npt.NDArray[np.float32]]:
    """Every second tile: what losses are stated on. Layers are chosen on the others."""
    return clean[1::2]


class Reducer:
    """Makes lower precisions of one network, and refuses those that cost too much.

    Args:
        network: float32 weights on the CPU.
        metadata: written into every file.
        noise: that training covered; None for a network that is told of none.
        clean: clean tiles of photographs, as ``read_clean_tiles`` gives them, at least two. Every
            second one is what losses are stated on; layers are chosen on the others.
    """

    def __init__(
        self,
        network: Exportable,
        metadata: Mapping[str, str],
        noise: NoiseRange | None,
        clean: Sequence[npt.NDArray[np.float32]],
    ) -> None:
        self._network, self._metadata, self._noise = network, metadata, noise
        proto = network.graph(metadata)
        self._layers = rounded_tensors(proto)
        self._typed = TypedGraph(proto)
        self._single = frozenset(nodes_beyond_half(network, self._typed, proto, noise))
        reference = OnnxGraph(proto)
        self._choice = JudgedTiles(network, clean[::2], reference)
        self._stated = JudgedTiles(network, stated_on(clean), reference)

    def half(self) -> Reduced:
        """FP16 in the features, computed with true FP16 values.

        Raises:
            BackendError: where it leaves the range of FP16 or loses more than FP16_MOST_LOSS_DB.
        """
        proto = self._half_graph(self._network, {})
        reduction = self._judged("FP16", TypedGraph(proto), FP16_MOST_LOSS_DB)
        return Reduced(proto, self._with_kept(reduction, {}))

    def calibrated(self, tiles: CalibrationSet, method: CalibrationMethod) -> Calibrated:
        """The network as it is, with steps for INT8.

        Args:
            tiles: of the network's task.
            method: how steps come of them.

        Raises:
            CalibrationError: where the tiles do not determine the steps.
        """
        tensors = {tensor for pair in self._layers.values() for tensor in pair}
        steps = activation_steps(self._typed, sorted(tensors), tiles.arrays, method)
        return Calibrated(self._network, steps, f"{method}, set {tiles.record.sha256}")

    def fine_tuned(
        self, calibrated: Calibrated, wanted: FineTuning, progress: Callable[[str], None]
    ) -> Calibrated:
        """The same after quantisation-aware fine-tuning on what the network was trained on.

        Raises:
            SettingsError: where the network is not an edge network, or its run's data is missing.
            InputError: where the run's data cannot be read.
        """
        stage = stage_of_run(wanted.run, self._network.task)
        tuned, steps = fine_tuned(
            calibrated.network.network,
            stage,
            self._layers,
            calibrated.steps,
            wanted.steps,
            progress,
        )
        origin = f"{calibrated.origin}, then {wanted.steps} steps of fine-tuning"
        return Calibrated(exportable(tuned), steps, origin)

    def int8(
        self, calibrated: Calibrated, max_loss_db: float, progress: Callable[[str], None]
    ) -> Reduced:
        """INT8 in as many convolutions as the budget allows, FP16 in the rest.

        Args:
            calibrated: what is rounded, and how.
            max_loss_db: the largest loss allowed at any noise level.
            progress: called with a sentence on every loss that was measured.

        Raises:
            BackendError: where no convolution can be quantised within the budget.
        """
        entering = {name: tensor for name, (tensor, _) in self._layers.items()}

        def steps_of(layers: Sequence[str], steps: Mapping[str, float]) -> dict[str, float]:
            return {name: steps[entering[name]] for name in layers}

        def rounded(layers: Sequence[str], steps: Mapping[str, float]) -> onnx.ModelProto:
            # What is not INT8 computes in FP32 here: faster, and no other result.
            types = NumberTypes(steps=steps_of(layers, steps))
            return calibrated.network.graph(self._metadata, types)

        choice = choose_layers(
            self._choice,
            rounded,
            {name: (tensor,) for name, tensor in entering.items()},
            calibrated.steps,
            _CHOICE_SHARE * max_loss_db,
            progress,
        )
        proto = self._half_graph(calibrated.network, steps_of(choice.layers, choice.steps))
        reduction = self._judged("INT8", OnnxGraph(proto), max_loss_db, calibrated.origin)
        kept = {name: f"fp16: alone in INT8 it loses {loss}" for name, loss in choice.kept.items()}
        return Reduced(proto, self._with_kept(reduction, kept))

    def cpu_int8(
        self, calibrated: Calibrated, max_loss_db: float, progress: Callable[[str], None]
    ) -> Reduced:
        """INT8 as CPUs compute it in as many convolutions as the budget allows, FP32 in the rest.

        Args and errors are those of ``int8``.
        """
        exact = calibrated.network.graph(self._metadata)

        def rounded(layers: Sequence[str], steps: Mapping[str, float]) -> onnx.ModelProto:
            return cpu_int8_graph(exact, steps, layers)

        choice = choose_layers(
            self._choice,
            rounded,
            self._layers,
            calibrated.steps,
            _CHOICE_SHARE * max_loss_db,
            progress,
        )
        proto = rounded(choice.layers, choice.steps)
        check_graph(proto)
        reduction = self._judged("INT8 on CPUs", OnnxGraph(proto), max_loss_db, calibrated.origin)
        kept = {name: f"fp32: alone in INT8 it loses {loss}" for name, loss in choice.kept.items()}
        return Reduced(proto, msgspec.structs.replace(reduction, kept=kept))

    def _half_graph(self, network: Exportable, steps: Mapping[str, float]) -> onnx.ModelProto:
        types = NumberTypes(half=True, single=self._single, steps=steps)
        proto = network.graph(self._metadata, types)
        check_graph(proto)
        check_half_range(network, TypedGraph(proto), self._noise)
        return proto

    def _judged(
        self, what: str, graph: Graph, budget: float, calibration: str | None = None
    ) -> Reduction:
        mean, worst = self._stated.losses(graph)
        if not max(mean.values()) <= budget:  # so that NaN is refused
            raise over_budget(what, mean, budget)
        return Reduction(
            photographs=self._stated.pictures,
            loss_db=_rounded(mean),
            worst_loss_db=_rounded(worst),
            kept={},
            calibration=calibration,
        )

    def _with_kept(self, reduction: Reduction, kept: Mapping[str, str]) -> Reduction:
        """With what stays FP32 because of the range of FP16, too."""
        single = dict.fromkeys(sorted(self._single), "fp32: its values leave the range of FP16")
        return msgspec.structs.replace(reduction, kept={**kept, **single})


def _rounded(losses: Losses) -> Losses:
    return {level: round(loss, 3) + 0.0 for level, loss in losses.items()}  # + 0.0: no -0.0
