"""``cycleisp info``: frames and bundles, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cycleisp_runtime.bundle import shipped_bundles
from cycleisp_runtime.cli import main
from tests.helpers import RAW, RAW_BAD, a_record, write_bundle

FRAME = RAW / "d750_odd_active_per_channel_black.dng"


def info(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["info", *map(str, arguments)])


def test_a_frame_as_json() -> None:
    result = info(FRAME, "--json")
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    assert facts["file"] == str(FRAME)
    assert facts["camera"] == "NIKON D750"
    assert (facts["size"], facts["cfa"], facts["area"]) == ([300, 200], "RGGB", [5, 13, 200, 300])
    assert (facts["black"], facts["white"]) == ([600, 608, 592, 620], 15520)
    assert (facts["black_varies"], facts["levels_from"]) == ([], "file")
    assert facts["noise_profile"] is None
    assert len(facts["color_matrix"]) == 3


def test_a_frame_for_people() -> None:
    result = info(RAW / "d750_subifd_preview_grbg_ljpeg.dng", RAW / "d750_black_delta.dng")
    assert result.exit_code == 0
    assert "picture         256x192 GRBG at (0, 0) of 256x192 stored" in result.stdout
    assert "noise profile   shot 0.00019" in result.stdout
    assert (
        "black 600 600 600 600 and more along rows and columns, white 15520, from file"
        in result.stdout
    )


@pytest.mark.parametrize("as_json", [True, False])
def test_a_bundle(tmp_path: Path, as_json: bool) -> None:
    folder = write_bundle(tmp_path / "net.bundle", b"network")
    result = info(folder, *(["--json"] if as_json else []))
    assert result.exit_code == 0
    if as_json:
        facts = json.loads(result.stdout)
        assert facts["file"] == str(folder)
        assert facts["record"]["name"] == a_record().name
        assert len(facts["sha256"]) == 64
    else:
        assert "low noise       shot 0.0001: 40.00 -> 45.00 dB" in result.stdout


@pytest.mark.parametrize("name", sorted(shipped_bundles()))
def test_every_shipped_model_is_shown(name: str) -> None:
    result = info(name)
    assert result.exit_code == 0, result.output
    gains = [line for line in result.stdout.splitlines() if " -> " in line]
    assert gains
    assert all(" dB" in line for line in gains)


@pytest.mark.parametrize("as_json", [True, False])
def test_a_bad_file_does_not_hide_the_others(as_json: bool) -> None:
    bad = RAW_BAD / "empty.dng"
    result = info(bad, FRAME, *(["--json"] if as_json else []))
    assert result.exit_code == 1
    assert result.stderr == f"cycleisp: error: {bad}: the file is empty\n"
    assert "NIKON D750" in result.stdout
    if as_json:
        assert json.loads(result.stdout.splitlines()[0]) == {
            "file": str(bad),
            "error": f"{bad}: the file is empty",
        }
