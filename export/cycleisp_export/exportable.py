"""What the export must know of a network: its graph, its inputs, and itself in torch on these.

network            inputs of its graph                  pools over the frame
EdgeDenoiser       noisy, variance, noise_scale         no
SrgbEdgeDenoiser   noisy                                no
RawDenoiser        noisy, variance, gates               yes
SrgbDenoiser       noisy, gates                         yes
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from cycleisp.models.denoisers import RawDenoiser, SrgbDenoiser
from cycleisp.models.edge import EdgeDenoiser, SrgbEdgeDenoiser
from cycleisp.noise import LEVELS, noisy_samples, variance_map
from cycleisp_export.attention_graph import (
    ATTENTION_FEATURES,
    AttentionDenoiser,
    attention_blocks,
    attention_graph,
    count_gates,
    statistics_graph,
)
from cycleisp_export.edge_graph import EDGE_FEATURES, edge_graph, srgb_edge_graph
from cycleisp_export.graph import GATES, NOISE_SCALE, NOISY, TENSORS, VARIANCE, NumberTypes
from cycleisp_runtime.bundle import TensorNames
from cycleisp_runtime.errors import SettingsError

__all__ = ["Exportable", "Inputs", "dead_leaves", "exportable"]

Samples = npt.NDArray[np.float32]

Inputs = dict[str, Samples]
"""A graph's inputs by name, float32."""

_GAMMA = 2.2
"""Of the pictures that ``frames`` makes up."""


def exportable(network: nn.Module) -> Exportable:
    """The network, float32 weights on the CPU, as the export sees it.

    Raises:
        SettingsError: where it is not a denoiser.
    """
    if isinstance(network, EdgeDenoiser):
        return _RawEdge(network)
    if isinstance(network, SrgbEdgeDenoiser):
        return _SrgbEdge(network)
    if isinstance(network, (RawDenoiser, SrgbDenoiser)):
        return _Pooling(network)
    raise SettingsError(
        "only denoisers can be exported",
        met=type(network).__name__,
        wanted="raw_denoiser or srgb_denoiser",
    )


