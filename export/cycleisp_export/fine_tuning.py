"""Quantisation-aware fine-tuning: an edge network learns to live with values rounded to INT8.

It goes on from its trained weights with what its own run learned from, and rounds as the exported
graph will: weights, what every convolution takes, and what it gives, as INT8 on CPUs wants it.
Rounding has no gradient; that of the unrounded value is taken instead (Y. Bengio et al.,
"Estimating or Propagating Gradients Through Stochastic Neurons", 2013). The steps are learned as
well (S. K. Esser et al., "Learned Step Size Quantization", ICLR 2020), from calibrated ones.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from cycleisp.models.edge import EdgeDenoiser, SrgbEdgeDenoiser
from cycleisp.training.raw_denoiser import RawDenoiserSettings, RawDenoiserStage
from cycleisp.training.settings import read_recipe, resolve_settings
from cycleisp.training.srgb_denoiser import SrgbDenoiserSettings, SrgbDenoiserStage
from cycleisp.training.stage import Stage
from cycleisp_export.graph import INT8_MOST
from cycleisp_runtime.errors import SettingsError

__all__ = ["FineTuning", "fine_tuned", "stage_of_run"]

LEARNING_RATE = 1e-4
"""Of Adam at the first step, falling linearly to 0; a twentieth of that of training."""

STEP_LEARNING_RATE = 3e-3
"""Of the logarithm of quantisation steps, falling likewise."""

BATCH = 8

GRADIENT_NORM = 0.5
"""Gradients of the weights are scaled down to it, as in training: single patches weigh much."""


@dataclass(frozen=True)
class FineTuning:
    """How a network is fine-tuned.

    Attributes:
        run: folder of the network's training, whose settings say what it learned from.
        steps: of the optimiser.
    """

    run: Path
    steps: int


def stage_of_run(run: Path, task: Literal["raw", "srgb"]) -> Stage:
    """The stage that trained a denoiser, with its data.

    Raises:
        SettingsError, InputError: where the run's settings or its data are not there.
    """
    recipe = read_recipe(run / "settings.yaml")
    if task == "raw":
        return RawDenoiserStage(resolve_settings(RawDenoiserSettings, recipe, ()))
    return SrgbDenoiserStage(resolve_settings(SrgbDenoiserSettings, recipe, ()))


def fine_tuned(
    network: nn.Module,
    stage: Stage,
    layers: Mapping[str, tuple[str, str]],
    steps: Mapping[str, float],
    count: int,
    report: Callable[[str], None],
) -> tuple[nn.Module, dict[str, float]]:
    """The network and the steps of its tensors after fine-tuning; the given ones are left alone.

    Args:
        network: an edge denoiser; float32 weights on the CPU.
        stage: of one network, whose loss and data are used.
        layers: the tensors that each convolution takes and gives, in the order of the network's.
        steps: calibrated, of all these tensors.
        count: steps of the optimiser.
        report: called with a sentence now and then.

    Raises:
        SettingsError: where the network is not an edge denoiser.
    """
    if not isinstance(network, (EdgeDenoiser, SrgbEdgeDenoiser)):
        raise SettingsError(
            "only edge networks are fine-tuned for INT8",
            met=type(network).__name__,
            hint="export it without --qat",
        )
    tuned = copy.deepcopy(network).requires_grad_(True)
    (name,) = stage.networks
    stage.networks[name] = tuned
    rounding = {tensor: _Rounding(step) for tensor, step in steps.items()}
    handles = _round_layers(tuned, layers, rounding)
    weights = [each for each in tuned.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(
        [
            {"params": weights, "peak": LEARNING_RATE},
            {"params": [each.log_step for each in rounding.values()], "peak": STEP_LEARNING_RATE},
        ],
        betas=(0.9, 0.99),
    )
    for step in range(count):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * (1 - step / count)
        drawn = [stage.draw(np.random.default_rng([0, step, index])) for index in range(BATCH)]
        loss = stage(
            {key: torch.from_numpy(np.stack([each[key] for each in drawn])) for key in drawn[0]}
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, GRADIENT_NORM)
        optimizer.step()
        if (step + 1) % max(1, count // 10) == 0:
            report(f"fine-tuning: {step + 1} of {count} steps, loss {float(loss.detach()):.3f}")
    for handle in handles:
        handle.remove()
    for conv in _convolutions(tuned):
        parametrize.remove_parametrizations(conv, "weight", leave_parametrized=False)
    found = {tensor: each.step.item() for tensor, each in rounding.items()}
    return tuned.requires_grad_(False).eval(), found


class _Rounding(nn.Module):
    """Values rounded to INT8, by a step that is learned; any shape to the same."""

    def __init__(self, step: float) -> None:
        super().__init__()
        self.log_step = nn.Parameter(torch.tensor(math.log(step)))

    @property
    def step(self) -> Tensor:
        return self.log_step.exp()

    def forward(self, values: Tensor) -> Tensor:
        inside = (values / self.step).clamp(-INT8_MOST - 1, INT8_MOST)
        return _rounded(inside) * self.step


class _RoundedWeight(nn.Module):
    """A convolution's weight as ``graph.rounded_weight`` rounds it."""

    def forward(self, weight: Tensor) -> Tensor:
        largest = weight.detach().abs().amax((1, 2, 3), keepdim=True)
        steps = torch.where(largest > 0, largest / INT8_MOST, 1)
        return _rounded(weight / steps) * steps


def _rounded(values: Tensor) -> Tensor:
    """Whole numbers, with the gradient of what they were made from."""
    return values + (values.round() - values).detach()


def _round_layers(
    network: nn.Module, layers: Mapping[str, tuple[str, str]], rounding: Mapping[str, _Rounding]
) -> list[torch.utils.hooks.RemovableHandle]:
    """Hooks on every convolution, and its weight parametrised.

    What a ReLU takes is not rounded: the next convolution rounds what it gives.
    """
    handles = []
    for conv, (name, (entering, leaving)) in zip(
        _convolutions(network), layers.items(), strict=True
    ):
        parametrize.register_parametrization(conv, "weight", _RoundedWeight())
        enter, leave = rounding[entering], rounding[leaving]
        handles.append(
            conv.register_forward_pre_hook(lambda _conv, inputs, enter=enter: enter(*inputs))
        )
        if leaving == name:
            handles.append(
                conv.register_forward_hook(lambda _conv, _inputs, out, leave=leave: leave(out))
            )
    return handles


def _convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]
