"""Names, shapes and sharing of the networks' parameters: what checkpoints depend on."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from torch import Tensor, nn

from cycleisp.models import NETWORKS, create_model
from cycleisp.models.attention import DualAttentionBlock
from cycleisp_runtime.errors import SettingsError
from tests.training.golden_weights import GOLDEN, golden_network

EVERY_NETWORK = pytest.mark.parametrize("name", NETWORKS)
BOTH_SIZES = pytest.mark.parametrize("size", ["full", "small"])

SUMS = {
    "rgb2raw": (347.9213209719933, 100370.6163663798),
    "color_branch": (-18.639244712905636, 32961.611045126854),
    "raw2rgb": (373.5425104677628, 103446.49767479202),
    "raw_denoiser": (380.53956078374017, 106453.57486130165),
    "srgb_denoiser": (379.42900864926764, 106296.1057373884),
}
"""Sum, and sum of absolute values, over the published classes' state dicts with golden weights."""

TRAINABLE = {
    "rgb2raw": (3_143_109, 35_325),
    "color_branch": (1_083_096, 28_101),
    "raw2rgb": (3_225_582, 40_398),
    "raw_denoiser": (2_838_404, 36_622),
    "srgb_denoiser": (2_834_947, 35_325),
}
"""Parameters that are trained, at size full and at size small."""


def outputs(name: str, network: nn.Module) -> Tensor:
    """What the network makes of some picture."""
    pictures = torch.Generator().manual_seed(0)
    rgb = torch.rand(1, 3, 24, 32, generator=pictures)
    raw = torch.rand(1, 4, 12, 16, generator=pictures)
    if name == "raw_denoiser":
        out: Tensor = network(raw, 0.01 * raw)
    elif name == "raw2rgb":
        out = network(raw, network.get_submodule("head")(raw).sigmoid())
    else:
        out = network(rgb)
    return out


@EVERY_NETWORK
def test_names_shapes_and_order_are_the_published_ones(name: str) -> None:
    published = json.loads((GOLDEN / "state_dict.json").read_text())[name]
    network = create_model(name, "full")
    shapes = {key: list(value.shape) for key, value in network.state_dict().items()}

    first: dict[int, str] = {}
    aliases = {
        key: first[id(parameter)]
        for key, parameter in network.named_parameters(remove_duplicate=False)
        if first.setdefault(id(parameter), key) != key
    }
    parameters = {key: shape for key, shape in shapes.items() if key not in aliases}
    assert list(parameters.items()) == list(published["parameters"].items())
    assert list(aliases.items()) == list(published["aliases"].items())
    assert list(shapes) == [key for key, _ in network.named_parameters(remove_duplicate=False)]


@EVERY_NETWORK
def test_golden_weights_have_the_published_sums(name: str) -> None:
    state = golden_network(name).state_dict().values()
    total, absolute = SUMS[name]
    # Sums of 1e5 values of 1: float64 in another order of summation.
    tolerance = 1e-9 * absolute
    assert math.fsum(v.double().sum().item() for v in state) == pytest.approx(total, abs=tolerance)
    assert math.fsum(v.double().abs().sum().item() for v in state) == pytest.approx(
        absolute, abs=tolerance
    )


@BOTH_SIZES
@EVERY_NETWORK
def test_one_activation_serves_the_network_and_its_copies(name: str, size: str) -> None:
    network = create_model(name, size)
    for each in (network, copy.deepcopy(network)):
        activations = [module for module in each.modules() if isinstance(module, nn.PReLU)]
        assert len(activations) == 1


@BOTH_SIZES
@EVERY_NETWORK
def test_what_is_trained(name: str, size: str) -> None:
    network = create_model(name, size)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert trained == TRAINABLE[name][size == "small"]


@EVERY_NETWORK
def test_every_trained_parameter_gets_a_gradient(name: str) -> None:
    # Distributed training waits for all of them.
    network = create_model(name, "small")
    outputs(name, network).square().mean().backward()  # type: ignore[no-untyped-call]
    parameters = {key: each for key, each in network.named_parameters() if each.requires_grad}
    assert [key for key, each in parameters.items() if each.grad is None] == []


def test_the_dead_layer_of_raw2rgb_changes_nothing() -> None:
    network = create_model("raw2rgb", "small")
    before = outputs("raw2rgb", network)
    for parameter in network.get_submodule("conv1x1").parameters():
        parameter.fill_(float("nan"))
    assert torch.equal(outputs("raw2rgb", network), before)


def test_a_small_color_branch_steers_a_small_raw2rgb() -> None:
    colors = create_model("color_branch", "small")(torch.rand(2, 3, 24, 32))
    assert create_model("raw2rgb", "small")(torch.rand(2, 4, 12, 16), colors).shape == (
        2,
        3,
        24,
        32,
    )


@pytest.mark.parametrize("name", ["raw_denoiser", "srgb_denoiser"])
def test_a_small_denoiser_starts_close_to_its_input(name: str) -> None:
    torch.manual_seed(0)
    network = create_model(name, "small")
    correction: list[Tensor] = []
    network.get_submodule("tail").register_forward_hook(
        lambda _module, _inputs, output: correction.append(output)
    )
    outputs(name, network)
    # Pictures of uniform noise, 0.58 rms; without the last scaling the correction is 10 times this.
    assert correction[0].square().mean().sqrt() < 0.2


def test_small_networks_start_as_documented() -> None:
    torch.manual_seed(0)
    network = create_model("rgb2raw", "small")
    block = next(each for each in network.modules() if isinstance(each, DualAttentionBlock))
    fan_in = 24 * 9
    expected = math.sqrt(2 / (1 + 0.25**2) / fan_in)
    inner = block.body[0].get_parameter("weight")
    # 5184 normal values: their deviation is known to 1 %, four times that is allowed.
    assert inner.std().item() == pytest.approx(expected, rel=0.04)
    assert not block.body[0].get_parameter("bias").any()
    # PyTorch's: uniform within 1 / sqrt(48 inputs); 1152 values come near its end.
    assert block.conv1x1.weight.abs().max().item() == pytest.approx(0.3 / math.sqrt(48), rel=0.02)


def test_unknown_model_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="raw_denoiser edge"):
        create_model("raw_denoiser", "huge")