class Exportable(ABC):
    """A denoiser and what its graph looks like from outside.

    Attributes:
        network: in torch.
        task: "raw" for packed Bayer frames, "srgb" for rendered pictures.
        tensors: names of the graph's inputs and output.
        multiple_of: sides of the input are multiples of it.
        halo: samples beyond which nothing influences an output sample, where the gates are given.
        features: the first and the last of the nodes that may compute in FP16.
        gates: length of the vector of gates; 0 where the network does not pool.
        design: what it is, in words.
    """

    network: nn.Module
    task: Literal["raw", "srgb"]
    tensors: TensorNames
    multiple_of: int
    halo: int
    features: tuple[str, str]
    gates: int = 0
    design: str

    @abstractmethod
    def graph(
        self, metadata: Mapping[str, str], types: NumberTypes | None = None
    ) -> onnx.ModelProto:
        """The network as ONNX.

        Args:
            metadata: written into the file for people and programs that find it alone.
            types: what is not FP32; None for nothing.
        """

    def statistics(self, metadata: Mapping[str, str]) -> onnx.ModelProto | None:  # noqa: ARG002
        """The graph from whole frames to the gates; None where the network does not pool."""
        return None

    @abstractmethod
    def denoise(self, inputs: Mapping[str, Samples]) -> Samples:
        """The same in torch, (N, channels, h, w): gates are those of these frames themselves."""

    def inputs(self, noisy: Samples, variance: Samples | None = None) -> Inputs:
        """The graph's inputs for whole frames, with gates; arguments are those of ``frame``."""
        return self.with_gates(self.frame(noisy, variance))

    def frame(self, noisy: Samples, variance: Samples | None = None) -> Inputs:
        """What ``denoise`` takes: the graph's inputs for whole frames, without the gates.

        Args:
            noisy: (N, channels, h, w): normalised R, Gr, Gb, B, or R, G, B in [0, 1].
            variance: (N, 4, h, w), the variance map of the same; None for sRGB.
        """
        filled = {NOISY: noisy}
        if variance is not None and self.tensors.variance is not None:
            filled[VARIANCE] = variance
        if variance is not None and self.tensors.noise_scale is not None:
            filled[NOISE_SCALE] = np.sqrt(variance.mean(axis=(1, 2, 3), keepdims=True))
        return filled

    def with_gates(self, frame: Mapping[str, Samples]) -> Inputs:
        """The same with the gates that the network finds in these frames, where it pools."""
        return dict(frame)

    @property
    def channels(self) -> int:
        """Planes of the input and of the output."""
        return 4 if self.task == "raw" else 3

    @property
    def parameters(self) -> int:
        """Numbers that training found."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def kmac_per_sample(self) -> float:
        """Thousand multiply-adds per sensor sample, or per pixel of sRGB, in the convolutions.

        Without those of channel attention, which run once per frame.
        """
        weights = sum(
            module.weight.numel()
            for name, module in self.network.named_modules()
            if isinstance(module, nn.Conv2d) and ".CA." not in name
        )
        samples = self.multiple_of**2 * (4 if self.task == "raw" else 1)
        return round(weights / samples / 1000, 2)

    def frames(
        self, rng: np.random.Generator, batch: int, height: int, width: int, *, noise: bool = True
    ) -> Iterator[tuple[str, Inputs]]:
        """Made-up frames full of edges at the three noise levels, each with its level's name.

        As ``frame`` gives them.

        Args:
            rng: draws them.
            batch: frames in each of the three.
            height: in packed samples, or in pixels.
            width: likewise.
            noise: False for frames without the noise that a RAW network is told of.
        """
        for level, (shot, read) in LEVELS.items():
            leaves = [dead_leaves(rng, self.channels, height, width) for _ in range(batch)]
            noisy = np.stack(leaves)
            if noise:
                noisy = noisy_samples(noisy, shot, read, rng)
            if self.task == "raw":
                yield level, self.frame(noisy, variance_map(noisy, shot, read))
            else:
                yield level, self.frame(np.clip(noisy, 0, 1) ** np.float32(1 / _GAMMA))


class _RawEdge(Exportable):
    task: Literal["raw", "srgb"] = "raw"
    tensors = TENSORS
    multiple_of = 2
    features = EDGE_FEATURES
    design = "residual groups at a quarter of the frame's side, conditioned on the noise level"

    def __init__(self, network: EdgeDenoiser) -> None:
        self.network = self._model = network
        self.halo = network.halo

    def graph(
        self, metadata: Mapping[str, str], types: NumberTypes | None = None
    ) -> onnx.ModelProto:
        return edge_graph(self._model, metadata, types)

    def denoise(self, inputs: Mapping[str, Samples]) -> Samples:
        return _in_torch(self._model, [inputs[name] for name in (NOISY, VARIANCE, NOISE_SCALE)])


class _SrgbEdge(Exportable):
    task: Literal["raw", "srgb"] = "srgb"
    tensors = TensorNames(noisy=NOISY, denoised=TENSORS.denoised)
    multiple_of = 2
    features = EDGE_FEATURES
    design = "residual groups at half of the picture's side, of detail and local mean"

    def __init__(self, network: SrgbEdgeDenoiser) -> None:
        self.network = self._model = network
        self.halo = network.halo

    def graph(
        self, metadata: Mapping[str, str], types: NumberTypes | None = None
    ) -> onnx.ModelProto:
        return srgb_edge_graph(self._model, metadata, types)

    def denoise(self, inputs: Mapping[str, Samples]) -> Samples:
        return _in_torch(self._model, [inputs[NOISY]])


class _Pooling(Exportable):
    multiple_of = 1
    features = ATTENTION_FEATURES
    design = "recursive residual groups of dual attention blocks, as in CycleISP"

    def __init__(self, network: AttentionDenoiser) -> None:
        self.network = self._model = network
        self._raw = isinstance(network, RawDenoiser)
        self.task = "raw" if self._raw else "srgb"
        variance = VARIANCE if self._raw else None
        self.tensors = TensorNames(NOISY, TENSORS.denoised, variance=variance, gates=GATES)
        self.gates = count_gates(network)
        groups = len(network.body) - 2
        # Head, tail, the trunk's and each group's last convolution; a block's two and its map's.
        self.halo = 3 + groups + 3 * len(attention_blocks(network))

    def graph(
        self, metadata: Mapping[str, str], types: NumberTypes | None = None
    ) -> onnx.ModelProto:
        return attention_graph(self._model, metadata, types)

    def statistics(self, metadata: Mapping[str, str]) -> onnx.ModelProto:
        return statistics_graph(self._model, metadata)

    def denoise(self, inputs: Mapping[str, Samples]) -> Samples:
        if not self._raw:
            return _in_torch(self._model, [inputs[NOISY]])
        return _in_torch(self._model, [inputs[NOISY].clip(0, 1), inputs[VARIANCE]])

    def with_gates(self, frame: Mapping[str, Samples]) -> Inputs:
        """One frame after the other, so that memory does not grow with their number."""
        gates: list[Tensor] = []
        hooks = [
            block.CA.conv_du.register_forward_hook(lambda _module, _inputs, out: gates.append(out))
            for block in attention_blocks(self._model).values()
        ]
        frames = range(len(frame[NOISY]))
        for index in frames:
            self.denoise({name: array[index : index + 1] for name, array in frame.items()})
        for hook in hooks:
            hook.remove()
        found = torch.cat(gates, dim=1).reshape(len(frames), self.gates, 1, 1)
        return {**frame, GATES: found.numpy()}


def _in_torch(network: nn.Module, arrays: list[Samples]) -> Samples:
    with torch.inference_mode():
        # Copies: the arrays of a calibration set that was read cannot be written to.
        output: Samples = network(*map(torch.tensor, arrays)).numpy()
    return output


def dead_leaves(
    rng: np.random.Generator, channels: int, height: int, width: int
) -> npt.NDArray[np.float32]:
    """A frame (channels, height, width) of overlapping random discs, in [0, 1]: edges of all sizes.

    The dead leaves model of A. B. Lee, D. Mumford, J. Huang, "Occlusion models for natural images",
    IJCV 41, 2001: radii follow a power law of exponent -3.
    """
    frame = np.full((channels, height, width), 0.2, np.float32)
    rows, columns = np.ogrid[:height, :width]
    for _ in range(300):
        radius = 2.0 / np.sqrt(rng.uniform(1e-3, 1.0))
        row, column = rng.uniform(0, height), rng.uniform(0, width)
        disc = np.square(rows - row) + np.square(columns - column) < radius * radius
        frame[:, disc] = rng.uniform(0, 1, (channels, 1)) ** 2
    return frame
