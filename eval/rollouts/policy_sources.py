"""From the words of `policy=` to something that makes rollout policies, opened and checked.

tcp://HOST:PORT      a policy server, over the wire
openpi://HOST:PORT   an openpi server, over its own
FOLDER, BUNDLE.zip   a bundle or a training checkpoint, in this process
shipped              the bundle that comes with loopdit
untrained            the model of bundle= (or of a checkpoint), random weights
replay               training actions from data=
expert               the environment's scripted expert
informed-expert      the same, told of the actions in flight, for execution=informed
foreseeing-expert    the same, planning in a copy of the world
zeros, random        baselines
"""

from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loopdit.datasets.spec import PolicySpec
from loopdit.datasets.store import EpisodeStore
from loopdit.deploy.backends import AUTO, load_backend
from loopdit.deploy.bundle.bundle import Bundle, default_bundle, model_id
from loopdit.deploy.bundle.manifest import FP32, MANIFEST
from loopdit.deploy.client import PolicyClient
from loopdit.deploy.robot.executions import GUIDED
from loopdit.deploy.serving.served_bundle import ServedBundle
from loopdit.errors import ConfigError
from loopdit.eval.environment import Environment
from loopdit.eval.rollouts.condition import Condition
from loopdit.eval.rollouts.depth import CALIBRATED, FIXED, parse_adaptive
from loopdit.eval.rollouts.foreseeing_expert import ForeseeingExpert
from loopdit.eval.rollouts.informed_expert import InformedExpert
from loopdit.eval.rollouts.policies import (
    ExpertPolicy,
    Infer,
    ModelPolicy,
    RandomPolicy,
    ReplayPolicy,
    ZerosPolicy,
    in_process,
    over_the_wire,
    torch_module,
    untrained_twin,
)
from loopdit.eval.rollouts.rollout import RolloutPolicy
from loopdit.policy.stopping_rule import StoppingRule

if TYPE_CHECKING:
    from loopdit.eval.rollouts.openpi_policy import OpenPiClient

BASELINES = (
    *("expert", "zeros", "random", "replay", "untrained", "informed-expert"),
    "foreseeing-expert",
)
SHIPPED = "shipped"
WIRE_SCHEMES = ("tcp://", "ipc://")
OPENPI_SCHEME = "openpi://"
_UNTRAINED_SEED = 0
# A server shared with others may keep a request waiting; a simulator has the patience.
_TIMEOUT_S = 30.0
_OPENPI_TIMEOUT_S = 120.0  # its first inference compiles the model
_CONNECT_S = 5.0  # a server that is there greets at once


Make = Callable[[Environment, int, int], RolloutPolicy]


@dataclass(frozen=True)
class PolicySource:
    """An opened policy.

    kind: "served", "openpi", "bundle", "checkpoint" or one of BASELINES. spec: None fits every
    environment. loops: the depths it offers, none without a dial. steps: its default denoising
    steps, 0 without. make: the rollout policy for an environment at (loops, steps). adaptive: the
    same by a rule of `depth`, where loops are the most; None where every chunk takes K. guided: the
    same, pulled towards what is planned by a jacobian of `policy.guidance`. backend,
    precision: what computes a bundle; None where something else does.
    """

    kind: str
    spec: PolicySpec | None
    model_id: str | None
    loops: tuple[int, ...]
    steps: int
    make: Make
    adaptive: Callable[[str], Make] | None = None
    guided: Callable[[str], Make] | None = None
    backend: str | None = None
    precision: str | None = None

    def policy(self, env: Environment, condition: Condition) -> RolloutPolicy:
        """One that drives `env` under `condition`. Raises ConfigError for a policy whose depth
        cannot adapt."""
        if condition.execution in GUIDED:
            return self._guided(env, condition)
        if condition.adaptive == FIXED:
            return self.make(env, condition.loops, condition.steps)
        if self.adaptive is None:
            raise ConfigError(
                f"adaptive={condition.adaptive} needs a checkpoint, which can stop between two "
                f"loops; a policy of the kind {self.kind} runs K loops or has none. Name the "
                f"checkpoint's folder in policy=, or leave out adaptive=."
            )
        return self.adaptive(condition.adaptive)(env, condition.loops, condition.steps)

    def _guided(self, env: Environment, condition: Condition) -> RolloutPolicy:
        if self.guided is None or condition.adaptive != FIXED:
            raise ConfigError(
                f"execution={condition.execution} pulls a bundle of this process towards what is "
                f"planned, at a fixed depth; policy={self.kind} adaptive={condition.adaptive} is "
                f"none. Name a bundle in policy=, or use execution=tracked."
            )
        made = self.guided(GUIDED[condition.execution])
        return made(env, condition.loops, condition.steps)

    def chosen_loops(self, wanted: list[int]) -> list[int]:
        """The depths to run: `wanted`, or one for a policy without a dial.

        Raises ConfigError for one it does not offer.
        """
        if not self.loops:
            return [0]
        for loops in wanted:
            if loops not in self.loops:
                offered = ",".join(map(str, self.loops))
                raise ConfigError(
                    f"loops={loops} is not offered by this policy. Use loops=[{offered}] or some "
                    f"of them."
                )
        return wanted


