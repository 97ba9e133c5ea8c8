"""What verify finds, whatever byte is altered, and what repair keeps."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter
from loopdit.datasets.verification import Verified, repair, verify
from loopdit.errors import LoopditError, StoreError

MakeEpisode = Callable[[int, int], Episode]
FRAMES = ("raw", "zstd", "jpeg")


@pytest.fixture(params=FRAMES)
def full(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode, request: pytest.FixtureRequest
) -> Path:
    """Three episodes with extras and metadata, in each way to keep frames."""
    writer = EpisodeWriter.create(tmp_path / "full", spec, {"made_by": "a test"}, request.param)
    for seed in range(3):
        extras = {"obs/joint": np.full((4, 2), seed, np.float16)}
        writer.append(replace(episode(seed, 4), extras=extras, metadata={"operator": "a"}))
    return tmp_path / "full"


def files_of(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def content_of(store: Path) -> dict[int | None, bytes]:
    """The actions by seed, which tell the episodes apart."""
    opened = EpisodeStore.open(store)
    return {
        record.seed: opened.arrays(index)["action"].tobytes()
        for index, record in enumerate(opened.episodes)
    }


def is_found(store: Path) -> Verified | None:
    """What was found, None where the store's root could not even be read."""
    try:
        found = verify(str(store))
    except LoopditError:
        return None
    assert not found.whole
    return found


def test_a_store_as_it_was_written_is_whole(full: Path):
    found = verify(str(full))
    assert found.whole
    assert (found.episodes, found.steps, found.damaged) == (3, 12, [])
    assert found.leftovers == []


def test_a_flipped_bit_in_any_file_is_found_and_its_episode_named(full: Path):
    choose = random.Random(0)
    for file in files_of(full):
        folder: tuple[str, ...] = file.relative_to(full).parts
        if folder[1:2] in (("episode_000000",), ("episode_000002",)):
            continue  # as episode_000001
        whole = file.read_bytes()
        for _ in range(4):
            place, bit = choose.randrange(len(whole)), choose.randrange(8)
            if file.name.startswith("c.") and whole[:4] == b"(\xb5/\xfd" and place == 4:
                continue  # one bit there means nothing in the format of zstd
            changed = bytearray(whole)
            changed[place] ^= 1 << bit
            file.write_bytes(changed)
            found = is_found(full)
            if found is not None and "episode_000001" in folder:
                assert found.damaged == ["episode_000001"], (file, place, bit)
        file.write_bytes(whole)
    assert verify(str(full)).whole


@pytest.mark.parametrize("damage", ["missing", "cut short", "longer"])
def test_a_file_that_is_gone_or_of_another_length_is_found_and_its_key_named(
    full: Path, damage: str
):
    folder = full / "episodes/episode_000001"
    for file in files_of(folder):
        whole = file.read_bytes()
        file.write_bytes({"missing": b"", "cut short": whole[:-1], "longer": whole + b"x"}[damage])
        if damage == "missing":
            file.unlink()
        found = verify(str(full))
        assert found.damaged == ["episode_000001"]
        first, second, *_ = [*file.relative_to(folder).parts, ""]
        keys = {problem.key for problem in found.problems}
        if first == "extras":
            assert keys <= {"extras/obs/joint", ""}
        elif second:
            assert keys == {first}
        file.write_bytes(whole)


def test_a_missing_folder_is_named_and_the_rest_goes_on(full: Path):
    before = content_of(full)
    shutil.rmtree(full / "episodes/episode_000001")
    assert verify(str(full)).damaged == ["episode_000001"]
    done = repair(str(full))
    assert (done.quarantined, done.episodes) == (["episode_000001"], 2)
    del before[1]
    assert content_of(full) == before
    assert verify(str(full)).whole


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("length", 3),
        ("length", 10**12),
        ("instruction", "push the cube"),
        ("success", None),
        ("success", True),
        ("seed", 7),
        ("digest", "0" * 32),
        ("id", "episode_000009"),
    ],
)
def test_an_edited_line_of_the_list_is_found(full: Path, field: str, value: Any):
    index = full / "episodes.jsonl"
    lines = [json.loads(line) for line in index.read_text().splitlines()]
    lines[1][field] = value
    index.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = verify(str(full))
    assert found.damaged == [lines[1]["id"]]
    repair(str(full))
    assert verify(str(full)).whole
    # An episode that another id was put for is still there, and listed again.
    assert set(content_of(full)) == ({0, 1, 2} if field == "id" else {0, 2})


