"""Exit status and words; what is found is tested beside `verification`."""

import json
import shlex
from pathlib import Path

from tests.datasets.commands.calls import Call

from loopdit.datasets.store import EpisodeStore


def damage(store: Path, file: str = "episodes/episode_000001/images.wrist/c.0.0.0.0") -> None:
    content = bytearray((store / file).read_bytes())
    content[7] ^= 1
    (store / file).write_bytes(content)


def test_a_whole_store_exits_0_and_says_so(call: Call, store: Path):
    done = call("verify", store)
    assert done.status == 0
    assert done.out.endswith(f"{store}: 3 episodes, 14 steps: all whole.\n")
    told = json.loads(call("verify", store, "json=true").out)
    assert (told["whole"], told["episodes"], told["steps"]) == (True, 3, 14)


def test_a_damaged_one_exits_1_names_episode_and_key_and_the_command_that_helps(
    call: Call, store: Path
):
    damage(store)
    done = call("verify", store)
    assert done.status == 1
    assert "damaged: episode 1 (episode_000001): images.wrist: " in done.out
    assert "1 of 3 episodes are damaged." in done.out
    told = call("verify", store, "json=true")
    assert told.status == 1
    (problem,) = json.loads(told.out)["problems"]
    assert (problem["episode"], problem["id"]) == (1, "episode_000001")
    assert problem["key"] == "images.wrist"
    command = shlex.split(done.out.rpartition("To keep the rest: ")[2])
    repaired = call(*command[1:])
    assert repaired.status == 0
    assert f"set aside in {store}/quarantine: episode_000001" in repaired.out
    assert repaired.out.endswith(f"{store}: 2 episodes, all whole.\n")
    assert call("verify", store).status == 0
    assert [record.seed for record in EpisodeStore.open(store).episodes] == [0, 2]
    assert "nothing to repair" in call("repair", store).out


def test_leftovers_of_killed_writers_are_told_and_are_no_damage(call: Call, store: Path):
    (store / "episodes/.tmp-1-0").mkdir()
    done = call("verify", store)
    assert done.status == 0
    assert "note: 1 folders that no line lists" in done.out
    assert "removed what killed writers left: .tmp-1-0" in call("repair", store).out
    assert "note" not in call("verify", store).out


def test_a_path_with_spaces_can_be_copied_from_the_message(call: Call, store: Path, tmp_path: Path):
    moved = store.rename(tmp_path / "it's mine")
    damage(moved, "episodes.jsonl")
    done = call("verify", moved)
    assert done.status == 1
    command = shlex.split(done.out.rpartition("To keep the rest: ")[2])
    assert command == ["policy-data", "repair", str(moved)]
    assert call(*command[1:]).status == 0
    assert call("verify", moved).status == 0
