"""Laws of the passes on a GPU: the bits that tiles.py gives, whatever the frame.

No GPU is needed: the same source is compiled for the host, and NVIDIA's compiler shows that it
compiles for GPUs.
"""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.bayer import Phase, packed_size
from cycleisp_runtime.cuda.compiler import compile_kernels
from cycleisp_runtime.cuda.kernels import compile_passes
from cycleisp_runtime.cuda.passes import FramePasses, TilePasses
from cycleisp_runtime.errors import BackendError
from cycleisp_runtime.frame import Area, FloatFrame, RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.tiles import MosaicTiles, TilePlan, plan_tiles
from tests.runtime.host_kernels import HostKernels, host_code
from tests.strategies import frames, noise_models

MARGIN = 64
"""Bytes around what a kernel may write."""


@pytest.fixture(scope="module")
def kernels() -> HostKernels:
    try:
        return HostKernels(host_code())
    except BackendError as error:
        pytest.skip(str(error))


class Guarded:
    """An array with memory around it that nobody may write."""

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._memory = np.full(size + 2 * MARGIN, 0xFF, np.uint8)
        self.array = self._memory[MARGIN : MARGIN + size].view(dtype).reshape(shape)

    def check(self) -> None:
        assert (self._memory[:MARGIN] == 0xFF).all()
        assert (self._memory[-MARGIN:] == 0xFF).all()


