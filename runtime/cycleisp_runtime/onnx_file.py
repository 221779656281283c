"""What an ONNX file of a stranger holds, found without a parser of ONNX, before one gets it.

Only the wire format of protocol buffers is read (protobuf.dev/programming-guides/encoding): which
nodes there are, and where the constants lie. Field numbers are those of onnx.proto (onnx/onnx,
IR 8). Nothing is allocated, and every byte is looked at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cycleisp_runtime.errors import BundleError

__all__ = ["MOST_CONSTANT_BYTES", "OPERATORS", "check_network"]

OPERATORS = frozenset(
    {
        "Add", "AveragePool", "Cast", "Clip", "Concat", "Conv", "DepthToSpace", "DequantizeLinear",
        "Div", "GlobalAveragePool", "Mul", "PRelu", "QuantizeLinear", "ReduceMax", "ReduceMean",
        "Relu", "Sigmoid", "Slice", "SpaceToDepth", "Sqrt", "Sub",
    }
)  # fmt: skip
"""What the denoisers need. All are native to ONNX Runtime and TensorRT, none has a graph inside or
reads a file, and none makes much of little, so that memory follows the size of the tile."""

MOST_CONSTANT_BYTES = 1 << 24
"""Of one constant. The largest of the family, of 64 by 64 channels and 3 by 3, takes 144 KiB."""

_MODEL_GRAPH, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 20, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE_INITIALIZER = 1, 5, 15
_NODE_KIND, _NODE_DOMAIN = 4, 7

_EXTERNAL_DATA_KEY = b"location"
"""The key without which no TensorProto, wherever it stands, can keep its data in another file
(TensorProto.external_data). Strings are plain bytes, which no other encoding can hide."""

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
"""Wire types; groups, 3 and 4, are in no ONNX file."""


def check_network(content: bytes, subject: Path) -> None:
    """Nothing, where a file holds one graph of OPERATORS with all of its constants inside.

    Args:
        content: of the file.
        subject: its path, for errors.

    Raises:
        BundleError: where it is no ONNX file, or a cut one, or has other operators, functions, a
            constant above MOST_CONSTANT_BYTES, or one in another file.
    """
    if _EXTERNAL_DATA_KEY in content:
        raise BundleError(
            "the network refers to data outside its file, which a bundle must not",
            subject=subject,
            hint="export it as one self-contained ONNX file",
        )
    try:
        _check_model(memoryview(content), subject)
    except ValueError as error:
        raise BundleError(
            "not an ONNX file, or a damaged one",
            subject=subject,
            met=str(error),
            hint="fetch the bundle again",
        ) from error


def _check_model(model: memoryview, subject: Path) -> None:
    nodes = 0
    for number, value in _fields(model):
        if number in {_MODEL_TRAINING, _MODEL_FUNCTIONS}:
            raise BundleError("functions or training inside of a network", subject=subject)
        if number == _MODEL_GRAPH:
            nodes += _check_graph(_message(value), subject)
    if nodes == 0:
        raise ValueError("no node")


def _check_graph(graph: memoryview, subject: Path) -> int:
    """How many nodes it has."""
    nodes = 0
    for number, value in _fields(graph):
        if number == _GRAPH_NODE:
            nodes += 1
            _check_node(_message(value), subject)
        elif number == _GRAPH_INITIALIZER:
            _check_constant(_message(value), subject)
        elif number == _GRAPH_SPARSE_INITIALIZER:
            raise BundleError("a sparse constant, which no denoiser has", subject=subject)
    return nodes


def _check_node(node: memoryview, subject: Path) -> None:
    kinds = [bytes(_message(value)) for number, value in _fields(node) if number == _NODE_KIND]
    domains = [bytes(_message(value)) for number, value in _fields(node) if number == _NODE_DOMAIN]
    kind = kinds[-1].decode() if kinds else "none"
    if kind not in OPERATORS or len(kinds) > 1 or any(domain != b"" for domain in domains):
        raise BundleError(
            "an operator that no denoiser has",
            subject=subject,
            met=kind[:80],
            hint="take the bundle from whoever exported it with cycleisp",
        )


def _check_constant(tensor: memoryview, subject: Path) -> None:
    if len(tensor) > MOST_CONSTANT_BYTES:
        raise BundleError(
            "a constant is too large for a denoiser",
            subject=subject,
            met=f"{len(tensor)} bytes",
            wanted=f"at most {MOST_CONSTANT_BYTES}",
        )


def _message(value: memoryview | None) -> memoryview:
    if value is None:
        raise ValueError("a number where there should be a message")
    return value


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | None]]:
    """Number of every field, and its bytes where it has a length.

    Raises:
        ValueError: where the bytes are no message.
    """
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            _, place = _varint(message, place)
            yield number, None
            continue
        if wire_type == _LENGTH:
            length, place = _varint(message, place)
        elif wire_type in {_EIGHT_BYTES, _FOUR_BYTES}:
            length = 8 if wire_type == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"wire type {wire_type}")
        if number == 0 or length > len(message) - place:
            raise ValueError("it is cut, or no message")
        yield number, message[place : place + length]
        place += length


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number of at most 64 bits, and where it ends."""
    value = 0
    for index in range(10):
        if place + index >= len(message):
            raise ValueError("it is cut")
        byte = message[place + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, place + index + 1
    raise ValueError("a number of more than 64 bits")
