"""Rendered pictures: noisy sRGB in, cleaner sRGB of the same size and type out.

    picture -> tiles of R, G, B in [0, 1] -> backend -> picture

Tiles are planned as for RAW, with a pixel in the place of a packed sample. No noise is told to the
network, so there is no share of its correction to be judged.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.arrays import SupportsDLPack, host_array
from cycleisp_runtime.attention import Attention, whole
from cycleisp_runtime.backends import Backend, Device
from cycleisp_runtime.backends.checked import run_checked
from cycleisp_runtime.backends.choice import open_backend
from cycleisp_runtime.bayer import reflected_indices
from cycleisp_runtime.bundle import Bundle, Precision, find_bundle
from cycleisp_runtime.errors import BundleError, InputError
from cycleisp_runtime.memory import largest_side, parse_memory
from cycleisp_runtime.tile_runner import DEFAULT_TILE
from cycleisp_runtime.tiles import Core, TilePlan, plan_tiles

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Picture", "PictureDenoiser"]

HIGHEST = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0, np.dtype(np.float32): 1.0}
"""The code of 1.0 in every type that a picture may have."""

Picture: TypeAlias = npt.NDArray[Any]
"""(H, W, 3), R, G, B in sRGB: uint8, uint16, or float32 in [0, 1]."""

_Planes = npt.NDArray[np.float32]


class PictureDenoiser:
    """A model that is ready to denoise pictures, one after the other; a context manager.

    Args:
        bundle: what is known of the model.
        backend: runs its network; closed by ``close``.
        memory: bytes for everything but the pictures, the rest of the process included; they choose
            the tile. None for ``DEFAULT_TILE``.

    Raises:
        BundleError: where the model is not for rendered pictures.
        SettingsError: where so little memory holds no tile of this model.
    """

    def __init__(self, bundle: Bundle, backend: Backend, *, memory: int | None = None) -> None:
        record = bundle.record
        if record.task != "srgb" or record.channels != 3:
            raise BundleError(
                "the model does not denoise rendered pictures",
                subject=record.name,
                met=f"task {record.task}, {record.channels} channels",
                wanted="task srgb, 3 channels",
                hint="Denoiser is for RAW frames",
            )
        self.bundle = bundle
        self.backend = backend
        self._side = DEFAULT_TILE
        if memory is not None:
            least = 2 * record.halo.for_120_db + 3 * record.multiple_of
            self._side = largest_side(memory, record, least=least)
        self._attention = None if record.pooling is None else Attention(bundle)
        self._noisy = np.empty((1, 3, 0, 0), np.float32)

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str],
        *,
        backend: str = "auto",
        precision: Precision | None = None,
        device: Device | None = None,
        threads: int | None = None,
        memory: str | int | None = None,
    ) -> PictureDenoiser:
        """The network of a bundle, by path or shipped name, on a backend as ``open_backend`` says.

        Args:
            bundle: its name or folder.
            backend: as for ``open_backend``, like precision, device and threads.
            precision: None for the best one that the backend runs.
            device: None for the GPU where the backend can use one, else the CPU.
            threads: of one operator on the CPU; None for one per physical core.
            memory: for everything but the pictures, such as "512MiB", or a number of bytes.

        Raises:
            BundleError: where there is no such bundle, it must not be trusted, or it is for RAW.
            SettingsError: where there is no such backend, or so little memory holds no tile.
            BackendError: where the backend is missing or does not accept the network.
        """
        size = parse_memory(memory) if isinstance(memory, str) else memory
        found = find_bundle(bundle)
        opened = open_backend(
            found, backend=backend, precision=precision, device=device, threads=threads
        )
        try:
            return cls(found, opened, memory=size)
        except Exception:
            opened.close()
            raise

    def __call__(
        self,
        picture: Picture | SupportsDLPack,
        *,
        tile: int | None = None,
        exact: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Picture:
        """The denoised picture, a NumPy array of the same shape and type.

        Args:
            picture: (H, W, 3), R, G, B in sRGB, at least 2x2: uint8 or uint16 codes, or float32 in
                [0, 1]; a NumPy array, or one of another library on the CPU that speaks DLPack.
            tile: side of a tile in pixels, halo included; None for what memory allows.
            exact: attention of a network that pools is taken from the whole picture, which takes
                the memory of the whole picture as one tile; else from every n-th pixel.
            progress: called with (tiles done, tiles in all).

        Raises:
            InputError: where it is not such a picture.
            SettingsError: where the tile is too small for the model's halo.
            OutOfMemoryError: where memory does not suffice.
            BackendError: where the backend fails or puts out something that is no picture, or the
                picture lies on a GPU.
        """
        pixels = _checked_picture(picture)
        record = self.bundle.record
        plan = plan_tiles(
            *pixels.shape[:2],
            side=self._side if tile is None else tile,
            halo=record.halo.for_120_db,
            multiple_of=record.multiple_of,
        )
        gates = None
        if self._attention is not None:
            step = self._attention.step(*pixels.shape[:2], exact=exact)
            small = _as_one_tile(pixels[::step, ::step], record.multiple_of)
            gates = self._attention.gates(record.tensors.fill(small))
        tiles = _PictureTiles(pixels, plan)
        noisy = self._buffer(plan)
        target = np.empty_like(pixels)
        for done, core in enumerate(plan.cores, start=1):
            tiles.cut(core, noisy[0])
            inputs = record.tensors.fill(noisy, gates=gates)
            tiles.stitch(core, run_checked(self.backend, record, inputs)[0], target)
            if progress is not None:
                progress(done, len(plan.cores))
        return target

    def close(self) -> None:
        """Give all memory back; the denoiser cannot be used afterwards."""
        self.backend.close()
        if self._attention is not None:
            self._attention.close()
        self._noisy = np.empty((1, 3, 0, 0), np.float32)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _buffer(self, plan: TilePlan) -> _Planes:
        """Memory for one tile, kept from picture to picture."""
        shape = (1, 3, plan.height, plan.width)
        if self._noisy.shape != shape:
            self._noisy = np.empty(shape, np.float32)
        return self._noisy


class _PictureTiles:
    """Cuts the tiles of one picture, and stitches what a backend made of them."""

    def __init__(self, pixels: Picture, plan: TilePlan) -> None:
        self._pixels = pixels
        self._plan = plan
        self._highest = HIGHEST[pixels.dtype]

    def cut(self, core: Core, noisy: _Planes) -> None:
        """Fill (3, plan.height, plan.width) with the tile, mirrored beyond the picture's edge."""
        (height, width), halo = self._pixels.shape[:2], self._plan.halo
        top, left = core.top - halo, core.left - halo
        bottom, right = top + self._plan.height, left + self._plan.width
        if min(top, left) >= 0 and bottom <= height and right <= width:
            patch = self._pixels[top:bottom, left:right]
        else:
            rows = reflected_indices(top, bottom, 1, height)
            patch = self._pixels[rows[:, None], reflected_indices(left, right, 1, width)]
        np.multiply(patch.transpose(2, 0, 1), np.float32(1 / self._highest), out=noisy)

    def stitch(self, core: Core, denoised: _Planes, target: Picture) -> None:
        """Write the core of a denoised tile (3, plan.height, plan.width) into the new picture."""
        halo = self._plan.halo
        kept = denoised[:, halo : halo + core.height, halo : halo + core.width]
        place = target[core.top : core.top + core.height, core.left : core.left + core.width]
        if target.dtype == np.float32:
            place[...] = kept.transpose(1, 2, 0)
            return
        codes = kept * np.float32(self._highest)
        place[...] = np.clip(np.rint(codes, out=codes), 0, self._highest).transpose(1, 2, 0)


def _as_one_tile(pixels: Picture, multiple_of: int) -> _Planes:
    """(1, 3, h, w): the picture, its sides brought to multiples by reflection."""
    plan = whole(*pixels.shape[:2], multiple_of=multiple_of)
    noisy = np.empty((1, 3, plan.height, plan.width), np.float32)
    _PictureTiles(pixels, plan).cut(plan.cores[0], noisy[0])
    return noisy


def _checked_picture(picture: Picture | SupportsDLPack) -> Picture:
    """The picture as a NumPy array that shares its memory."""
    pixels = host_array(picture)
    if (
        pixels.dtype not in HIGHEST
        or pixels.ndim != 3
        or pixels.shape[2] != 3
        or min(pixels.shape[:2]) < 2
    ):
        raise InputError(
            "not a picture",
            met=f"{pixels.dtype} {pixels.shape}",
            wanted="uint8, uint16 or float32 (H, W, 3), at least 2x2",
        )
    if pixels.dtype == np.float32 and not np.isfinite(pixels).all():
        raise InputError("the picture holds NaN or infinity", wanted="float32 in [0, 1]")
    return pixels
