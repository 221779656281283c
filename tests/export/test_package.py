"""From a trained denoiser to a bundle: what is written, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
import yaml
from click.testing import CliRunner

from cycleisp.models import create_model
from cycleisp.models.edge import EdgeDenoiser
from cycleisp.models.storage import save_network
from cycleisp.noise import LEVELS, variance_map
from cycleisp.training.settings import settings_as_yaml
from cycleisp.training.srgb_denoiser import SrgbDenoiserSettings
from cycleisp_export import package
from cycleisp_export.exportable import Exportable
from cycleisp_export.graph import TENSORS
from cycleisp_export.package import Exported, Origin, export_model
from cycleisp_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cycleisp_runtime.bundle import Bundle, Halo, NoiseRange
from cycleisp_runtime.cli import main
from cycleisp_runtime.errors import (
    BackendError,
    CycleISPError,
    InputError,
    OutputError,
    SettingsError,
)
from tests.helpers import ROOT


def export(
    source: Path,
    output: Path,
    *,
    data: str = "78 photographs",
    license_name: str | None = None,
    quality: Path | None = None,
    photographs: Path | None = None,
    force: bool = False,
) -> Exported:
    origin = Origin(data, "CC0-1.0", license_name)
    return export_model(
        source, output, origin=origin, quality=quality, photographs=photographs, force=force
    )


@pytest.fixture(name="quick_halo")
def halo_without_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that are not about tiles, whose measurements take seconds."""
    monkeypatch.setattr(package, "measured_halo", lambda *_arguments: Halo(2, 4, 28))
    monkeypatch.setattr(package, "gates_agreement", lambda *_arguments: 60.0)


def test_a_run_becomes_a_bundle(
    finished_run: Path, tmp_path: Path, network: Callable[[str], EdgeDenoiser]
) -> None:
    folder = tmp_path / "night.bundle"
    exported = export(finished_run, folder)
    assert {path.name for path in folder.iterdir()} == {"bundle.json", "card.md", "fp32.onnx"}
    assert {path.name for path in tmp_path.iterdir()} == {"night.bundle", "run"}

    bundle = Bundle.load(folder)
    record = bundle.record
    assert record == exported.bundle.record
    assert (record.name, record.task, record.channels) == ("night", "raw", 4)
    assert (record.parameters, record.kmac_per_sample) == (106_352, 6.62)
    assert record.halo.exact == network("tiny").halo
    assert record.noise_range == NoiseRange(shot_min=2e-5, shot_max=2e-2)
    assert (record.provenance.steps, record.provenance.hours) == (60_000, 1.5)
    weights = (finished_run / "raw_denoiser.safetensors").read_bytes()
    assert record.provenance.weights_sha256 == hashlib.sha256(weights).hexdigest()
    assert [(row.level, row.shot) for row in record.quality] == [
        (level, shot) for level, (shot, _) in LEVELS.items()
    ]
    assert record.quality[-1].denoised_db - record.quality[-1].noisy_db == 5.5
    assert exported.parity.absolute < 1e-5


@pytest.mark.usefixtures("quick_halo")
def test_the_runtime_computes_what_torch_computes(
    finished_run: Path, tmp_path: Path, network: Callable[[str], EdgeDenoiser]
) -> None:
    bundle = export(finished_run, tmp_path / "night.bundle").bundle
    noisy = np.random.default_rng(0).normal(0.2, 0.1, (1, 4, 24, 36)).astype(np.float32)
    variance = variance_map(noisy, *LEVELS["high"])
    scale = float(np.sqrt(variance.mean()))
    with torch.inference_mode():
        expected = network("tiny")(
            torch.from_numpy(noisy), torch.from_numpy(variance), torch.tensor(scale)
        ).numpy()
    with OnnxRuntimeBackend(bundle, threads=1) as backend:
        np.testing.assert_allclose(
            backend.run(TENSORS.fill(noisy, variance, scale)), expected, atol=1e-5
        )


