"""Columns of parquet as arrays of steps and back, and the rows of a file from first to last.

T steps. Numbers are (T, *shape) of the feature's dtype, one element alone being (T,); pictures are
structs of PNG bytes (T, H, W, 3); texts are T strings. Rows are read as they are asked for, a few
megabytes at a time, so a file of any size needs little memory.
"""

from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from loopdit.datasets.formats.lerobot_info import Feature
from loopdit.datasets.formats.refusals import is_file
from loopdit.errors import StoreError

_ROWS_AT_A_TIME = 256  # rows with pictures may have a megabyte each


class ParquetRows:
    """Rows of one parquet file, quickest when asked for in rising order.

    LeRobot's converter makes files of one row group: going on from where the last rows ended
    spares decoding the whole of it for each episode.
    """

    def __init__(self, path: Path) -> None:
        """Raises StoreError for a file that is missing or has no footer."""
        self.path = path
        if not is_file(path):
            raise StoreError(f"there is no file {path!s:.300}. Restore it.")
        try:
            self._file: Any = pq.ParquetFile(path, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise StoreError(
                f"{path} cannot be read as parquet ({_first_line(error)}): its writer may not have "
                f"ended it. Restore that file, or finalize the data set in LeRobot."
            ) from error
        self.names: tuple[str, ...] = tuple(self._file.schema_arrow.names)
        groups = [
            self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)
        ]
        self._starts = np.cumsum([0, *groups])[:-1]
        self.count = sum(groups)
        self._columns: list[str] = []
        self._pending: Any = None
        self._batches: Any = iter(())
        self._next = self.count + 1

    def read(self, start: int, stop: int, columns: list[str]) -> Any:
        """A pyarrow table of rows start <= i < stop. Raises StoreError for what the file lacks."""
        twice = next((name for name in columns if self.names.count(name) > 1), None)
        if twice is not None:
            raise StoreError(f"{self.path} has the column {twice!r} twice. Restore that file.")
        lacking = [name for name in columns if name not in self.names]
        if lacking:
            raise StoreError(
                f"{self.path} has no column {lacking[0]!r}; it has {', '.join(self.names)}. "
                f"Restore that file, or correct meta/info.json."
            )
        if not 0 <= start < stop <= self.count:
            raise StoreError(
                f"{self.path} has {self.count} rows; rows {start} to {stop} are wanted. "
                f"Restore that file."
            )
        try:
            if columns != self._columns or start < self._next:
                self._seek(start, columns)
            self._skip(start - self._next)
            return self._take(stop - start)
        except (pa.ArrowException, OSError) as error:
            self._next = self.count + 1
            raise StoreError(
                f"{self.path} cannot be decoded at rows {start} to {stop} ({_first_line(error)}). "
                f"Restore that file."
            ) from error

    def close(self) -> None:
        """Close the file, and let go of what was read ahead."""
        self._batches, self._pending, self._next = iter(()), None, self.count + 1
        self._file.close()

    def _seek(self, start: int, columns: list[str]) -> None:
        """Begin at the row group that holds `start`."""
        group = int(np.searchsorted(self._starts, start, side="right")) - 1
        self._next, self._columns, self._pending = int(self._starts[group]), columns, None
        # Group by group: of all of them at once, pyarrow holds more than the one being read.
        file = self._file  # not self: in a cycle, closed files would keep their memory
        self._batches = chain.from_iterable(
            file.iter_batches(_ROWS_AT_A_TIME, row_groups=[i], columns=columns)
            for i in range(group, len(self._starts))
        )

    def _skip(self, rows: int) -> None:
        while rows > 0:
            batch = self._batch(rows)
            rows -= batch.num_rows

    def _take(self, rows: int) -> Any:
        taken: list[Any] = []
        while rows > 0:
            taken.append(self._batch(rows))
            rows -= taken[-1].num_rows
        return pa.Table.from_batches(taken)

    def _batch(self, at_most: int) -> Any:
        batch = self._pending if self._pending is not None else next(self._batches, None)
        if batch is None:
            raise pa.ArrowInvalid("its rows end before the footer says")
        taken = batch.slice(0, at_most)
        self._pending = batch.slice(at_most) if batch.num_rows > at_most else None
        self._next += taken.num_rows
        return taken


