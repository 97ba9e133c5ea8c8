"""What is missing, damaged or hostile is refused by file, episode and key."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.datasets.formats.lerobot_sample import FRONT, WRIST, sample_export

from loopdit.datasets.formats import lerobot
from loopdit.datasets.formats.convert import convert
from loopdit.datasets.store import EpisodeStore
from loopdit.errors import StoreError

DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three episodes of 12, 1 and 20 steps; the front camera a video, the wrist camera PNG."""
    features = {WRIST: {"dtype": "image"}}
    export = sample_export()
    lerobot.write(tmp_path / "set", replace(export, facts={"features": features}))
    return tmp_path / "set"


def change_info(root: Path, **changes: Any) -> None:
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | changes))


def change_column(file: Path, name: str, values: list[Any]) -> None:
    table = pq.read_table(file)
    at = table.column_names.index(name)
    pq.write_table(table.set_column(at, name, pa.array(values, table.schema.field(at).type)), file)


def truncate(file: Path, kept: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])


def test_a_missing_video_is_told_when_its_episode_is_read(root: Path):
    (root / f"videos/{FRONT}/chunk-000/file-000.mp4").unlink()
    data = lerobot.open(root)
    with pytest.raises(StoreError, match=rf"episode 2, {FRONT}: there is no video .*file-000\.mp4"):
        data.episode(2)


def test_of_a_truncated_video_the_file_the_episode_and_the_key_are_told(root: Path):
    truncate(root / f"videos/{FRONT}/chunk-000/file-000.mp4", 0.7)
    data = lerobot.open(root)
    with pytest.raises(StoreError, match=rf"episode 2, {FRONT}: .*file-000\.mp4"):
        data.episode(2)


def test_a_video_with_more_frames_than_the_episode_has_steps_is_refused(root: Path):
    change_column(root / EPISODES, f"videos/{FRONT}/to_timestamp", [1.3, 1.3, 3.3])
    with pytest.raises(StoreError, match=r"has 13 frames from 0\.000 s on for an episode of 12"):
        lerobot.open(root).episode(0)


def test_a_parquet_file_without_a_footer_is_told(root: Path):
    truncate(root / DATA, 0.9)
    with pytest.raises(StoreError, match=r"file-000\.parquet cannot be read as parquet.*finalize"):
        lerobot.open(root).episode(0)


def test_a_list_of_episodes_without_a_footer_is_told(root: Path):
    truncate(root / EPISODES, 0.9)
    with pytest.raises(StoreError, match=r"meta/episodes/.*cannot be read as parquet"):
        lerobot.open(root)


def test_a_missing_data_file_is_told(root: Path):
    (root / DATA).unlink()
    with pytest.raises(StoreError, match=r"there is no file .*data/chunk-000/file-000\.parquet"):
        lerobot.open(root).episode(0)


def test_rows_of_another_episode_are_refused(root: Path):
    change_column(root / EPISODES, "length", [13, 1, 20])
    with pytest.raises(StoreError, match="episode 0: row 12 has episode_index 1 instead of 0"):
        lerobot.open(root).episode(0)


def test_more_steps_than_the_file_has_are_refused(root: Path):
    change_column(root / EPISODES, "length", [12, 1, 21])
    with pytest.raises(StoreError, match="has 33 rows; rows 13 to 34 are wanted"):
        lerobot.open(root).episode(2)


def test_an_episode_that_cannot_be_read_leaves_the_others_readable(root: Path):
    table = pq.read_table(root / DATA).to_pylist()
    pictures = [row[WRIST] for row in table]
    pictures[5] = {"bytes": b"\x89PNG broken", "path": ""}
    change_column(root / DATA, WRIST, pictures)
    data = lerobot.open(root)
    with pytest.raises(StoreError, match=rf"episode 0: the picture of {WRIST} at step 5"):
        data.episode(0)
    assert len(data.episode(1).steps["action"]) == 1
    assert len(data.episode(2).steps["action"]) == 20


def test_missing_values_are_told_by_key(root: Path):
    change_column(root / DATA, "next.reward", [0.0] * 20 + [None] * 13)
    data = lerobot.open(root)
    assert len(data.episode(0).steps["next.reward"]) == 12
    with pytest.raises(StoreError, match=r"episode 2: next\.reward has missing values"):
        data.episode(2)


def test_a_column_that_is_not_there_is_told(root: Path):
    table = pq.read_table(root / DATA)
    pq.write_table(table.drop_columns(["action"]), root / DATA)
    with pytest.raises(StoreError, match="has no column 'action'; it has"):
        lerobot.open(root).episode(0)


def test_a_feature_of_another_shape_than_its_column_is_told(root: Path):
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["action"]["shape"] = [3]
    change_info(root, features=info["features"])
    with pytest.raises(StoreError, match=r"action has 24 values .* says float64 of shape \[3\]"):
        lerobot.open(root).episode(0)


def test_an_unknown_task_is_told(root: Path):
    change_column(root / DATA, "task_index", [7] * 33)
    with pytest.raises(StoreError, match="task_index 7 is in none of the 3 tasks"):
        lerobot.open(root).episode(0)


