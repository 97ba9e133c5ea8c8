"""Every way of playing chunks, by name.

    blocking          stop and go: wait for a chunk, play the front of it, stop, ask again
    naive             play on while the next chunk is computed; that one plays from its first
                      action, so late by as much as it took
    aligned           play on, and of the next chunk the action whose time it is
    ensemble          ask at every step, play the weighted mean of all actions meant for this step
    informed          as aligned, and the policy is told which actions will play before its chunk
                      can be there
    tracked           play on, and go to the pose that the next chunk has for this time, where
                      actions are shifts; no policy has to be told anything
    tracked-ensemble  as ensemble, of the poses
    guided            as tracked, and the policy is pulled towards what is planned already while it
                      samples (real-time chunking); guided-full with the gradient through it

Without delay all but the ensembles and the guided ones play the same.
"""

from collections.abc import Callable

from loopdit.datasets.tensor_spec import TensorSpec
from loopdit.deploy.robot.chunk_execution import ChunkExecution, Ensemble, LatestChunk
from loopdit.deploy.robot.informed_execution import Informed
from loopdit.deploy.robot.tracked_execution import Tracked
from loopdit.errors import ConfigError

INFORMED = "informed"
# What pulls in which way, see `policy/guidance.py`.
GUIDED = {"guided": "identity", "guided-full": "full"}

# What makes an execution, given how many actions of a chunk to play before the next one, how many
# actions in flight the policy can be told of, and what an action is.
Make = Callable[[int, int, TensorSpec], ChunkExecution]

EXECUTIONS: dict[str, Make] = {
    "blocking": lambda horizon, _, __: LatestChunk(horizon, by_observation=False, plays_on=False),
    "naive": lambda horizon, _, __: LatestChunk(horizon, by_observation=False, plays_on=True),
    "aligned": lambda horizon, _, __: LatestChunk(horizon, by_observation=True, plays_on=True),
    "ensemble": lambda _, __, ___: Ensemble(),
    INFORMED: lambda horizon, committed, _: Informed(horizon, committed),
    "tracked": lambda horizon, _, action: Tracked(Informed(horizon), action),
    "tracked-ensemble": lambda _, __, action: Tracked(Ensemble(), action),
    **dict.fromkeys(
        GUIDED, lambda horizon, _, action: Tracked(Informed(horizon, guides=True), action)
    ),
}


def make_execution(
    name: str, execute_horizon: int, action: TensorSpec, committed: int = 0
) -> ChunkExecution:
    """The execution `name`, fresh, for a policy of `action` that can be told of `committed` actions
    in flight.

    Raises ConfigError for an unknown one, a horizon below 1, one that tells a policy what it does
    not take, or poses of actions that nobody labelled.
    """
    require_execution(name)
    if execute_horizon < 1:
        raise ConfigError(f"execute_horizon={execute_horizon} must be at least 1.")
    if name == INFORMED and committed < 1:
        others = ", ".join(other for other in EXECUTIONS if other != INFORMED)
        raise ConfigError(
            f"execution={INFORMED} tells the policy which actions are in flight, and this one does "
            f"not take that: its spec has no tensor `committed`. Use one that was trained to be "
            f"told, or execution={others}."
        )
    return EXECUTIONS[name](execute_horizon, committed, action)


def require_execution(name: str) -> None:
    """Raise ConfigError for an unknown one."""
    if name not in EXECUTIONS:
        raise ConfigError(f"execution={name} is unknown. There are: {', '.join(EXECUTIONS)}.")