def numbers(column: Any, feature: Feature, where: str) -> np.ndarray:
    """A column of a table as (T, *shape), or (T,) where a step has one element."""
    values, steps = column.combine_chunks(), len(column)
    while pa.types.is_list(values.type) or _other_list(values.type):
        if values.null_count or not _of_one_length(values):
            break
        values = values.flatten()
    if values.null_count:
        raise StoreError(
            f"{where}: {feature.key} has missing values. Leave it out with skip_bad=true."
        )
    shape = () if feature.shape in ((), (1,)) else feature.shape
    if len(values) != steps * int(np.prod(shape)) or not _is_number(values.type):
        raise StoreError(
            f"{where}: {feature.key} has {len(values)} values of type {values.type} in {steps} "
            f"steps; meta/info.json says {feature.dtype} of shape {list(feature.shape)}. "
            f"Correct it there."
        )
    array = values.to_numpy(zero_copy_only=False).astype(feature.dtype, copy=False)
    return array.reshape(steps, *shape)


def texts(column: Any, where: str, key: str) -> tuple[str, ...]:
    """A column of strings: one for all steps where they are the same, one for each otherwise."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = [None]
    if not all(isinstance(value, str) for value in values):
        raise StoreError(
            f"{where}: {key} is not text in every step. Leave it out with skip_bad=true."
        )
    return tuple(values[:1]) if len(set(values)) == 1 else tuple(values)


def pictures(column: Any, where: str, key: str) -> np.ndarray:
    """A column of encoded pictures as (T, H, W, 3) uint8, or (T, H, W) where they have depth."""
    frames: np.ndarray | None = None
    for step, value in enumerate(column.to_pylist()):
        data = value.get("bytes") if isinstance(value, dict) else None
        if not data:
            raise StoreError(
                f"{where}: {key} has no picture at step {step}. Leave it out with skip_bad=true."
            )
        try:
            with Image.open(BytesIO(data)) as picture:
                coloured = picture.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
                frame = np.asarray(picture.convert("RGB") if coloured else picture)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise StoreError(
                f"{where}: the picture of {key} at step {step} cannot be decoded ({error}). "
                f"Leave it out with skip_bad=true."
            ) from error
        if frames is None:
            frames = np.empty((len(column), *frame.shape), frame.dtype)
        if frame.shape != frames.shape[1:] or frame.dtype != frames.dtype:
            raise StoreError(
                f"{where}: the picture of {key} at step {step} has shape {frame.shape}, the first "
                f"{frames.shape[1:]}. Leave it out with skip_bad=true."
            )
        frames[step] = frame
    if frames is None:
        raise StoreError(f"{where}: {key} has no steps. Leave it out with skip_bad=true.")
    return frames


def numbers_column(values: np.ndarray) -> Any:
    """(T, ...) as pyarrow: lists in lists of fixed length 1 and more, plain for (T,) and (T, 1)."""
    flat = np.ascontiguousarray(values).reshape(-1)
    column: Any = pa.array(flat.astype(flat.dtype.newbyteorder("="), copy=False))
    inner = values.shape[1:] if values.shape[1:] != (1,) else ()
    for depth, size in enumerate(reversed(inner)):
        if depth == len(inner) - 1 and len(inner) == 1:
            column = pa.FixedSizeListArray.from_arrays(column, size)
        else:  # of several axes, as LeRobot's reader (Hugging Face's ArrayXD) stores them
            offsets = np.arange(0, len(column) + 1, size, dtype=np.int32)
            column = pa.ListArray.from_arrays(offsets, column)
    return column


def pictures_column(frames: np.ndarray) -> Any:
    """(T, H, W, 3) uint8 as PNG in the structs that Hugging Face's Image feature reads."""
    encoded: list[dict[str, Any]] = []
    for step, frame in enumerate(frames):
        file = BytesIO()
        Image.fromarray(frame).save(file, "PNG")
        encoded.append({"bytes": file.getvalue(), "path": f"frame-{step:06d}.png"})
    return pa.array(encoded, pa.struct({"bytes": pa.binary(), "path": pa.string()}))


def _of_one_length(lists: Any) -> bool:
    """Elements of another step would take the place of the ones that are missing in one."""
    if pa.types.is_fixed_size_list(lists.type):
        return True
    return len(np.unique(np.diff(lists.offsets.to_numpy()))) <= 1


def _other_list(kind: Any) -> bool:
    return pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind)


def _is_number(kind: Any) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