@pytest.mark.usefixtures("quick_halo")
def test_the_card_tells_people_what_the_record_tells_programs(
    finished_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "night.bundle"
    export(finished_run, folder, data="photographs of owls")
    card = (folder / "card.md").read_text("utf-8")
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "apache-2.0"
    assert "photographs of owls. Licence: CC0-1.0" in card
    assert "60000 steps in 1.5 hours on 2 CPU threads" in card
    assert "| high | 0.012 | 40.00 | 45.50 | +5.50 |" in card
    recipe = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert recipe["steps"] == 60_000
    assert not {"photographs", "output"} & recipe.keys()
    assert str(finished_run) not in card


@pytest.mark.usefixtures("quick_halo")
def test_equal_runs_make_equal_bundles(finished_run: Path, tmp_path: Path) -> None:
    first = export(finished_run, tmp_path / "night.bundle").bundle.sha256
    (tmp_path / "elsewhere").mkdir()
    assert export(finished_run, tmp_path / "elsewhere" / "night.bundle").bundle.sha256 == first


@pytest.mark.usefixtures("quick_halo")
def test_a_run_copied_later_makes_the_same_bundle(finished_run: Path, tmp_path: Path) -> None:
    (finished_run / "provenance.json").write_text('{"ended": "2026-05-31"}', "utf-8")
    hashes = set()
    for day in (1, 2):
        for path in finished_run.iterdir():
            os.utime(path, (day * 86_400, day * 86_400))
        bundle = export(finished_run, tmp_path / "night.bundle", force=True).bundle
        hashes.add(bundle.sha256)
    assert len(hashes) == 1
    assert bundle.record.provenance.date == "2026-05-31"
    assert "ended 2026-05-31" in (bundle.folder / "card.md").read_text("utf-8")

    # Runs of versions that did not write the day.
    (finished_run / "provenance.json").write_text("{}", "utf-8")
    bundle = export(finished_run, tmp_path / "night.bundle", force=True).bundle
    assert bundle.record.provenance.date == "1970-01-03"


def test_provenance_that_cannot_be_read_is_refused(finished_run: Path, tmp_path: Path) -> None:
    (finished_run / "provenance.json").write_text('{"ended": "yesterday"}', "utf-8")
    with pytest.raises(InputError, match=r"provenance\.json: not what cycleisp writes"):
        export(finished_run, tmp_path / "night.bundle")


@pytest.mark.usefixtures("quick_halo")
def test_a_bundle_is_replaced_only_by_force(finished_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "night.bundle"
    before = export(finished_run, folder).bundle.sha256
    (folder / "notes.txt").write_text("of the old one", encoding="utf-8")
    with pytest.raises(OutputError, match=r"the bundle exists; give --force"):
        export(finished_run, folder)
    assert Bundle.load(folder).sha256 == before
    export(finished_run, folder, data="other photographs", force=True)
    assert Bundle.load(folder).record.provenance.data == "other photographs"
    assert not (folder / "notes.txt").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"night.bundle", "run"}


@pytest.mark.parametrize(
    ("name", "data", "error", "problem"),
    [
        ("night", "d", SettingsError, "a bundle's name ends in .bundle"),
        ("night.zip", "d", SettingsError, "a bundle's name ends in .bundle"),
        ("my night.bundle", "d", SettingsError, r"this makes no valid bundle .*\$\.name"),
        ("night.bundle", "", SettingsError, r"this makes no valid bundle .*\.data"),
        ("absent/night.bundle", "d", OutputError, "night.bundle: cannot be written"),
    ],
)
@pytest.mark.usefixtures("quick_halo")
def test_an_unusable_name_is_refused(
    finished_run: Path,
    tmp_path: Path,
    name: str,
    data: str,
    error: type[CycleISPError],
    problem: str,
) -> None:
    with pytest.raises(error, match=problem):
        export(finished_run, tmp_path / name, data=data)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("missing", ["raw_denoiser.safetensors", "settings.yaml", "log.jsonl"])
def test_an_unfinished_run_is_refused(finished_run: Path, tmp_path: Path, missing: str) -> None:
    (finished_run / missing).unlink()
    with pytest.raises((InputError, SettingsError), match=missing):
        export(finished_run, tmp_path / "night.bundle")


@pytest.mark.parametrize("log", ["", "{", '{"step": 3}', '{"step": "many"}', "[]"])
def test_a_run_without_validation_is_refused(finished_run: Path, tmp_path: Path, log: str) -> None:
    (finished_run / "log.jsonl").write_text(log, encoding="utf-8")
    with pytest.raises(InputError, match=r"log.jsonl: the run has no validation on record"):
        export(finished_run, tmp_path / "night.bundle")


def test_other_networks_are_refused(tmp_path: Path) -> None:
    weights = tmp_path / "raw2rgb.safetensors"
    save_network(weights, create_model("raw2rgb", "small"), "raw2rgb", "small")
    with pytest.raises(InputError, match=r"only denoisers .*met raw2rgb, wanted raw_denoiser or"):
        export(weights, tmp_path / "night.bundle")


@pytest.mark.parametrize("names", [(), ("raw_denoiser", "srgb_denoiser")])
def test_a_folder_without_one_denoiser_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in names:
        save_network(run / f"{name}.safetensors", create_model(name, "small"), name, "small")
    with pytest.raises(InputError, match="run: not a finished run of one denoiser"):
        export(run, tmp_path / "night.bundle")


def test_weights_of_another_size_are_refused(finished_run: Path, tmp_path: Path) -> None:
    weights = finished_run / "raw_denoiser.safetensors"
    save_network(weights, create_model("raw_denoiser", "edge"), "raw_denoiser", "tiny")
    with pytest.raises(InputError, match="its description is damaged"):
        export(finished_run, tmp_path / "night.bundle")


def test_nothing_is_written_where_a_check_fails(
    finished_run: Path, tmp_path: Path, network: Callable[[str], EdgeDenoiser]
) -> None:
    model = network("tiny")
    with torch.no_grad():
        model.tail.get_parameter("bias")[0] = torch.nan
    save_network(finished_run / "raw_denoiser.safetensors", model, "raw_denoiser", "tiny")
    with pytest.raises(BackendError):
        export(finished_run, tmp_path / "night.bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.fixture(name="benchmark")
def what_the_benchmark_writes(finished_run: Path, tmp_path: Path) -> Path:
    """Figures of two pictures for a model named night."""
    weights = (finished_run / "raw_denoiser.safetensors").read_bytes()
    figures = {
        "processor": "any",
        "weights": {"night": hashlib.sha256(weights).hexdigest(), "tiny": "0" * 64},
        "noise": {level: {"shot": shot, "read": read} for level, (shot, read) in LEVELS.items()},
        "psnr_db": {
            level: {
                "noisy": {"owl": 30.0, "oak": 32.0},
                "NLM": {"owl": 33.0, "oak": 34.0},
                "PMRID": {"owl": 33.5, "oak": 34.0},
                "night": {"owl": 35.0, "oak": 36.5},
                "night, network alone": {"owl": 36.0, "oak": 37.0},
            }
            for level in LEVELS
        },
    }
    path = tmp_path / "quality.json"
    path.write_text(json.dumps(figures), encoding="utf-8")
    return path


@pytest.mark.usefixtures("quick_halo")
def test_figures_of_the_benchmark_stand_in_record_and_card(
    finished_run: Path, tmp_path: Path, benchmark: Path
) -> None:
    folder = tmp_path / "night.bundle"
    record = export(finished_run, folder, quality=benchmark).bundle.record
    assert [row.level for row in record.quality] == list(LEVELS)
    for row in record.quality:
        assert (row.noisy_db, row.denoised_db) == (31.0, 36.5)
        assert row.baselines_db == {"vst-nlm": 33.5}
    card = (folder / "card.md").read_text("utf-8")
    assert "| level | shot | noisy | vst-nlm | night | gain |" in card
    assert "| low | 0.0001 | 31.00 | 33.50 | 36.50 | +5.50 |" in card
    assert "vst-nlm, the classical baseline: non-local means" in card


Figures = dict[str, dict[str, dict[str, object]]]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda figures: figures.pop("noise"), "not the figures that benchmarks/quality.py"),
        (lambda figures: figures.update(psnr_db={"low": {"noisy": 3}}), "not the figures"),
        (
            lambda figures: figures["weights"].pop("night"),
            "not of these weights of night .*no such",
        ),
        (
            lambda figures: figures["weights"].update(night="1" * 64),
            "not of these weights of night",
        ),
        (lambda figures: figures["psnr_db"].pop("high"), r"figures are missing \(met high noise"),
        (lambda figures: figures["psnr_db"]["low"].pop("NLM"), "figures are missing"),
        (
            lambda figures: figures["psnr_db"]["low"].pop("night, network alone"),
            "figures are missing",
        ),
        (lambda figures: figures["noise"]["low"].update(shot=2e-4), "figures are of other noise"),
    ],
)
def test_figures_of_something_else_are_refused(
    finished_run: Path,
    tmp_path: Path,
    benchmark: Path,
    change: Callable[[Figures], object],
    problem: str,
) -> None:
    figures = json.loads(benchmark.read_text("utf-8"))
    change(figures)
    benchmark.write_text(json.dumps(figures), encoding="utf-8")
    with pytest.raises(InputError, match=rf"quality.json: .*{problem}"):
        export(finished_run, tmp_path / "night.bundle", quality=benchmark)


