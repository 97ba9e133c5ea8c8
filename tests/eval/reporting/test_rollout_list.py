from pathlib import Path

import numpy as np
from tests.eval.report_rows import expert_row, report_row

from loopdit.eval.reporting.report_rows import completed
from loopdit.eval.reporting.rollout_list import rollout_list
from loopdit.eval.reporting.video import write_mp4

FIRST = 900_000


def test_errors_come_before_failures_and_these_before_successes(tmp_path: Path):
    rows = [completed(report_row("sfue")), completed(report_row("ffss", delay="2"))]
    listed = rollout_list(tmp_path, rows)
    places = [(one.outcome, one.seed - FIRST, one.who) for one in listed.rollouts]
    assert places == [
        ("error", 3, "delay=0"),
        ("unstable", 2, "delay=0"),
        ("failure", 0, "delay=2"),
        ("failure", 1, "delay=0"),
        ("failure", 1, "delay=2"),
        ("success", 0, "delay=0"),
        ("success", 2, "delay=2"),
        ("success", 3, "delay=2"),
    ]
    assert listed.outcomes == ["error", "unstable", "failure", "success"]


def test_how_far_and_how_long_a_rollout_went_is_in_the_list(tmp_path: Path):
    (only,) = rollout_list(tmp_path, [completed(report_row("f"))]).rollouts
    assert (only.stage, only.steps, only.seconds) == ("grasped", 2, 0.2)
    assert (only.who, only.words) == ("served policy", "failed")


def test_the_expert_is_listed_and_the_other_controls_are_not(tmp_path: Path):
    controls = [completed(expert_row("f")), completed(expert_row("f", kind="zeros"))]
    listed = rollout_list(tmp_path, [completed(report_row("s", delay="2"))], controls)
    assert listed.conditions == ["served policy", "expert"]
    assert [one.who for one in listed.rollouts] == ["expert", "served policy"]


def test_what_is_at_its_plainest_is_called_undisturbed(tmp_path: Path):
    rows = [completed(report_row("s", fault=fault)) for fault in ("none", "black")]
    assert rollout_list(tmp_path, rows).conditions == ["undisturbed", "fault=black"]


def test_a_few_failures_and_successes_are_shown_and_no_video_is_lost(tmp_path: Path):
    write_mp4(tmp_path / "a.mp4", [np.zeros((16, 16, 3), np.uint8)] * 2, 0.1)
    outcomes = "f" * 10 + "s" * 6
    videos = [
        {"file": "a.mp4", "seed": FIRST + place, "success": letter == "s"}
        for place, letter in enumerate(outcomes)
    ]
    listed = rollout_list(tmp_path, [completed(report_row(outcomes, videos=videos))])
    first = [clip.of.outcome for clip in listed.first_clips]
    assert first == ["failure"] * 8 + ["success"] * 4
    assert len(listed.more_clips) == 4


def test_videos_of_failures_come_first_and_missing_ones_not_at_all(tmp_path: Path):
    pictures = [np.full((64, 96, 3), level, np.uint8) for level in (0, 250)]
    names = ["a.mp4", "b.mp4"]
    for name in names:
        write_mp4(tmp_path / name, pictures, 0.1)
    videos = [
        {"file": name, "seed": FIRST + place, "success": place == 0}
        for place, name in enumerate([*names, "gone.mp4"])
    ]
    listed = rollout_list(tmp_path, [completed(report_row("sff", videos=videos))])
    assert [(clip.of.seed - FIRST, clip.of.outcome) for clip in listed.clips] == [
        (1, "failure"),
        (0, "success"),
    ]
    assert all(clip.src.startswith("data:video/mp4;base64,") for clip in listed.clips)
    assert all(clip.poster.startswith("data:image/jpeg;base64,") for clip in listed.clips)
