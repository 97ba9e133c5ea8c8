"""Variation of what moves how: friction of every surface that touches, masses, a load on the arm.

Each function changes the compiled model, from a random stream and a strength in (0, 1], and says
in words what it drew. It starts from nominal values, which `randomizer` restores before. The
ranges leave every task possible: the scripted experts still do them. Distractors stay as they are.
"""

# mujoco is a compiled module without stubs.
# pyright: reportAttributeAccessIssue=false, reportUnknownParameterType=false

import mujoco
import numpy as np

from loopdit.envs.arm_scene import ARM_ROOT, GRIPPER, PADS
from loopdit.envs.distractors import PREFIX
from loopdit.envs.variation import varied_factor

# Factors on the nominal coefficients. Where pads touch, theirs count (1.6, so 0.64 at least), and
# where the table and an object touch, the larger one does.
_PAD_FRICTION = (0.4, 1.5)
_FRICTION = (0.4, 1.8)
_MASS = (0.3, 3.0)
_MAX_LOAD_KG = 0.25


def vary_friction(model: mujoco.MjModel, rng: np.random.Generator, strength: float) -> str:
    """One factor for the pads, one for the table, one for each thing of the task that collides."""
    pads = varied_factor(rng, _PAD_FRICTION, strength)
    model.geom_friction[[model.geom(name).id for name in PADS]] *= pads
    words = [f"pads x{pads:.2f}"]
    roots = model.body_rootid[model.geom_bodyid]  # (geoms,)
    colliding = np.unique(roots[model.geom_contype != 0])
    for root in [0, *_task_roots(model)]:
        if root in colliding:
            factor = varied_factor(rng, _FRICTION, strength)
            model.geom_friction[roots == root] *= factor
            words.append(f"{model.body(root).name if root else 'table'} x{factor:.2f}")
    return ", ".join(words)


def vary_mass(model: mujoco.MjModel, rng: np.random.Generator, strength: float) -> str:
    """A load in the gripper's body, a factor for the mass and inertia of each thing of the task.

    The arm's controller cancels its own weight, not the load's, so it sags a little under that.
    """
    gripper = model.body(GRIPPER).id
    load_kg, own_kg = strength * rng.uniform(0, _MAX_LOAD_KG), model.body_mass[gripper]
    heavier = (own_kg + load_kg) / own_kg
    model.body_mass[gripper] *= heavier
    model.body_inertia[gripper] *= heavier
    model.body_gravcomp[gripper] /= heavier
    words = [f"load {load_kg:.2f} kg"]
    for root in _task_roots(model):
        bodies = model.body_rootid == root
        if model.body_mass[bodies].any():
            factor = varied_factor(rng, _MASS, strength)
            model.body_mass[bodies] *= factor
            model.body_inertia[bodies] *= factor
            words.append(f"{model.body(root).name} x{factor:.2f}")
    # Without this, constraints go by the old inertia: at ten times the mass most episodes are NaN.
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return ", ".join(words)


def _task_roots(model: mujoco.MjModel) -> list[int]:
    """The bodies on the table that are neither the arm nor distractors, without their parts."""
    return [
        body
        for body in range(1, model.nbody)
        if model.body_parentid[body] == 0
        and model.body(body).name != ARM_ROOT
        and not model.body(body).name.startswith(PREFIX)
    ]
