import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from loopdit.deploy.bundle.archive import cached_folder, pack
from loopdit.deploy.bundle.bundle import Bundle, is_bundle
from loopdit.deploy.bundle.manifest import MANIFEST
from loopdit.deploy.bundle.writer import staged_bundle, with_latency
from loopdit.errors import BundleError

TABLE = {
    "rows": [{"backend": "torch", "loops": 1, "p99_ms": 2.0}],
    "machine": {"cpu": "another", "architecture": "x86_64", "cores": 4},
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOOPDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def archive(exported: tuple[Path, str], tmp_path: Path) -> Path:
    return _archived(exported[0], tmp_path / "policy.zip")


def _archived(folder: Path, archive: Path) -> Path:
    pack(folder, archive, [path.name for path in folder.iterdir()])
    return archive


def test_a_zip_is_the_bundle_that_was_packed(archive: Path, tiny_bundle: Bundle, cache: Path):
    opened = Bundle.open(archive)
    assert opened.manifest == tiny_bundle.manifest
    assert opened.path.is_relative_to(cache)
    for name in [*tiny_bundle.files, MANIFEST]:
        assert (opened.path / name).read_bytes() == (tiny_bundle.path / name).read_bytes()
    assert is_bundle(archive)


def test_equal_bundles_make_an_equal_zip(archive: Path, tiny_bundle: Bundle, tmp_path: Path):
    again = _archived(tiny_bundle.path, tmp_path / "again.zip")
    assert again.read_bytes() == archive.read_bytes()


def test_it_is_unpacked_once(archive: Path):
    folder = Bundle.open(archive).path
    before = (folder / MANIFEST).stat().st_ino
    assert Bundle.open(archive).path == folder
    assert (folder / MANIFEST).stat().st_ino == before
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("harm", ["missing", "altered"])
def test_a_cache_that_was_damaged_is_unpacked_again(archive: Path, harm: str):
    weights = Bundle.open(archive).path / "model.safetensors"
    whole = weights.read_bytes()
    if harm == "missing":
        weights.unlink()
    else:
        weights.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert Bundle.open(archive).path == weights.parent
    assert weights.read_bytes() == whole
    assert list(weights.parent.parent.iterdir()) == [weights.parent]


def test_whoever_is_killed_while_unpacking_leaves_no_half_of_a_bundle(archive: Path):
    script = (
        "import os, signal, shutil\n"
        "from loopdit.deploy.bundle import archive as bundle_archive\n"
        "from loopdit.deploy.bundle.bundle import Bundle\n"
        "def killed(*arguments): os.kill(os.getpid(), signal.SIGKILL)\n"
        "shutil.copyfileobj = killed\n"
        f"Bundle.open({str(archive)!r})\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    folder = cached_folder(archive)
    assert not folder.exists()
    assert Bundle.open(archive).path == folder


def test_two_who_unpack_at_once_both_have_it(archive: Path):
    script = f"from loopdit.deploy.bundle.bundle import Bundle; Bundle.open({str(archive)!r})"
    both = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [one.wait(60) for one in both] == [0, 0]
    folder = cached_folder(archive)
    assert list(folder.parent.iterdir()) == [folder]


def _with(name: str) -> Callable[[zipfile.ZipFile], None]:
    return lambda packed: packed.writestr(name, b"...")


@pytest.mark.parametrize(
    ("add", "said"),
    [
        (_with("../escaped"), r"has '\.\./escaped' in it"),
        (_with("/tmp/escaped"), r"has '/tmp/escaped' in it"),
        (_with("..\\escaped"), r"in it"),
        (_with("folder/"), r"has 'folder/' in it"),
        (_with(".."), r"has '\.\.' in it"),
    ],
)
def test_nothing_is_written_outside_the_cache(
    archive: Path,
    add: Callable[[zipfile.ZipFile], None],
    said: str,
    tmp_path: Path,
    cache: Path,
):
    with zipfile.ZipFile(archive, "a") as packed:
        add(packed)
    with pytest.raises(BundleError, match=said):
        Bundle.open(archive)
    assert [path for path in tmp_path.rglob("*escaped*")] == []
    assert not cache.exists()


def test_a_zip_that_is_cut_short_or_none_at_all_is_named(archive: Path, tmp_path: Path):
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(BundleError, match=r"policy\.zip is neither a bundle's folder nor a whole"):
        Bundle.open(archive)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as packed:
        packed.writestr("cat.jpg", b"...")
    with pytest.raises(BundleError, match=rf"photos.zip is no zip of a bundle.*no one {MANIFEST}"):
        Bundle.open(tmp_path / "photos.zip")
    assert not is_bundle(tmp_path / "photos.zip")


def test_a_zip_whose_bytes_were_altered_is_refused(archive: Path, tiny_bundle: Bundle):
    content = bytearray(archive.read_bytes())
    # Stored as they are: the middle of the weights.
    weights = (tiny_bundle.path / "model.safetensors").read_bytes()
    content[content.index(weights[:100]) + len(weights) // 2] ^= 1
    archive.write_bytes(content)
    with pytest.raises(BundleError, match=r"policy.zip is truncated or altered.*CRC"):
        Bundle.open(archive)
    assert not cached_folder(archive).exists()


def test_a_zip_that_would_fill_the_disk_is_refused_before_it_is_unpacked(
    archive: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))  # pyright: ignore[reportUnknownLambdaType] - a full disk
    with pytest.raises(BundleError, match=r"becomes 0 MB .* has 0 MB left.*LOOPDIT_CACHE"):
        Bundle.open(archive)
    assert list((cache / "bundles").iterdir()) == []


def test_a_bundle_is_written_as_a_zip_where_its_name_ends_so(tiny_bundle: Bundle, tmp_path: Path):
    out = tmp_path / "out.zip"
    for overwrite in (False, True):
        with staged_bundle(out, overwrite) as staging:
            for path in tiny_bundle.path.iterdir():
                (staging / path.name).write_bytes(path.read_bytes())
        assert Bundle.open(out).manifest == tiny_bundle.manifest
        assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["out.zip"]
    with (
        pytest.raises(BundleError, match="overwrite=true"),
        staged_bundle(out, overwrite=False),
    ):
        pytest.fail("the work must not begin")


def test_a_table_of_latency_is_added_to_a_zip(archive: Path):
    (first,) = Bundle.open(archive).manifest.latency
    with_latency(archive, TABLE)
    assert Bundle.open(archive).manifest.latency == (first, TABLE)
