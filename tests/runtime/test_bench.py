"""A benchmark from end to end, on a backend that takes no time and on a small network."""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from cycleisp_runtime.backends.identity import IdentityBackend
from cycleisp_runtime.bench import measure
from cycleisp_runtime.bench.measure import Plan, load, run_benchmark
from cycleisp_runtime.bench.peak_memory import (
    PeakMemory,
    Request,
    peak_memory,
    resident_bytes,
)
from cycleisp_runtime.bench.record import Configuration, FrameFacts, Report
from cycleisp_runtime.bench.sensors import Sensors
from cycleisp_runtime.bench.workload import (
    PICTURE_NOISE,
    FrameInMemory,
    synthetic_frame,
    synthetic_picture,
)
from cycleisp_runtime.cli import main
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.errors import BackendError, InputError, SettingsError
from cycleisp_runtime.noise import NoiseModel
from tests.helpers import RAW, RAW_BAD, a_bundle, for_pictures, write_bundle
from tests.runtime.bench_reports import ORIN, a_machine, a_report

NOISE = NoiseModel.uniform(1e-3, 1e-6)
TILES = tuple(Configuration("identity", tile=tile) for tile in (16, 24, 32))


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    return str(write_bundle(tmp_path / "testnet.bundle", b"network"))


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Peak memory without the process that measures it."""
    asked: list[Request] = []

    def peak(request: Request, *, limit_s: float) -> PeakMemory:
        assert limit_s > 0
        asked.append(request)
        return PeakMemory(123, None)

    monkeypatch.setattr(measure, "peak_memory", peak)
    return asked


def run(plan: Plan, sensors: Sensors | None = None) -> Report:
    return run_benchmark(plan, sensors or Sensors(), np.random.default_rng(0))


def test_every_configuration_denoises_every_frame_in_every_round(
    bundle: str, no_process: list[Request]
) -> None:
    files = (RAW / "d750_black_delta.dng", RAW / "d750_orient6_ljpeg14.dng")
    report = run(Plan(bundle, TILES[:2], files=files, warmup=1, runs=2))
    assert report.end_to_end
    assert [frame.name for frame in report.frames] == [file.name for file in files]
    assert [each.configuration.tile for each in report.measured] == [16, 24]
    for each in report.measured:
        assert [sample.frame for sample in each.samples] == [0, 1] * 2
        assert len(each.warmup_seconds) == 2
        assert {"read", "noise", "cut", "network", "stitch", "write"} <= set(each.samples[0].steps)
        assert sum(each.samples[0].steps.values()) <= each.samples[0].seconds
    assert [request.configuration for request in no_process] == [
        each.configuration for each in report.measured
    ]


def test_configurations_take_turns(bundle: str, no_process: list[Request]) -> None:
    assert not no_process
    report = run(Plan(bundle, TILES, size=(40, 30), warmup=1, runs=20))
    assert not report.end_to_end
    order = sorted(
        (sample.begin_s, index)
        for index, each in enumerate(report.measured)
        for sample in each.samples
    )
    rounds = [[index for _, index in order[at : at + 3]] for at in range(0, 60, 3)]
    assert all(sorted(each) == [0, 1, 2] for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1  # not always in the same order
    ends = {sample.begin_s + sample.seconds for each in report.measured for sample in each.samples}
    begins = [begin for begin, _ in order]
    # One at a time: of two neighbours the first has ended before the second begins.
    assert all(
        begin <= end <= after
        for (begin, after), end in zip(pairwise(begins), sorted(ends), strict=False)
    )


@pytest.fixture
def picture_bundle(tmp_path: Path) -> str:
    return str(write_bundle(tmp_path / "pictures.bundle", b"network", **for_pictures()))


def test_pictures_are_measured_as_frames_are(
    picture_bundle: str, no_process: list[Request]
) -> None:
    report = run(Plan(picture_bundle, TILES[:2], size=(50, 30), warmup=0, runs=2))
    assert report.frames == (FrameFacts("50x30", 50, 30),)
    assert report.frames[0].mp == 50 * 30 / 1e6
    assert [each.configuration.tile for each in report.measured] == [16, 24]
    for each in report.measured:
        assert {*each.summary.phases_ms} == {"pre", "compute", "post", "other"}
    assert len(no_process) == 2


def test_files_of_pictures_are_read_and_written(
    picture_bundle: str, tmp_path: Path, no_process: list[Request]
) -> None:
    files = (tmp_path / "a.png", tmp_path / "b.jpg")
    for file in files:
        Image.fromarray(synthetic_picture(40, 30, np.random.default_rng(0))).save(file)
    report = run(Plan(picture_bundle, TILES[:1], files=files, warmup=0, runs=1))
    assert report.end_to_end
    (each,) = report.measured
    for sample in each.samples:
        assert {*sample.steps} == {"read", "cut", "network", "stitch", "write"}
        assert sum(sample.steps.values()) <= sample.seconds
    (request,) = no_process
    assert request.files == tuple(map(str, files))
    with pytest.raises(InputError, match=r"d750_black_delta\.dng: not a rendered picture"):
        run(Plan(picture_bundle, TILES[:1], files=(RAW / "d750_black_delta.dng",)))


def test_peak_memory_of_pictures_is_that_of_a_process_of_its_own(picture_bundle: str) -> None:
    measured = peak_memory(
        Request(picture_bundle, Configuration("identity"), (), (64, 64)), limit_s=60
    )
    if measured.host_bytes is None:
        pytest.skip("this system has no /proc")
    assert 10e6 < measured.host_bytes < 500e6


def test_where_nothing_is_measured_the_line_begins_with_why(
    bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "busy_warning", lambda _machine: "the machine was not quiet")
    with pytest.raises(BackendError, match=r"^nothing was measured \(met onnxruntime int8"):
        run(Plan(bundle, (Configuration("onnxruntime", "int8"),), size=(40, 30)))


def test_what_cannot_be_loaded_is_left_out_and_named(
    bundle: str, no_process: list[Request]
) -> None:
    int8 = Configuration("onnxruntime", "int8")
    report = run(Plan(bundle, (int8, TILES[0]), size=(40, 30), runs=1))
    assert len(report.measured) == len(no_process) == 1
    assert any("onnxruntime int8 was left out: " in warning for warning in report.warnings)
    with pytest.raises(BackendError, match=r"nothing was measured.*int8 was left out"):
        run(Plan(bundle, (int8,), size=(40, 30)))


def test_a_tile_below_the_halo_is_refused(bundle: str) -> None:
    with pytest.raises(SettingsError, match="tile"):
        run(Plan(bundle, (Configuration("identity", tile=2),), size=(40, 30)))


def test_a_bad_file_is_refused(bundle: str) -> None:
    with pytest.raises(InputError, match=r"empty\.dng"):
        run(Plan(bundle, TILES, files=(RAW_BAD / "empty.dng",)))


def test_a_soak_runs_for_its_time_and_tells_the_drift(
    bundle: str, no_process: list[Request]
) -> None:
    report = run(Plan(bundle, TILES[:1], size=(40, 30), soak_seconds=0.3))
    (each,) = report.measured
    assert len(each.samples) > 10  # each takes a few milliseconds, even on a busy machine
    assert 0.15 < each.samples[-1].begin_s < 30
    assert (each.drift is None) == (len(each.samples) < 25)
    assert no_process


def test_a_soak_that_is_too_short_says_so(bundle: str, no_process: list[Request]) -> None:
    report = run(Plan(bundle, TILES[:1], size=(40, 30), soak_seconds=0.0))
    assert report.measured[0].drift is None
    assert any("too short to tell a drift" in warning for warning in report.warnings)
    assert no_process


def test_sensors_are_read_idle_and_at_work(
    bundle: str, no_process: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "IDLE_SECONDS", 0.5)
    monkeypatch.setattr(measure, "PERIOD", 0.01)
    sensors = Sensors(watts=(lambda: {"rail": 5.0},))
    report = run(
        Plan(bundle, (Configuration("identity"),), size=(2000, 1000), warmup=0, runs=3), sensors
    )
    assert report.readings[0].at_s < -0.45
    (energy,) = report.measured[0].energy
    assert (energy.watts, energy.idle_watts) == (5.0, 5.0)
    seconds = sum(sample.seconds for sample in report.measured[0].samples)
    assert energy.joules_per_mp == pytest.approx(5.0 * seconds / 6)
    assert no_process


def test_a_gpu_whose_power_nothing_tells(
    bundle: str, no_process: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "describe_machine", lambda: a_machine(gpu=ORIN))
    report = run(Plan(bundle, TILES[:1], size=(40, 30), runs=1))
    assert any("nvidia-ml-py" in warning for warning in report.warnings)
    assert no_process


class ClockedBackend(IdentityBackend):
    """One whose device says that a quarter of a tile's time went into copies each way."""

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        self.seconds = {"upload": 1e6, "compute": 2e6, "download": 1e6}
        return super().run(inputs)


