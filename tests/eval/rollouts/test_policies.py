"""What drives rollouts, against real environments, servers and stores."""

import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.eval.conftest import IMAGE_SIZE, WavingPolicy

from loopdit.datasets.spec import FROM_COMMITTED, FROM_OBSERVATION, Observation
from loopdit.datasets.store import EpisodeStore
from loopdit.deploy.bundle.archive import pack
from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.robot.committed import with_committed
from loopdit.deploy.serving.served_policy import Inference
from loopdit.deploy.serving.server import PolicyServer
from loopdit.envs.arm_env import arm_spec
from loopdit.errors import BundleError, ConfigError, ServerError
from loopdit.eval.evaluate import EvalConfig
from loopdit.eval.rollouts.policies import (
    ExpertPolicy,
    ModelPolicy,
    RandomPolicy,
    RecordedPolicy,
    ReplayPolicy,
    ZerosPolicy,
    in_process,
    torch_module,
    untrained_twin,
)
from loopdit.eval.rollouts.policy_sources import open_policy
from loopdit.policy.checkpoint import save_checkpoint
from loopdit.policy.looped_dit_config import LoopedDiTConfig
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.objective import ObjectiveConfig

SPEC = arm_spec(IMAGE_SIZE)


def observation(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    frames = {c.name: rng.integers(0, 256, c.shape, dtype=np.uint8) for c in SPEC.cameras}
    return {**frames, "proprio": rng.normal(size=SPEC.proprio.shape).astype(np.float32)}


def test_a_policy_over_the_wire_acts_as_it_does_in_this_process(
    waving: WavingPolicy, waving_endpoint: str
):
    with open_policy(waving_endpoint, bundle="", data="") as source:
        assert (source.kind, source.spec, source.model_id) == ("served", SPEC, "waving-0")
        assert (source.loops, source.steps) == ((1, 2), 5)
        for loops in source.loops:
            remote = source.make(None, loops, 5)  # pyright: ignore[reportArgumentType] - a model looks at no environment
            local = ModelPolicy(in_process(waving), loops, steps=5)
            for seed in (1_000_000, 1_000_001):
                remote.reset(seed)
                local.reset(seed)
                for step in range(3):
                    far = remote.chunk(observation(step), "lift")
                    near = local.chunk(observation(step), "lift")
                    np.testing.assert_array_equal(far.actions, near.actions)
                    assert far.loops == near.loops == loops


class AnsweringPolicy(WavingPolicy):
    """Its actions are what it was told, doubled, then ones."""

    model_id = "answering-0"

    def infer(
        self, observation: Observation, *, seed: int, loops: int, steps: int, instruction: str = ""
    ) -> Inference:
        actions = np.concatenate([2 * observation["committed"][:, :-1], np.ones((1, 7))])
        return Inference(actions.astype(np.float32), loops, steps, encode_us=1, denoise_us=1)


@pytest.mark.parametrize("chunk_from", [FROM_OBSERVATION, FROM_COMMITTED])
def test_a_policy_is_told_what_is_in_flight_and_where_its_chunk_begins_is_known_over_the_wire(
    chunk_from: str,
):
    model = AnsweringPolicy(SPEC.with_committed(3, chunk_from))
    flying = np.arange(14, dtype=np.float32).reshape(2, 7)
    with (
        PolicyServer(model, "tcp://127.0.0.1:0") as server,
        open_policy(server.endpoint, bundle="", data="") as source,
    ):
        remote = source.make(None, 1, 5)  # pyright: ignore[reportArgumentType] - as above
        assert remote.committed == 3
        assert source.spec is not None
        assert source.spec.recorded == SPEC
        remote.reset(1_000_000)
        found = remote.chunk(with_committed(observation(0), flying, model.spec), "lift").actions
    answer = [*(2 * flying), np.zeros(7), np.ones(7)]
    in_front = [*flying] if chunk_from == FROM_COMMITTED else []
    np.testing.assert_array_equal(found, [*in_front, *answer])


class OtherPolicy(WavingPolicy):
    """Other weights of the same shape."""

    model_id = "other-0"


def test_a_server_that_comes_back_with_another_model_is_refused(waving: WavingPolicy):
    with ExitStack() as first:
        endpoint = first.enter_context(PolicyServer(waving, "tcp://127.0.0.1:0")).endpoint
        with open_policy(endpoint, bundle="", data="") as source:
            policy = source.make(None, 1, 5)  # pyright: ignore[reportArgumentType] - as above
            policy.reset(1_000_000)
            policy.chunk(observation(0), "lift")
            first.close()
            said = "is now the model other-0, and the evaluation began with waving-0"
            with PolicyServer(OtherPolicy(SPEC), endpoint), pytest.raises(ServerError, match=said):
                policy.chunk(observation(1), "lift")


def test_noise_differs_between_chunks_and_episodes_and_comes_back_with_the_seed(
    waving: WavingPolicy,
):
    policy = ModelPolicy(in_process(waving), loops=1, steps=5)
    chunks: list[bytes] = []
    for seed in (1, 2, 1):
        policy.reset(seed)
        chunks += [policy.chunk(observation(0), "").actions.tobytes() for _ in range(2)]
    assert len(set(chunks)) == 4
    assert chunks[:2] == chunks[4:]


def test_the_untrained_twin_keeps_shape_and_normalisation_and_nothing_learned(tmp_path: Path):
    trained = LoopedPolicy(SPEC, LoopedDiTConfig(width=32, max_loops=2, action_horizon=8))
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.05)
        trained.normalizer.get_buffer("action_mean").copy_(torch.full((7,), 0.01))
        trained.normalizer.get_buffer("action_spread").copy_(torch.full((7,), 1e-6))
    save_checkpoint(tmp_path, trained, {})
    chunk = untrained_twin(str(tmp_path), seed=0)(observation(0), "", 3, loops=2, steps=4).actions
    assert chunk.shape == (8, 7)
    # So little spread leaves the mean of the normalisation, which it must have taken over.
    np.testing.assert_allclose(chunk, 0.01, atol=1e-3)
    again = untrained_twin(str(tmp_path), seed=0)(observation(0), "", 3, loops=2, steps=4).actions
    other = untrained_twin(str(tmp_path), seed=1)(observation(0), "", 3, loops=2, steps=4).actions
    np.testing.assert_array_equal(chunk, again)
    assert not np.array_equal(chunk, other)


