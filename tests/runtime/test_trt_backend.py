"""Tiles through an engine, with fakes of TensorRT and of CUDA that check every call."""

from __future__ import annotations

import faulthandler
import gc
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.backends import Backend
from cycleisp_runtime.backends import tensorrt as backend_module
from cycleisp_runtime.backends.tensorrt import TensorRTBackend
from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.bundle import Bundle
from cycleisp_runtime.cuda.kernels import pass_buffers
from cycleisp_runtime.cuda.passes import FramePasses
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.engines import build
from cycleisp_runtime.engines.build import build_engine
from cycleisp_runtime.engines.gpu import Gpu
from cycleisp_runtime.engines.key import TileShapes
from cycleisp_runtime.engines.tensorrt import TensorRT
from cycleisp_runtime.errors import BackendError, OutOfMemoryError
from cycleisp_runtime.frame import FloatFrame, RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.tiles import Core, plan_tiles
from tests.helpers import NETWORK, write_bundle
from tests.noisy_frames import noisy_frame, smooth_scene
from tests.runtime.fake_cuda import FakeCuda
from tests.runtime.fake_tensorrt import RELEASES, fake_tensorrt
from tests.runtime.host_kernels import host_code
from tests.strategies import frames

Tiles = npt.NDArray[np.float32]
Inputs = dict[str, Tiles]

JETPACK_6 = "tensorrt 10.3.0"
SUPPORTED = [release for release in RELEASES if release != "tensorrt 8.6.1"]
NOISE = NoiseModel.uniform(shot=1e-3, read=1e-5)
ORIN = Gpu("Orin", (8, 7), 16, "CUDA 12060, 540.4.0")
SHAPES = TileShapes((8, 8), (16, 16), (24, 32))
SLOT_BYTES = 4 * (3 * 4 * 24 * 32 + 1) + sum(pass_buffers(24, 32).values())
"""Of the tensors of the largest tile: noisy, variance, denoised and noise scale; and its samples
before and after."""

