"""TFRecord framing and tf.train.Example against the wire formats' own definitions."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.datasets.formats.rlds_episodes import slow_records

from loopdit.datasets.formats.tf_example import parse_example, serialize_example
from loopdit.datasets.formats.tfrecord import (
    looks_like_tfrecord,
    masked_checksum,
    read_record,
    record_places,
    write_record,
)
from loopdit.errors import StoreError


def slow_crc32c(data: bytes) -> int:
    """Bit by bit, by the polynomial of Castagnoli."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def written(path: Path, *records: bytes) -> Path:
    with path.open("xb") as file:
        for record in records:
            write_record(file, record)
    return path


@given(st.binary(max_size=40))
def test_the_checksum_is_the_rotated_and_shifted_crc32c(data: bytes):
    crc = slow_crc32c(data)
    rotated = (crc >> 15) | (crc << 17) & 0xFFFFFFFF
    assert masked_checksum(data) == (rotated + 0xA282EAD8) % 2**32
    assert slow_crc32c(b"123456789") == 0xE3069283  # the published check value


def test_records_are_found_by_their_lengths_and_read_as_written(tmp_path: Path):
    records = (b"", b"one", bytes(range(256)) * 9)
    path = written(tmp_path / "file", *records)
    assert looks_like_tfrecord(path)
    with path.open("rb") as file:
        assert [read_record(file, place) for place in record_places(path)] == list(records)


@pytest.mark.parametrize("cut", [1, 5, 15, 17])
def test_a_file_that_is_cut_short_names_the_record(tmp_path: Path, cut: int):
    path = written(tmp_path / "file", b"first", b"second")
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(StoreError, match=r"file: record 1 cannot be read, the file ends in it"):
        record_places(path)


def test_a_damaged_length_and_damaged_data_are_noticed(tmp_path: Path):
    path = written(tmp_path / "file", b"first", b"second")
    whole = path.read_bytes()
    path.write_bytes(whole[:13] + b"X" + whole[14:])
    with path.open("rb") as file:
        assert [read_record(file, place) for place in record_places(path)] == [None, b"second"]
    path.write_bytes(b"\x01" + whole[1:])
    with pytest.raises(StoreError, match=r"record 0 cannot be read, the checksum of its length"):
        record_places(path)
    assert not looks_like_tfrecord(path)


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.one_of(
            st.lists(st.binary(max_size=9), max_size=4),
            st.lists(st.floats(width=32, allow_nan=False), max_size=9).map(
                lambda values: np.array(values, np.float32)
            ),
            st.lists(st.integers(-(2**63), 2**63 - 1), max_size=9).map(
                lambda values: np.array(values, np.int64)
            ),
        ),
        max_size=4,
    )
)
def test_an_example_is_read_as_it_was_written(features: dict[str, np.ndarray | list[bytes]]):
    read = parse_example(serialize_example(features))
    assert set(read) == set(features)
    for key, values in features.items():
        if isinstance(values, list):
            assert read[key] == values
        else:
            np.testing.assert_array_equal(read[key], values)


def test_an_example_has_the_bytes_of_the_wire_format(tmp_path: Path):
    features = {
        "floats": np.array([1.5, -0.25], np.float32),
        "numbers": np.array([3, -1], np.int64),
        "flags": np.array([True, False]),
        "texts": [b"a", b""],
    }
    (record,) = slow_records(written(tmp_path / "file", serialize_example(features)))
    assert record == {
        "floats": [1.5, -0.25],
        "numbers": [3, -1],
        "flags": [1, 0],
        "texts": [b"a", b""],
    }


def test_what_is_no_example_is_refused():
    with pytest.raises(ValueError, match=r"no tf\.train\.Example"):
        parse_example(struct.pack("<Q", 2**63) * 3)