def test_a_device_s_own_clock_splits_the_network_s_time() -> None:
    frame = FrameInMemory(
        synthetic_frame(64, 48, NOISE, np.random.default_rng(0)), NOISE, "a frame"
    )
    with Denoiser(a_bundle(), ClockedBackend()) as denoiser:
        steps = frame.run(denoiser, 16).steps
    assert "network" not in steps
    assert steps["upload"] == steps["download"] == steps["compute"] / 2 > 0
    assert sum(steps.values()) < 60  # shares of what it took here, not the device's own seconds


def test_a_batch_of_its_own(bundle: str, picture_bundle: str) -> None:
    for each in (bundle, picture_bundle):
        with load(each, Configuration("identity", batch=3)) as denoiser:
            assert denoiser.backend.batch == 3


def test_the_synthetic_frame_has_the_noise_that_it_says() -> None:
    frame = synthetic_frame(1024, 700, NOISE, np.random.default_rng(0))
    clean = synthetic_frame(1024, 700, NoiseModel.uniform(1e-12, 0.0), np.random.default_rng(0))
    signal = (clean.samples - 256.0) / (4095 - 256)
    residual = (frame.samples.astype(float) - clean.samples) / (4095 - 256)
    wanted = np.mean(NOISE.mean_shot * signal + NOISE.mean_read)
    # Of 7e5 samples a variance errs by 0.2 %; rounding both adds 0.06 %.
    assert np.mean(residual**2) == pytest.approx(wanted, rel=0.01)
    again = synthetic_frame(1024, 700, NOISE, np.random.default_rng(0))
    assert np.array_equal(frame.samples, again.samples)


