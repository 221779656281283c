"""Import of published weights: which files are taken for what, and which are refused."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor
from torch.torch_version import TorchVersion

from cycleisp.models import NETWORKS, create_model
from cycleisp.models.storage import read_network
from cycleisp.weights import import_weights, read_published
from cycleisp_runtime.cli import main
from cycleisp_runtime.errors import InputError, OutputError, SettingsError
from tests.training.golden_weights import GOLDEN, golden_network

SLOPES = "body.0.body.0.body.1.weight"
"""The first name of the activation of a network."""

State = dict[str, Tensor]


def equal(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


@pytest.fixture(name="state", scope="module")
def state_of_a_color_branch() -> State:
    return dict(golden_network("color_branch").state_dict())


def saved(folder: Path, content: object, **options: bool) -> Path:
    path = folder / "downloaded.pth"
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_recognised_and_comes_back_whole(name: str, tmp_path: Path) -> None:
    published = golden_network(name).state_dict()
    checkpoint = {"epoch": 65, "state_dict": published, "optimizer": {"param_groups": [{"lr": 1}]}}
    path, output = saved(tmp_path, checkpoint), tmp_path / "ours.safetensors"
    import_weights(path, output)

    found, size, tensors = read_network(output)
    assert (found, size) == (name, "full")
    assert equal(tensors, published)
    create_model(found, size).load_state_dict(tensors)
    description = json.loads((tmp_path / "ours.json").read_text())
    terms = description.pop("terms")
    assert "non-commercial" in terms
    assert "not derived" in terms
    assert description == {
        "model": name,
        "size": "full",
        "source": "downloaded.pth",
        "source_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "epoch": 65,
    }


def test_what_was_imported_has_the_names_of_the_published_layout(
    state: State, tmp_path: Path
) -> None:
    output = tmp_path / "ours.safetensors"
    import_weights(saved(tmp_path, state), output)
    published = json.loads((GOLDEN / "state_dict.json").read_text())["color_branch"]
    assert read_network(output)[2].keys() == {*published["parameters"], *published["aliases"]}

    _, network = read_published(saved(tmp_path, {"state_dict": network_state(output)}))
    assert equal(network.state_dict(), state)


def network_state(weights: Path) -> State:
    name, size, tensors = read_network(weights)
    network = create_model(name, size)
    network.load_state_dict(tensors)
    return dict(network.state_dict())


def with_prefix(state: State) -> State:
    return {f"module.{name}": tensor for name, tensor in state.items()}


def with_prefix_here_and_there(state: State) -> State:
    return {
        f"module.{name}" if index % 2 else name: tensor
        for index, (name, tensor) in enumerate(state.items())
    }


def with_separate_copies(state: State) -> State:
    return {name: tensor.clone() for name, tensor in state.items()}


def with_one_name_of_the_activation(state: State) -> State:
    slopes = state[SLOPES]
    return {
        name: tensor
        for name, tensor in state.items()
        if tensor.data_ptr() != slopes.data_ptr() or name == "body.3.weight"
    }


@pytest.mark.parametrize(
    "change",
    [
        dict,
        with_prefix,
        with_prefix_here_and_there,
        with_separate_copies,
        with_one_name_of_the_activation,
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_variants_of_one_file_give_the_same_network(
    state: State, change: Callable[[State], State], zipped: bool, tmp_path: Path
) -> None:
    path = saved(tmp_path, change(state), _use_new_zipfile_serialization=zipped)
    weights, network = read_published(path)
    assert (weights.model, weights.epoch) == ("color_branch", None)
    assert equal(network.state_dict(), state)


def test_one_name_is_really_one(state: State) -> None:
    assert len(state) - len(with_one_name_of_the_activation(state)) == 4


REFUSALS: dict[str, tuple[Callable[[State], object], str]] = {
    "a copy differs": (
        lambda state: state | {"body.3.weight": state["body.3.weight"] + 1e-6},
        f"body.3.weight differs from {SLOPES} (wanted equal values, for color_branch has one ",
    ),
    "a tensor more": (
        lambda state: state | {"body.9.weight": torch.zeros(3, 4)},
        "tensors that color_branch does not have (met body.9.weight float32 (3, 4))",
    ),
    "many tensors more": (
        lambda state: state | {name: torch.zeros(()) for name in "abcdef"},
        "tensors that color_branch does not have (met a float32 (), b float32 (), c float32 () ",
    ),
    "another shape": (
        lambda state: state | {"tail.0.weight": torch.zeros(96, 96)},
        "tail.0.weight is not as in color_branch (met float32 (96, 96), wanted float32 (96, 96, 3",
    ),
    "another type": (
        lambda state: state | {"tail.0.bias": state["tail.0.bias"].half()},
        "tail.0.bias is not as in color_branch (met float16 (96,), wanted float32 (96,))",
    ),
    "a tensor less": (
        lambda state: {key: each for key, each in state.items() if key != "tail.0.bias"},
        "lacks tensors of color_branch (wanted tail.0.bias)",
    ),
    "no activation": (
        lambda state: {
            key: each for key, each in state.items() if each.data_ptr() != state[SLOPES].data_ptr()
        },
        f"lacks tensors of color_branch (wanted {SLOPES})",
    ),
    "not finite": (
        lambda state: state | {"tail.0.bias": torch.full((96,), float("nan"))},
        "tail.0.bias holds values that are not finite",
    ),
    "one name twice": (
        lambda state: state | {"module.tail.0.bias": state["tail.0.bias"]},
        "a tensor with and without module. (met tail.0.bias)",
    ),
    "a number among the tensors": (lambda state: state | {"epoch": 3}, "not a plain tensor"),
    "a sparse tensor": (
        lambda state: state | {"tail.0.bias": state["tail.0.bias"].to_sparse()},
        "not a plain tensor (met tail.0.bias)",
    ),
    "a tensor without values": (
        lambda state: state | {"tail.0.bias": torch.zeros(96, device="meta")},
        "not a plain tensor (met tail.0.bias)",
    ),
    "an endless name": (
        lambda state: state | {"x" * 100_000: torch.zeros(1)},
        f"tensors that color_branch does not have (met {'x' * 77}... float32 (1,))",
    ),
    "another network": (
        lambda _state: {"conv1.weight": torch.zeros(64, 3, 7, 7)},
        "not the weights of a network of CycleISP (met conv1.weight, wanted one of rgb2raw, ",
    ),
    "our own size": (
        lambda _state: create_model("rgb2raw", "small").state_dict(),
        "tensors that rgb2raw does not have (met body.0.body.2.weight float32 (24, 24, 3, 3), ",
    ),
    "nothing in it": (lambda _state: {}, "holds no state dict"),
    "no state dict": (lambda _state: {"state_dict": [1, 2]}, "holds no state dict"),
    "a tensor alone": (lambda _state: torch.zeros(3), "holds no state dict (met Tensor)"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_anything_else_is_refused_by_name_and_shape(
    case: str, state: State, tmp_path: Path
) -> None:
    change, reason = REFUSALS[case]
    path = saved(tmp_path, change(state))
    with pytest.raises(InputError) as refusal:
        import_weights(path, tmp_path / "ours.safetensors")
    assert str(refusal.value).startswith(f"{path}: {reason}")
    assert len(str(refusal.value)) < 500
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_wrong_head_is_told_of_the_right_network(name: str, tmp_path: Path) -> None:
    changed = create_model(name).state_dict() | {"head.0.weight": torch.zeros(7, 7, 3, 3)}
    with pytest.raises(InputError, match=f"head.0.weight is not as in {name} "):
        read_published(saved(tmp_path, changed))


class _RunsWhenOpened:
    """Pickled, it is a call that creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_holds_code_is_refused_and_not_run(
    zipped: bool, state: State, tmp_path: Path
) -> None:
    mark = tmp_path / "it ran"
    content = {"state_dict": state, "epoch": _RunsWhenOpened(mark)}
    path = saved(tmp_path, content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match="not a checkpoint of tensors alone"):
        read_published(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "else this test proves nothing"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.999])
