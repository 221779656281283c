"""The engine cache: what was stored is given back, and whatever else stands there is refused."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from cycleisp_runtime.engines.cache import Engine, EngineCache, Manifest
from cycleisp_runtime.engines.gpu import Gpu
from cycleisp_runtime.engines.key import EngineKey, TileShapes
from cycleisp_runtime.engines.layers import Layer
from cycleisp_runtime.errors import BackendError

CONTENT = np.random.default_rng(0).bytes(4000)
KEY = EngineKey(
    network_sha256="0" * 64,
    precision="fp16",
    shapes=TileShapes((64, 64), (512, 512), (512, 512)),
    workspace_mib=None,
    settings="strongly typed",
    package="tensorrt",
    version="10.3.0",
    gpu=Gpu("Orin", (8, 7), 16, "CUDA 12060"),
)
replace = msgspec.structs.replace


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineCache:
    """An empty cache of a user who has no secret yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return EngineCache()


@pytest.fixture
def engine(cache: EngineCache) -> Engine:
    return cache.store(a_manifest(KEY), CONTENT)


def a_manifest(key: EngineKey) -> Manifest:
    return Manifest(
        format="cycleisp-engine/1",
        model="testnet",
        key=key,
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        bytes=len(CONTENT),
        activation_bytes=1 << 20,
        seconds=1.5,
        layers=(Layer("head", "correlation", ("Half",), ("Half",)),),
    )


def manifest_of(engine: Engine) -> Path:
    return engine.path.with_suffix(".manifest")


def test_what_is_stored_is_loaded(cache: EngineCache) -> None:
    assert cache.load(KEY) is None
    stored = cache.store(a_manifest(KEY), CONTENT)
    assert cache.load(KEY) == cache.open(stored.path) == stored
    assert stored.content == CONTENT
    assert EngineCache().load(KEY) == stored


@pytest.mark.usefixtures("engine")
def test_only_the_owner_has_rights(cache: EngineCache, tmp_path: Path) -> None:
    cache.store_timings("tensorrt", "10.3.0", KEY.gpu, b"timings")
    modes = {
        stat.S_IMODE(path.stat().st_mode)
        for path in (*cache.folder.iterdir(), tmp_path / "state" / "cycleisp" / "engines.secret")
    }
    assert modes == {0o600}
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700


def test_nothing_is_left_beside_the_files(cache: EngineCache, engine: Engine) -> None:
    cache.store(engine.manifest, CONTENT)
    assert sorted(cache.folder.iterdir()) == sorted([engine.path, manifest_of(engine)])


@pytest.mark.parametrize("which", [".engine", ".manifest"])
def test_one_flipped_byte_is_always_noticed(cache: EngineCache, engine: Engine, which: str) -> None:
    path = engine.path.with_suffix(which)
    good = path.read_bytes()
    for place in np.random.default_rng(1).permutation(len(good))[:100].tolist():
        bad = bytearray(good)
        bad[place] ^= 1 << place % 8
        path.write_bytes(bad)
        with pytest.raises(BackendError, match=r"not the one that was built|altered"):
            cache.load(KEY)
    path.write_bytes(good)
    assert cache.load(KEY) == engine


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b"\0"])
def test_an_engine_of_another_length_is_refused(
    cache: EngineCache, engine: Engine, content: bytes
) -> None:
    engine.path.write_bytes(content)
    with pytest.raises(BackendError, match="not the one that was built"):
        cache.load(KEY)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"gpu": Gpu("Xavier", (8, 7), 16, "CUDA 12060")}, r"gpu\.name \(met Orin, wanted Xav"),
        ({"gpu": Gpu("Orin", (7, 2), 16, "CUDA 12060")}, r"gpu\.compute_capability"),
        ({"gpu": Gpu("Orin", (8, 7), 8, "CUDA 12060")}, r"gpu\.multiprocessors"),
        ({"gpu": Gpu("Orin", (8, 7), 16, "CUDA 13000")}, r"gpu\.driver"),
        ({"gpu": None}, "gpu"),
        ({"version": "10.4.0"}, r"version \(met 10\.3\.0, wanted 10\.4\.0"),
        ({"package": "tensorrt-rtx"}, "package"),
        ({"network_sha256": "1" * 64}, "network_sha256"),
        ({"precision": "int8"}, "precision"),
        ({"shapes": TileShapes((64, 64), (512, 512), (1024, 1024))}, r"shapes\.most"),
        ({"workspace_mib": 512}, "workspace_mib"),
        ({"settings": "weakly typed"}, "settings"),
    ],
)
def test_an_engine_of_something_else_is_refused_by_name(
    cache: EngineCache, engine: Engine, changed: dict[str, object], name: str
) -> None:
    """Renamed to where the wanted engine would stand, manifest and all."""
    wanted = replace(KEY, **changed)
    assert wanted.digest != KEY.digest
    assert cache.load(wanted) is None
    target = engine.path.with_name(f"{wanted.digest}.engine")
    manifest_of(engine).rename(target.with_suffix(".manifest"))
    engine.path.rename(target)
    with pytest.raises(BackendError, match=f"the engine was built for another {name}"):
        cache.load(wanted)


