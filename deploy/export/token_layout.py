"""Which tokens a policy computes on, in their order: what a bundle's manifest says of them.

For people, and for who looks at attention or at keys and values; nothing reads it back.
"""

from typing import Any

from loopdit.datasets.spec import PROPRIO
from loopdit.policy.encoders.vocabulary import INSTRUCTION
from loopdit.policy.looped_policy import LoopedPolicy


def token_layout(policy: LoopedPolicy) -> dict[str, Any]:
    """{"observation": [{"of": NAME, "tokens": N, "steps_ago": O}, ...], "action": {...}}.

    The observation's tokens are those that keys and values are of, the oldest step's first and an
    instruction's, which is of no step, last. Each action token is so many consecutive actions.
    """
    config, model = policy.config, policy.model
    cameras = zip(policy.spec.cameras, model.camera_tokens, strict=True)
    step: list[dict[str, Any]] = [{"of": camera.name, "tokens": count} for camera, count in cameras]
    step.append({"of": PROPRIO, "tokens": 1})
    ages = reversed(range(config.history))
    observation = [{**part, "steps_ago": ago} for ago in ages for part in step]
    if model.instruction is not None:
        observation.append({"of": INSTRUCTION, "tokens": 1})
    group = config.actions_per_token
    tokens = config.action_horizon // group
    return {
        "observation": observation,
        "action": {"tokens": tokens, "actions_per_token": group},
    }