def test_a_truncated_file_is_refused(
    zipped: bool, share: float, state: State, tmp_path: Path
) -> None:
    path = saved(tmp_path, state, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="not a checkpoint of tensors alone"):
        read_published(path)


@pytest.mark.parametrize(
    ("there", "instead"), [(b"/version", b"/versi\xffn"), (b"PK\x01\x02", b"PK\xff\xff")]
)
def test_a_damaged_archive_is_refused(
    there: bytes, instead: bytes, state: State, tmp_path: Path
) -> None:
    path = saved(tmp_path, {"tail.0.bias": state["tail.0.bias"]})
    content = path.read_bytes()
    assert there in content
    path.write_bytes(content.replace(there, instead))
    with pytest.raises(InputError, match="not a checkpoint of tensors alone"):
        read_published(path)


def test_a_tar_archive_is_refused(tmp_path: Path) -> None:
    # Torch before 0.1.10 wrote these; they are the way around weights_only of CVE-2025-32434.
    path = tmp_path / "old.pth"
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(InputError, match="not a checkpoint of tensors alone"):
        read_published(path)


def test_a_file_that_is_too_large_is_not_opened(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, state)
    monkeypatch.setattr("cycleisp.weights._LARGEST_FILE", path.stat().st_size)
    read_published(path)
    monkeypatch.setattr("cycleisp.weights._LARGEST_FILE", path.stat().st_size - 1)
    with pytest.raises(InputError, match="too large for weights of CycleISP"):
        read_published(path)