def test_a_list_that_ends_early_is_told(root: Path):
    change_info(root, total_episodes=4)
    with pytest.raises(StoreError, match=r"says 4 episodes, .*lists 3"):
        lerobot.open(root)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"codebase_version": "v1.6"}, "codebase_version 'v1.6'"),
        ({"codebase_version": "v4.0"}, "codebase_version 'v4.0'"),
        ({"storage_format": "lance"}, "storage_format 'lance'"),
        ({"fps": 0}, "fps=0 is no rate"),
        ({"fps": "10"}, "fps='10' is no rate"),
        ({"features": []}, "has no features"),
    ],
)
def test_an_info_that_we_cannot_go_by_is_refused(root: Path, changes: dict[str, Any], said: str):
    change_info(root, **changes)
    with pytest.raises(StoreError, match=said):
        lerobot.open(root)


@pytest.mark.parametrize(
    "template",
    [
        "../outside.parquet",
        "/etc/passwd",
        "data/../../{chunk_index}.parquet",
        "data/{chunk_index.__class__}/{file_index}.parquet",
        "data/{chunk_index:0999999999d}.parquet",
        "data/{chunk_index!r}.parquet",
        "data/{secret}.parquet",
        "data/{chunk_index",
        "",
        7,
    ],
)
def test_a_path_template_names_files_of_the_folder_only(root: Path, template: Any):
    (root.parent / "outside.parquet").write_bytes((root / DATA).read_bytes())
    change_info(root, data_path=template)
    with pytest.raises(StoreError, match="does not name a file of this folder"):
        lerobot.open(root)


def test_a_key_cannot_lead_out_of_the_folder_either(root: Path):
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["../../../secret"] = info["features"].pop(FRONT)
    change_info(root, features=info["features"])
    table = pq.read_table(root / EPISODES)
    names = [name.replace(FRONT, "../../../secret") for name in table.column_names]
    pq.write_table(table.rename_columns(names), root / EPISODES)
    with pytest.raises(StoreError, match="does not name a file of this folder"):
        lerobot.open(root)


def test_features_that_cannot_be_read_are_left_out_and_told(root: Path):
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["language_events"] = {"dtype": "language", "shape": [1], "names": None}
    info["features"][FRONT]["info"]["video.is_depth_map"] = True
    change_info(root, features=info["features"])
    data = lerobot.open(root)
    assert set(data.notes) == {
        "language_events is not read: its dtype 'language' is unknown",
        f"{FRONT} is not read: it is a depth video",
    }
    assert set(data.episode(0).steps) >= {WRIST, "action"}
    assert FRONT not in data.episode(0).steps


def test_lists_of_unequal_lengths_are_refused_though_their_sum_is_right(root: Path):
    column = pq.read_table(root / DATA).column("action")
    size = len(column[0])
    values: list[list[float]] = [[0.0] * size for _ in range(len(column))]
    values[0], values[1] = values[0][:-1], [*values[1], 0.0]
    table = pq.read_table(root / DATA)
    ragged = pa.array(values, pa.list_(pa.float32()))
    at = table.column_names.index("action")
    pq.write_table(table.set_column(at, "action", ragged), root / DATA)
    with pytest.raises(StoreError, match=r"file-000\.parquet, episode 0: action has"):
        lerobot.open(root).episode(0)


def test_an_episode_that_is_listed_twice_is_refused(root: Path):
    table = pq.read_table(root / EPISODES)
    pq.write_table(pa.concat_tables([table, table.slice(1, 1)]), root / EPISODES)
    change_info(root, total_episodes=4)
    with pytest.raises(StoreError, match=r"meta/episodes lists episode 1 twice"):
        lerobot.open(root)


def test_another_rate_than_the_timestamps_is_refused(root: Path):
    rate = json.loads((root / "meta/info.json").read_text())["fps"]
    change_info(root, fps=3 * rate)
    with pytest.raises(StoreError, match=rf"episode 0: timestamp rises by .* fps={3 * rate:g}"):
        lerobot.open(root).episode(0)


def test_a_column_that_is_there_twice_is_refused(root: Path):
    table = pq.read_table(root / DATA)
    pq.write_table(table.append_column("action", table.column("action")), root / DATA)
    with pytest.raises(StoreError, match=r"file-000\.parquet has the column 'action' twice"):
        lerobot.open(root).episode(0)


def test_numbers_that_json_has_not_are_kept_as_texts(root: Path, tmp_path: Path):
    table = pq.read_table(root / EPISODES)
    scores = pa.array([float("nan")] * table.num_rows)
    pq.write_table(table.append_column("score", scores), root / EPISODES)
    (root / "meta/loopdit.json").unlink()
    convert(root, tmp_path / "out.zarr")
    assert EpisodeStore.open(tmp_path / "out.zarr").metadata(0)["foreign"]["score"] == "nan"


def test_a_flipped_bit_in_a_data_file_that_we_wrote_is_found(root: Path):
    group = pq.ParquetFile(root / DATA).metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    action = next(c for c in columns if c.path_in_schema.startswith("action"))
    first = action.dictionary_page_offset or action.data_page_offset
    content = bytearray((root / DATA).read_bytes())
    content[first + action.total_compressed_size // 2] ^= 1
    (root / DATA).write_bytes(content)
    with pytest.raises(StoreError, match=r"file-000\.parquet cannot be decoded"):
        lerobot.open(root).episode(0)
