"""The report of a bundle's precisions: true figures, and a page that one can look at offline."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from click.testing import CliRunner
from PIL import Image

from cycleisp.models import create_model
from cycleisp.models.edge import EdgeDenoiser
from cycleisp.noise import LEVELS
from cycleisp_export.exportable import Exportable, exportable
from cycleisp_export.graph import NumberTypes
from cycleisp_export.loss import JudgedTiles
from cycleisp_export.report import Crop, Report, measure_report
from cycleisp_export.report_page import report_page
from cycleisp_export.verify import OnnxGraph
from cycleisp_runtime.bundle import Bundle, BundleRecord, ModelFile, Precision, Reduction
from cycleisp_runtime.cli import main
from tests.export.browser import chromium
from tests.helpers import ROOT, a_record

Tiles = list[npt.NDArray[np.float32]]
Protos = dict[Precision, onnx.ModelProto]

STEPS = {"head": 0.1, "group0.block1.conv0": 0.05, "tail": 0.15}
KEPT = {"group1.conv": "fp16: alone in INT8 it loses <b>0.3 dB</b>"}


@pytest.fixture(name="network", scope="module")
def the_shipped_network(trained: EdgeDenoiser) -> Exportable:
    return exportable(trained)


@pytest.fixture(name="protos", scope="module")
def graphs_of_it(network: Exportable) -> Protos:
    return {
        "fp32": network.graph({}),
        "fp16": network.graph({}, NumberTypes(half=True)),
        "int8": network.graph({}, NumberTypes(half=True, steps=STEPS)),
    }


def record_of(protos: Protos, task: str = "raw") -> BundleRecord:
    return a_record(
        task=task, precisions={name: _listed(name, proto) for name, proto in protos.items()}
    )


def _listed(name: Precision, proto: onnx.ModelProto) -> ModelFile:
    network = proto.SerializeToString(deterministic=True)
    lost = Reduction(photographs=3, loss_db={}, worst_loss_db={}, kept=KEPT)
    return ModelFile(
        file=f"{name}.onnx",
        sha256=hashlib.sha256(network).hexdigest(),
        bytes=len(network),
        opset=17,
        runs_on=("onnxruntime",),
        reduction=lost if name == "int8" else None,
    )


@pytest.fixture(name="measured", scope="module")
def the_report(network: Exportable, protos: Protos, clean: Tiles) -> tuple[Report, list[Crop]]:
    return measure_report(record_of(protos), protos, judged(network, protos, clean))


def judged(network: Exportable, protos: Protos, clean: Tiles) -> JudgedTiles:
    return JudgedTiles(network, clean, OnnxGraph(protos["fp32"]))


def test_losses_are_those_that_the_bundle_states(
    measured: tuple[Report, list[Crop]], network: Exportable, protos: Protos, clean: Tiles
) -> None:
    report, _ = measured
    exact = OnnxGraph(protos["fp32"])
    losses, _ = JudgedTiles(network, clean, exact).losses(OnnxGraph(protos["int8"]))
    for level in LEVELS:
        found = [report.precisions[name].quality[level].clean.psnr_db for name in ("fp32", "int8")]
        assert found[0] - found[1] == pytest.approx(losses[level], abs=2e-3)  # type: ignore[operator]  # both rounded


def test_figures_are_ordered_as_the_precisions_are(measured: tuple[Report, list[Crop]]) -> None:
    report, _ = measured
    assert list(report.precisions) == ["fp32", "fp16", "int8"]
    for level in LEVELS:
        noisy, exact, half, int8 = (
            report.noisy[level],
            *(report.precisions[name].quality[level] for name in report.precisions),
        )
        assert exact.fp32.psnr_db is None
        assert exact.fp32.ssim == 1
        for better, worse in ((half, int8), (int8, noisy)):
            assert better.fp32.psnr_db > worse.fp32.psnr_db + 6  # type: ignore[operator]
            assert better.fp32.ssim >= worse.fp32.ssim
            assert better.clean.ssim >= worse.clean.ssim - 1e-4


def test_layers_are_told_with_type_and_reason(measured: tuple[Report, list[Crop]]) -> None:
    int8 = measured[0].precisions["int8"]
    assert [layer.name for layer in int8.layers if layer.type == "int8"] == list(STEPS)
    assert int8.kept == KEPT
    half = {layer.name: layer.snr_db for layer in measured[0].precisions["fp16"].layers}
    for layer in int8.layers:
        if layer.type == "int8":
            assert layer.snr_db < half[layer.name] - 10  # type: ignore[operator]


def test_equal_networks_make_equal_reports(
    measured: tuple[Report, list[Crop]], network: Exportable, protos: Protos, clean: Tiles
) -> None:
    again = measure_report(record_of(protos), protos, judged(network, protos, clean))
    assert msgspec.json.encode(again[0]) == msgspec.json.encode(measured[0])
    assert report_page(*again) == report_page(*measured)


def test_crops_show_the_same_place_at_every_precision(
    measured: tuple[Report, list[Crop]],
) -> None:
    _, crops = measured
    assert [(crop.picture, crop.level) for crop in crops] == [
        (picture, level) for level in LEVELS for picture in (1, 2)
    ]
    for crop in crops:
        assert list(crop.views) == ["noisy", "fp32", "fp16", "int8", "clean"]
        views = {
            name: np.asarray(Image.open(io.BytesIO(view)), np.float32)
            for name, view in crop.views.items()
        }
        assert {view.shape for view in views.values()} == {(64, 64, 3)}
        apart = {name: np.abs(view - views["fp32"]).mean() for name, view in views.items()}
        assert apart["fp16"] < min(apart["clean"], apart["noisy"])


def test_the_report_of_an_srgb_network() -> None:
    network = exportable(create_model("srgb_denoiser", "tiny").eval())
    protos: Protos = {
        "fp32": network.graph({}),
        "fp16": network.graph({}, NumberTypes(half=True)),
    }
    clean = [np.random.default_rng(0).uniform(0, 1, (3, 32, 32)).astype(np.float32)]
    report, crops = measure_report(
        record_of(protos, "srgb"), protos, judged(network, protos, clean)
    )
    assert report.task == "srgb"
    fp32 = report.precisions["fp16"].quality["low"].fp32
    assert fp32.psnr_db is not None
    assert fp32.psnr_db > 50
    shown = np.asarray(Image.open(io.BytesIO(crops[0].views["clean"])), np.float32)
    # JPEG of white noise, the hardest there is for it.
    assert np.abs(shown - 255 * clean[0].transpose(1, 2, 0)).mean() < 8


def test_an_exported_bundle_holds_the_report(tmp_path: Path) -> None:
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for path in sorted((ROOT / "examples" / "photographs").glob("*.jpg"))[:4]:
        with Image.open(path) as picture:
            picture.reduce(2).crop((0, 0, 128, 128)).save(photographs / f"{path.stem}.png")
    options = ["--precision", "fp16", "--photographs", str(photographs), "--data", "d"]
    folder = tmp_path / "night.bundle"
    run = ["export", str(ROOT / "zoo" / "runs" / "tiny"), "-o", str(folder)]
    done = CliRunner().invoke(main, [*run, *options, "--data-license", "CC0-1.0"])
    assert done.exit_code == 0, done.output

    record = Bundle.load(folder).record
    assert [listed.file for listed in record.documents] == ["card.md", "report.json", "report.html"]
    report = msgspec.json.decode((folder / "report.json").read_bytes(), type=Report)
    assert report.model == "night"
    reduction = record.precisions["fp16"].reduction
    assert reduction is not None
    assert report.photographs == reduction.photographs == 2
    for level, loss in reduction.loss_db.items():
        exact, half = (
            report.precisions[name].quality[level].clean.psnr_db for name in ("fp32", "fp16")
        )
        assert exact - half == pytest.approx(loss, abs=2e-3)  # type: ignore[operator]  # rounded
    assert "<title>night: what each precision costs</title>" in (folder / "report.html").read_text(
        "utf-8"
    )


def test_the_page_is_one_small_file_and_escapes_what_it_shows(
    measured: tuple[Report, list[Crop]],
) -> None:
    page = report_page(*measured)
    assert len(page) < 1_500_000
    assert "&lt;b&gt;0.3 dB&lt;/b&gt;" in page
    assert "<b>" not in page
    outside = set(re.findall(r"(?:src|href)=[\"']?([a-z]+:)", page))
    assert outside == {"data:"}
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}


def test_the_slider_moves_in_a_browser_without_a_network(
    measured: tuple[Report, list[Crop]], tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    page.write_text(report_page(*measured), "utf-8")
    with chromium(tmp_path / "profile") as browser:
        browser.open(page)
        clip = "getComputedStyle(document.querySelector('.viewer figure img + img')).clipPath"
        assert browser.value(clip) == "inset(0px 50% 0px 0px)"
        slider = "document.querySelector('.viewer input')"
        browser.value(f"{slider}.scrollIntoView({{block: 'end'}})")
        left, middle, width = browser.value(
            f"(box => [box.left, (box.top + box.bottom) / 2, box.width])"
            f"({slider}.getBoundingClientRect())"
        )
        before = browser.screenshot()
        browser.drag((left + width / 2, middle), (left + width / 4, middle))
        share = float(browser.value(f"{slider}.value"))
        assert share == pytest.approx(25, abs=2)  # the thumb is wider than a step
        assert browser.value(clip) == f"inset(0px {100 - share:g}% 0px 0px)"
        assert browser.screenshot() != before

        shown = "document.querySelector('.viewer figure img').src"
        wanted = "document.querySelector('#crops [data-level=low][data-view=fp32]').src"
        browser.value(
            "for (const [place, value] of [[0, '1'], [1, 'low'], [3, 'fp32']]) {"
            "  const choice = document.querySelectorAll('.viewer select')[place];"
            "  choice.value = value; choice.dispatchEvent(new Event('change')); }"
        )
        assert browser.value(shown) == browser.value(wanted)
        assert browser.value("document.querySelector('.viewer figure img').naturalWidth") == 64
        assert browser.complaints == []
        assert {address.split(":")[0] for address in browser.requests} == {"file", "data"}


def test_the_browser_would_notice_a_script_that_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<script>nothing.at.all()</script><img src='http://example.com/a.png'>")
    with chromium(tmp_path / "profile") as browser:
        browser.open(page)
        assert any("ReferenceError" in each for each in browser.complaints)
        assert any("ERR_NAME_NOT_RESOLVED" in each for each in browser.complaints)
        assert "http://example.com/a.png" in browser.requests