def test_the_synthetic_picture_has_noise_around_grey_waves() -> None:
    picture = synthetic_picture(300, 290, np.random.default_rng(0))  # more rows than one strip
    assert picture.shape == (290, 300, 3)
    # Between neighbours along a row the waves change by half a code at most.
    steps = np.diff(picture.astype(float), axis=1)
    assert np.std(steps) == pytest.approx(np.sqrt(2) * PICTURE_NOISE, rel=0.02)
    assert picture[:, :, 0].mean() == pytest.approx(picture[:, :, 2].mean(), abs=0.5)


def test_peak_memory_is_that_of_a_process_of_its_own() -> None:
    small, large = (
        peak_memory(Request("tiny", Configuration("identity"), (), size), limit_s=60).host_bytes
        for size in ((64, 64), (3000, 2000))
    )
    if small is None or large is None:
        pytest.skip("this system has no /proc")
    # A frame and its result are 24 MB; this process has more in memory than the small one.
    assert 15e6 < large - small < 60e6


def test_a_process_that_fails_or_takes_too_long(bundle: str) -> None:
    broken = Request(bundle, Configuration("onnxruntime"), (), (64, 64))
    with pytest.raises(BackendError, match="peak memory was not measured"):
        peak_memory(broken, limit_s=60)
    with pytest.raises(BackendError, match="timed out"):
        peak_memory(Request("tiny", Configuration("identity"), (), (64, 64)), limit_s=0.01)


def test_memory_at_its_highest_is_no_less_than_now() -> None:
    before = resident_bytes()
    for_a_while = mmap.mmap(-1, 50_000_000)  # from the system, not from what malloc has kept
    np.frombuffer(for_a_while, np.uint8).fill(1)
    for_a_while.close()
    now, highest = resident_bytes(), resident_bytes(highest=True)
    if before is None or now is None or highest is None:
        pytest.skip("this system has no /proc")
    assert 1 << 20 < now < before + 25e6
    assert highest > before + 45e6


