"""Memory: which tile a budget chooses, and what happens where memory ends all the same."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.backends import Backend
from cycleisp_runtime.backends.identity import IdentityBackend
from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.bundle import Halo, ModelFile, Pooling, find_bundle
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.errors import OutOfMemoryError, SettingsError
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.memory import (
    PROCESS_BYTES,
    SIDES,
    budget_for,
    bytes_per_packed_sample,
    largest_side,
    parse_memory,
    share_of,
    tiles_within,
)
from cycleisp_runtime.noise import NoiseModel
from tests.helpers import a_bundle, a_record

NOISE = NoiseModel.uniform(1e-3, 1e-6)

MIB = 1 << 20

FILE = ModelFile("statistics.onnx", "0" * 64, 1, 17, ())


def a_frame(height: int = 500, width: int = 700) -> RawFrame:
    samples = np.random.default_rng(0).integers(0, 1024, (height, width), np.uint16)
    return RawFrame(samples, Phase.RGGB, (64,) * 4, 1023, Area(0, 0, height, width))


class Small(Backend):
    """Takes tiles of up to so many packed samples, all of a run together."""

    name = "small"
    precision = "fp32"

    def __init__(
        self, most: int, error: type[Exception] = OutOfMemoryError, batch: int = 1
    ) -> None:
        self.most, self.error, self.batch = most, error, batch
        self.shapes: list[tuple[int, ...]] = []

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        noisy = inputs["noisy"]
        if noisy.size // 4 > self.most:
            raise self.error("out of memory")
        self.shapes.append(noisy.shape)
        return noisy.copy()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MiB", 512 * MIB),
        ("2GiB", 2048 * MIB),
        ("1.5 G", 1536 * MIB),
        ("300mb", 300 * MIB),
        ("64K", 1 << 16),
        ("4096", 4096),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "-1", "MiB", "5 parsecs", "1e9", "0x10", "512 M iB", "५MiB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(SettingsError, match="not a size such as 512MiB"):
        parse_memory(text)


@pytest.mark.parametrize(("name", "measured"), [("edge", 513), ("tiny", 385)])
def test_the_estimate_covers_what_was_measured_and_the_tiles_own_arrays(
    name: str, measured: int
) -> None:
    estimate = bytes_per_packed_sample(find_bundle(name).record)
    assert 32 + measured < estimate < 1.4 * (32 + measured)


@given(memory=st.integers(0, 1 << 34), name=st.sampled_from(["edge", "tiny"]))
def test_the_budgets_tile_fits_and_the_next_larger_one_does_not(memory: int, name: str) -> None:
    record = find_bundle(name).record
    cost = bytes_per_packed_sample(record)
    if memory < PROCESS_BYTES + cost * 64**2:
        with pytest.raises(SettingsError, match=r"memory: too little .* wanted at least \d+ MiB"):
            largest_side(memory, record, least=64)
        return
    side = largest_side(memory, record, least=64)
    assert PROCESS_BYTES + cost * side**2 <= memory
    assert tiles_within(memory, record, side**2) >= 1
    if side != SIDES[0]:
        larger = SIDES[SIDES.index(side) - 1]
        assert PROCESS_BYTES + cost * larger**2 > memory


@pytest.mark.parametrize("pooling", [None, Pooling(FILE, gates=6, decimation=4, agreement_db=60)])
def test_the_smallest_budget_that_an_error_names_is_enough(pooling: Pooling | None) -> None:
    record = msgspec.structs.replace(find_bundle("edge").record, pooling=pooling)
    with pytest.raises(SettingsError) as caught:
        largest_side(0, record, least=100)
    named = parse_memory(str(caught.value.wanted).removeprefix("at least "))
    assert largest_side(named, record, least=100) == 128


@given(memory=st.integers(0, 1 << 34))
def test_tiles_and_statistics_of_a_network_that_pools_share_the_budget(memory: int) -> None:
    record = find_bundle("edge").record
    pooling = Pooling(FILE, gates=6, decimation=4, agreement_db=60)
    pools = msgspec.structs.replace(record, pooling=pooling)
    assert (
        2 * share_of(memory, pools) <= share_of(memory, record) <= 2 * share_of(memory, pools) + 1
    )
    for each in (record, pools):
        share = share_of(memory, each)
        assert share == 0 or memory - 1 <= budget_for(share, each) <= memory
        cost = bytes_per_packed_sample(each) * 64**2
        assert tiles_within(memory, each, 64**2) == int(share / cost)


def test_a_denoiser_takes_the_tile_of_its_budget() -> None:
    record = a_record()
    room = int(PROCESS_BYTES + bytes_per_packed_sample(record) * 128**2)
    backend = Small(10**9)
    Denoiser(a_bundle(), backend, memory=room)(a_frame(), noise=NOISE)
    tiles = {shape for shape in backend.shapes if shape[2] > 90}  # the others are crops
    assert {max(shape[2:]) for shape in tiles} <= set(range(90, 129))
    with pytest.raises(SettingsError, match="too little memory for any tile of the model testnet"):
        Denoiser(a_bundle(), IdentityBackend(), memory=PROCESS_BYTES)


@pytest.mark.parametrize("error", [OutOfMemoryError, MemoryError])
def test_where_memory_ends_the_next_smaller_tile_finishes_the_frame(
    error: type[Exception],
) -> None:
    frame = a_frame()
    whole = Denoiser(a_bundle(), IdentityBackend())(frame, noise=NOISE)
    denoiser = Denoiser(a_bundle(), Small(130**2, error))
    for _ in range(2):  # the next frame starts where this one ended
        result = denoiser(frame, noise=NOISE)
        np.testing.assert_array_equal(result.frame.samples, whole.frame.samples)
        assert result.warnings == (
            "memory did not suffice for tiles of 358: up to 256 were used",
            "memory did not suffice for tiles of 184: up to 128 were used",
        )


def test_a_tile_that_was_asked_for_shrinks_for_this_frame_only() -> None:
    backend = Small(130**2)
    denoiser = Denoiser(a_bundle(), backend)
    result = denoiser(a_frame(), noise=NOISE, tile=200)
    assert result.warnings == ("memory did not suffice for tiles of 184: up to 128 were used",)
    backend.most = 10**9
    assert denoiser(a_frame(), noise=NOISE).warnings == ()


class Failing(Backend):
    """Runs the crops of the risk pass, and never again."""

    name = "failing"
    precision = "fp32"
    left = 32  # two runs on each of 16 crops

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        self.left -= 1
        if self.left < 0:
            raise OutOfMemoryError("out of memory")
        return inputs["noisy"].copy()


def test_where_no_tile_fits_the_error_says_so_and_the_denoiser_stays_usable() -> None:
    backend = Failing()
    denoiser = Denoiser(a_bundle(), backend)
    with pytest.raises(OutOfMemoryError, match=r"smallest tile \(met \d+x\d+ .*; out of memory"):
        denoiser(a_frame(), noise=NOISE)
    backend.left = 1000
    assert denoiser(a_frame(), noise=NOISE).level_scale == 64


def test_no_tile_is_tried_that_its_halo_would_fill() -> None:
    halo = Halo(for_90_db=40, for_120_db=40, exact=40)
    with pytest.raises(OutOfMemoryError, match="does not suffice for the smallest tile"):
        Denoiser(a_bundle(halo=halo), Failing())(a_frame(), noise=NOISE)


def test_a_halo_wider_than_any_usual_tile_has_a_tile_of_its_own() -> None:
    assert largest_side(1 << 40, a_record(), least=3000) == 3000


@pytest.mark.parametrize("batch", [2, 3, 16])
def test_batches_of_tiles_change_nothing(batch: int) -> None:
    backend = Small(10**9, batch=batch)
    seen: list[tuple[int, int]] = []
    one = Denoiser(a_bundle(), IdentityBackend())(a_frame(), noise=NOISE, tile=128)
    many = Denoiser(a_bundle(), backend)(
        a_frame(), noise=NOISE, tile=128, progress=lambda done, total: seen.append((done, total))
    )
    np.testing.assert_array_equal(many.frame.samples, one.frame.samples)
    assert max(shape[0] for shape in backend.shapes) == min(batch, 9)
    assert seen[-1] == (9, 9)


def test_a_budget_bounds_the_batch() -> None:
    room = int(PROCESS_BYTES + bytes_per_packed_sample(a_record()) * 2.5 * 92 * 126)
    backend = Small(10**9, batch=16)  # for tiles of 92x126
    Denoiser(a_bundle(), backend, memory=room)(a_frame(), noise=NOISE, tile=128)
    assert max(shape[0] for shape in backend.shapes) == 2