@pytest.mark.parametrize(
    "line",
    [
        '{"id": "episode_0',
        "",
        "null",
        '{"id": "../../elsewhere", "length": 4, "instruction": "", "success": true, "seed": 1, '
        '"digest": ""}',
        '{"id": "episode_000001", "length": "4", "instruction": "", "success": true, "seed": 1, '
        '"digest": ""}',
        '{"id": "episode_000000", "length": 4, "instruction": "", "success": true, "seed": 1, '
        '"digest": ""}',
    ],
)
def test_a_line_that_cannot_be_is_replaced_by_what_its_episode_says(full: Path, line: str):
    before, index = content_of(full), full / "episodes.jsonl"
    lines = index.read_text().splitlines()
    lines[1] = line
    index.write_text("".join(one + "\n" for one in lines))
    found = verify(str(full))
    assert [one.where for one in found.lines] == ["episodes.jsonl, line 2"]
    assert found.damaged == []
    done = repair(str(full))
    assert done.relisted == ["episode_000001"]
    assert done.quarantined == []
    assert content_of(full) == before
    assert verify(str(full)).whole


def test_a_list_that_is_gone_is_written_again(full: Path):
    before = content_of(full)
    (full / "episodes.jsonl").unlink()
    assert [one.problem for one in verify(str(full)).lines] == ["is missing"]
    assert repair(str(full)).relisted == [f"episode_{n:06d}" for n in range(3)]
    assert content_of(full) == before


@pytest.mark.parametrize("left", [0, 1, 200, 300, "the last"])
def test_episodes_whose_lines_are_gone_are_told_kept_and_listed_again(
    full: Path, spec: PolicySpec, left: int | str
):
    """A list that was emptied or cut costs nothing, neither by repair nor by the next writer."""
    before, index = content_of(full), full / "episodes.jsonl"
    lines = index.read_bytes().splitlines(keepends=True)
    index.write_bytes(lines[2] if isinstance(left, str) else index.read_bytes()[:left])
    found = verify(str(full))
    assert not found.whole
    assert found.leftovers in ([], ["episode_000000"], ["episode_000001"])  # the next to write
    with pytest.raises(StoreError, match=r"has no line for .* repair"):
        EpisodeWriter.resume(full, spec)
    done = repair(str(full))
    assert (done.episodes, done.quarantined, done.swept) == (3, [], [])
    assert content_of(full) == before
    assert verify(str(full)).whole
    EpisodeWriter.resume(full, spec)


def test_an_episode_whose_line_and_files_are_both_damaged_is_kept_aside(full: Path):
    index = full / "episodes.jsonl"
    lines = index.read_text().splitlines()
    index.write_text("".join(one + "\n" for one in (lines[0], lines[1][:-9], lines[2])))
    (full / "episodes/episode_000001/zarr.json").write_text("?")
    done = repair(str(full))
    assert (done.relisted, done.quarantined) == ([], ["episode_000001"])
    assert (full / "quarantine/episode_000001/proprio").is_dir()
    assert verify(str(full)).whole


def test_what_killed_writers_left_is_no_damage_and_repair_removes_it(full: Path):
    episodes = full / "episodes"
    for name in (".tmp-1-0", "episode_000003"):
        shutil.copytree(episodes / "episode_000000", episodes / name)
    with (full / "episodes.jsonl").open("a") as index:
        index.write('{"id": "episode_0000')
    found = verify(str(full))
    assert found.whole
    assert found.leftovers == [".tmp-1-0", "episode_000003"]
    done = repair(str(full))
    # A line that was cut short may have been that of a complete episode: then it is one.
    assert done.swept == [".tmp-1-0"]
    assert done.relisted == ["episode_000003"]
    again = repair(str(full))
    assert (again.swept, again.relisted, again.quarantined) == ([], [], [])
    assert verify(str(full)).whole


def test_repair_keeps_every_whole_episode_and_loses_nothing(full: Path, spec: PolicySpec):
    before = content_of(full)
    chunk = full / "episodes/episode_000001/action/c.0.0"
    damaged = bytearray(chunk.read_bytes())
    damaged[5] ^= 4
    chunk.write_bytes(damaged)
    done = repair(str(full))
    assert done.quarantined == ["episode_000001"]
    del before[1]
    assert content_of(full) == before
    assert (full / "quarantine/episode_000001/action/c.0.0").read_bytes() == damaged
    tree = {file: file.read_bytes() for file in files_of(full)}
    again = repair(str(full))
    assert again.before.whole
    assert again.quarantined == []
    assert {file: file.read_bytes() for file in files_of(full)} == tree
    # Undone as the quarantine's own line says.
    assert (
        EpisodeWriter.resume(full, spec)
        .append(
            Episode(
                {
                    name: array
                    for name, array in EpisodeStore.open(full).arrays(0).items()
                    if name != "action"
                },
                EpisodeStore.open(full).arrays(0)["action"],
                "again",
                True,
                9,
            )
        )
        .id
        == "episode_000003"
    )


