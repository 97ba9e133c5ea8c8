"""The studies of runners: what is predicted, and that it is learned."""

from typing import Any

import numpy as np
import pytest
import torch

from loopdit.errors import ConfigError
from loopdit.eval.experiments.studies import joint_prediction, looped_policy, morphology
from loopdit.eval.experiments.tasks.locomotion import RecordingConfig, closed_loop, recorded
from loopdit.eval.morphology.expert import expert_file, load_expert
from loopdit.policy.canvas.canvas_model import CanvasModel
from loopdit.policy.canvas.config import CanvasModelConfig
from loopdit.policy.loops.config import LoopConfig

CPU = torch.device("cpu")
TASK = "Swimmer-v5"
SHORT = RecordingConfig(demonstrations=1, held_out=1, episode_steps=150)
SMALL = CanvasModelConfig(width=32, heads=2, blocks=1, loops=LoopConfig(loops=2))


def test_queries_are_the_observations_to_come_and_tokens_hold_the_same_actions():
    runs = recorded(TASK, SHORT).training
    options = joint_prediction.Options(
        runners=[TASK], recording=SHORT, observation_queries=2, action_tokens=4
    )
    canvas, scalers = joint_prediction.canvases(options, runs)
    run, step = runs[0], 17
    observed, acted = scalers["observed"], scalers["acted"]
    at = torch.from_numpy(run.observations[[step, step + 16, step + 32]])
    torch.testing.assert_close(canvas["now"][step, 0], observed.scaled(at[0]))
    torch.testing.assert_close(canvas["observations"][step], observed.scaled(at[1:]))
    actions = acted.scaled(torch.from_numpy(run.actions[step : step + 32]))
    torch.testing.assert_close(canvas["actions"][step].reshape(32, -1), actions)
    assert canvas["actions"].shape[1:] == (4, 8 * run.actions.shape[1])
    last = run.actions[-1]  # which is repeated where the episode ends
    np.testing.assert_allclose(
        canvas["actions"][-1].reshape(32, -1)[5] * acted.spread + acted.mean, last, atol=1e-5
    )


@torch.no_grad()
def test_one_way_actions_do_not_depend_on_the_queries_and_dense_ones_do():
    changes: dict[str, bool] = {}
    for linked in ("dense", "one_way"):
        options = joint_prediction.Options(
            runners=[TASK],
            recording=SHORT,
            observation_queries=4,
            linked=linked,
            model=SMALL,
        )
        canvas, _ = joint_prediction.canvases(options, recorded(TASK, SHORT).training)
        model: CanvasModel = joint_prediction.model_of(options, canvas, seed=0).eval()
        piece = {name: values[:2] for name, values in canvas.items()}
        other = piece | {"observations": piece["observations"] + 1}
        level = torch.full((2,), 0.5)
        a, b = (model(c, level).predicted for c in (piece, other))
        changes[linked] = not torch.equal(a["actions"], b["actions"])
        assert not torch.equal(a["observations"], b["observations"])
    assert changes == {"dense": True, "one_way": False}


@pytest.mark.system
def test_a_runners_actions_are_predicted_better_than_by_the_best_constant():
    recording = RecordingConfig(demonstrations=2, held_out=1, episode_steps=300)
    steps: Any = {"steps": 250, "batch": 16, "learning_rate": 3e-3, "looks": 1}
    options = joint_prediction.Options(
        runners=[TASK], recording=recording, observation_queries=2, model=SMALL, **steps
    )
    found = joint_prediction.run(options, 0, CPU).metrics
    assert found["action_mse"] < 0.75 * found["constant_action_mse"]
    assert found["observation_mse"] < found["constant_observation_mse"]
    assert found[f"action_mse_{TASK}"] == found["action_mse"]
    policy = looped_policy.Options(
        runner=TASK,
        recording=recording,
        grid=[[1, 4], [2, 2]],
        policy=looped_policy.LoopedDiTConfig(width=32, max_loops=2),
        **steps,
    )
    found = looped_policy.run(policy, 0, CPU).metrics
    assert found["error"] == found["error_k2"] < found["constant_error"] / 2
    assert found["error_k1_s4"] != found["error_k1"] < found["constant_error"]


def test_bodies_are_cloned_and_measured_against_the_constant_predictor():
    config = morphology.MorphologyConfig(width=32, heads=2, blocks=1, loops=LoopConfig(loops=2))
    options = morphology.Options(
        runners=[TASK], recording=SHORT, policy=config, steps=60, batch=16, learning_rate=5e-3
    )
    found = morphology.run(options, 0, CPU)
    assert found.metrics["relative_error"] < 0.8
    assert morphology.run(options, 0, CPU).metrics == found.metrics


def test_in_closed_loop_an_expert_succeeds_and_a_still_policy_does_not():
    expert = load_expert(expert_file(TASK))

    def act(seen: np.ndarray) -> np.ndarray:
        return np.stack([expert.action(one.astype(float), 0) for one in seen])[:, None]

    ran = closed_loop(TASK, act, episodes=2, execute=1, steps=600)
    assert ran.successes.all()
    still = closed_loop(TASK, lambda seen: 0 * act(seen), episodes=2, execute=1, steps=100)
    assert not still.successes.any()
    assert ran.returns.mean() > still.returns.mean()


def test_a_runner_without_an_expert_is_refused():
    with pytest.raises(ConfigError, match="no runner is named 'Walker2d-v5'"):
        joint_prediction.Options(runners=["Walker2d-v5"])