def test_making_an_untrained_twin_leaves_torchs_random_state_alone(tmp_path: Path):
    policy = LoopedPolicy(SPEC, LoopedDiTConfig(width=32, max_loops=1))
    save_checkpoint(tmp_path, policy, {})
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    untrained_twin(str(tmp_path), seed=0)
    torch.testing.assert_close(torch.rand(3), expected)


def test_replay_plays_one_training_episode_in_order_then_holds_its_last_action(
    store: EpisodeStore,
):
    policy = ReplayPolicy(store)
    policy.reset(1_000_000)
    played = np.concatenate([policy.chunk({}, "").actions for _ in range(80)])
    recorded = [store.arrays(i)["action"] for i in range(len(store.episodes))]
    matching = [a for a in recorded if np.array_equal(played[: len(a)], a)]
    assert len(matching) == 1
    assert (played[len(matching[0]) :] == matching[0][-1]).all()


def test_replay_plays_different_episodes_for_different_seeds(store: EpisodeStore):
    policy = ReplayPolicy(store)
    first_actions: set[bytes] = set()
    for seed in range(40):
        policy.reset(seed)
        first_actions.add(policy.chunk({}, "").actions.tobytes())
    assert len(first_actions) == len(store.episodes)


def test_random_actions_fill_the_limits_and_come_back_with_the_seed():
    policy = RandomPolicy(SPEC.action)
    policy.reset(3)
    actions = np.concatenate([policy.chunk({}, "").actions for _ in range(2000)])
    low, high = np.array(SPEC.action.low), np.array(SPEC.action.high)
    assert (actions >= low - 1e-7).all()
    assert (actions <= high + 1e-7).all()
    # The extremes of 2000 draws leave a hundredth of the range empty once in 10^8 runs.
    assert (np.ptp(actions, axis=0) > 0.98 * (high - low)).all()
    policy.reset(3)
    np.testing.assert_array_equal(policy.chunk({}, "").actions[0], actions[0])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("exprt", "policy=exprt is unknown.*shipped, expert, zeros, random, replay, untrained"),
        ("replay", "policy=replay needs data=STORE"),
    ],
)
def test_a_policy_that_cannot_be_opened_says_what_there_is(name: str, said: str):
    with pytest.raises(ConfigError, match=said), open_policy(name, bundle="", data=""):
        pass


def test_a_depth_that_is_not_offered_is_refused_with_those_that_are(waving_endpoint: str):
    with open_policy(waving_endpoint, bundle="", data="") as source:
        assert source.chosen_loops([2, 1]) == [2, 1]
        with pytest.raises(ConfigError, match=r"loops=3 is not offered.*loops=\[1,2\]"):
            source.chosen_loops([1, 3])
        assert replace(source, loops=()).chosen_loops([1, 3]) == [0]


def test_without_a_name_the_shipped_policy_is_evaluated():
    assert EvalConfig().policy == "shipped"
    with open_policy("shipped", bundle="", data="") as source:
        assert source.model_id == Bundle.open(default_bundle()).model_id
        assert source.chosen_loops([1, 2, 3, 4]) == [1, 2, 3, 4]


