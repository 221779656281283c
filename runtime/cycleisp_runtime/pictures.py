"""Rendered pictures: noisy sRGB in, cleaner sRGB of the same size and type out.

    picture -> tiles of R, G, B in [0, 1] -> backend -> picture

Tiles are planned as for RAW, with a pixel in the place of a packed sample. No noise is told to the
network, so there is no share of its correction to be judged.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cycleisp_runtime.arrays import SupportsDLPack, host_array, target_of
from cycleisp_runtime.attention import Attention, whole
from cycleisp_runtime.backends import Backend, Device
from cycleisp_runtime.backends.checked import run_checked
from cycleisp_runtime.backends.choice import load_on_backend
from cycleisp_runtime.bundle import Bundle, Precision
from cycleisp_runtime.cuda.foreign import HostCopies
from cycleisp_runtime.errors import BundleError, InputError
from cycleisp_runtime.memory import tiles_within
from cycleisp_runtime.picture_tiles import HIGHEST, Picture, PictureTiles
from cycleisp_runtime.stopwatch import Stopwatch
from cycleisp_runtime.tile_side import TileSide
from cycleisp_runtime.tiles import TilePlan, plan_tiles
from cycleisp_runtime.turns import TakesTurns

__all__ = ["DenoisedPicture", "Picture", "PictureDenoiser", "PictureDenoising"]

_Planes = npt.NDArray[np.float32]
_Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PictureDenoising:
    """How a denoised picture came about.

    Attributes:
        seconds: by step.
        warnings: what was not done as asked or may disappoint, one sentence each.
    """

    seconds: dict[str, float]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class DenoisedPicture(PictureDenoising):
    """A denoised picture, and how it came about.

    Attributes:
        picture: (H, W, 3), of the shape and type of the noisy one.
    """

    picture: Picture


class PictureDenoiser(TakesTurns):
    """A model that is ready to denoise pictures, one after the other; a context manager.

    Pictures may differ in size and type. Memory for tiles is kept, and made anew where a picture
    needs tiles of another shape.

    Threads may share it: their calls take turns, and each gives what it would give alone.

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
        super().__init__(record.name)
        self.bundle = bundle
        self.backend = backend
        self._memory = memory
        least = 2 * record.halo.for_120_db + 3 * record.multiple_of
        self._side = TileSide(record, memory=memory, least=least)
        self._attention = (
            None
            if record.pooling is None
            else Attention(bundle, threads=backend.threads, memory=memory)
        )
        self._noisy = np.empty((0, 3, 0, 0), np.float32)
        self._copies = HostCopies()

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
        return load_on_backend(
            lambda found, opened, size: cls(found, opened, memory=size),
            bundle,
            backend=backend,
            precision=precision,
            device=device,
            threads=threads,
            memory=memory,
        )

    def __call__(
        self,
        picture: Picture | SupportsDLPack,
        *,
        tile: int | None = None,
        exact: bool = False,
        progress: _Progress | None = None,
    ) -> DenoisedPicture:
        """The denoised picture, a NumPy array of the same shape and type.

        Args:
            picture: (H, W, 3), R, G, B in sRGB, at least 2x2: uint8 or uint16 codes, or float32 in
                [0, 1]; a NumPy array or one of another library on the CPU that speaks DLPack, which
                is read where it lies; or one on a GPU with ``__cuda_array_interface__``, which is
                copied to the host.
            tile: side of a tile in pixels, halo included; None for what memory allows.
            exact: attention of a network that pools is taken from the whole picture, in the memory
                of the whole picture as one tile; else from every n-th pixel, as memory allows.
            progress: called with (tiles done, tiles in all). Must not use this denoiser.

        Raises:
            InputError: where it is not such a picture.
            SettingsError: where the tile is too small for the model's halo.
            OutOfMemoryError: where memory does not suffice for the smallest tile, or for attention.
            BackendError: where the backend fails or puts out something that is no picture, the
                picture lies on a GPU that cannot be reached, or the denoiser was closed.
        """
        with self._turn():
            pixels = _checked_picture(picture, self._copies)
            target = np.empty_like(pixels)
            denoising = self._denoise(pixels, target, tile, exact, progress)
            return DenoisedPicture(**vars(denoising), picture=target)

    def denoise_into(
        self,
        picture: Picture | SupportsDLPack,
        target: SupportsDLPack,
        *,
        tile: int | None = None,
        exact: bool = False,
        progress: _Progress | None = None,
    ) -> PictureDenoising:
        """How ``target``, an array of the caller's, was filled with the denoised pixels.

        After the first picture of a size nothing is allocated that grows with pictures or tiles,
        except for the attention of a network that pools. Where this raises, ``target`` may be half
        written.

        Args:
            picture: as for a call.
            target: (H, W, 3) like the picture: uint8 or uint16 codes, or float32, neither rounded
                nor clipped, whatever the picture's type. Shares no memory with it. One on a GPU is
                filled when this returns, for every stream.
            tile: as for a call.
            exact: as for a call.
            progress: as for a call.

        Raises:
            InputError: where the target is no such array, or as for a call.
            SettingsError, OutOfMemoryError, BackendError: as for a call.
        """
        with self._turn():
            pixels = _checked_picture(picture, self._copies)
            with target_of(target, pixels, self._copies, types=HIGHEST) as written:
                return self._denoise(pixels, written, tile, exact, progress)

    def _give_back(self) -> None:
        self.backend.close()
        self._copies.close()
        if self._attention is not None:
            self._attention.close()
        self._noisy = np.empty((0, 3, 0, 0), np.float32)

    def _denoise(
        self,
        pixels: Picture,
        target: Picture,
        tile: int | None,
        exact: bool,
        progress: _Progress | None,
    ) -> PictureDenoising:
        """Fill ``target`` in this thread's turn; the arguments are those of a call."""
        record, watch, warnings = self.bundle.record, Stopwatch(), list[str]()
        gates = None
        if self._attention is not None:
            with watch.step("attention"):
                step, warnings = self._attention.step(*pixels.shape[:2], exact=exact)
                small = _as_one_tile(pixels[::step, ::step], record.multiple_of)
                gates = self._attention.gates(record.tensors.fill(small))

        def plan_for(side: int) -> tuple[TilePlan, list[str]]:
            plan = plan_tiles(
                *pixels.shape[:2],
                side=side,
                halo=record.halo.for_120_db,
                multiple_of=record.multiple_of,
            )
            return plan, []

        def fill(plan: TilePlan) -> None:
            tiles, noisy = PictureTiles(pixels, plan), self._tiles_for(plan)
            for start in range(0, len(plan.cores), len(noisy)):
                cores = plan.cores[start : start + len(noisy)]
                with watch.step("cut"):
                    for slot, core in enumerate(cores):
                        tiles.cut(core, noisy[slot])
                with watch.step("network"):
                    inputs = record.tensors.fill(noisy[: len(cores)], gates=gates)
                    denoised = run_checked(self.backend, record, inputs)
                with watch.step("stitch"):
                    for slot, core in enumerate(cores):
                        tiles.stitch(core, denoised[slot], target, scratch=noisy[slot])
                if progress is not None:
                    progress(start + len(cores), len(plan.cores))

        warnings += self._side.run(tile, plan_for, fill)
        return PictureDenoising(watch.seconds, tuple(warnings))

    def _tiles_for(self, plan: TilePlan) -> _Planes:
        """Tiles (n, 3, plan.height, plan.width), n per run, kept from picture to picture."""
        count = min(self.backend.batch, len(plan.cores))
        if self._memory is not None:
            fitting = tiles_within(self._memory, self.bundle.record, plan.height * plan.width)
            count = max(1, min(count, fitting))
        shape = (count, 3, plan.height, plan.width)
        if self._noisy.shape != shape:
            self._noisy = np.empty((0, 3, 0, 0), np.float32)  # memory never holds both
            self._noisy = np.empty(shape, np.float32)
        return self._noisy


def _as_one_tile(pixels: Picture, multiple_of: int) -> _Planes:
    """(1, 3, h, w): the picture, its sides brought to multiples by reflection."""
    plan = whole(*pixels.shape[:2], multiple_of=multiple_of)
    noisy = np.empty((1, 3, plan.height, plan.width), np.float32)
    PictureTiles(pixels, plan).cut(plan.cores[0], noisy[0])
    return noisy


def _checked_picture(picture: Picture | SupportsDLPack, copies: HostCopies) -> Picture:
    """The picture as a NumPy array that shares its memory, or a copy of what a GPU holds."""
    pixels = host_array(picture, copies)
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
    # Both are NaN where any number is; np.isfinite would need memory for every one.
    if pixels.dtype == np.float32 and not np.isfinite([pixels.min(), pixels.max()]).all():
        raise InputError("the picture holds NaN or infinity", wanted="float32 in [0, 1]")
    return pixels
