from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks import burst, quality, seams
from benchmarks.classical import denoise_nlm, inverse_anscombe, stabilised
from benchmarks.corpus import Examiner, examine
from benchmarks.corpus_truth import CorpusFile, Fault, corpus_files, reading_faults
from benchmarks.peers import Pmrid, k_sigma
from benchmarks.report import table
from cycleisp.evaluation.metrics import psnr
from cycleisp.noise import LEVELS, noisy_samples
from cycleisp_runtime.backends import Backend
from cycleisp_runtime.backends.identity import IdentityBackend
from cycleisp_runtime.bayer import Phase
from cycleisp_runtime.bundle import Bundle
from cycleisp_runtime.denoiser import Denoiser
from cycleisp_runtime.frame import Area, RawFrame
from cycleisp_runtime.noise import NoiseModel
from cycleisp_runtime.readers import read_frame
from tests.helpers import RAW, RAW_BAD, a_bundle, write_pooling_bundle
from tests.networks import GATES, pooling_networks

Planes = npt.NDArray[np.float32]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("signal", [0.02, 0.1, 0.5, 0.9])
def test_stabilised_noise_has_variance_one(level: str, signal: float) -> None:
    shot, read = LEVELS[level]
    noisy = _poisson(signal, shot, read)
    # 1.7 electrons, the fewest here, still leave a few per cent; 40,000 draws leave 1 %.
    assert stabilised(noisy, shot, read).var() == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("signal", [0.02, 0.1, 0.5, 0.9])
def test_the_inverse_gives_the_mean_back(level: str, signal: float) -> None:
    shot, read = LEVELS[level]
    noisy = _poisson(signal, shot, read)
    mean = stabilised(noisy, shot, read).mean(dtype=np.float64)
    # The algebraic inverse would be shot / 4 too low: 15 % of the darkest signal here.
    deviation = np.sqrt((shot * signal + read) / noisy.size)
    back = float(inverse_anscombe(np.array([mean], np.float32), shot, read)[0])
    assert back == pytest.approx(signal, abs=4 * deviation + 0.02 * shot)


def test_the_inverse_of_anything_dark_is_black() -> None:
    means = np.array([0, 1e-6, 0.5, 1.2], np.float32)
    np.testing.assert_array_equal(inverse_anscombe(means, *LEVELS["high"]), 0)


def test_the_baseline_takes_off_noise_and_keeps_an_edge() -> None:
    pytest.importorskip("skimage", reason="the classical baseline is scikit-image's")
    shot, read = LEVELS["middle"]
    clean = np.full((4, 48, 48), 0.1, np.float32)
    clean[:, :, 24:] = 0.6
    noisy = noisy_samples(clean, shot, read, np.random.default_rng(0))
    denoised = denoise_nlm(noisy, shot, read)
    assert psnr(denoised, clean) > psnr(noisy, clean) + 10
    assert np.abs(denoised - clean)[:, :, 22:26].mean() < 0.01


def test_k_sigma_gives_any_noise_the_variance_of_the_anchor() -> None:
    # The anchor as the authors' numbers give it at ISO 1600, in DN of a white of 959.
    anchor_shot, anchor_read = 0.96793, 2.97945
    shot, read = LEVELS["high"]
    gain, offset = k_sigma(shot, read)
    for signal in (0.0, 0.3, 0.8):
        moved = (gain * signal + offset) / 256 * 959
        variance = gain**2 * (shot * signal + read) / 256**2 * 959**2
        assert variance == pytest.approx(anchor_shot * moved + anchor_read, rel=1e-4)


def test_pmrid_gives_the_input_back_when_its_network_does(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the network of this test is made with onnx")
    sides = [1, 4, "h", "w"]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sides)
        for name in ("input", "output")
    ]
    node = onnx.helper.make_node("Identity", ["input"], ["output"])
    graph = onnx.helper.make_graph([node], "identity", ends[:1], ends[1:])
    opset = onnx.helper.make_opsetid("", 17)
    network = onnx.helper.make_model(graph, ir_version=8, opset_imports=[opset])
    (tmp_path / "identity.onnx").write_bytes(network.SerializeToString())

    noisy = np.random.default_rng(0).random((4, 21, 34), np.float32)
    denoised = Pmrid(tmp_path / "identity.onnx", 1).denoise(noisy, *LEVELS["low"])
    # To the network and back is a product with numbers near 1000 and a sum with ones near 10.
    np.testing.assert_allclose(denoised, noisy, atol=1e-5)


def test_gains_are_by_picture_and_group() -> None:
    values = {
        "noisy": {"kodim01": 30.0, "mcm01": 31.0},
        "tiny": {"kodim01": 33.0, "mcm01": 30.5},
    }
    assert quality.gains(values, "tiny") == {"kodim01": 3.0, "mcm01": -0.5}
    assert quality.gains(values, "tiny", group="mcm") == {"mcm01": -0.5}


def test_a_model_that_harms_or_loses_is_named() -> None:
    good = {"noisy": {"a": 30.0}, "NLM": {"a": 33.0}, "PMRID": {"a": 29.0}}
    values = good | {"tiny": {"a": 29.5}, "edge": {"a": 34.0}}
    assert quality.failed_claims({"low": values}) == [
        "tiny is not better than noisy at low noise",
        "tiny is not better than NLM at low noise",
        "tiny makes a worse at low noise",
    ]