def test_an_archive_that_unpacks_to_too_much_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = saved(tmp_path, {"head.0.weight": torch.zeros(2**20)})
    bomb = tmp_path / "bomb.pth"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(bomb, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name), zipfile.ZIP_DEFLATED)
    assert torch.load(bomb, weights_only=True)["head.0.weight"].shape == (2**20,)
    monkeypatch.setattr("cycleisp.weights._LARGEST_FILE", 2**20)
    assert bomb.stat().st_size < 2**20
    with pytest.raises(InputError, match="too large for weights of CycleISP"):
        read_published(bomb)


def test_a_torch_that_files_can_get_past_is_refused(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1+cpu"))
    with pytest.raises(InputError, match=r"met 2.9.1\+cpu, wanted 2.10 or newer"):
        read_published(saved(tmp_path, state))


@pytest.mark.parametrize("name", ["absent.pth", "."])
def test_a_file_that_cannot_be_read_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_published(tmp_path / name)


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"wanted NAME.safetensors"):
        import_weights(tmp_path / "downloaded.pth", tmp_path / "ours.pth")


@pytest.mark.parametrize("taken", ["ours.safetensors", "ours.json"])
def test_files_that_exist_are_replaced_only_by_force(
    taken: str, state: State, tmp_path: Path
) -> None:
    path, output = saved(tmp_path, state), tmp_path / "ours.safetensors"
    (tmp_path / taken).write_text("mine")
    with pytest.raises(OutputError, match=f"{taken}: the output already exists"):
        import_weights(path, output)
    assert (tmp_path / taken).read_text() == "mine"
    import_weights(path, output, force=True)
    assert read_network(output)[0] == "color_branch"


def test_a_full_disk_leaves_nothing_behind(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, state)

    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="no space left"):
        import_weights(path, tmp_path / "ours.safetensors")
    assert list(tmp_path.iterdir()) == [path]


def test_the_command_says_what_it_wrote_and_what_it_may_be_used_for(
    state: State, tmp_path: Path
) -> None:
    path, output = saved(tmp_path, state), tmp_path / "ours.safetensors"
    run = CliRunner().invoke(main, ["weights", "import", str(path), "-o", str(output)])
    assert (run.exit_code, run.stdout) == (0, f"{output}: color_branch full\n")
    assert "non-commercial" in run.stderr


def test_the_command_refuses_in_one_line(tmp_path: Path) -> None:
    path = saved(tmp_path, {"conv\x1b[2J": torch.zeros(1)})
    arguments = ["weights", "import", str(path), "-o", str(tmp_path / "ours.safetensors")]
    run = CliRunner().invoke(main, arguments)
    assert (run.exit_code, run.stdout) == (1, "")
    assert run.stderr.startswith(f"cycleisp: error: {path}: not the weights of a network")
    assert run.stderr.count("\n") == 1
    assert "\x1b" not in run.stderr
