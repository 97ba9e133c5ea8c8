"""From the options of `policy-eval` and an opened policy to a plan, everything checked.

What would keep a rollout from beginning is said here, before the first one.
"""

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopdit.datasets.store import EpisodeStore
from loopdit.deploy.backends import AUTO
from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.bundle.manifest import FP32, MANIFEST
from loopdit.errors import ConfigError
from loopdit.eval.environment import Environment
from loopdit.eval.eval_config import EvalConfig
from loopdit.eval.open_env import require_known
from loopdit.eval.rollouts.policy_sources import SHIPPED, PolicySource
from loopdit.eval.runs.episode_runner import EpisodeRunner, Setup
from loopdit.eval.runs.plan import Plan, combinations, controls_of
from loopdit.eval.runs.sequential_run import require_comparable
from loopdit.eval.seeds import require_unseen, trained_envs, trained_seeds
from loopdit.machine import machine_and_versions

_CHECKPOINT = "checkpoint.json"


@dataclass(frozen=True)
class Prepared:
    """A plan; what every row says; the control period, seconds, at each rate_hz."""

    plan: Plan
    common: Mapping[str, Any]
    period_s: Mapping[float, float]


def setup_of(config: EvalConfig) -> Setup:
    """What the workers have to know."""
    return Setup(
        policy=config.policy,
        env=config.env,
        image_size=config.image_size,
        bundle=config.bundle,
        data=config.data,
        openpi_keys=config.openpi_keys,
        backend=config.backend,
        precision=config.precision,
    )


def prepare(config: EvalConfig, runner: EpisodeRunner) -> Prepared:
    """Raises ConfigError, SpecMismatch, RenderingError for what cannot be evaluated."""
    source = runner.source
    axes = config.axes
    axes["loops"] = list(source.chosen_loops(axes["loops"]))
    # Twice the default, once by its number, would be one condition measured twice.
    axes["steps"] = list(dict.fromkeys(steps or source.steps for steps in axes["steps"]))
    conditions = combinations(axes)
    if config.sequential:
        require_comparable(conditions)
    require_not_demonstrated(config)
    _require_shipped_for(config)
    for condition in conditions:
        runner.require_condition(condition)
    period_s = {r: runner.env(r, config.variation[0]).control_period_s for r in config.rate_hz}
    _require_different(period_s)
    names = runner.possible_controls() if config.controls else []
    env = runner.env(config.rate_hz[0], config.variation[0])
    plan = Plan(
        policy=_identity(config, source),
        environment=_environment(config, env),
        versions={"loopdit": machine_and_versions()["versions"]["loopdit"]},
        conditions=conditions,
        controls=controls_of(conditions, names),
        first_seed=config.first_seed,
        episodes=config.most_episodes,
        sequential=config.sequential,
    )
    common = {
        "env": config.env,
        "policy": config.policy,
        "kind": source.kind,
        "label": config.label,
        "model_id": source.model_id,
        "backend": source.backend,
        "precision": source.precision,
        "instruction": env.instruction,
        "stages": env.stages,
        "simulator": env.simulator,
        "model_digest": plan.environment["model_digest"],
        "renderer": plan.environment["renderer"],
        "purpose": config.purpose,
        "command": shlex.join(["policy-eval", *sys.argv[1:]]),
    }
    return Prepared(plan, common, period_s)


def require_not_demonstrated(config: EvalConfig) -> None:
    """Raise ConfigError where a seed is one that the policy is known to have learned from."""
    for name, trained in _demonstrated(config).items():
        require_unseen(config.first_seed, config.most_episodes, trained, name)


def _require_shipped_for(config: EvalConfig) -> None:
    """Raise ConfigError where nobody named a policy and the shipped one has learned another task:
    it fits every task of the arm, and would fail there for a reason that no result shows."""
    if config.policy != SHIPPED:
        return
    require_known(config.env)
    provenance = _provenance(Path(default_bundle()) / MANIFEST)
    learned = trained_envs(provenance)
    if learned and config.env not in learned:
        raise ConfigError(
            f"the shipped policy has learned {', '.join(learned)}, not env={config.env}. Name the "
            f"policy to evaluate: policy=expert, or a bundle or checkpoint of yours."
        )


def _require_different(period_s: Mapping[float, float]) -> None:
    """Raise ConfigError where the environment's own rate is asked for by its number as well."""
    periods = list(period_s.values())
    twice = next((period for period in periods if periods.count(period) > 1), None)
    if twice is not None:
        rates = ",".join(f"{rate:g}" for rate in period_s)
        raise ConfigError(
            f"rate_hz=[{rates}] has {1 / twice:g} twice: 0 is the environment's own rate. Leave "
            f"out one of them."
        )


def _identity(config: EvalConfig, source: PolicySource) -> dict[str, Any]:
    """What names the policy: a model by its id, wherever it is; others by the user's words."""
    if source.model_id is not None:
        chosen = (config.backend, config.precision) != (AUTO, FP32)
        computed = {"backend": source.backend, "precision": source.precision} if chosen else {}
        return {"kind": source.kind, "model_id": source.model_id, **computed}
    said = {"policy": config.policy, "bundle": config.bundle, "data": config.data}
    return {"kind": source.kind, **said}


def _environment(config: EvalConfig, env: Environment) -> dict[str, Any]:
    return {
        "env": config.env,
        "simulator": env.simulator,
        # Not every environment can say what its model is, or what draws its frames.
        "model_digest": getattr(env, "model_digest", None),
        "renderer": getattr(env, "renderer", None),
        "image_shapes": [list(camera.shape) for camera in env.policy_spec.cameras],
    }


def _demonstrated(config: EvalConfig) -> dict[str, list[int]]:
    """Seeds that something to be evaluated has learned from, as far as it is known here."""
    found: dict[str, list[int]] = {}
    if config.data:
        store = EpisodeStore.open(config.data)
        seeds = (record.seed for record in store.episodes)
        found[f"data={config.data}"] = [seed for seed in seeds if seed is not None]
    folder = Path(default_bundle() if config.policy == SHIPPED else config.policy)
    if folder.is_file():  # a bundle in one file
        folder = Bundle.open(folder).path
    for path in (folder / MANIFEST, folder / _CHECKPOINT):
        if path.is_file():
            learned = _provenance(path)
            found[f"policy={config.policy}"] = list(trained_seeds(learned))
            while "init" in learned:  # fine-tuned: what it began from has learned, too
                begun_from, learned = learned["init"]["folder"], learned["init"]["provenance"]
                source = f"policy={config.policy} began from {begun_from}, which"
                found[source] = list(trained_seeds(learned))
    return found


def _provenance(path: Path) -> dict[str, Any]:
    try:
        content: Any = json.loads(path.read_text())
        provenance: dict[str, Any] = content["provenance"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"cannot read {path} ({error!r}). Export or train it again.") from error
    return provenance
