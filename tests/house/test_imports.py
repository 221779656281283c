"""What importing costs: a fresh interpreter says which modules each entrance pulls in."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "onnx", "onnxruntime", "rawpy", "rich", "tifffile", "PIL", "matplotlib"}


def modules_after(statement: str) -> set[str]:
    """Top-level modules in a new interpreter that ran this statement."""
    program = f"import sys\n{statement}\nprint(*sys.modules, file=sys.stderr)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in run.stderr.split()}


def test_the_runtime_alone_loads_nothing() -> None:
    assert not modules_after("import cycleisp_runtime") & (HEAVY | {"numpy", "click"})


def test_the_denoiser_loads_no_backend() -> None:
    assert not modules_after("from cycleisp_runtime import Denoiser, RawFrame") & HEAVY


def test_the_first_frame_needs_no_writer_of_pictures() -> None:
    loaded = modules_after("from cycleisp_runtime.readers import read_frame")
    assert not loaded & {"torch", "onnx", "onnxruntime", "rich", "matplotlib"}


@pytest.mark.parametrize("arguments", [["--help"], ["denoise", "--help"], ["info", "--help"]])
def test_help_needs_no_numpy(arguments: list[str]) -> None:
    loaded = modules_after(
        f"from cycleisp_runtime.cli import main; main({arguments!r}, standalone_mode=False)"
    )
    assert not loaded & (HEAVY | {"numpy"})
