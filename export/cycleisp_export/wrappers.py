r"""A bundle's network as one graph that takes a single tensor, for RAW with the noise baked in.

That of sRGB takes one already. For RAW, nodes are put before and after those of the network, which
stay as they are:

    mosaic  ->  reflect, pack  ->  noisy  ->  variance  ->  noise scale
                                     \__________|_______________|
                                               network
                                                  |
    mosaic  <-   unpack, cut   <-             denoised
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from cycleisp_export.baked_noise import BakedNoise
from cycleisp_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.bundle import Bundle
from cycleisp_runtime.errors import BackendError, BundleError
from cycleisp_runtime.tiles import LEAST_NOISE_SCALE
from cycleisp_runtime.writers import atomic_output

__all__ = [
    "darktable_graph",
    "mosaic_graph",
    "packed_graph",
    "picture_graph",
    "refuse_pooling",
    "write_one_input",
]

FRAME_MEAN = 0.18
"""Normalised signal whose noise is the noise scale of a graph that only ever sees tiles: middle
grey, a reflectance of 18 %. Rather too large than too small: on a frame of random discs a scale 4
times too large cost tiny 0.01 dB at most, one 4 times too small 0.8 to 1.5 dB."""

_LAST = np.iinfo(np.int64).max


def packed_graph(bundle: Bundle, noise: BakedNoise) -> onnx.ModelProto:
    """From noisy to denoised, both (N, 4, h, w) float32, normalised, in the order R, Gr, Gb, B.

    h and w are multiples of the record's ``multiple_of``. The noise scale is the frame's own, so
    that whole frames, not tiles, are to be fed.

    Raises:
        BundleError: where the network is not one for RAW, or pools over the frame, or is not what
            the bundle says.
        BackendError: where the two make no valid graph.
    """
    wrapper = _NoiseWrapper(bundle, noise)
    wrapper.variance()
    wrapper.noise_scale_of_the_frame()
    return wrapper.graph("packed R Gr Gb B", bundle.record.multiple_of)


def mosaic_graph(bundle: Bundle, noise: BakedNoise, phase: Phase) -> onnx.ModelProto:
    """From ``mosaic`` to ``denoised_mosaic``, both (N, 1, H, W) float32, normalised, of this phase.

    H and W are multiples of twice the record's ``multiple_of``; samples that complete the outer
    cells are reflected, as ``bayer.pack`` does. Otherwise as ``packed_graph``.
    """
    wrapper = _NoiseWrapper(bundle, noise)
    multiple = 2 * bundle.record.multiple_of
    wrapper.pack(phase, multiple)
    wrapper.variance()
    wrapper.noise_scale_of_the_frame()
    wrapper.unpack(phase, multiple)
    return wrapper.graph(f"mosaic {phase.value}", multiple)


def darktable_graph(bundle: Bundle, noise: BakedNoise, tile: int) -> onnx.ModelProto:
    """What darktable calls bayer_v1: from a packed tile to camera RGB of the sensor's resolution.

    Input (1, 4, tile, tile) float32, normalised, R, Gr, Gb, B. Output (1, 3, 2 tile, 2 tile)
    float32, normalised; all three channels are the denoised mosaic, of which darktable takes at
    every sample the channel of its colour. The noise scale is a constant, so that no tile is
    treated otherwise than its neighbours.

    Raises:
        BundleError, BackendError: as ``packed_graph``.
    """
    wrapper = _NoiseWrapper(bundle, noise)
    wrapper.variance()
    wrapper.noise_scale_of_a_grey_frame()
    wrapper.camera_rgb(tile)
    return wrapper.graph("packed R Gr Gb B to camera RGB", bundle.record.multiple_of)


def picture_graph(bundle: Bundle, tile: int | None = None) -> onnx.ModelProto:
    """From noisy to denoised, both (N, 3, H, W) float32, R, G, B of sRGB in [0, 1].

    H and W are multiples of the record's ``multiple_of``; with ``tile`` the shape is
    (1, 3, tile, tile).

    Raises:
        BundleError: where the network is not one for sRGB, or pools over the frame, or is not what
            the bundle says.
        BackendError: where it makes no valid graph.
    """
    if bundle.record.task != "srgb":
        raise BundleError(
            "not a network for pictures",
            subject=bundle.folder,
            met=bundle.record.task,
            wanted="srgb",
        )
    wrapper = _Wrapper(bundle)
    if tile is not None:
        wrapper.fix_sides(tile)
    return wrapper.graph("R G B", bundle.record.multiple_of)


def refuse_pooling(bundle: Bundle) -> None:
    """Nothing, where a network needs no second graph.

    Raises:
        BundleError: where it pools over the frame.
    """
    if bundle.record.pooling is not None:
        raise BundleError(
            "the network pools over the frame, for which other programs have no second graph",
            subject=bundle.folder,
            hint="convert a network of size tiny or edge",
        )


def write_one_input(
    bundle: Bundle, noise: BakedNoise | None, phase: Phase | None, output: Path, *, force: bool
) -> None:
    """Write a graph of one input as an ONNX file.

    That of ``picture_graph`` without noise, else of ``packed_graph``, or of ``mosaic_graph`` where
    a phase is given.

    Raises:
        BundleError, BackendError: as these three.
        OutputError: where ``output`` exists and ``force`` is off, or cannot be written.
    """
    if noise is None:
        proto = picture_graph(bundle)
    elif phase is None:
        proto = packed_graph(bundle, noise)
    else:
        proto = mosaic_graph(bundle, noise, phase)
    network = bundle.folder / bundle.record.precisions["fp32"].file
    with atomic_output(output, source=network, force=force) as file:
        file.write(proto.SerializeToString(deterministic=True))


class _Wrapper:
    """The network of a bundle, and the nodes before and after it.

    Input and output of the whole are the network's own until a method replaces them.
    """

    def __init__(self, bundle: Bundle) -> None:
        refuse_pooling(bundle)
        # Checks that the network has the tensors of the record, and no data outside its file.
        OnnxRuntimeBackend(bundle, threads=1).close()
        self._bundle, self._names = bundle, bundle.record.tensors
        self._told: dict[str, str] = {}
        self._proto = onnx.load_model_from_string(bundle.model("fp32"))
        self._before: list[onnx.NodeProto] = []
        self._after: list[onnx.NodeProto] = []
        values = [*self._proto.graph.input, *self._proto.graph.output]
        by_name = {value.name: value for value in values}
        self._input, self._output = by_name[self._names.noisy], by_name[self._names.denoised]

    def fix_sides(self, tile: int) -> None:
        """One tile of this side, in the input's samples, instead of any number of any size."""
        channels = self._bundle.record.channels
        self._input = _samples(self._names.noisy, 1, channels, tile, tile)
        self._output = _samples(self._names.denoised, 1, channels, tile, tile)

    def graph(self, layout: str, multiple: int) -> onnx.ModelProto:
        """The whole, checked; ``layout`` and ``multiple`` of the sides go into its metadata."""
        proto, record = self._proto, self._bundle.record
        nodes = [*self._before, *proto.graph.node, *self._after]
        for field, content in (
            ("node", nodes),
            ("input", [self._input]),
            ("output", [self._output]),
            ("value_info", []),
        ):
            proto.graph.ClearField(field)
            getattr(proto.graph, field).extend(content)
        helper.set_model_props(
            proto,
            {
                "model": f"cycleisp {record.name}",
                "layout": layout,
                "sides_multiple_of": str(multiple),
                "normalisation": record.normalisation,
                **self._told,
                "license": record.license,
                "weights_sha256": record.provenance.weights_sha256,
                "bundle_sha256": self._bundle.sha256,
            },
        )
        try:
            onnx.checker.check_model(proto, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise BackendError(
                "the network cannot be wrapped", subject=self._bundle.folder, met=str(error)
            ) from error
        return proto

    def _constant(self, name: str, value: npt.NDArray[np.float32 | np.int64]) -> str:
        tensor = numpy_helper.from_array(value, f"wrapper.{name}")
        self._proto.graph.initializer.append(tensor)
        return f"wrapper.{name}"


class _NoiseWrapper(_Wrapper):
    """A RAW network with the noise that it must be told of."""

    def __init__(self, bundle: Bundle, noise: BakedNoise) -> None:
        if bundle.record.task != "raw":
            raise BundleError(
                "noise is baked into RAW networks only",
                subject=bundle.folder,
                met=bundle.record.task,
                wanted="raw",
            )
        super().__init__(bundle)
        names = bundle.record.tensors
        if names.variance is None or names.noise_scale is None:
            raise BundleError(
                "only networks that are told of the noise can be wrapped",
                subject=bundle.folder,
                met=f"inputs {', '.join(names.inputs)}",
            )
        self._variance, self._noise_scale = names.variance, names.noise_scale
        self._noise = noise
        self._told = {"variance": str(bundle.record.variance), "noise": str(noise)}

    def variance(self) -> None:
        """shot * max(x, 0) + read per plane, as ``NoiseModel.variance``."""
        model = self._noise.model
        shot = self._constant("shot", np.array(model.shot, np.float32).reshape(1, 4, 1, 1))
        read = self._constant("read", np.array(model.read, np.float32).reshape(1, 4, 1, 1))
        self._before += [
            _node("Relu", [self._names.noisy], "wrapper.signal"),
            _node("Mul", ["wrapper.signal", shot], "wrapper.shot_variance"),
            _node("Add", ["wrapper.shot_variance", read], self._variance),
        ]

    def noise_scale_of_the_frame(self) -> None:
        """Sqrt of the mean of the variance map, as the denoiser computes it."""
        least = self._constant("least_noise_scale", np.array(LEAST_NOISE_SCALE, np.float32))
        mean, deviation = "wrapper.mean_variance", "wrapper.mean_deviation"
        self._before += [
            _node("ReduceMean", [self._variance], mean, axes=[1, 2, 3], keepdims=1),
            _node("Sqrt", [mean], deviation),
            _node("Max", [deviation, least], self._noise_scale),
        ]

    def noise_scale_of_a_grey_frame(self) -> None:
        model = self._noise.model
        scale = np.sqrt(model.mean_shot * FRAME_MEAN + model.mean_read)
        tensor = np.full((1, 1, 1, 1), scale, np.float32)
        self._proto.graph.initializer.append(numpy_helper.from_array(tensor, self._noise_scale))

    def pack(self, phase: Phase, multiple: int) -> None:
        """Reflect at the border until red leads every cell, then one plane per colour."""
        top, left, bottom, right = _border(phase, multiple)
        pads = self._constant("pads", np.array([0, 0, top, left, 0, 0, bottom, right]))
        self._before += [
            _node("Pad", ["mosaic", pads], "wrapper.cells", mode="reflect"),
            _node("SpaceToDepth", ["wrapper.cells"], self._names.noisy, blocksize=2),
        ]
        self._input = _samples("mosaic", "batch", 1, "height", "width")

    def unpack(self, phase: Phase, multiple: int) -> None:
        """The planes woven again, without what ``pack`` reflected."""
        top, left, bottom, right = _border(phase, multiple)
        cut = [
            self._constant("first", np.array([top, left])),
            self._constant("stop", np.array([-bottom or _LAST, -right or _LAST])),
            self._constant("axes", np.array([2, 3])),
        ]
        self._after += [
            _node("DepthToSpace", [self._names.denoised], "wrapper.denoised_cells", blocksize=2),
            _node("Slice", ["wrapper.denoised_cells", *cut], "denoised_mosaic"),
        ]
        self._output = _samples("denoised_mosaic", "batch", 1, "height", "width")

    def camera_rgb(self, tile: int) -> None:
        """Static sizes, and the woven planes three times over."""
        side = 2 * tile
        shape = self._constant("rgb_shape", np.array([1, 3, side, side]))
        self._after += [
            _node("DepthToSpace", [self._names.denoised], "wrapper.denoised_cells", blocksize=2),
            _node("Expand", ["wrapper.denoised_cells", shape], "camera_rgb"),
        ]
        self._input = _samples(self._names.noisy, 1, 4, tile, tile)
        self._output = _samples("camera_rgb", 1, 3, side, side)


def _border(phase: Phase, multiple: int) -> tuple[int, int, int, int]:
    """Samples to reflect above, left, below and right.

    A side that is a multiple stays one: what red's offset adds in front is made up for behind.
    """
    row, column = phase.red
    return row, column, -row % multiple, -column % multiple


def _node(kind: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
    node = helper.make_node(kind, inputs, [output], name=output)
    node.attribute.extend(helper.make_attribute(*each) for each in attributes.items())
    return node


def _samples(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
