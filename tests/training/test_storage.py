"""A network's file: it comes back as it was, and nothing else is taken for it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cycleisp.models import create_model
from cycleisp.models.storage import load_network, read_network, save_network
from cycleisp_runtime.errors import InputError, OutputError
from tests.training.tensors import disk_is_full, equal

FORMAT = {"format": "cycleisp-weights/1"}


@pytest.fixture(name="path")
def where_a_network_goes(tmp_path: Path) -> Path:
    return tmp_path / "network.safetensors"


def test_weights_come_back_with_their_network(path: Path) -> None:
    model = nn.Linear(3, 2)
    save_network(path, model, "raw_denoiser", "tiny")
    name, size, tensors = read_network(path)
    assert (name, size) == ("raw_denoiser", "tiny")
    assert equal(tensors, model.state_dict())


def test_a_parameter_that_a_network_shares_is_written_under_all_its_names(path: Path) -> None:
    activation = nn.PReLU(4)
    model = nn.Sequential(nn.Linear(3, 4), activation, nn.Linear(4, 4), activation)
    save_network(path, model, "raw_denoiser", "full")
    assert equal(read_network(path)[2], model.state_dict())


def test_equal_networks_make_equal_files(path: Path) -> None:
    model = nn.Linear(3, 2)
    contents = set()
    for _ in range(16):
        save_network(path, model, "raw_denoiser", "tiny")
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_a_network_comes_back_ready_to_be_applied(path: Path) -> None:
    saved = create_model("color_branch", "small")
    save_network(path, saved, "color_branch", "small")
    for network in (
        load_network(path, "color_branch"),
        load_network(path, "color_branch", "small"),
    ):
        assert equal(network.state_dict(), saved.state_dict())
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())


def test_another_network_or_size_is_refused(path: Path) -> None:
    save_network(path, create_model("color_branch", "small"), "color_branch", "small")
    with pytest.raises(InputError, match=r"met color_branch small, wanted raw2rgb\)"):
        load_network(path, "raw2rgb")
    with pytest.raises(InputError, match=r"met color_branch small, wanted color_branch full\)"):
        load_network(path, "color_branch", "full")


@pytest.mark.parametrize("size", ["edge", "huge"])
def test_tensors_that_are_not_of_the_size_they_claim_are_refused(path: Path, size: str) -> None:
    save_network(path, create_model("raw_denoiser", "tiny"), "raw_denoiser", size)
    with pytest.raises(InputError, match="its description is damaged"):
        load_network(path, "raw_denoiser")


def test_a_full_disk_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_network(path, nn.Linear(3, 2), "raw_denoiser", "tiny")
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", disk_is_full)
    with pytest.raises(OutputError, match=r"network.safetensors: .*no space left"):
        save_network(path, nn.Linear(3, 2), "raw_denoiser", "tiny")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_file_of_another_format_is_refused(path: Path) -> None:
    save_file({"a": torch.zeros(2)}, path, {"format": "pt"})
    with pytest.raises(InputError, match=r"met pt, wanted cycleisp-weights/1"):
        read_network(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="met no format"):
        read_network(path)


@pytest.mark.parametrize("length", [0, 4, 40, -1])
def test_a_truncated_file_is_refused(path: Path, length: int) -> None:
    save_network(path, nn.Linear(3, 2), "raw_denoiser", "tiny")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        read_network(path)


def test_a_missing_file_is_refused(path: Path) -> None:
    with pytest.raises(InputError, match=r"network.safetensors: not a readable safetensors file"):
        read_network(path)


@pytest.mark.parametrize("description", [None, "{", "[]", json.dumps({"model": "raw_denoiser"})])
def test_a_damaged_description_is_refused(path: Path, description: str | None) -> None:
    facts = {} if description is None else {"description": description}
    save_file({"a": torch.zeros(2)}, path, {**FORMAT, **facts})
    with pytest.raises(InputError, match="its description is damaged"):
        read_network(path)