@pytest.mark.parametrize("content", [None, b"", b"[", b"\xff"])
def test_an_unreadable_benchmark_is_refused(
    finished_run: Path, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "quality.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"quality.json: "):
        export(finished_run, tmp_path / "night.bundle", quality=path)


@pytest.mark.usefixtures("quick_halo")
def test_the_command_exports(finished_run: Path, tmp_path: Path, benchmark: Path) -> None:
    folder = tmp_path / "night.bundle"
    given = ["export", str(finished_run), "-o", str(folder), "--data", "d"]
    done = CliRunner().invoke(
        main, [*given, "--data-license", "CC0-1.0", "--quality", str(benchmark)]
    )
    assert (done.exit_code, done.stderr) == (0, "")
    first, *others = done.stdout.splitlines()
    assert first == f"{folder}: 106352 parameters, 6.62 kMAC per sample"
    assert others[1] == "halo: 2 for 90 dB, 4 for 120 dB, 28 exact"
    assert (
        msgspec.json.decode((folder / "bundle.json").read_bytes())["quality"][0]["denoised_db"]
        == 36.5
    )

    refused = CliRunner().invoke(main, [*given, "--data-license", "CC0-1.0"])
    assert refused.exit_code == 1
    assert refused.stderr == (
        f"cycleisp: error: {folder}: the bundle exists; give --force to replace it\n"
    )


ZOO = ROOT / "zoo" / "runs" / "small"
PHOTOGRAPHS = ROOT / "examples" / "photographs"


@pytest.mark.parametrize("name", ["raw_denoiser", "srgb_denoiser"])
@pytest.mark.usefixtures("few_photographs")
def test_weights_alone_become_a_bundle_whose_quality_is_measured(name: str, tmp_path: Path) -> None:
    weights = ZOO / f"{name}.safetensors"
    folders = [tmp_path / again / "attentive.bundle" for again in ("a", "b")]
    for folder in folders:
        folder.parent.mkdir()
        export(weights, folder, photographs=PHOTOGRAPHS)
    record = Bundle.load(folders[0]).record
    raw = name == "raw_denoiser"
    assert (record.task, record.channels, record.multiple_of) == (
        ("raw", 4, 1) if raw else ("srgb", 3, 1)
    )
    assert record.pooling is not None
    assert (record.pooling.gates, record.pooling.decimation) == (48, 4)
    assert record.pooling.agreement_db > 40
    assert record.tensors.noise_scale is None
    assert record.halo.exact is None
    assert (record.variance is not None, record.noise_range is not None) == (raw, raw)
    assert [(row.level, row.shot is None) for row in record.quality] == [
        (level, not raw) for level in LEVELS
    ]
    assert record.quality[-1].denoised_db > record.quality[-1].noisy_db + 1
    assert {path.name: path.read_bytes() for path in folders[0].iterdir()} == {
        path.name: path.read_bytes() for path in folders[1].iterdir()
    }
    proto = onnx.load_model_from_string(Bundle.load(folders[0]).statistics())
    told = {entry.key: entry.value for entry in proto.metadata_props}
    assert told["license"] == "Apache-2.0"
    assert told["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert told["cfa_order" if raw else "channel_order"] == ("R Gr Gb B" if raw else "R G B")


@pytest.fixture(name="few_photographs")
def two_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tiles in place of 48, for tests that are not about the figures."""
    monkeypatch.setattr("cycleisp_export.loss.MOST_MACS", 0)


def test_weights_alone_need_photographs(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no quality on record; give clean .*--photographs"):
        export(ZOO / "raw_denoiser.safetensors", tmp_path / "night.bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(name="srgb_run")
def finished_srgb_run(tmp_path: Path, denoiser: Callable[[str, str], Exportable]) -> Path:
    """The folder that the training of a tiny sRGB network would leave."""
    folder = tmp_path / "srgb"
    folder.mkdir()
    network = denoiser("srgb_denoiser", "tiny").network
    save_network(folder / "srgb_denoiser.safetensors", network, "srgb_denoiser", "tiny")
    mine = Path("/home/me")
    settings = SrgbDenoiserSettings(
        photographs=mine, rgb2raw=mine, color_branch=mine, raw2rgb=mine, output=folder, size="tiny"
    )
    (folder / "settings.yaml").write_text(settings_as_yaml(settings), "utf-8")
    record = {"step": 9, "seconds": 3600.0, "loss": 0.1, "noisy": 30.0, "denoised": 34.5}
    (folder / "log.jsonl").write_text(json.dumps(record), "utf-8")
    return folder


@pytest.mark.usefixtures("quick_halo")
def test_an_srgb_run_becomes_a_bundle(srgb_run: Path, tmp_path: Path) -> None:
    bundle = export(srgb_run, tmp_path / "photo.bundle").bundle
    record = bundle.record
    assert (record.task, record.channels, record.multiple_of) == ("srgb", 3, 2)
    assert record.tensors.inputs == ("noisy",)
    assert (record.variance, record.noise_range, record.pooling) == (None, None, None)
    assert (record.provenance.steps, record.provenance.hours) == (9, 1.0)
    assert record.kmac_per_sample == 25.63
    (quality,) = record.quality
    assert (quality.noisy_db, quality.denoised_db) == (30.0, 34.5)
    card = (bundle.folder / "card.md").read_text("utf-8")
    assert "| synthesised pairs | - | 30.00 | 34.50 | +4.50 |" in card
    assert "/home/me" not in card
    assert "25.63 kMAC per pixel" in card


@pytest.fixture(name="imported")
def imported_weights(tmp_path: Path) -> Path:
    """What ``cycleisp weights import`` writes, of a smaller network than the published ones."""
    weights = tmp_path / "published.safetensors"
    weights.write_bytes((ZOO / "raw_denoiser.safetensors").read_bytes())
    facts = {"model": "raw_denoiser", "size": "full", "source": "r.pth", "terms": "To study only."}
    weights.with_suffix(".json").write_text(json.dumps(facts), "utf-8")
    return weights


@pytest.mark.usefixtures("quick_halo", "few_photographs")
def test_imported_weights_keep_their_terms(imported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "official.bundle"
    record = export(imported, folder, photographs=PHOTOGRAPHS).bundle.record
    assert record.license == "To study only."
    head = yaml.safe_load((folder / "card.md").read_text("utf-8").split("---\n")[1])
    assert (head["license"], head["license_name"]) == ("other", "To study only.")
    given = export(imported, folder, photographs=PHOTOGRAPHS, license_name="MIT", force=True)
    assert given.bundle.record.license == "MIT"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"terms": 3}', b"\xff"])
def test_terms_that_cannot_be_read_are_refused(
    imported: Path, tmp_path: Path, content: bytes
) -> None:
    imported.with_suffix(".json").write_bytes(content)
    with pytest.raises(
        InputError, match=r"published\.json: not what cycleisp writes beside weights"
    ):
        export(imported, tmp_path / "night.bundle", photographs=PHOTOGRAPHS)
