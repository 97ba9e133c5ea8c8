import resource
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopdit.deploy.backends.tensorrt.keyed_file import read_keyed, require_writable, write_keyed
from loopdit.errors import BundleError

KEYS = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4)


@contextmanager
def no_file_larger_than(size: int) -> Generator[None]:
    """As on a full disk: the kernel refuses to write more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@settings(max_examples=25)  # each syncs a file to the disk
@given(key=KEYS, payload=st.binary(max_size=64))
def test_what_was_written_under_a_key_is_read_under_it_alone(key: dict[str, str], payload: bytes):
    with TemporaryDirectory() as folder:
        path = Path(folder, "cache", "file")
        write_keyed(path, key, payload)
        assert read_keyed(path, key) == payload
        assert read_keyed(path, {**key, "gpu": "a longer value than those above"}) is None


@settings(max_examples=25)
@given(payload=st.binary(min_size=1, max_size=64), data=st.data())
def test_a_changed_or_missing_byte_makes_all_of_it_unusable(payload: bytes, data: st.DataObject):
    with TemporaryDirectory() as folder:
        path = Path(folder, "file")
        write_keyed(path, {"gpu": "one"}, payload)
        whole = path.read_bytes()
        at = data.draw(st.integers(0, len(whole) - 1))
        cut = whole[:at]
        path.write_bytes(
            data.draw(st.sampled_from([cut, cut + bytes([whole[at] ^ 1]) + whole[at + 1 :]]))
        )
        assert read_keyed(path, {"gpu": "one"}) is None


def test_why_a_file_is_not_used_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "file"
    assert read_keyed(path, {}) is None
    assert not caplog.text  # that there is nothing yet is not worth a line
    write_keyed(path, {"gpu": "A", "version": "10.1"}, b"engine")
    assert read_keyed(path, {"gpu": "B", "version": "10.1"}) is None
    assert "is of gpu=A, wanted is B; it is made again" in caplog.text
    path.write_bytes(path.read_bytes() + b"!")
    assert read_keyed(path, {"gpu": "A", "version": "10.1"}) is None
    path.write_bytes(b"\xff\x00")
    assert read_keyed(path, {"gpu": "A", "version": "10.1"}) is None
    assert caplog.text.count("is damaged") == 2


def test_a_full_disk_is_one_clear_error_and_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "file"
    write_keyed(path, {"gpu": "A"}, b"old")
    with (
        no_file_larger_than(1000),
        pytest.raises(BundleError, match=r"cannot write to the cache .*LOOPDIT_CACHE=FOLDER"),
    ):
        write_keyed(path, {"gpu": "A"}, bytes(10_000))
    assert read_keyed(path, {"gpu": "A"}) == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_written_to_is_found_out_before_the_work(tmp_path: Path):
    require_writable(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "taken").write_text("")
    with pytest.raises(BundleError, match=r"cannot write to the cache .*taken.*LOOPDIT_CACHE"):
        require_writable(tmp_path / "taken" / "engines")
