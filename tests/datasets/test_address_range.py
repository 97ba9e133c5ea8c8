from pathlib import Path

import numpy as np
import pytest

from loopdit.datasets.address_range import AddressRange


def test_files_lie_side_by_side_at_whole_steps(tmp_path: Path):
    sizes = np.array([300, 100, 9000])
    mapped = AddressRange(sizes, step=100)
    steps = mapped.array(np.dtype("V100"))
    for number, size in enumerate(sizes.tolist()):
        content = np.random.default_rng(number).bytes(size)
        (tmp_path / str(number)).write_bytes(content)
        mapped.map(number, tmp_path / str(number))
        start = int(mapped.starts[number]) // 100
        assert int(mapped.starts[number]) % 100 == 0
        assert steps[start : start + size // 100].tobytes() == content


def test_a_file_that_is_gone_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        AddressRange(np.array([4]), step=4).map(0, tmp_path / "gone")


def test_an_array_outlives_the_range_and_cannot_be_written_to(tmp_path: Path):
    (tmp_path / "file").write_bytes(np.arange(4, dtype="<f4").tobytes())
    mapped = AddressRange(np.array([16]), step=16)
    mapped.map(0, tmp_path / "file")
    (tmp_path / "file").unlink()
    view = mapped.array(np.dtype("<f4"))[:4]
    del mapped
    assert view.tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