def test_a_bundle_is_computed_by_the_back_end_and_in_the_precision_that_are_chosen(tmp_path: Path):
    archive = tmp_path / "policy.zip"
    pack(default_bundle(), archive, [path.name for path in default_bundle().iterdir()])
    for name in ("shipped", str(archive)):
        with open_policy(name, bundle="", data="", backend="torch") as source:
            assert (source.kind, source.backend, source.precision) == ("bundle", "torch", "fp32")
    with (
        pytest.raises(BundleError, match=r"precision=fp16 is not in this bundle, which has fp32"),
        open_policy("shipped", bundle="", data="", backend="onnxruntime", precision="fp16"),
    ):
        pass
    with (
        pytest.raises(ConfigError, match=r"backend=torch .* a bundle.*policy=expert is none"),
        open_policy("expert", bundle="", data="", backend="torch"),
    ):
        pass


def test_a_training_checkpoint_acts_as_its_torch_module_does(tmp_path: Path):
    trained = LoopedPolicy(SPEC, LoopedDiTConfig(width=32, max_loops=2, action_horizon=8)).eval()
    save_checkpoint(tmp_path, trained, {})
    with open_policy(str(tmp_path), bundle="", data="") as source:
        assert (source.kind, source.spec, source.loops) == ("checkpoint", SPEC, (1, 2))
        assert source.model_id
        assert torch.get_num_threads() == 1
        policy = source.make(None, 2, 4)  # pyright: ignore[reportArgumentType] - a model looks at no environment
        policy.reset(1_000_000)
        found = policy.chunk(observation(0), "")
    batched = {name: torch.from_numpy(value)[None] for name, value in observation(0).items()}
    # Its starting noise has no spread where nobody says otherwise.
    expected = trained.act(batched, torch.zeros(1, 8, 7), loops=2, steps=4)[0].numpy()
    np.testing.assert_allclose(found.actions, expected, atol=1e-6)
    assert (found.actions.shape, found.loops) == ((8, 7), 2)


def test_another_checkpoint_is_another_model_and_its_untrained_twin_is_none(tmp_path: Path):
    ids: set[str | None] = set()
    for name in ("a", "b"):
        policy = LoopedPolicy(SPEC, LoopedDiTConfig(width=32, max_loops=1, action_horizon=8))
        save_checkpoint(tmp_path / name, policy, {})
        with open_policy(str(tmp_path / name), bundle="", data="") as source:
            ids.add(source.model_id)
    assert len(ids) == 2
    with open_policy("untrained", bundle=str(tmp_path / "a"), data="") as source:
        assert (source.kind, source.spec, source.loops) == ("untrained", SPEC, (1,))
        assert source.model_id is None


def test_a_bundle_and_the_checkpoint_in_it_go_by_one_model_id(tmp_path: Path):
    for name in ("checkpoint.json", "model.safetensors"):
        shutil.copy(default_bundle() / name, tmp_path)
    found: list[tuple[str, str | None]] = []
    for folder in (default_bundle(), tmp_path):
        with open_policy(str(folder), bundle="", data="") as source:
            found.append((source.kind, source.model_id))
    assert [kind for kind, _ in found] == ["bundle", "checkpoint"]
    assert found[0][1] == found[1][1]


def test_only_models_look_at_what_is_observed(waving: WavingPolicy):
    assert ModelPolicy(in_process(waving), 1, 5).looks
    blind = (ExpertPolicy, ZerosPolicy, RandomPolicy, ReplayPolicy, RecordedPolicy)
    assert not any(policy.looks for policy in blind)


def test_random_actions_need_limits():
    with pytest.raises(ConfigError, match="policy=random needs limits"):
        RandomPolicy(replace(SPEC.action, low=(), high=()))


def test_recorded_actions_are_played_one_by_one_and_no_further():
    policy = RecordedPolicy(np.arange(6, dtype=np.float32).reshape(3, 2))
    for _ in range(2):
        policy.reset(0)
        played = [policy.chunk({}, "").actions for _ in range(3)]
        np.testing.assert_array_equal(np.concatenate(played), [[0, 1], [2, 3], [4, 5]])
    with pytest.raises(IndexError):
        policy.chunk({}, "")


def test_a_sampler_that_draws_noise_at_each_step_gets_it_from_the_seed():
    torch.manual_seed(0)
    objective = ObjectiveConfig("ddpm_x0", sampler="ddpm")
    config = LoopedDiTConfig(width=32, max_loops=2, action_horizon=4, objective=objective)
    infer = torch_module(LoopedPolicy(SPEC, config).eval())
    seen = observation(1)
    chunks = [infer(seen, "", seed, 2, 5).actions for seed in (3, 3, 4)]
    assert np.array_equal(chunks[0], chunks[1])
    assert not np.array_equal(chunks[0], chunks[2])