def blocks(columns: int, rows: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """A grid that goes beyond both sides, and its blocks."""
    return (columns // 8 + 1, rows // 4 + 1), (8, 4)


@st.composite
def plans(draw: st.DrawFn, frame: RawFrame | FloatFrame) -> TilePlan:
    """Tiles with halos that may be larger than the frame."""
    multiple_of, halo = draw(st.sampled_from([1, 2])), draw(st.integers(0, 12))
    rows, columns = packed_size(frame.area.height, frame.area.width, frame.cfa)
    side = 2 * (halo + halo % multiple_of) + multiple_of * draw(st.integers(1, 9))
    return plan_tiles(rows, columns, side=side, halo=halo, multiple_of=multiple_of)


def as_floats(frame: RawFrame) -> FloatFrame:
    """Its samples as a program has them that computed on them: neither whole nor within levels."""
    samples = np.ascontiguousarray(frame.visible) * np.float32(1.01) - np.float32(3.3)
    return FloatFrame(samples, frame.cfa, frame.black, frame.white)


@given(data=st.data(), frame=frames(), noise=noise_models, floats=st.booleans())
def test_tiles_are_cut_to_the_same_bits(
    kernels: HostKernels, data: st.DataObject, frame: RawFrame, noise: NoiseModel, floats: bool
) -> None:
    source = as_floats(frame) if floats else frame
    plan = data.draw(plans(source))
    target = np.empty(source.visible.shape, np.uint16)
    passes = FramePasses(source, noise, plan, target, strength=1.0, level_scale=1)
    reference = MosaicTiles(source, noise, plan)
    wanted = np.empty((2, 4, plan.height, plan.width), np.float32)
    for core in plan.cores:
        reference.cut(core, *wanted)
        tile = passes.tile(core)
        noisy, variance = (Guarded(wanted[0].shape, np.float32) for _ in range(2))
        broken = np.ones(1, np.int32)
        kernels.launch(
            "cut", *blocks(plan.width, plan.height), tile.record,
            [np.ascontiguousarray(tile.patch), np.ascontiguousarray(tile.row_levels),
             np.ascontiguousarray(tile.column_levels), noisy.array, variance.array, broken],
        )  # fmt: skip
        np.testing.assert_array_equal(noisy.array, wanted[0])
        np.testing.assert_array_equal(variance.array, wanted[1])
        assert broken[0] == 0
        noisy.check()
        variance.check()


def test_a_network_may_take_no_variance(kernels: HostKernels) -> None:
    samples = np.arange(64, dtype=np.uint16).reshape(8, 8)
    frame = RawFrame(samples, Phase.RGGB, (0.0,) * 4, 64.0, Area(0, 0, 8, 8))
    plan = plan_tiles(4, 4, side=4, halo=0, multiple_of=1)
    noise = NoiseModel.uniform(1e-3, 1e-5)
    tile = FramePasses(frame, noise, plan, samples, strength=1.0, level_scale=1).tile(plan.cores[0])
    noisy = np.empty((4, 4, 4), np.float32)
    arrays: list[npt.NDArray[Any] | None] = [
        samples,
        tile.row_levels,
        tile.column_levels,
        noisy,
        None,
        np.ones(1, np.int32),
    ]
    kernels.launch("cut", *blocks(4, 4), tile.record, arrays)
    np.testing.assert_array_equal(noisy[0], samples[::2, ::2] / np.float32(64))


@given(
    data=st.data(),
    frame=frames(),
    floats=st.booleans(),
    float_target=st.booleans(),
    strength=st.sampled_from([1.0, 0.7, 1 / 3]),
    level_scale=st.sampled_from([1, 2, 64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_tiles_are_stitched_to_the_same_bits(
    kernels: HostKernels, data: st.DataObject, frame: RawFrame, floats: bool, float_target: bool,
    strength: float, level_scale: int, seed: int,
) -> None:  # fmt: skip
    source = as_floats(frame) if floats else frame
    plan = data.draw(plans(source))
    target: npt.NDArray[Any] = np.empty(
        source.visible.shape, np.float32 if float_target else np.uint16
    )
    wanted = np.empty_like(target)
    noise = NoiseModel.uniform(1e-3, 1e-5)
    passes = FramePasses(source, noise, plan, target, strength=strength, level_scale=level_scale)
    reference = MosaicTiles(source, noise, plan)
    random, scratch = np.random.default_rng(seed), np.empty((2, 4, plan.height, plan.width), "f4")
    for core in plan.cores:
        denoised = random.uniform(-0.2, 1.2, scratch[0].shape).astype(np.float32)
        # Whole DN, as where nothing is to be denoised: these meet the reserved one.
        reference.cut(core, *scratch)
        denoised = np.where(random.random(denoised.shape) < 0.5, denoised, scratch[0])
        reference.stitch(
            core, denoised, wanted, strength=strength, level_scale=level_scale,
            scratch=(scratch[0], scratch[1]),
        )  # fmt: skip
        assert not stitched(kernels, passes.tile(core), denoised)
    np.testing.assert_array_equal(target, wanted)


def stitched(kernels: HostKernels, tile: TilePasses, denoised: npt.NDArray[np.float32]) -> bool:
    """Write the kernel's result into the frame; whether it is no picture."""
    result, broken = Guarded(tile.target.shape, tile.target.dtype), np.zeros(1, np.int32)
    core = int(tile.record["core_columns"]), int(tile.record["core_rows"])
    kernels.launch(
        "stitch", *blocks(*core), tile.record,
        [np.ascontiguousarray(tile.patch), np.ascontiguousarray(tile.row_levels[1]),
         np.ascontiguousarray(tile.column_levels[1]), denoised, result.array, broken],
    )  # fmt: skip
    result.check()
    tile.target[:] = result.array
    return bool(broken[0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_picture_is_noticed_where_it_would_be_seen(
    kernels: HostKernels, value: float
) -> None:
    samples = np.full((12, 14), 500, np.uint16)
    frame = as_floats(RawFrame(samples, Phase.RGGB, (0.0,) * 4, 1023.0, Area(0, 0, 12, 14)))
    plan = plan_tiles(6, 7, side=6, halo=1, multiple_of=1)
    noise = NoiseModel.uniform(1e-3, 1e-5)
    target = np.empty(samples.shape, np.uint16)
    passes = FramePasses(frame, noise, plan, target, strength=1.0, level_scale=1)
    for place, seen in (((0, 0, 0), False), ((1, 2, 2), True), ((3, 3, 4), True)):
        denoised = np.zeros((4, plan.height, plan.width), np.float32)
        denoised[place] = value
        assert stitched(kernels, passes.tile(plan.cores[0]), denoised) == seen


def nvrtc_knows(capability: tuple[int, int]) -> bool:
    """Whether NVRTC is there and compiles for these GPUs."""
    try:
        from cuda.bindings import nvrtc

        _, known = nvrtc.nvrtcGetSupportedArchs()
    except (ImportError, RuntimeError):
        return False
    return 10 * capability[0] + capability[1] in known


@pytest.mark.parametrize("capability", [(7, 2), (8, 7), (9, 0), (11, 0)], ids=str)
def test_nvidias_compiler_takes_the_kernels(capability: tuple[int, int]) -> None:
    """Xavier, Orin, Hopper and Thor: one release of CUDA knows not all of them."""
    if not nvrtc_knows(capability):
        pytest.skip("needs cuda-bindings and nvidia-cuda-nvrtc of a CUDA that knows this GPU")
    code = compile_passes(capability)
    assert code.startswith(b"\x7fELF")
    assert all(f".text.{kernel}".encode() in code for kernel in ("cut", "stitch"))


def test_without_a_compiler_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(
        BackendError, match=r"no compiler of kernels for sm_87: .*nvrtc.*pycuda.*pip install cuda-b"
    ):
        compile_passes((8, 7))


def test_what_the_compiler_says_is_told() -> None:
    if not nvrtc_knows((8, 7)):
        pytest.skip("needs cuda-bindings and nvidia-cuda-nvrtc")
    with pytest.raises(BackendError, match=r'COMPILATION: .*identifier "nothing" is undefined'):
        compile_kernels('extern "C" __global__ void kernel() { nothing(); }', (8, 7))


def test_nvcc_is_asked_where_nvrtc_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def compile_it(source: str, **settings: object) -> bytes:
        asked.extend((source, settings))
        return b"code"

    def load(name: str) -> object:
        if name == "pycuda.compiler":
            return SimpleNamespace(compile=compile_it)
        raise RuntimeError("libnvrtc.so.13 is missing")

    monkeypatch.setattr(importlib, "import_module", load)
    assert compile_kernels("source", (8, 7)) == b"code"
    assert asked == [
        "source", {"options": ["-O3", "--fmad=false"], "no_extern_c": True, "arch": "sm_87"}
    ]  # fmt: skip