def test_an_altered_root_is_told_and_costs_no_episode(full: Path):
    root = full / "zarr.json"
    root.write_text(root.read_text().replace('"rad"', '"deg"'))
    found = verify(str(full))
    assert found.root == ["zarr.json is not what was written"]
    assert repair(str(full)).episodes == 3
    root.write_text("{}")
    with pytest.raises(StoreError, match="is not an episode store"):
        verify(str(full))


def test_repair_sets_nothing_aside_where_an_altered_root_fits_no_episode(full: Path):
    """Held against another dtype, every whole episode would seem damaged."""
    root, written = full / "zarr.json", (full / "zarr.json").read_text()
    root.write_text(written.replace('"float32"', '"float64"'))
    with pytest.raises(StoreError, match=r"zarr\.json is not .*, and no episode fits"):
        repair(str(full))
    root.write_text(written)
    assert verify(str(full)).whole


def _a_folder(path: Path) -> None:
    path.mkdir()


def _a_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def _a_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def _a_file(path: Path) -> None:
    path.write_text("x")


@pytest.mark.parametrize("name", ["", "zarr.json", "action", "action/c.0.0", "proprio/zarr.json"])
@pytest.mark.parametrize("put", [_a_folder, _a_dangling_link, _a_link_to_itself, _a_file])
def test_something_else_in_the_place_of_a_file_or_folder_costs_only_its_episode(
    tmp_path: Path,
    spec: PolicySpec,
    episode: MakeEpisode,
    name: str,
    put: Callable[[Path], None],
):
    path = tmp_path / "store"
    writer = EpisodeWriter.create(path, spec, {})
    for seed in range(3):
        writer.append(episode(seed, 4))
    before, place = content_of(path), path / "episodes/episode_000001" / name
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    put(place)
    assert verify(str(path)).damaged == ["episode_000001"]
    assert repair(str(path)).quarantined == ["episode_000001"]
    again = repair(str(path))
    assert again.before.whole
    assert (again.relisted, again.quarantined, again.swept) == ([], [], [])
    del before[1]
    assert content_of(path) == before
    assert EpisodeWriter.resume(path, spec).append(episode(1, 4)).id == "episode_000003"


def test_what_is_no_folder_in_the_place_of_an_unlisted_episode_stops_no_writer(
    tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    writer = EpisodeWriter.create(tmp_path / "store", spec, {})
    _a_dangling_link(tmp_path / "store/episodes/episode_000000")
    assert writer.append(episode(0, 4)).id == "episode_000000"
    _a_file(tmp_path / "store/episodes/episode_000001")
    _a_dangling_link(tmp_path / "store/episodes/.tmp-1-0")
    EpisodeWriter.resume(tmp_path / "store", spec).append(episode(1, 4))
    found = verify(str(tmp_path / "store"))
    assert found.whole
    assert found.leftovers == []


def test_a_store_without_episodes_is_whole(tmp_path: Path, spec: PolicySpec):
    EpisodeWriter.create(tmp_path / "empty", spec, {})
    assert verify(str(tmp_path / "empty")).whole
    assert repair(str(tmp_path / "empty")).episodes == 0


@pytest.mark.parametrize("made", ["nothing", "a file", "an empty folder"])
def test_what_is_no_store_is_refused(tmp_path: Path, made: str):
    path = tmp_path / "x"
    if made == "a file":
        path.write_text("x")
    elif made == "an empty folder":
        path.mkdir()
    with pytest.raises(StoreError, match=r"(no|not an) episode store"):
        verify(str(path))


def test_a_store_at_an_address_is_verified_and_repaired_too(spec: PolicySpec, episode: MakeEpisode):
    from fsspec.implementations.memory import MemoryFileSystem

    address = "memory://verification/lift.zarr"
    writer = EpisodeWriter.create(address, spec, {}, "zstd")
    ids = [writer.append(episode(seed, 4)).id for seed in range(3)]
    assert verify(address).whole
    files = MemoryFileSystem()
    chunk = f"/verification/lift.zarr/episodes/{ids[1]}/action/c.0.0"
    files.pipe_file(chunk, b"x" + files.cat_file(chunk)[1:])
    files.pipe_file(f"/verification/lift.zarr/index/{ids[2]}.json", b"no line\n")
    found = verify(address)
    assert found.damaged == [ids[1]]
    assert [one.where for one in found.lines] == [f"index/{ids[2]}.json"]
    done = repair(address)
    assert (done.quarantined, done.relisted, done.episodes) == ([ids[1]], [ids[2]], 2)
    assert verify(address).whole
    assert {record.seed for record in EpisodeStore.open(address).episodes} == {0, 2}
    files.rm("/verification", recursive=True)