@contextmanager
def open_policy(
    name: str,
    bundle: str,
    data: str,
    openpi_keys: str = "",
    backend: str = AUTO,
    precision: str = FP32,
) -> Generator[PolicySource]:
    """Open what `policy=` names; `bundle` and `data` are folders that some of them need, and
    `openpi_keys` what an openpi server calls observations (see `key_names.parse_keys`).
    `backend` and `precision` are those of a bundle (see `load_backend`).

    Raises ConfigError for an unknown name or a choice that it does not leave, and whatever opening
    a server, bundle or store raises.
    """
    if (backend, precision) != (AUTO, FP32) and not _is_bundle(name):
        raise ConfigError(
            f"backend={backend} precision={precision} say what computes a bundle in this process, "
            f"and policy={name} is none. Name a bundle, or leave them out."
        )
    if name.startswith(WIRE_SCHEMES):
        with PolicyClient(name, timeout_s=_CONNECT_S) as client:
            client.timeout_s = _TIMEOUT_S
            yield _served(client)
    elif name.startswith(OPENPI_SCHEME):
        with closing(_openpi_client(name)) as client:
            yield _openpi(client, openpi_keys)
    elif name == "untrained":
        yield _untrained(bundle or str(default_bundle()))
    elif name == SHIPPED:
        yield _bundle(str(default_bundle()), backend, precision)
    elif name == "replay":
        yield _replay(_required(data, "policy=replay needs data=STORE"))
    elif name == "expert":
        yield _baseline(name, lambda env, loops, steps: ExpertPolicy(env))
    elif name == "informed-expert":
        yield _baseline(name, lambda env, loops, steps: InformedExpert(env))
    elif name == "foreseeing-expert":
        yield _baseline(name, lambda env, loops, steps: ForeseeingExpert(env))
    elif name == "zeros":
        yield _baseline(name, lambda env, loops, steps: ZerosPolicy(env.policy_spec.action))
    elif name == "random":
        yield _baseline(name, lambda env, loops, steps: RandomPolicy(env.policy_spec.action))
    elif _is_checkpoint(name):
        yield _checkpoint(name)
    elif name and Path(name).exists():
        yield _bundle(name, backend, precision)
    else:
        known = ", ".join((SHIPPED, *BASELINES))
        raise ConfigError(
            f"policy={name} is unknown: no such folder, and none of {known} or a server's address "
            f"such as tcp://127.0.0.1:5555 or openpi://127.0.0.1:8000."
        )


def _served(client: PolicyClient) -> PolicySource:
    return PolicySource(
        kind="served",
        spec=client.spec,
        model_id=client.model_id,
        loops=tuple(client.loops),
        steps=client.steps,
        # The noise seed travels with each request; one of the session would be mixed into it.
        make=_with_dial(
            over_the_wire(client), client.spec, begin_episode=lambda: client.reset(seed=0)
        ),
    )


def _openpi_client(address: str) -> "OpenPiClient":
    try:
        from loopdit.eval.rollouts.openpi_policy import OpenPiClient
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"policy={address} needs the package {error.name}, which loopdit[sim] brings."
        ) from error
    return OpenPiClient(address, _OPENPI_TIMEOUT_S)


