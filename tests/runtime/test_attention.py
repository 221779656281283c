"""Networks that pool over the frame: their gates, and tiles that agree because they share them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime import attention as attention_module
from cycleisp_runtime.attention import LEAST_SIDE, Attention, every_nth_cell, frame_gates
from cycleisp_runtime.backends import onnxruntime as onnxruntime_backend
from cycleisp_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cycleisp_runtime.bayer import Phase, pack, packed_size
from cycleisp_runtime.bundle import Bundle
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.errors import BundleError, OutOfMemoryError
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.memory import PROCESS_BYTES, share_of
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.tiles import MosaicTiles
from tests.helpers import write_pooling_bundle
from tests.networks import GATES, pooling_networks

NOISE = NoiseModel.uniform(1e-3, 1e-5)


def written(folder: Path) -> Bundle:
    network, statistics = (model.SerializeToString() for model in pooling_networks(4))
    return Bundle.load(write_pooling_bundle(folder, network, statistics, gates=GATES))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return written(tmp_path / "pooling.bundle")


@pytest.fixture(scope="module")
def kept_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """One for all examples of a law."""
    return written(tmp_path_factory.mktemp("kept") / "pooling.bundle")


def a_frame(height: int, width: int, cfa: Phase = Phase.GBRG) -> RawFrame:
    """Waves and noise, darker to the right, on black levels that differ from row to row."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:height, 0:width]
    light = (1 + np.sin(y / 5) * np.cos(x / 7)) * (1 - x / width)
    samples = np.rint(300 + 1000 * light + rng.normal(0, 30, light.shape)).astype(np.uint16)
    return RawFrame(
        samples=samples,
        cfa=cfa,
        black=(256.0, 256.0, 250.0, 250.0),
        white=4095.0,
        area=Area(0, 0, height, width),
        black_rows=np.linspace(0, 4, height),
    )


@given(st.integers(24, 60), st.integers(24, 60), st.integers(1, 5), st.sampled_from(list(Phase)))
def test_every_nth_cell_is_every_nth_packed_sample(
    height: int, width: int, step: int, cfa: Phase
) -> None:
    frame = a_frame(height, width, cfa)
    small = every_nth_cell(frame, step)
    assert isinstance(small, RawFrame)
    assert small.cfa is cfa
    found = pack(small.samples, cfa)
    wanted = pack(frame.samples, cfa)[:, ::step, ::step]
    rows, columns = (min(length) for length in zip(found.shape[1:], wanted.shape[1:], strict=True))
    # The outermost cells may be completed by reflection, which meets other samples in each.
    inner = np.s_[:, 1 : rows - 1, 1 : columns - 1]
    np.testing.assert_array_equal(found[inner], wanted[inner])
    assert small.black_rows is not None
    assert len(small.black_rows) == small.area.height


def test_gates_of_the_whole_frame_are_those_of_the_network_itself(bundle: Bundle) -> None:
    frame = a_frame(401, 605)
    with_attention = Attention(bundle, threads=1)
    gates, said = frame_gates(with_attention, frame, NOISE, 1.0, exact=True)
    assert said == []

    rows, columns = packed_size(401, 605, frame.cfa)
    plan = attention_module.whole(rows, columns, multiple_of=2)
    planes, variance = np.empty((2, 1, 4, plan.height, plan.width), np.float32)
    MosaicTiles(frame, NOISE, plan).cut(plan.cores[0], planes[0], variance[0])
    wanted = with_attention.gates({"noisy": planes, "variance": variance})
    np.testing.assert_array_equal(gates, wanted)
    assert gates.shape == (1, GATES, 1, 1)
    assert 0.1 < np.ptp(gates) < 1  # or the test would see nothing


def test_gates_of_every_fourth_cell_are_close_to_those_of_all(bundle: Bundle) -> None:
    frame = a_frame(1200, 1400)
    with_attention = Attention(bundle, threads=1)
    fast, _ = frame_gates(with_attention, frame, NOISE, 1.0, exact=False)
    exact, _ = frame_gates(with_attention, frame, NOISE, 1.0, exact=True)
    difference = np.abs(fast - exact).max()
    assert 0 < difference < 0.1  # gates are 0..1; neighbours in the features are others


@pytest.mark.parametrize(
    ("rows", "columns", "exact", "step"),
    [(600, 800, False, 4), (600, 800, True, 1), (140, 800, False, 2), (20, 20, False, 1)],
)
def test_small_frames_are_decimated_less(
    bundle: Bundle, rows: int, columns: int, exact: bool, step: int
) -> None:
    assert Attention(bundle, threads=1).step(rows, columns, exact=exact) == (step, [])


def test_a_frame_that_does_not_fit_is_refused_with_its_size(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_module, "_available_bytes", lambda: 64 << 20)
    with pytest.raises(
        OutOfMemoryError,
        match=r"met 64 MiB, wanted at least \d+ MiB for 10000x10000 .*; leave out --exact",
    ):
        Attention(bundle, threads=1).step(10_000, 10_000, exact=True)


