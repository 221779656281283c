"""Bundles: what is written is read back, and whatever was altered, linked or added is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cycleisp_runtime.bundle import Bundle, BundleRecord, encode, find_bundle, shipped_bundles
from cycleisp_runtime.errors import BundleError
from tests.helpers import a_record, write_bundle

NETWORK = b"bytes of a network"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "testnet.bundle", NETWORK)


def edit(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    path = folder / "bundle.json"
    record = json.loads(path.read_bytes())
    change(record)
    path.write_text(json.dumps(record))


def test_what_is_encoded_is_loaded(folder: Path) -> None:
    bundle = Bundle.load(folder)
    assert bundle.record == a_record(NETWORK)
    encoded = (folder / "bundle.json").read_bytes()
    assert encoded == encode(bundle.record)
    assert bundle.sha256 == hashlib.sha256(encoded).hexdigest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(surprise=1), "unknown field `surprise`"),
        (lambda r: r["halo"].update(surprise=1), r"unknown field `surprise` - at `\$.halo`"),
        (lambda r: r.pop("task"), "missing required field `task`"),
        (lambda r: r.update(format="cycleisp-bundle/2"), "cycleisp-bundle/2"),
        (lambda r: r.update(task="video"), "video"),
        (lambda r: r.update(multiple_of=0), ">= 1"),
        (lambda r: r.update(precisions={}), "length >= 1"),
        (lambda r: r.update(quality=[]), "length >= 1"),
        (lambda r: r["noise_range"].update(shot_min=0.5), "shot_min is above shot_max"),
        (lambda r: r["precisions"].update(fp8=r["precisions"]["fp32"]), "fp8"),
    ],
)
def test_records_that_are_not_ours_are_refused(
    folder: Path, change: Callable[[dict[str, object]], object], message: str
) -> None:
    edit(folder, change)
    with pytest.raises(BundleError, match=r"bundle\.json.*") as refusal:
        Bundle.load(folder)
    assert refusal.match(message)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "name", ["../fp32.onnx", "/etc/passwd", "sub/fp32.onnx", "..", ".hidden", "a\\b", "", "a\n"]
)
def test_names_that_leave_the_folder_are_refused(folder: Path, name: str) -> None:
    edit(folder, lambda r: r["precisions"]["fp32"].update(file=name))  # type: ignore[index]
    with pytest.raises(BundleError, match="matching regex"):
        Bundle.load(folder)


@pytest.mark.parametrize("content", [b"bytes of a Network", b"bytes", NETWORK + b"!", b""])
def test_an_altered_network_is_refused(folder: Path, content: bytes) -> None:
    (folder / "fp32.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"fp32\.onnx: the file is"):
        Bundle.load(folder)


def test_what_is_no_network_of_ours_is_refused_before_anything_parses_it(folder: Path) -> None:
    with pytest.raises(BundleError, match=r"fp32\.onnx: not an ONNX file, or a damaged one"):
        Bundle.load(folder).model("fp32")


@pytest.mark.parametrize("name", sorted(shipped_bundles()))
def test_shipped_networks_are_read_as_they_are(name: str) -> None:
    bundle = find_bundle(name)
    assert bundle.model("fp32") == (bundle.folder / "fp32.onnx").read_bytes()


def test_every_changed_byte_is_refused(tmp_path: Path) -> None:
    whole = find_bundle("tiny")
    folder = tmp_path / "tiny.bundle"
    shutil.copytree(whole.folder, folder)
    files = [*whole.record.precisions.values(), *whole.record.documents]
    rng = np.random.default_rng(0)
    for listed in files:
        content = (folder / listed.file).read_bytes()
        for place in rng.integers(0, len(content), 25):
            changed = bytearray(content)
            changed[place] ^= 1 << int(rng.integers(8))
            (folder / listed.file).write_bytes(changed)
            with pytest.raises(BundleError, match="not the one that the bundle lists"):
                Bundle.load(folder)
        (folder / listed.file).write_bytes(content)
    Bundle.load(folder)


def test_a_network_altered_after_loading_is_refused(folder: Path) -> None:
    bundle = Bundle.load(folder)
    (folder / "fp32.onnx").write_bytes(NETWORK[::-1])
    with pytest.raises(BundleError, match="not the one that the bundle lists"):
        bundle.model("fp32")


def test_an_altered_document_is_refused(tmp_path: Path) -> None:
    document = a_record(NETWORK).precisions["fp32"]
    listed = {"file": "card.md", "sha256": document.sha256, "bytes": document.bytes}
    folder = write_bundle(tmp_path / "net.bundle", NETWORK)
    edit(folder, lambda r: r.update(documents=[listed]))
    with pytest.raises(BundleError, match=r"card\.md: a file of the bundle cannot be read"):
        Bundle.load(folder)
    (folder / "card.md").write_bytes(NETWORK)
    assert Bundle.load(folder).record.documents[0].file == "card.md"


def test_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link.bundle").symlink_to(folder)
    with pytest.raises(BundleError, match="met a link"):
        Bundle.load(tmp_path / "link.bundle")
    (folder / "fp32.onnx").rename(tmp_path / "elsewhere")
    (folder / "fp32.onnx").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=r"fp32\.onnx: not a plain file"):
        Bundle.load(folder)


def test_a_pipe_does_not_hang(folder: Path) -> None:
    (folder / "fp32.onnx").unlink()
    os.mkfifo(folder / "fp32.onnx")
    with pytest.raises(BundleError, match="not a plain file"):
        Bundle.load(folder)


def test_a_missing_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="No such file"):
        Bundle.load(tmp_path)


@given(content=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_bytes_whatever_escape_as_another_error(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "bundle.json").write_bytes(content)
        with pytest.raises(BundleError):
            Bundle.load(Path(name))


def test_a_precision_that_is_not_there_names_those_that_are(folder: Path) -> None:
    with pytest.raises(BundleError, match="met int8, wanted fp32"):
        Bundle.load(folder).model("int8")


def test_find_takes_a_path(folder: Path) -> None:
    assert find_bundle(folder) == find_bundle(str(folder)) == Bundle.load(folder)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(BundleError, match="egde: no such model") as refusal:
        find_bundle("egde")
    assert all(name in str(refusal.value) for name in shipped_bundles())


@pytest.mark.parametrize("name", sorted(shipped_bundles()))
def test_shipped_bundles_are_whole(name: str) -> None:
    record = find_bundle(name).record
    assert isinstance(record, BundleRecord)
    assert record.name == name
    assert all(level.denoised_db > level.noisy_db for level in record.quality)
