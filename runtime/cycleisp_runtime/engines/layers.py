"""What TensorRT made of a network, read from the verbose log of its builder.

The engine inspector says the same, but only of an engine that was deserialised, which needs the
GPU; the log is there where engines are built without one, too.
"""

from __future__ import annotations

import re

import msgspec

__all__ = ["Layer", "activation_bytes", "layers"]

_LAYER = re.compile(
    r"^ *Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: (?P<inputs>.*?)"
    r"(?:, Constants: .*?)?, Outputs: (?P<outputs>.*?)(?:, TacticName: .*)?$",
    re.MULTILINE,
)
_DATATYPE = re.compile(r"Datatype: ([^,}\]]+)")
_ACTIVATIONS = re.compile(r"Total Activation Memory: (\d+)")


class Layer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A layer of an engine; its name holds those of the network's nodes where TensorRT keeps them.

    Attributes:
        kind: TensorRT's word for it; convolutions are "correlation" or part of a fusion.
        inputs: data types, such as "Half".
        outputs: the same.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def layers(log: str) -> tuple[Layer, ...]:
    """The layers that the log lists, in their order; none where it lists none."""
    return tuple(
        Layer(
            found["name"],
            found["kind"],
            tuple(word.strip() for word in _DATATYPE.findall(found["inputs"])),
            tuple(word.strip() for word in _DATATYPE.findall(found["outputs"])),
        )
        for found in _LAYER.finditer(log)
    )


def activation_bytes(log: str) -> int | None:
    """Memory that the engine needs on the device for its largest tile; None where not said."""
    found = _ACTIVATIONS.search(log)
    return int(found[1]) if found else None
