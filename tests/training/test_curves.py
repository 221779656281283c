"""The curves of training runs: every point of a log is drawn, a run without one is named."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.curves import curves, main, read_log
from cycleisp_runtime.errors import InputError
from tests.helpers import ROOT

RUNS = ROOT / "zoo" / "runs" / "small"


def hints(chart: str) -> list[str]:
    """What each mark says when pointed at."""
    svg = "{http://www.w3.org/2000/svg}"
    root = ET.fromstring(chart)  # noqa: S314  of our own making
    return [each.findtext(f"{svg}title") or "" for each in root.iter(f"{svg}circle")]


def test_losses_share_a_chart_and_validations_have_one_each() -> None:
    log = [
        {"step": 0, "seconds": 0.0, "sRGB": 20.0},
        {"step": 500, "seconds": 9.0, "loss": 0.25, "sRGB": 25.5, "colour error of 255": 3.0},
    ]
    drawn = curves({"a": log, "b": log[:1]})
    assert hints(drawn) == ["a, 500: 0.25", "sRGB, 0: 20", "sRGB, 500: 25.5", "sRGB, 0: 20"]
    assert "Validation of a, PSNR" in drawn


def test_the_command_draws_the_logs_of_the_zoo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "curves.svg"
    runs = [str(RUNS / name) for name in ("rgb2raw", "raw2rgb", "joint")]
    monkeypatch.setattr(sys, "argv", ["curves", *runs, "-o", str(output)])
    main()
    last = read_log(RUNS / "raw2rgb")[-1]
    assert f"sRGB, {last['step']:g}: {last['sRGB']:.4g}" in hints(output.read_text("utf-8"))


def test_a_folder_without_a_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"log\.jsonl"):
        read_log(tmp_path)
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n[]\n', "utf-8")
    with pytest.raises(InputError, match="not the log of a run"):
        read_log(tmp_path)
