"""``cycleisp build`` and what ``info`` says of an engine, with a fake of TensorRT."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cycleisp_runtime.cli import main
from cycleisp_runtime.engines import build
from cycleisp_runtime.engines.gpu import Gpu
from cycleisp_runtime.engines.tensorrt import TensorRT
from tests.helpers import NETWORK, write_bundle
from tests.runtime.fake_tensorrt import fake_tensorrt


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle on a Jetson that has built nothing yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    tensorrt = TensorRT(fake_tensorrt("tensorrt 10.3.0"))
    monkeypatch.setattr(build, "find_tensorrt", lambda: tensorrt)
    monkeypatch.setattr(build, "find_gpu", lambda: Gpu("Orin", (8, 7), 16, "CUDA 12060"))
    return write_bundle(tmp_path / "net.bundle", NETWORK)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_for_people(bundle: Path) -> None:
    first, second = (run("build", bundle, "--precision", "fp32") for _ in range(2))
    assert (first.exit_code, first.stderr) == (0, "")
    assert first.stdout.startswith("testnet fp32 -> ")
    assert "tensorrt 10.3.0 for Orin, 19 bytes, layers by input: 1 Half; built in" in first.stdout
    assert second.stdout.endswith("; found in the cache\n")


def test_for_programs(bundle: Path) -> None:
    options = ("--precision", "fp32", "--shapes", "16,32x48,64", "--workspace", "128", "--json")
    result = run("build", bundle, *options)
    outcome = json.loads(result.stdout)
    assert outcome["manifest"]["key"]["shapes"] == {
        "least": [16, 16],
        "usual": [32, 48],
        "most": [64, 64],
    }
    assert outcome["manifest"]["key"]["workspace_mib"] == 128
    assert outcome["from_cache"] is False
    facts = json.loads(run("info", outcome["engine"], "--json").stdout)
    assert facts == {"file": outcome["engine"], "manifest": outcome["manifest"]}


def test_info_for_people(bundle: Path) -> None:
    outcome = json.loads(run("build", bundle, "--precision", "fp32", "--json").stdout)
    lines = run("info", outcome["engine"]).stdout
    assert "for             Orin (8.7, 16 multiprocessors), CUDA 12060" in lines
    assert "tiles           2x2 to 512x512, fast for 512x512 (rows x columns)" in lines
    assert "memory          19 bytes, 54329856 more for the largest tile" in lines
    assert "correlation     Half -> Float: head_U22_myl0_4" in lines


def test_a_rebuilt_engine_is_warned_about(bundle: Path) -> None:
    outcome = json.loads(run("build", bundle, "--precision", "fp32", "--json").stdout)
    Path(outcome["engine"]).write_bytes(b"something else")
    result = run("build", bundle, "--precision", "fp32")
    assert result.exit_code == 0
    line = f"cycleisp: warning: not taken from the cache: {outcome['engine']}: the engine is not"
    assert result.stderr.startswith(line)
    assert "built in" in result.stdout


def test_info_refuses_an_altered_engine(bundle: Path) -> None:
    outcome = json.loads(run("build", bundle, "--precision", "fp32", "--json").stdout)
    Path(outcome["engine"]).write_bytes(b"something else")
    result = run("info", outcome["engine"])
    assert result.exit_code == 1
    assert "the engine is not the one that was built" in result.stderr


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        (["--precision", "fp16"], 1, "this precision is not in the bundle"),
        (["--precision", "fp32", "--shapes", "15,16,16"], 1, "multiples of 2"),
        (["--precision", "fp32", "--shapes", "64"], 2, "MIN,OPT,MAX"),
        (["--precision", "fp32", "--workspace", "0"], 2, "--workspace"),
        ([], 2, "--precision"),
    ],
)
def test_errors(bundle: Path, options: list[str], code: int, line: str) -> None:
    result = run("build", bundle, *options)
    assert result.exit_code == code
    assert line in result.stderr