@pytest.mark.parametrize("which", [".engine", ".manifest"])
def test_links_are_not_followed(
    cache: EngineCache, engine: Engine, tmp_path: Path, which: str
) -> None:
    path = engine.path.with_suffix(which)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BackendError, match="a link, which is not followed"):
        cache.load(KEY)


def test_a_linked_folder_is_refused(cache: EngineCache, engine: Engine, tmp_path: Path) -> None:
    cache.folder.rename(tmp_path / "elsewhere")
    cache.folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BackendError, match="not a folder but a link"):
        cache.load(KEY)
    with pytest.raises(BackendError, match="not a folder but a link"):
        cache.store(engine.manifest, CONTENT)


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_that_others_write_to_is_refused(
    cache: EngineCache, engine: Engine, mode: int
) -> None:
    cache.folder.chmod(mode)
    with pytest.raises(BackendError, match=f"others may write to it.*{mode:04o}"):
        cache.load(KEY)
    with pytest.raises(BackendError, match=f"others may write to it.*{mode:04o}"):
        cache.store(engine.manifest, CONTENT)


@pytest.mark.parametrize("which", [".engine", ".manifest"])
@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_write_to_is_refused(
    cache: EngineCache, engine: Engine, which: str, mode: int
) -> None:
    engine.path.with_suffix(which).chmod(mode)
    with pytest.raises(BackendError, match="others may write to it"):
        cache.load(KEY)


@pytest.mark.usefixtures("engine")
def test_another_users_files_are_refused(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: owner + 1)
    with pytest.raises(
        BackendError, match=f"another user .met uid {owner}, wanted uid {owner + 1}"
    ):
        cache.load(KEY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("which", [".engine", ".manifest"])
def test_a_file_given_by_another_user_is_refused(
    cache: EngineCache, engine: Engine, which: str
) -> None:
    os.chown(engine.path.with_suffix(which), 12345, -1)
    with pytest.raises(BackendError, match=r"belongs to another user .met uid 12345"):
        cache.load(KEY)


@pytest.mark.usefixtures("engine")
def test_a_cache_from_elsewhere_is_refused(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A whole cache that this user unpacked: the rights are right, the secret is not."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    with pytest.raises(BackendError, match="not written by this user on this machine"):
        cache.load(KEY)


def test_an_engine_without_its_manifest_is_refused(cache: EngineCache, engine: Engine) -> None:
    manifest_of(engine).unlink()
    with pytest.raises(BackendError, match="the engine has no manifest"):
        cache.load(KEY)


def test_a_manifest_of_another_version_is_refused(cache: EngineCache, engine: Engine) -> None:
    from cycleisp_runtime.engines.private import write_signed

    known = msgspec.to_builtins(engine.manifest)
    for change in ({"surprise": 1}, {"format": "cycleisp-engine/2"}, {"sha256": None}):
        write_signed(manifest_of(engine), msgspec.json.encode(known | change))
        with pytest.raises(BackendError, match="built by another version of cycleisp"):
            cache.load(KEY)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused(
    cache: EngineCache, engine: Engine, make: Callable[[Path], None]
) -> None:
    engine.path.unlink()
    make(engine.path)
    with pytest.raises(BackendError, match=r"not a plain file|Is a directory"):
        cache.load(KEY)


@pytest.mark.usefixtures("engine")
def test_a_huge_file_is_not_read(cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cycleisp_runtime.engines.cache.MAX_ENGINE_BYTES", len(CONTENT) - 1)
    with pytest.raises(BackendError, match=f"too large .met {len(CONTENT)} bytes"):
        cache.load(KEY)


def test_an_engine_outside_the_cache_is_not_opened(
    cache: EngineCache, engine: Engine, tmp_path: Path
) -> None:
    for suffix in (".engine", ".manifest"):
        shutil.copy(engine.path.with_suffix(suffix), tmp_path / f"copy{suffix}")
    for path in (tmp_path / "copy.engine", cache.folder / "none.engine"):
        with pytest.raises(BackendError, match=f"no engine of the cache .*{cache.folder}"):
            cache.open(path)


@pytest.mark.parametrize("secret", [b"", b"short", b"x" * 31])
@pytest.mark.usefixtures("engine")
def test_a_damaged_secret_is_refused(cache: EngineCache, tmp_path: Path, secret: bytes) -> None:
    (tmp_path / "state" / "cycleisp" / "engines.secret").write_bytes(secret)
    with pytest.raises(BackendError, match="the secret is damaged"):
        cache.load(KEY)


def test_timings_belong_to_a_release_and_a_gpu(cache: EngineCache) -> None:
    assert cache.load_timings("tensorrt", "10.3.0", KEY.gpu) == b""
    cache.store_timings("tensorrt", "10.3.0", KEY.gpu, b"timings")
    assert cache.load_timings("tensorrt", "10.3.0", KEY.gpu) == b"timings"
    assert cache.load_timings("tensorrt", "10.4.0", KEY.gpu) == b""
    assert cache.load_timings("tensorrt", "10.3.0", None) == b""


def test_without_variables_the_folder_is_in_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert EngineCache().folder == Path.home() / ".cache" / "cycleisp" / "engines"
