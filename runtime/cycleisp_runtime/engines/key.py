"""Everything that an engine depends on, as one key."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

import msgspec

from cycleisp_runtime.bundle import BundleRecord, Precision
from cycleisp_runtime.denoiser import DEFAULT_TILE
from cycleisp_runtime.engines.gpu import Gpu
from cycleisp_runtime.errors import SettingsError

__all__ = ["EngineKey", "TileShapes"]

MAX_SIDE = 8192
"""TensorRT reserves memory for the largest shape: 4 GB per 32 float16 planes of this side."""

_SHAPE = re.compile(r"([0-9]{1,5})(?:x([0-9]{1,5}))?")


class TileShapes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tiles that an engine accepts: rows and columns of the network's input, one tile at a time.

    Attributes:
        least: the smallest.
        usual: the one that it is made fast for.
        most: the largest; memory is reserved for it.
    """

    least: tuple[int, int]
    usual: tuple[int, int]
    most: tuple[int, int]

    @classmethod
    def parse(cls, text: str) -> TileShapes:
        """MIN,OPT,MAX, each the side of a square such as 512, or rows x columns such as 384x512.

        Raises:
            SettingsError: where the text says something else.
        """
        shapes = [_SHAPE.fullmatch(part) for part in text.split(",")]
        sizes = [(int(shape[1]), int(shape[2] or shape[1])) for shape in shapes if shape]
        if len(sizes) != 3 or len(shapes) != 3:
            raise SettingsError(
                "not three shapes", subject="shapes", met=text, wanted="MIN,OPT,MAX as 64,512,512"
            )
        return cls(*sizes)

    @classmethod
    def default(cls, record: BundleRecord) -> TileShapes:
        """Every tile up to the one that the denoiser cuts by default, and fast for that."""
        least = record.multiple_of
        most = DEFAULT_TILE // least * least
        return cls((least, least), (most, most), (most, most))

    def check(self, multiple_of: int) -> None:
        """Nothing, where a network whose tiles have sides of multiples of this can be built.

        Raises:
            SettingsError: where it cannot.
        """
        for least, usual, most in zip(self.least, self.usual, self.most, strict=True):
            if not 0 < least <= usual <= most <= MAX_SIDE:
                raise SettingsError(
                    "the shapes do not grow",
                    subject="shapes",
                    met=f"{least}, {usual}, {most}",
                    wanted=f"MIN <= OPT <= MAX, from 1 to {MAX_SIDE}",
                )
            if least % multiple_of or usual % multiple_of or most % multiple_of:
                raise SettingsError(
                    "the model's tiles have other sides",
                    subject="shapes",
                    met=f"{least}, {usual}, {most}",
                    wanted=f"multiples of {multiple_of}",
                )


class EngineKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What must be the same for an engine to be used.

    Attributes:
        network_sha256: hash of the ONNX file.
        precision: which of the bundle's networks it is.
        shapes: of its tiles.
        workspace_mib: memory that TensorRT may try kernels with, in MiB; None for all there is.
        settings: the other settings of the builder.
        package: "tensorrt" or "tensorrt-rtx".
        version: of that package.
        gpu: the GPU it was built for; None where it was built without any.
    """

    network_sha256: str
    precision: Precision
    shapes: TileShapes
    workspace_mib: int | None
    settings: str
    package: str
    version: str
    gpu: Gpu | None

    @property
    def digest(self) -> str:
        """SHA-256 of the key, in hexadecimal digits."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()

    def differences(self, other: EngineKey) -> Iterator[tuple[str, object, object]]:
        """The fields that differ: name, value here, value there."""
        here, there = msgspec.to_builtins(self), msgspec.to_builtins(other)
        for part in ("gpu", "shapes"):
            if here[part] and there[part]:
                here |= {f"{part}.{name}": value for name, value in here.pop(part).items()}
                there |= {f"{part}.{name}": value for name, value in there.pop(part).items()}
        return ((name, here[name], there[name]) for name in here if here[name] != there[name])
