"""The page as text; a browser looks at it in test_view_in_browser."""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.datasets.commands.calls import Call

from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import Episode, EpisodeStore, EpisodeWriter

MakeEpisode = Callable[[int, int], Episode]


def data_of(page: str) -> list[dict[str, Any]]:
    """What the page's script reads, one for each episode."""
    found = re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL)
    return [json.loads(one) for one in found]


def test_the_page_has_the_chosen_episodes_with_frames_plots_and_numbers(
    call: Call, store: Path, tmp_path: Path
):
    out = tmp_path / "page.html"
    done = call("view", store, "episodes=[2,0]", f"out={out}")
    assert done.status == 0
    assert done.out == f"{out}: 2 of 3 episodes. Open it in a browser.\n"
    page = out.read_text()
    opened = EpisodeStore.open(store)
    for place, index in enumerate((2, 0)):
        data, record = data_of(page)[place], opened.episodes[index]
        assert data["length"] == record.length
        assert [camera["steps"] for camera in data["cameras"]] == [[*range(record.length)]] * 2
        arrays = opened.arrays(index)
        columns = [*arrays["action"].T, *arrays["proprio"].T]
        np.testing.assert_allclose(data["values"], columns, rtol=1e-3)
        assert record.instruction in page
    for word in ("shoulder", "gripper", "rad", "success", "episode_000002"):
        assert word in page
    assert "take 1" not in page


def test_the_page_needs_no_network(call: Call, store: Path, tmp_path: Path):
    call("view", store, f"out={tmp_path / 'page.html'}")
    page = (tmp_path / "page.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:image/jpeg|#episode-)', page) == []
    assert "@import" not in page
    assert "url(" not in page


def test_frames_on_the_page_are_as_few_as_asked_for(call: Call, store: Path, tmp_path: Path):
    call("view", store, "episodes=[2]", "frames=3", f"out={tmp_path / 'page.html'}")
    page = (tmp_path / "page.html").read_text()
    assert [camera["steps"] for camera in data_of(page)[0]["cameras"]] == [[0, 4, 7]] * 2
    assert "3 of 8 frames" in page


def test_extras_metadata_and_an_unknown_outcome_are_told_and_no_text_becomes_markup(
    call: Call, tmp_path: Path, spec: PolicySpec, episode: MakeEpisode
):
    writer = EpisodeWriter.create(tmp_path / "store", spec, {}, "jpeg")
    extras = {"obs/reward": np.linspace(0, 2, 4)}
    hostile = "</script><b>lift</b>"
    writer.append(
        replace(
            episode(1, 4),
            instruction=hostile,
            success=None,
            seed=None,
            extras=extras,
            metadata={"note": hostile},
        )
    )
    call("view", tmp_path / "store", f"out={tmp_path / 'page.html'}")
    page = (tmp_path / "page.html").read_text()
    assert "<b>lift" not in page
    assert "outcome unknown" in page
    assert re.search(r"obs/reward</td><td>4 float64</td><td>0 to 2", page)
    assert "&lt;b&gt;lift" in page
    assert ", seed" not in page


def test_what_cannot_be_shown_is_said_before_anything_is_written(
    call: Call, store: Path, tmp_path: Path
):
    out = f"out={tmp_path / 'page.html'}"
    wrong = call("view", store, "episodes=[0,3]", out)
    assert "has no episode 3. It has 0 to 2." in wrong.err
    assert "frames=0 must be at least 1" in call("view", store, "frames=0", out).err
    assert "add rerun=true" in call("view", store, "out=x.rrd").err
    (store / "episodes/episode_000001/proprio/c.0.0").write_bytes(b"")
    damaged = call("view", store, out)
    assert damaged.status == 1
    assert "episode_000001/proprio/c.0.0" in damaged.err
    assert not (tmp_path / "page.html").exists()


def test_the_page_is_named_after_the_store(
    call: Call, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    moved = store.rename(tmp_path / "lift.zarr")
    assert call("view", moved).out.startswith("lift.html: 3 of 3 episodes.")
    assert (tmp_path / "lift.html").exists()


@pytest.mark.system  # Rerun's library takes seconds to load
def test_without_a_display_rerun_gets_a_file_with_every_frame_and_number(
    call: Call, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    reading = pytest.importorskip("rerun.chunk")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    done = call("view", store, "episodes=[2]", "rerun=true")
    assert done.status == 0
    assert done.out == "store.rrd: 1 of 3 episodes. Open it: rerun store.rrd\n"
    rows = Counter[str]()
    for chunk in reading.RrdReader(tmp_path / "store.rrd").stream():
        if not chunk.is_static:
            rows[str(chunk.entity_path)] += chunk.num_rows
    names = ("images.front", "images.wrist", "proprio", "action")
    assert {name: rows[f"/episode_000002/{name}"] for name in names} == dict.fromkeys(names, 8)