def test_a_stranger_s_report_does_not_drive_the_terminal(tmp_path: Path) -> None:
    report = a_report([0.5] * 9)
    hostile = msgspec.structs.replace(
        report.measured[0].configuration, backend="\x1b[2Jonnx[red]runtime"
    )
    measured = msgspec.structs.replace(report.measured[0], configuration=hostile)
    path = saved(tmp_path / "a.json", msgspec.structs.replace(report, measured=(measured,)))
    shown = bench("compare", path, path).stdout
    assert "\\x1b[2Jonnx[red]runtime" in shown
    assert "\x1b" not in shown


def bench(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["bench", *map(str, arguments)])


def test_the_command_writes_what_it_is_asked_for(tmp_path: Path) -> None:
    files = {name: tmp_path / f"report.{name}" for name in ("json", "csv", "html")}
    options = [word for name, file in files.items() for word in (f"--{name}", str(file))]
    result = bench(
        "tiny", "--size", "160x120", "--backend", "identity,onnxruntime", "--runs", "2", *options
    )
    assert (result.exit_code, result.exception) == (0, None)
    assert "identity fp32 on cpu" in result.stdout
    assert "p99" in result.stdout
    report = json.loads(files["json"].read_text())
    assert [len(each["samples"]) for each in report["measured"]] == [2, 2]
    assert report["measured"][1]["peak_host_bytes"] > 10e6
    assert len(files["csv"].read_text().splitlines()) == 5
    assert files["html"].read_text().startswith("<!doctype html>")


def test_the_command_measures_a_model_of_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(synthetic_picture(40, 30, np.random.default_rng(0))).save(folder / "a.png")
    json_file = tmp_path / "report.json"
    options = ["--backend", "identity", "--runs", "2"]
    result = bench("srgb_tiny", *options, "--json", json_file, "--frames", folder)
    assert (result.exit_code, result.exception) == (0, None)
    assert "a.png (0.0012 MP), file to file" in result.stdout
    assert "decode" in result.stdout
    report = json.loads(json_file.read_text())
    assert report["measured"][0]["peak_host_bytes"] > 10e6
    raw = bench("srgb_tiny", "--backend", "identity", "--frames", RAW / "d750_black_delta.dng")
    assert raw.exit_code == 1
    assert raw.stderr.count("\n") == 1
    assert "a RAW file needs a model for RAW, such as edge" in raw.stderr


def test_the_command_checks_its_outputs_before_it_measures(tmp_path: Path) -> None:
    there = tmp_path / "report.json"
    there.write_text("mine")
    result = bench("tiny", "--runs", "1000000", "--json", there)
    assert result.exit_code == 1
    assert "already exists" in result.stderr
    assert there.read_text() == "mine"


@pytest.mark.parametrize(
    "words",
    [
        ["--size", "100"],
        ["--size", "999999x999999"],
        ["--soak", "inf"],
        ["--size", "0x10"],
        ["--tile", "16,x"],
        ["--precision", "fp32,fp4"],
        ["--memory", "much"],
        ["--soak", "0"],
    ],
)
def test_values_that_are_none(words: list[str]) -> None:
    assert bench("tiny", *words).exit_code == 2


def saved(path: Path, report: Report) -> Path:
    path.write_bytes(msgspec.json.encode(report))
    return path


def test_compare_exits_by_what_it_finds(tmp_path: Path) -> None:
    before = saved(tmp_path / "a.json", a_report([0.5] * 9))
    slower = saved(tmp_path / "b.json", a_report([0.6] * 9))
    elsewhere = saved(tmp_path / "c.json", a_report([0.5] * 9, machine=a_machine(cpu="Another")))
    same, worse, refused = (bench("compare", before, each) for each in (before, slower, elsewhere))
    assert (same.exit_code, worse.exit_code, refused.exit_code) == (0, 1, 1)
    assert "REGRESSION" not in same.stdout
    assert "REGRESSION" in worse.stdout
    assert "different CPUs" in refused.stderr
    listed = bench("compare", before, slower, "--json")
    assert json.loads(listed.stdout)[0]["ratio"] == pytest.approx(1.2)
    assert bench("compare", before, slower, "--threshold", "0.3").exit_code == 0