def test_a_burst_is_compared_with_its_truth() -> None:
    truth = np.full((4, 6), 100.0)
    samples = np.full((4, 6), 101, np.uint16)
    frame = RawFrame(samples, Phase.BGGR, (60.0,) * 4, 1023.0, Area(0, 0, 4, 6))
    off = truth + 1
    off[0::2, 1::2] += 2
    result = burst.compare(burst.Burst([frame], truth), [off], "m", "true", "kept")
    assert result.mean_error_dn == pytest.approx(1.5)
    assert result.worst_plane_dn == pytest.approx(3)
    assert result.psnr_db == pytest.approx([20 * np.log10(963) - 10 * np.log10(3)])


class _LevelOfTile(Backend):
    """A network that looks at its whole tile, so that no halo is enough."""

    name = "level"
    precision = "fp32"

    def run(self, inputs: Mapping[str, Planes]) -> Planes:
        noisy = inputs["noisy"]
        shifted: Planes = noisy * (1 - np.float32(0.02) * noisy.mean())
        return shifted


def test_seams_are_found_where_there_are_any() -> None:
    frame, noise = seams.synthetic_frame(301, 299), NoiseModel.uniform(*LEVELS["middle"])
    alike = seams.NetworkAlone(a_bundle(), IdentityBackend())
    (found,) = seams.measure("synthetic", frame, noise, alike)
    assert (found.psnr_db, found.stated_db) == (np.inf, None)
    level = seams.NetworkAlone(a_bundle(), _LevelOfTile())
    (seen,) = seams.measure("synthetic", frame, noise, level)
    assert seen.psnr_db < seams.LEAST_DB
    assert seen.differing > 0.5


def test_seams_of_a_network_that_pools_are_told_for_both_of_its_modes(tmp_path: Path) -> None:
    network, statistics = (model.SerializeToString() for model in pooling_networks(4))
    folder = write_pooling_bundle(tmp_path / "net.bundle", network, statistics, gates=GATES)
    frame, noise = seams.synthetic_frame(301, 299), NoiseModel.uniform(*LEVELS["middle"])
    fast, exact = seams.measure("s", frame, noise, seams.NetworkAlone(Bundle.load(folder)))
    assert (fast.mode, exact.mode) == ("fast", "exact")
    assert (fast.stated_db, exact.stated_db) == (60.0, None)
    assert fast.psnr_db < seams.LEAST_DB < exact.psnr_db


def _expected(folder: Path, **changes: object) -> CorpusFile:
    """A corpus of one good file; its facts are those that LibRaw shows."""
    frame = read_frame(RAW / "d750_orient3_u16_be.dng")
    shown = {
        "top_margin": 0,
        "left_margin": 0,
        "height": 192,
        "width": 256,
        "flip": 3,
        "cfa_visible": "RGGB",
        "black_rgbg": [600, 600, 600, 600],
        "white": 15520,
        "camera_whitebalance": [1.949219, 1.0, 1.34375, 0.0],
        "raw_sha256_le16": "bee58ec88fd56d07162622612d237990cea8b8ea70a7954d51fc6c8402d8820a",
    }
    assert frame.source is not None
    (folder / frame.source.name).write_bytes(frame.source.read_bytes())
    facts = {frame.source.name: {"libraw": shown | changes}}
    (folder / "expected.json").write_text(json.dumps(facts), encoding="utf-8")
    (file,) = corpus_files(folder)
    return file


def test_a_good_file_has_no_faults_on_any_road(tmp_path: Path) -> None:
    denoiser = Denoiser(a_bundle(), IdentityBackend())
    finding = examine(_expected(tmp_path), denoiser, tmp_path, identity=True)
    assert finding.faults == []
    assert set(finding.changed_tags) == {"IFD0.StripOffsets"}


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("cfa_visible", "GRBG"),
        ("white", 16383),
        ("black_rgbg", [600, 600, 600, 608]),
        ("width", 254),
        ("flip", 6),
        ("raw_sha256_le16", "0" * 64),
    ],
)
def test_a_wrong_fact_is_a_silent_guess_until_a_warning_admits_it(
    tmp_path: Path, fact: str, value: object
) -> None:
    file = _expected(tmp_path, **{fact: value})
    frame = read_frame(file.path)
    assert [fault.kind for fault in reading_faults(frame, file)] == ["silent guess"]
    if fact == "white":
        warned = dataclasses.replace(frame, warnings=("white 15520 is a guess",))
        assert list(reading_faults(warned, file)) == []


def test_a_bad_file_that_is_handled_is_a_fault(tmp_path: Path) -> None:
    path = RAW / "d750_orient3_u16_be.dng"
    refusable = CorpusFile(path, None, "refused", must_warn=False, seconds=60, truth=None)
    denoiser = Denoiser(a_bundle(), IdentityBackend())
    finding = examine(refusable, denoiser, tmp_path, identity=False)
    assert finding.faults == [Fault("wrong outcome", "handled, but must be refused")]


def test_a_process_that_dies_is_a_crash_and_the_next_file_is_examined() -> None:
    file = CorpusFile(
        RAW_BAD / "empty.dng", None, "refused", must_warn=False, seconds=60, truth=None
    )
    examiner = Examiner("edge", identity=False)
    try:
        examiner.process.kill()
        assert [fault.kind for fault in examiner(file).faults] == ["crash"]
        assert examiner(file).faults == []
    finally:
        examiner.close()


def test_a_table_aligns_numbers_right_and_words_left() -> None:
    shown = table(["name", " word", "dB"], [["a", "xy", "1.0"], ["long", "z", "-12.5"]])
    assert shown.splitlines() == [
        "name  word     dB",
        "a     xy      1.0",
        "long  z     -12.5",
    ]


def _poisson(signal: float, shot: float, read: float) -> Planes:
    clean = np.full(40_000, signal, np.float32)
    return noisy_samples(clean, shot, read, np.random.default_rng(0), poisson=True)