def test_memory_that_the_graph_keeps_is_there_for_the_next_frame(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_attention = Attention(bundle, threads=1)
    needed = with_attention.bytes_per_sample * 200 * 200
    free = [needed, 0]
    monkeypatch.setattr(attention_module, "_available_bytes", lambda: free[0])
    planes = np.zeros((1, 4, 200, 200), np.float32)
    for _ in range(2):
        assert with_attention.step(200, 200, exact=True) == (1, [])
        with_attention.gates({"noisy": planes, "variance": planes})
        del free[0]  # all of it was taken, and is kept
        free.append(0)


@given(
    rows=st.integers(70, 3000),
    columns=st.integers(70, 3000),
    memory=st.integers(PROCESS_BYTES, 1 << 30),
    exact=st.booleans(),
)
def test_the_finest_step_that_the_budget_holds_is_taken(
    kept_bundle: Bundle, rows: int, columns: int, memory: int, exact: bool
) -> None:
    with_attention = Attention(kept_bundle, threads=1, memory=memory)
    share = share_of(memory, kept_bundle.record)

    def fits(step: int) -> bool:
        samples = -(-rows // step) * -(-columns // step)
        return with_attention.bytes_per_sample * samples <= share

    coarsest = max(1, min(rows, columns) // LEAST_SIDE)
    usual = 1 if exact else min(4, coarsest)
    try:
        step, said = with_attention.step(rows, columns, exact=exact)
    except OutOfMemoryError:
        assert not fits(usual if exact else coarsest)
        return
    assert fits(step)
    assert step == usual or not fits(step - 1)
    assert [f"one in {step}x{step} was used" in line for line in said] == [True] * (step > usual)


def test_the_budget_that_an_error_names_is_enough(bundle: Bundle) -> None:
    with pytest.raises(OutOfMemoryError, match=r"allow more memory or leave out --exact") as caught:
        Attention(bundle, threads=1, memory=200 << 20).step(1500, 2000, exact=True)
    assert caught.value.met == "200 MiB"
    wanted = re.match(r"at least (\d+) MiB for 1500x2000", str(caught.value.wanted))
    assert wanted is not None
    enough = Attention(bundle, threads=1, memory=int(wanted[1]) << 20)
    assert enough.step(1500, 2000, exact=True) == (1, [])


def test_a_statistics_graph_with_other_tensors_is_refused(tmp_path: Path) -> None:
    network, _ = (model.SerializeToString() for model in pooling_networks(4))
    folder = write_pooling_bundle(tmp_path / "a.bundle", network, network, gates=GATES)
    with pytest.raises(BundleError, match=r"statistics\.onnx: the statistics graph is not the one"):
        Attention(Bundle.load(folder), threads=1)


def test_a_statistics_graph_that_was_altered_is_refused(bundle: Bundle) -> None:
    path = bundle.folder / "statistics.onnx"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match="not the one that the bundle lists"):
        Attention(bundle, threads=1)


def test_tiles_of_a_frame_share_the_gates_of_the_whole_frame(bundle: Bundle) -> None:
    frame = a_frame(601, 803)
    with Denoiser(bundle, OnnxRuntimeBackend(bundle, threads=1)) as denoiser:
        whole = denoiser(frame, noise=NOISE, tile=512, exact=True).frame.visible
        exact = denoiser(frame, noise=NOISE, tile=96, exact=True).frame.visible
        fast = denoiser(frame, noise=NOISE, tile=96).frame.visible
    assert np.any(whole != fast)
    # 16 bits: 120 dB is an error of 0.07 steps, and 60 one of 66.
    assert np.mean(np.square(exact.astype(float) - whole)) < 0.07**2
    assert np.mean(np.square(fast.astype(float) - whole)) < 66**2


def test_a_denoiser_keeps_attention_within_its_budget_and_says_so(bundle: Bundle) -> None:
    frame, backend = a_frame(1203, 1605), OnnxRuntimeBackend(bundle, threads=1)
    with_every_fourth = Attention(bundle, threads=1).bytes_per_sample * 151 * 201
    memory = PROCESS_BYTES + 2 * with_every_fourth - 1
    with Denoiser(bundle, backend, memory=memory) as denoiser:
        result = denoiser(frame, noise=NOISE)
        (said,) = (line for line in result.warnings if "attention" in line)
        assert "one in 4x4 samples: one in 5x5 was used" in said
        target = np.zeros_like(frame.samples)
        with pytest.raises(OutOfMemoryError, match=r"met 135 MiB, wanted at least \d+ MiB"):
            denoiser.denoise_into(frame, target, noise=NOISE, exact=True)
        assert not target.any()  # before work
        again = denoiser(frame, noise=NOISE)
    np.testing.assert_array_equal(again.frame.samples, result.frame.samples)


def test_the_graph_of_statistics_runs_on_as_many_threads_as_the_backend(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []
    before = onnxruntime_backend.session_options

    def options(threads: int | None = None) -> object:
        asked.append(threads)
        return before(threads)

    monkeypatch.setattr(onnxruntime_backend, "session_options", options)
    with Denoiser.load(bundle.folder, device="cpu", threads=3):
        assert asked == [3, 3]  # the network's, and the statistics'
