"""Checkpoints: whole or not at all, and only our own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cycleisp.models.storage import read_network, save_network
from cycleisp.training.checkpoint import (
    Checkpoint,
    adam_state,
    load_checkpoint,
    restore_adam_state,
    save_checkpoint,
)
from cycleisp_runtime.errors import InputError, OutputError
from tests.training.tensors import disk_is_full, equal


def a_checkpoint(step: int) -> Checkpoint:
    named = {"head.weight": torch.full((2, 3), float(step))}
    average = {"head.weight": torch.zeros(2, 3)}
    return Checkpoint("joint", step, 1.5, 0.1, 3, named, average, {"0.step": torch.ones(())})


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    saved = a_checkpoint(7)
    save_checkpoint(path, saved)
    loaded = load_checkpoint(path)
    assert (loaded.stage, loaded.step, loaded.seconds) == ("joint", 7, 1.5)
    assert equal(loaded.model, saved.model)
    assert equal(loaded.average, saved.average)
    assert equal(loaded.optimizer, saved.optimizer)


def test_equal_contents_make_equal_files(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    contents = set()
    for _ in range(16):
        save_checkpoint(path, a_checkpoint(7))
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_a_failure_while_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, a_checkpoint(1))
    monkeypatch.setattr(os, "fsync", disk_is_full)
    with pytest.raises(OutputError, match=r"checkpoint.safetensors: .*no space left"):
        save_checkpoint(path, a_checkpoint(2))
    assert load_checkpoint(path).step == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, path, {"format": "pt"})
    with pytest.raises(InputError, match="met pt, wanted cycleisp-checkpoint/1"):
        load_checkpoint(path)


def test_a_network_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "raw_denoiser.safetensors"
    save_network(path, nn.Linear(3, 2), "raw_denoiser", "tiny")
    with pytest.raises(InputError, match="met cycleisp-weights/1, wanted cycleisp-checkpoint/1"):
        load_checkpoint(path)


def test_a_checkpoint_is_no_network(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, a_checkpoint(1))
    with pytest.raises(InputError, match="one file per network"):
        read_network(path)


@pytest.mark.parametrize("length", [0, 4, 40, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, a_checkpoint(1))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_checkpoint(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: not a readable safetensors file"):
        load_checkpoint(tmp_path / "absent")


@pytest.mark.parametrize(
    ("tensor", "facts"),
    [
        ("model/a", {"stage": "joint", "step": "many", "seconds": "1"}),
        ("model/a", {"stage": "joint", "step": "1"}),
        ("model/a", {"step": "1", "seconds": "1"}),
        ("step/a", {"stage": "joint", "step": "1", "seconds": "1"}),
        ("a", {"stage": "joint", "step": "1", "seconds": "1"}),
    ],
)
def test_a_damaged_checkpoint_is_refused(
    tmp_path: Path, tensor: str, facts: dict[str, str]
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_file({tensor: torch.zeros(2)}, path, {"format": "cycleisp-checkpoint/1", **facts})
    with pytest.raises(InputError, match="its description is damaged"):
        load_checkpoint(path)


def _step(model: nn.Linear, optimizer: torch.optim.Optimizer, seed: int) -> None:
    optimizer.zero_grad()
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
    model(inputs).square().mean().backward()
    optimizer.step()


def test_adam_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for seed in range(3):
        _step(model, optimizer, seed)
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(
        path, Checkpoint("joint", 3, 0.0, 0.0, 0, model.state_dict(), {}, adam_state(optimizer))
    )

    resumed = nn.Linear(3, 2)
    resumed_optimizer = torch.optim.Adam(resumed.parameters(), 1e-2)
    checkpoint = load_checkpoint(path)
    resumed.load_state_dict(checkpoint.model)
    restore_adam_state(resumed_optimizer, checkpoint.optimizer)
    for seed in range(3, 6):
        _step(model, optimizer, seed)
        _step(resumed, resumed_optimizer, seed)
    assert equal(model.state_dict(), resumed.state_dict())
