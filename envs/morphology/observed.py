"""Which joint each number of a Gymnasium runner's observation is about, and what it says of it.

P observed numbers: positions (without the first, which the suite leaves out), velocities and, of
Ant, contact forces, in the suite's order. Each gets a joint and a slot, the same slot for the same
quantity on every body: POSITION.. (up to 7: m, or wxyz; rad), VELOCITY.. (up to 6), CONTACT..
(6 for each of up to MOST_CONTACTS bodies: torque N m, force N). Contacts on a body without a joint
of its own go to the joint that moves it, the last one of the nearest body above it.
"""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

from collections.abc import Sequence

import mujoco
import numpy as np

from loopdit.errors import ConfigError

POSITION, VELOCITY, CONTACT = 0, 7, 13
MOST_CONTACTS = 5
SLOTS = CONTACT + 6 * MOST_CONTACTS
_POSITIONS = {0: 7, 1: 4, 2: 1, 3: 1}  # by mjtJoint
_VELOCITIES = {0: 6, 1: 3, 2: 1, 3: 1}


def observed_slots(model: mujoco.MjModel, labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The joint (P,) and the slot (P,) of each observed number.

    `labels` (P,) begin with position, velocity or contact, as `suites.locomotion` has them. Raises
    ConfigError where their numbers are not the model's.
    """
    counts = [sum(label.startswith(k) for label in labels) for k in ("pos", "vel", "con")]
    positions, velocities, contacts = counts
    whole = 6 * (model.nbody - 1)
    fits = positions <= model.nq and velocities == model.nv and contacts in (0, whole)
    if not fits or sum(counts) != len(labels):
        raise ConfigError(
            f"an observation of {len(labels)} numbers ({positions} positions, {velocities} "
            f"velocities, {contacts} contact forces) is not of this model, which has {model.nq} "
            f"positions, {model.nv} velocities and {whole} contact forces."
        )
    places = _places(model, _POSITIONS, POSITION)[model.nq - positions :]
    places += _places(model, _VELOCITIES, VELOCITY)
    places += _contacts(model) if contacts else []
    joints, slots = np.array(places, int).T
    return joints, slots


def motor_places(
    joints: np.ndarray, slots: np.ndarray, motor_joint: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where an observation has the angle (A,) and the rate (A,) of each motor's joint."""

    def find(joint: int, slot: int) -> int:
        return int(np.flatnonzero((joints == joint) & (slots == slot))[0])

    angles = np.array([find(joint, POSITION) for joint in motor_joint])
    return angles, np.array([find(joint, VELOCITY) for joint in motor_joint])


def _places(model: mujoco.MjModel, sizes: dict[int, int], first: int) -> list[tuple[int, int]]:
    return [
        (joint, first + i)
        for joint in range(model.njnt)
        for i in range(sizes[int(model.jnt_type[joint])])
    ]


def _contacts(model: mujoco.MjModel) -> list[tuple[int, int]]:
    taken = np.zeros(model.njnt, int)
    places: list[tuple[int, int]] = []
    for body in range(1, model.nbody):
        holder = body
        while holder and not model.body_jntnum[holder]:
            holder = int(model.body_parentid[holder])
        if not holder:
            raise ConfigError(
                f"body {model.body(body).name!r} is fixed: contacts on it have no joint."
            )
        joint = int(model.body_jntadr[holder] + model.body_jntnum[holder] - 1)
        if taken[joint] == MOST_CONTACTS:
            raise ConfigError(
                f"more than {MOST_CONTACTS} bodies hang on joint {model.joint(joint).name!r}."
            )
        places += [(joint, CONTACT + 6 * int(taken[joint]) + i) for i in range(6)]
        taken[joint] += 1
    return places