def _openpi(client: "OpenPiClient", keys: str) -> PolicySource:
    from loopdit.deploy.doors.key_names import parse_keys
    from loopdit.eval.rollouts.openpi_policy import OpenPiPolicy

    named = parse_keys(keys)
    return PolicySource(
        kind="openpi",
        spec=None,
        model_id=None,
        loops=(),
        steps=0,
        make=lambda env, loops, steps: OpenPiPolicy(client, env.policy_spec, named),
    )


def _bundle(path: str, backend: str, precision: str) -> PolicySource:
    opened = Bundle.open(path)
    loaded = load_backend(opened, backend, precision=precision)
    model = ServedBundle(opened, loaded)
    model.warm_up()

    def guided(jacobian: str) -> Make:
        pulled = ServedBundle(opened, loaded, jacobian)
        pulled.guided()  # refused here rather than in the first rollout
        return _with_dial(in_process(pulled), opened.spec)

    return PolicySource(
        kind="bundle",
        spec=opened.spec,
        model_id=opened.model_id,
        loops=opened.loops,
        steps=opened.steps,
        make=_with_dial(in_process(model), opened.spec),
        guided=guided,
        backend=loaded.name,
        precision=loaded.precision,
    )


def _checkpoint(path: str) -> PolicySource:
    from loopdit.policy.any_checkpoint import load_any
    from loopdit.policy.looped_policy import DEFAULT_STEPS, LoopedPolicy

    _one_thread()
    loaded = load_any(path)
    policy = loaded.policy

    def adaptive(text: str) -> Make:
        rule = parse_adaptive(text) or _calibrated(path, loaded.weights_sha256)
        return _with_dial(torch_module(policy, rule), policy.spec)

    return PolicySource(
        kind="checkpoint",
        spec=policy.spec,
        model_id=model_id(loaded.weights_sha256, policy.spec),
        loops=tuple(policy.depths),
        steps=DEFAULT_STEPS,
        make=_with_dial(torch_module(policy), policy.spec),
        adaptive=adaptive if isinstance(policy, LoopedPolicy) else None,
    )


def _calibrated(folder: str, weights_sha256: str) -> StoppingRule:
    from loopdit.policy.depth_calibration import ADAPTIVE_DEPTH, load_calibration

    found = load_calibration(Path(folder), weights_sha256)
    if found is None:
        raise ConfigError(
            f"adaptive={CALIBRATED} needs {folder}/{ADAPTIVE_DEPTH}. Calibrate on data: "
            f"python scripts/calibrate_depth.py {folder} STORE."
        )
    return found.rule


def _untrained(path: str) -> PolicySource:
    _one_thread()
    if _is_checkpoint(path):
        opened, folder = _checkpoint(path), path
    else:
        opened = Bundle.open(path)
        folder = str(opened.path)
    return PolicySource(
        kind="untrained",
        spec=opened.spec,
        model_id=None,
        loops=opened.loops,
        steps=opened.steps,
        make=_with_dial(untrained_twin(folder, _UNTRAINED_SEED), opened.spec),
    )


def _is_checkpoint(path: str) -> bool:
    """Whether this is a training's folder; a bundle has a checkpoint in it, too."""
    return Path(path, "checkpoint.json").exists() and not Path(path, MANIFEST).exists()


def _is_bundle(name: str) -> bool:
    return name == SHIPPED or (Path(name).exists() and not _is_checkpoint(name))


def _one_thread() -> None:
    import torch

    # One chunk is too little work to share: threads that wait for each other on a busy machine
    # made it take seconds.
    torch.set_num_threads(1)


def _replay(path: str) -> PolicySource:
    store = EpisodeStore.open(path)
    if not store.episodes:
        raise ConfigError(f"data={path} has no episodes to replay. Record some: policy-collect.")
    return PolicySource(
        kind="replay",
        spec=store.spec,
        model_id=None,
        loops=(),
        steps=0,
        make=lambda env, loops, steps: ReplayPolicy(store),
    )


def _baseline(name: str, make: Make) -> PolicySource:
    return PolicySource(kind=name, spec=None, model_id=None, loops=(), steps=0, make=make)


def _with_dial(
    infer: Infer, spec: PolicySpec | None, begin_episode: Callable[[], None] | None = None
) -> Make:
    return lambda env, loops, steps: ModelPolicy(infer, loops, steps, begin_episode, spec)


def _required(value: str, why: str) -> str:
    if not value:
        raise ConfigError(f"{why}.")
    return value
