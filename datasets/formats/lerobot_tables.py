"""The parquet tables below meta/ of a LeRobot v3.0 data set, as LeRobot's pandas reads them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from loopdit.datasets.formats.lerobot_stats import Stats
from loopdit.datasets.formats.lerobot_v30 import EPISODES, TASKS

_ROWS_AT_A_TIME = 256


class EpisodesTable:
    """meta/episodes being written: a row for each episode, a few hundred in memory at a time."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / EPISODES / "chunk-000/file-000.parquet"
        self._rows: list[dict[str, Any]] = []
        self._writer: Any = None

    def add(self, row: dict[str, Any], stats: dict[str, Stats]) -> None:
        """Append what is known of an episode."""
        flat = {
            f"stats/{key}/{name}": value.tolist()
            for key, values in stats.items()
            for name, value in values.items()
        }
        of_files = {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        self._rows.append(row | flat | of_files)
        if len(self._rows) >= _ROWS_AT_A_TIME:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the footer."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _flush(self) -> None:
        if not self._rows:
            return
        table = pa.Table.from_pylist(self._rows, self._writer.schema if self._writer else None)
        if self._writer is None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._file, table.schema, write_page_checksum=True)
        self._writer.write_table(table)
        self._rows = []


def write_tasks(folder: Path, tasks: list[str]) -> None:
    """meta/tasks.parquet: the texts are the index of a pandas frame, and LeRobot takes the text of
    task_index i from its i-th row. Without pandas, what makes a column an index is written out."""
    index = "__index_level_0__"
    described: dict[str, Any] = {
        "index_columns": [index],
        "column_indexes": [
            {
                "name": None,
                "field_name": None,
                "pandas_type": "unicode",
                "numpy_type": "object",
                "metadata": {"encoding": "UTF-8"},
            }
        ],
        "columns": [
            {
                "name": "task_index",
                "field_name": "task_index",
                "pandas_type": "int64",
                "numpy_type": "int64",
                "metadata": None,
            },
            {
                "name": None,
                "field_name": index,
                "pandas_type": "unicode",
                "numpy_type": "object",
                "metadata": None,
            },
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    table = pa.table({"task_index": list(range(len(tasks))), index: tasks})
    table = table.replace_schema_metadata({"pandas": json.dumps(described)})
    pq.write_table(table, folder / TASKS, write_page_checksum=True)
