"""Small fresh networks for the synthesis, in memory and as files."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from cycleisp.models import create_model
from cycleisp.models.storage import save_network

__all__ = ["NAMES", "small_networks", "write_networks"]

NAMES = ("rgb2raw", "color_branch", "raw2rgb")


def small_networks() -> tuple[nn.Module, nn.Module, nn.Module]:
    """RGB2RAW, colour branch and RAW2RGB, the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        to_raw, branch, to_rgb = (create_model(name, "small").eval() for name in NAMES)
    return to_raw, branch, to_rgb


def write_networks(folder: Path) -> Path:
    """The folder, with a file of each."""
    folder.mkdir()
    for name, network in zip(NAMES, small_networks(), strict=True):
        save_network(folder / f"{name}.safetensors", network, name, "small")
    return folder
