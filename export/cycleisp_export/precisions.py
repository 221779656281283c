"""A network at the precisions below FP32, each within its budget of dB."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
from cycleisp_export.half_range import check_half_range, hard_frames, nodes_beyond_half
from cycleisp_export.layer_choice import NARROWER, choose_layers, over_budget
from cycleisp_export.loss import Graph, JudgedTiles, Losses
from cycleisp_export.modelopt import modelopt_steps
from cycleisp_export.typed_graph import TypedGraph
from cycleisp_export.verify import OnnxGraph, check_graph
from cycleisp_export.watch import Watch, nobody
from cycleisp_runtime.bundle import NoiseRange, Reduction
from cycleisp_runtime.errors import SettingsError

__all__ = [
    "FP16_MOST_LOSS_DB",
    "Calibrated",
    "LowerPrecision",
    "LowerPrecisions",
    "RangeMethod",
    "Reduced",
    "Reducer",
    "calibration_set",
    "lower_precisions",
]

FP16_MOST_LOSS_DB = 0.02

_CHOICE_SHARE = 0.75
"""Of the budget: layers are chosen on other photographs than those that it is kept on."""

LowerPrecision = Literal["fp16", "int8", "int8-cpu"]

RangeMethod = CalibrationMethod | Literal["modelopt"]
"""Our own, or NVIDIA's."""


@dataclass(frozen=True)
class LowerPrecisions:
    """What is wanted below FP32.

    Attributes:
        precisions: which.
        calibration: set that ``cycleisp calibrate set`` made, which INT8 needs.
        method: how the range of activations comes of it.
        max_loss_db: what INT8 may lose at any noise level.
        fine_tuning: of the weights of INT8; None for those of training.
        progress: called with a sentence on what was found, now and then.
    """

    precisions: tuple[LowerPrecision, ...]
    calibration: Path | None
    method: RangeMethod
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


def calibration_set(network: Exportable, wanted: LowerPrecisions) -> CalibrationSet | None:
    """What INT8 is calibrated with; None where no INT8 is wanted.

    Raises:
        SettingsError: where the set is missing.
        InputError: where it cannot be read.
        CalibrationError: where it is of another kind of network.
    """
    if not set(wanted.precisions) & {"int8", "int8-cpu"}:
        return None
    if wanted.calibration is None:
        raise SettingsError(
            "INT8 needs a calibration set",
            hint="make one by cycleisp calibrate set and give it with --calibration",
        )
    return load_calibration_set(wanted.calibration, task=network.task)


def lower_precisions(
    reducer: Reducer, wanted: LowerPrecisions, tiles: CalibrationSet | None
) -> Iterator[tuple[LowerPrecision, Reduced]]:
    """Every wanted precision of a network.

    Args:
        reducer: of the network.
        wanted: what, made how.
        tiles: the ``calibration_set``.

    Raises:
        SettingsError: where the network is one that is not fine-tuned, or its run's data or
            ModelOpt is missing.
        InputError: where the run's data cannot be read.
        CalibrationError: where the set does not determine steps.
        BackendError: where a precision leaves its range or budget.
    """
    if "fp16" in wanted.precisions:
        yield "fp16", reducer.half()
    if tiles is None:
        return
    if wanted.method == "modelopt":
        wanted.progress("NVIDIA ModelOpt calibrates, which takes minutes")
    calibrated = reducer.calibrated(tiles, wanted.method)
    if wanted.fine_tuning is not None:
        calibrated = reducer.fine_tuned(calibrated, wanted.fine_tuning, wanted.progress)
    if "int8" in wanted.precisions:
        yield "int8", reducer.int8(calibrated, wanted.max_loss_db, wanted.progress)
    if "int8-cpu" in wanted.precisions:
        yield "int8-cpu", reducer.cpu_int8(calibrated, wanted.max_loss_db, wanted.progress)


class Reducer:
    """Makes lower precisions of one network, and refuses those that cost too much.

    Args:
        network: float32 weights on the CPU.
        metadata: written into every file.
        noise: that training covered; None for a network that is told of none.
        clean: clean tiles of photographs, as ``judging_tiles`` gives them, at least two. Every
            second one is what losses are stated on; layers are chosen on the others.
        watch: told how far measurements are.

    Attributes:
        stated: the tiles that losses are stated on.
    """

    def __init__(
        self,
        network: Exportable,
        metadata: Mapping[str, str],
        noise: NoiseRange | None,
        clean: Sequence[npt.NDArray[np.float32]],
        watch: Watch = nobody,
    ) -> None:
        self._network, self._metadata = network, metadata
        self._narrower = NARROWER if network.task == "raw" else ()
        self._clean, self._watch = clean, watch
        proto = network.graph(metadata)
        self._layers = rounded_tensors(proto)
        self._typed = TypedGraph(proto)
        self._hard = list(hard_frames(network, noise))
        beyond = nodes_beyond_half(network, self._typed, proto, self._hard, watch)
        self._single = frozenset(beyond)
        self._reference = OnnxGraph(proto)
        self.stated = JudgedTiles(network, clean[1::2], self._reference, watch)

    @cached_property
    def _choice(self) -> JudgedTiles:
        """The tiles that layers are chosen on, of which FP16 has no need."""
        return JudgedTiles(self._network, self._clean[::2], self._reference, self._watch)

    def half(self) -> Reduced:
        """FP16 in the features, computed with true FP16 values.

        Raises:
            BackendError: where it leaves the range of FP16 or loses more than FP16_MOST_LOSS_DB.
        """
        proto = self._half_graph(self._network, {})
        reduction = self._judged("FP16", TypedGraph(proto), FP16_MOST_LOSS_DB)
        return Reduced(proto, self._with_kept(reduction, {}))

    def calibrated(self, tiles: CalibrationSet, method: RangeMethod) -> Calibrated:
        """The network as it is, with steps for INT8.

        Args:
            tiles: of the network's task.
            method: how steps come of them.

        Raises:
            SettingsError: where ModelOpt is to be used and is not installed.
            CalibrationError: where the tiles do not determine the steps.
        """
        tensors = {tensor for pair in self._layers.values() for tensor in pair}
        inputs = self._network.with_gates(tiles.arrays)
        if method == "modelopt":
            proto = self._network.graph(self._metadata)
            steps = modelopt_steps(proto, sorted(tensors), inputs)
        else:
            steps = activation_steps(self._typed, sorted(tensors), inputs, method, self._watch)
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
            self._narrower,
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
            self._narrower,
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
        check_half_range(TypedGraph(proto), self._hard, self._watch)
        return proto

    def _judged(
        self, what: str, graph: Graph, budget: float, calibration: str | None = None
    ) -> Reduction:
        mean, worst = self.stated.losses(graph)
        if not max(mean.values()) <= budget:  # so that NaN is refused
            raise over_budget(what, mean, budget)
        return Reduction(
            photographs=len(self.stated.clean),
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
