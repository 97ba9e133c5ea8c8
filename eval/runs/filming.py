"""Videos of an evaluation: a few episodes of each condition, played again from their actions.

Made afterwards, so that rendering for people disturbs no latency and both a success and a failure
can be chosen. A replay that does not come out the same is not shown.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import zip_longest
from pathlib import Path
from typing import Any

from loopdit.eval.open_env import DEFAULT_IMAGE_SIZE, open_env
from loopdit.eval.replay import play
from loopdit.eval.rollouts.recorder import VIDEOS, Recorder, slug
from loopdit.eval.rollouts.rollout_record import Episode
from loopdit.eval.runs.evaluation import Evaluation
from loopdit.eval.runs.plan import Plan
from loopdit.progress import Progress


def film(
    evaluation: Evaluation, plan: Plan, common: Mapping[str, Any], folder: Path, count: int
) -> None:
    """Make up to `count` videos of each condition and tell `evaluation` of them."""
    chosen = [e for done in evaluation.episodes().values() for e in worth_seeing(done, count)]
    policy = f"{common['label'] or common['kind']} {common['model_id'] or ''}"
    with Progress("making videos", len(chosen)) as progress:
        for number, episode in enumerate(chosen, 1):
            job = episode.job
            name = slug(f"{common['env']} {policy} {job.condition.text}")
            file = f"{VIDEOS}/{name}_{job.seed}.mp4"
            if _filmed(episode, plan, folder / file):
                evaluation.add_video(job, file)
            progress.update(number)


def worth_seeing(episodes: Sequence[Episode], count: int) -> list[Episode]:
    """Up to `count`: the first success, the first failure, the second success and so on."""
    played = [episode for episode in episodes if len(episode.rollout.actions)]
    successes = [episode for episode in played if episode.rollout.success]
    others = [episode for episode in played if not episode.rollout.success]
    turns = [episode for pair in zip_longest(successes, others) for episode in pair if episode]
    return turns[:count]


def _filmed(episode: Episode, plan: Plan, path: Path) -> bool:
    condition = episode.job.condition
    shapes = plan.environment["image_shapes"]
    size = shapes[0][0] if shapes else DEFAULT_IMAGE_SIZE
    name = plan.environment["env"]
    with closing(open_env(name, size, condition.rate_hz, condition.variation)) as env:
        recorder = Recorder(env)
        same = play(env, episode, recorder) is None
        if same:
            recorder.write(path)
    return same