Open = Callable[..., TensorRTBackend]


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    """A test that waits for a GPU for ever ends the run, and says where."""
    faulthandler.dump_traceback_later(60, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    """A bundle, and folders of a user that hold nothing yet."""
    folder = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        yield Bundle.load(write_bundle(folder / "testnet.bundle", NETWORK))


def opened(
    bundle: Bundle,
    cuda: FakeCuda,
    *,
    release: str = JETPACK_6,
    fails: Mapping[str, str] | None = None,
    without: str = "",
    shapes: TileShapes = SHAPES,
    passes: Callable[[], bytes] = host_code,
) -> TensorRTBackend:
    """The backend on a fake GPU, its engine built or found."""
    module = fake_tensorrt(release, cuda=cuda, fails=fails or {}, without=without)
    # The fake reads the shapes of an engine not from the engine but from how it was built.
    module.calls["shapes"].update(profile(shapes))
    tensorrt = TensorRT(module)
    with pytest.MonkeyPatch.context() as patch:
        for place in (build, backend_module):
            patch.setattr(place, "find_tensorrt", lambda: tensorrt)
            patch.setattr(place, "find_gpu", lambda: ORIN)
        patch.setattr(backend_module, "open_driver", lambda: cuda)
        patch.setattr(backend_module, "compile_passes", lambda _gpu: passes())
        return TensorRTBackend(bundle, "fp32", shapes=shapes)


def profile(shapes: TileShapes) -> dict[str, tuple[tuple[int, ...], ...]]:
    tiles = tuple((1, 4, *shape) for shape in (shapes.least, shapes.usual, shapes.most))
    return {"noisy": tiles, "variance": tiles, "noise_scale": ((1, 1, 1, 1),) * 3}


def inputs(seed: int, rows: int = 16, columns: int = 16, count: int = 1) -> Inputs:
    rng = np.random.default_rng(seed)
    shape = (count, 4, rows, columns)
    return {
        "noisy": rng.random(shape, np.float32),
        "variance": rng.random(shape, np.float32),
        "noise_scale": rng.random((count, 1, 1, 1), np.float32),
    }


def expected(given: Mapping[str, Tiles]) -> Tiles:
    """What the fake of TensorRT computes."""
    return given["noisy"] - given["noise_scale"] * given["variance"]


@pytest.mark.parametrize("release", SUPPORTED)
def test_every_release_has_every_name_that_a_run_uses(bundle: Bundle, release: str) -> None:
    cuda = FakeCuda()
    with opened(bundle, cuda, release=release) as backend:
        for rows, columns in ((16, 16), (8, 8), (24, 32), (8, 32)):
            tile = inputs(rows, rows, columns)
            np.testing.assert_array_equal(backend.run(tile), expected(tile))
    cuda.check_nothing_is_left()


@pytest.mark.parametrize(
    "name",
    [
        "Runtime.deserialize_cuda_engine",
        "ICudaEngine.get_tensor_profile_shape",
        "IExecutionContext.set_tensor_address",
        "DataType.FLOAT",
    ],
)
def test_a_name_that_a_release_lacks_is_noticed(bundle: Bundle, name: str) -> None:
    cuda = FakeCuda()
    with pytest.raises(
        BackendError, match=r"tensorrt 10\.3\.0: cannot (load|run) the engine: .*no"
    ):
        opened(bundle, cuda, without=name).run(inputs(0))
    cuda.check_nothing_is_left()


@pytest.mark.parametrize("integrated", [False, True])
@given(seed=st.integers(0, 2**32), tiles=st.integers(0, 7), at_once=st.booleans())
def test_tiles_come_back_in_order_however_fast_the_gpu_is(
    bundle: Bundle, integrated: bool, seed: int, tiles: int, at_once: bool
) -> None:
    rng = np.random.default_rng(seed)
    hurry = rng.uniform(0, 0.95)
    cuda = FakeCuda(integrated=integrated, hurry=lambda: rng.random() < hurry)
    sizes = [(int(rng.choice((8, 16, 24))), int(rng.choice((8, 32)))) for _ in range(tiles)]
    with opened(bundle, cuda) as backend:
        if at_once and tiles:
            several = inputs(seed, count=tiles)
            np.testing.assert_array_equal(backend.run(several), expected(several))
        made = (inputs(seed + index, *size) for index, size in enumerate(sizes))
        for index, denoised in enumerate(backend.run_each(made)):
            wanted = expected(inputs(seed + index, *sizes[index]))
            np.testing.assert_array_equal(denoised, wanted)
    cuda.check_nothing_is_left()
    assert ("upload" in cuda.calls) == ("download" in cuda.calls) == (not integrated and tiles > 0)


class Reference(Backend):
    """What the fake of TensorRT computes, without it."""

    name = "reference"
    precision = "fp32"

    def run(self, inputs: Mapping[str, Tiles]) -> Tiles:
        return expected(inputs)


@pytest.mark.parametrize("integrated", [False, True])
def test_a_frame_is_denoised_as_by_any_other_backend(bundle: Bundle, integrated: bool) -> None:
    noise = NoiseModel.uniform(shot=1e-3, read=1e-5)
    frame = noisy_frame(smooth_scene(150, 200), 1e-3, 1e-5)
    cuda = FakeCuda(integrated=integrated)
    backend = opened(bundle, cuda, shapes=TileShapes((2, 2), (64, 64), (128, 128)))
    with Denoiser(bundle, backend) as ours, Denoiser(bundle, Reference()) as reference:
        for tile in (24, 64, None):
            result = ours(frame, noise=noise, tile=tile)
            wanted = reference(frame, noise=noise, tile=tile)
            np.testing.assert_array_equal(result.frame.samples, wanted.frame.samples)
            assert result.trust == wanted.trust > 0
    cuda.check_nothing_is_left()


class Progress:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.seen.append((done, total))


@pytest.mark.parametrize("integrated", [False, True])
@given(
    frame=frames(),
    strength=st.sampled_from([0.3, 1.0]),
    float_target=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_any_frame_is_cut_and_stitched_on_the_gpu_to_the_same_bits(
    bundle: Bundle,
    integrated: bool,
    frame: RawFrame,
    strength: float,
    float_target: bool,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    hurry = rng.uniform(0, 0.95)
    cuda = FakeCuda(integrated=integrated, hurry=lambda: rng.random() < hurry)
    dtype = np.float32 if float_target else np.uint16
    result, wanted = (np.empty(frame.samples.shape, dtype) for _ in range(2))
    backend = opened(bundle, cuda, shapes=TileShapes((2, 2), (64, 64), (96, 96)))
    with Denoiser(bundle, backend) as ours, Denoiser(bundle, Reference()) as reference:
        for tile in (16, None):
            launched, progress = cuda.calls.count("launch_kernel"), Progress()
            ours.denoise_into(
                frame, result, noise=NOISE, strength=strength, tile=tile,
                progress=progress,
            )  # fmt: skip
            reference.denoise_into(frame, wanted, noise=NOISE, strength=strength, tile=tile)
            np.testing.assert_array_equal(result, wanted)
            assert cuda.calls.count("launch_kernel") - launched == 2 * len(progress.seen)
            tiles = len(progress.seen)
            assert progress.seen == [(done, tiles) for done in range(1, tiles + 1)]
    cuda.check_nothing_is_left()


def frame_passes(seed: int = 0, count: int = 3, *, value: float | None = None) -> FramePasses:
    """A frame of so many tiles of 16x16 packed samples, and where it is to go."""
    samples = np.random.default_rng(seed).uniform(0, 1000, (32, 32 * count)).astype(np.float32)
    if value is not None:
        samples[20, 50] = value
    frame = FloatFrame(samples, Phase.RGGB, (0.0,) * 4, 1023.0)
    plan = plan_tiles(16, 16 * count, side=16, halo=0, multiple_of=1)
    return FramePasses(frame, NOISE, plan, np.empty_like(samples), strength=1.0, level_scale=1)


def run_frame(backend: TensorRTBackend, passes: FramePasses) -> Iterator[Core]:
    assert backend.run_frame is not None
    return backend.run_frame(passes, inputs(0, passes.plan.height, passes.plan.width))


def whole_frame(backend: TensorRTBackend, passes: FramePasses) -> Tiles:
    """The frame after the last tile."""
    assert tuple(run_frame(backend, passes)) == passes.plan.cores
    return passes.target.astype(np.float32)


def test_samples_travel_and_not_the_tiles_made_of_them(bundle: Bundle) -> None:
    frame = noisy_frame(smooth_scene(128, 128), 1e-3, 1e-5)
    plan = plan_tiles(64, 64, side=32, halo=0, multiple_of=1)
    target = np.empty_like(frame.samples)
    passes = FramePasses(frame, NOISE, plan, target, strength=1.0, level_scale=1)
    with opened(bundle, cuda := FakeCuda(), shapes=TileShapes((2, 2), (32, 32), (32, 32))) as ours:
        before = cuda.moved_bytes
        assert len([*run_frame(ours, passes)]) == 4
        # Besides, for each of the four tiles: levels of rows and columns, a head, a noise scale.
        apart = 4 * (2 * 2 * 64 * 4 + 256 + 4)
        assert cuda.moved_bytes - before == 2 * frame.samples.nbytes + apart


def test_without_a_compiler_the_cpu_cuts_and_stitches_which_is_said(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    def none_here() -> bytes:
        raise BackendError("no compiler of kernels for sm_87")

    frame = noisy_frame(smooth_scene(150, 200), 1e-3, 1e-5)
    cuda, shapes = FakeCuda(), TileShapes((2, 2), (64, 64), (128, 128))
    with (
        Denoiser(bundle, opened(bundle, cuda, shapes=shapes, passes=none_here)) as ours,
        Denoiser(bundle, Reference()) as reference,
    ):
        assert caplog.messages[-1] == (
            "tiles are cut and stitched on the CPU: no compiler of kernels for sm_87"
        )
        result, wanted = (each(frame, noise=NOISE, tile=64) for each in (ours, reference))
        np.testing.assert_array_equal(result.frame.samples, wanted.frame.samples)
    assert not {"load_module", "launch_kernel"} & {*cuda.calls}
    cuda.check_nothing_is_left()


def test_a_frame_that_is_no_picture_is_refused_and_the_next_one_is_not(bundle: Bundle) -> None:
    cuda = FakeCuda()
    with opened(bundle, cuda) as backend:
        with pytest.raises(BackendError, match=r"testnet on tensorrt: .*met NaN or infinity"):
            whole_frame(backend, frame_passes(value=np.nan))
        assert np.isfinite(whole_frame(backend, frame_passes())).all()
    cuda.check_nothing_is_left()


def test_a_frame_that_is_left_halfway_leaves_the_backend_usable(bundle: Bundle) -> None:
    cuda = FakeCuda()
    with opened(bundle, cuda) as backend:
        wanted = whole_frame(backend, frame_passes(5))
        next(run_frame(backend, frame_passes(1, 9)))
        np.testing.assert_array_equal(whole_frame(backend, frame_passes(5)), wanted)
        np.testing.assert_array_equal(backend.run(inputs(1)), expected(inputs(1)))
        next(run_frame(backend, frame_passes(1, 9)))
    cuda.check_nothing_is_left()


def test_the_next_tile_is_on_its_way_before_the_last_one_is_waited_for(bundle: Bundle) -> None:
    with opened(bundle, cuda := FakeCuda()) as backend:
        denoised = backend.run_each(inputs(seed) for seed in range(4))
        for submitted in (2, 3, 4, 4):
            next(denoised)
            # The second and the third one were captured, and then launched like the fourth.
            assert cuda.calls.count("launch_graph") == submitted - 1


def test_one_launch_runs_the_network_once_each_slot_has_its_graph(bundle: Bundle) -> None:
    cuda = FakeCuda()
    with opened(bundle, cuda) as backend:
        for seed in range(6):
            several = inputs(seed, count=4)
            np.testing.assert_array_equal(backend.run(several), expected(several))
        assert cuda.calls.count("launch") == 1 + 2  # to prepare the shapes, and to capture
        assert cuda.calls.count("launch_graph") == 6 * 4 - 1
    cuda.check_nothing_is_left()


def test_graphs_of_other_shapes_are_forgotten(bundle: Bundle) -> None:
    cuda = FakeCuda()
    with opened(bundle, cuda) as backend:
        for seed, rows in enumerate((16, 8, 16, 24)):
            several = inputs(seed, rows, count=5)
            np.testing.assert_array_equal(backend.run(several), expected(several))
        assert cuda.calls.count("launch") == 4 * (1 + 2)
        assert cuda.calls.count("destroy_graph") == 3 * 2
    cuda.check_nothing_is_left()


def test_what_cannot_be_captured_is_asked_for_each_time_which_is_said_once(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    fails = {"capture": "operation not permitted when stream is capturing"}
    cuda = FakeCuda()
    with opened(bundle, cuda, fails=fails) as backend:
        caplog.clear()
        for rows in (16, 8):
            several = inputs(0, rows, count=5)
            np.testing.assert_array_equal(backend.run(several), expected(several))
    (said,) = caplog.messages
    assert said.startswith("the network runs without a CUDA graph: ")
    assert fails["capture"] in said
    assert cuda.calls.count("begin_capture") == 1
    assert "launch_graph" not in cuda.calls
    cuda.check_nothing_is_left()


def test_tensorrt_rtx_is_asked_whether_it_can_be_captured(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    for fails in ({"is_stream_capturable": ""}, {}):
        cuda = FakeCuda()
        with opened(bundle, cuda, release="tensorrt_rtx 1.7.1.116", fails=fails) as backend:
            caplog.clear()
            several = inputs(0, count=5)
            np.testing.assert_array_equal(backend.run(several), expected(several))
        assert ("launch_graph" in cuda.calls) == (not fails)
        assert caplog.messages == []


def test_inputs_may_be_overwritten_when_the_next_are_asked_for(bundle: Bundle) -> None:
    tile = inputs(0)

    def same_memory() -> Iterator[Inputs]:
        for seed in range(5):
            for name, array in inputs(seed).items():
                tile[name][:] = array
            yield tile

    with opened(bundle, FakeCuda()) as backend:
        for seed, denoised in enumerate(backend.run_each(same_memory())):
            np.testing.assert_array_equal(denoised, expected(inputs(seed)))


def test_a_caller_that_stops_halfway_leaves_the_backend_usable(bundle: Bundle) -> None:
    cuda = FakeCuda()
    with opened(bundle, cuda) as backend:
        denoised = backend.run_each(inputs(seed) for seed in range(9))
        next(denoised)
        del denoised
        gc.collect()
        for seed in (1, 2, 3):
            np.testing.assert_array_equal(backend.run(inputs(seed)), expected(inputs(seed)))
        next(backend.run_each(inputs(seed) for seed in range(9)))
    cuda.check_nothing_is_left()


def test_nothing_is_allocated_after_the_start(bundle: Bundle) -> None:
    with opened(bundle, cuda := FakeCuda()) as backend:
        opening = {*cuda.calls}
        cuda.calls.clear()
        first = backend.run(inputs(0)).ctypes.data
        whole_frame(backend, frame_passes())
        for seed in range(10):
            assert backend.run(inputs(seed)).ctypes.data == first
        assert not opening & {*cuda.calls}


def test_the_seconds_of_a_tile_are_told_by_step(bundle: Bundle) -> None:
    with opened(bundle, FakeCuda()) as backend:
        backend.run(inputs(0))
        assert list(backend.seconds) == ["upload", "compute", "download"]
        # The fake takes a millisecond for everything: three uploads, then one thing each.
        assert backend.seconds == pytest.approx({"upload": 4e-3, "compute": 2e-3, "download": 2e-3})


def test_another_thread_may_run_it(bundle: Bundle) -> None:
    cuda = FakeCuda()
    results: list[Tiles] = []
    with opened(bundle, cuda) as backend:
        thread = threading.Thread(target=lambda: results.append(backend.run(inputs(3)).copy()))
        thread.start()
        thread.join(timeout=30)
    np.testing.assert_array_equal(results[0], expected(inputs(3)))
    cuda.check_nothing_is_left()


@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (24, 40), (4, 8)])
def test_other_tiles_than_the_engines_are_refused_and_nothing_else_happens(
    bundle: Bundle, rows: int, columns: int
) -> None:
    with opened(bundle, FakeCuda()) as backend:
        with pytest.raises(
            BackendError, match=rf"other tiles.*met \(1, 4, {rows}, {columns}\), wanted \(1, 4, 8"
        ):
            backend.run(inputs(0, rows, columns))
        with pytest.raises(BackendError, match=r"other inputs.*met noisy, wanted noisy, variance"):
            backend.run({"noisy": inputs(0)["noisy"]})
        np.testing.assert_array_equal(backend.run(inputs(1)), expected(inputs(1)))


def test_after_close_nothing_runs(bundle: Bundle) -> None:
    backend = opened(bundle, cuda := FakeCuda())
    backend.run(inputs(0))
    backend.close()
    backend.close()
    cuda.check_nothing_is_left()
    for use in (backend.run, lambda tile: next(backend.run_each([tile]))):
        with pytest.raises(BackendError, match="testnet fp32 on TensorRT: the backend was closed"):
            use(inputs(0))


def test_wherever_the_gpu_fails_the_backend_is_plainly_closed(bundle: Bundle) -> None:
    """At every single call while it is opened, runs five tiles, and is closed."""

    def live(cuda: FakeCuda, backends: list[TensorRTBackend]) -> list[str]:
        backends.append(opened(bundle, cuda))
        several = inputs(0, count=5)
        np.testing.assert_array_equal(backends[0].run(several), expected(several))
        whole_frame(backends[0], frame_passes())
        at_work = [*cuda.calls]
        backends[0].close()
        return at_work

    at_work = live(whole := FakeCuda(), [])
    assert len(whole.calls) > len(at_work) > 100
    for call in range(len(whole.calls)):
        cuda = FakeCuda(fault_at=call)
        backends: list[TensorRTBackend] = []
        name = at_work[call] if call < len(at_work) else ".*"
        if name.endswith("_capture") or at_work[call - 1 : call] == ["begin_capture"]:
            name = ".*"  # what comes next fails as well
        with pytest.raises(BackendError, match=f"{name} gives CUDA_ERROR_ILLEGAL_ADDRESS"):
            live(cuda, backends)
        cuda.check_nothing_is_left()
        for backend in backends:
            backend.close()
            with pytest.raises(BackendError, match="the backend was closed"):
                backend.run(inputs(0))


def test_a_gpu_that_fails_ends_a_stream_and_closes_what_it_ran_on(bundle: Bundle) -> None:
    noise = NoiseModel.uniform(shot=1e-3, read=1e-5)
    frame = noisy_frame(smooth_scene(150, 200), 1e-3, 1e-5)
    cuda, threads = FakeCuda(), threading.active_count()
    backend = opened(bundle, cuda, shapes=TileShapes((2, 2), (64, 64), (128, 128)))
    with Denoiser(bundle, backend) as denoiser:
        stream = denoiser.stream([frame] * 9, noise=noise)
        next(stream)
        cuda.fault_at = len(cuda.calls)
        with pytest.raises(BackendError, match="gives CUDA_ERROR_ILLEGAL_ADDRESS"):
            next(stream)
        assert list(stream) == []
        with pytest.raises(BackendError, match="the backend was closed"):
            denoiser(frame, noise=noise)
    cuda.check_nothing_is_left()
    assert threading.active_count() == threads


@pytest.mark.parametrize("memory", range(0, 2 * SLOT_BYTES, SLOT_BYTES // 3))
def test_a_gpu_too_small_for_the_tiles_is_told_and_nothing_stays(
    bundle: Bundle, memory: int
) -> None:
    cuda = FakeCuda(memory=memory)
    with pytest.raises(OutOfMemoryError, match="not enough memory"):
        opened(bundle, cuda)
    cuda.check_nothing_is_left()


def test_memory_for_the_tiles_is_all_that_is_taken(bundle: Bundle) -> None:
    with opened(bundle, FakeCuda(memory=2 * SLOT_BYTES)) as backend:
        backend.run(inputs(0, 24, 32))


@pytest.mark.parametrize(
    ("function", "said", "error"),
    [
        ("deserialize_cuda_engine", "version tag does not match", BackendError),
        ("create_execution_context", "OutOfMemory (Requested size was 1 bytes.)", OutOfMemoryError),
        ("create_execution_context", "Cuda Runtime (out of memory)", OutOfMemoryError),
    ],
)
def test_what_tensorrt_says_when_it_cannot_load_is_told(
    bundle: Bundle, function: str, said: str, error: type[BackendError]
) -> None:
    cuda = FakeCuda()
    with pytest.raises(error) as caught:
        opened(bundle, cuda, fails={function: said})
    assert type(caught.value) is error
    assert said in str(caught.value)
    cuda.check_nothing_is_left()


@pytest.mark.parametrize("function", ["set_input_shape", "set_tensor_address", "execute_async_v3"])
def test_a_failed_run_closes_the_backend_unless_memory_was_short(
    bundle: Bundle, function: str
) -> None:
    fails = {function: "something else"}
    backend = opened(bundle, cuda := FakeCuda(), fails=fails)
    with pytest.raises(BackendError, match="something else"):
        backend.run(inputs(0))
    cuda.check_nothing_is_left()
    with pytest.raises(BackendError, match="the backend was closed"):
        backend.run(inputs(0))

    fails[function] = "Error Code 1: Cuda Runtime (out of memory)"
    with opened(bundle, cuda := FakeCuda(), fails=fails) as backend:
        with pytest.raises(OutOfMemoryError):
            backend.run(inputs(0))
        fails.clear()
        np.testing.assert_array_equal(backend.run(inputs(1)), expected(inputs(1)))
    cuda.check_nothing_is_left()


def test_an_engine_with_other_tensors_is_refused(bundle: Bundle) -> None:
    cuda = FakeCuda()
    with pytest.raises(BackendError, match=r"finds variance as .*remove /.*\.engine"):
        opened(bundle, cuda, fails={"variance": ""})
    cuda.check_nothing_is_left()


def test_a_build_is_logged_where_nobody_watches_its_progress(
    bundle: Bundle,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    caplog.set_level(logging.WARNING)
    opened(bundle, FakeCuda()).close()
    assert caplog.messages == ["building the engine of testnet fp32, once"]
    caplog.clear()
    opened(bundle, FakeCuda()).close()
    assert caplog.messages == []


def test_an_altered_engine_is_built_again_and_never_deserialised(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    opened(bundle, FakeCuda()).close()
    tensorrt = TensorRT(fake_tensorrt(JETPACK_6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "find_tensorrt", lambda: tensorrt)
        patch.setattr(build, "find_gpu", lambda: ORIN)
        engine = Path(build_engine(bundle, "fp32", shapes=SHAPES).engine)
    rng = np.random.default_rng(0)
    for _ in range(100):
        altered = bytearray(engine.read_bytes())
        altered[rng.integers(len(altered))] ^= 1 << int(rng.integers(8))
        engine.write_bytes(altered)
        caplog.clear()
        with opened(bundle, FakeCuda()) as backend:
            np.testing.assert_array_equal(backend.run(inputs(0)), expected(inputs(0)))
        assert "the engine is not the one that was built" in caplog.text


def test_without_a_gpu_nothing_is_built(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module, "find_gpu", lambda: None)
    with pytest.raises(BackendError, match=r"there is no GPU.*--backend onnxruntime"):
        TensorRTBackend(bundle, "fp32")
