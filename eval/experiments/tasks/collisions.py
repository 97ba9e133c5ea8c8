"""Collisions of beads on a wire: where are they after so many of them have met?

Six beads of equal mass on the wire [-1, 1] with walls at its ends. They are seen once, place and
velocity each, with the time until they are asked for; the answer is their places then. Beads that
meet exchange their velocities, a wall reverses one. A level is how many meetings of beads lie
between: 1 and 2 in training, 3 and 4 are held out (`level_1` to `level_4`).

The time asked for is drawn evenly between the level's last meeting and the next one, so that levels
differ in time too: more meetings take longer. Simulated event by event, in float64.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from loopdit.eval.experiments.tasks.canvas_task import HELD_OUT, TRAIN, random_stream, tensors
from loopdit.policy.canvas.layout import CanvasLayout, Region
from loopdit.policy.canvas.modalities import ModalityConfig

BEADS, LEVELS, TRAINED = 6, 4, 2
PLACES = "places"


@dataclass(frozen=True)
class Beads:
    """B wires: place and velocity (B, BEADS) at first, the `time` (B,) after which they are asked
    for, and their places then, `after` (B, BEADS); beads are in the order of the wire."""

    place: np.ndarray
    velocity: np.ndarray
    time: np.ndarray
    after: np.ndarray


@dataclass(frozen=True)
class CollisionsTask:
    """See the module."""

    @property
    def layout(self) -> CanvasLayout:
        """Beads on the first row, their places later on the second."""
        along = range(BEADS)
        beads = Region("beads", "proprio", range(1), range(1), along)
        places = Region(PLACES, "action", range(1), range(1, 2), along)
        return CanvasLayout((1, 2, BEADS), (beads, places), outputs=(PLACES,))

    @property
    def modalities(self) -> ModalityConfig:
        """A bead is place, velocity and time; its answer is a place."""
        return ModalityConfig(proprio=3, action=1)

    @property
    def main(self) -> str:
        """Where the beads are."""
        return PLACES

    @property
    def splits(self) -> tuple[str, ...]:
        """Levels by themselves; training and HELD_OUT are of the trained levels."""
        return (TRAIN, HELD_OUT, *(f"level_{level}" for level in range(1, LEVELS + 1)))

    def canvases(self, count: int, seed: int, split: str) -> dict[str, Tensor]:
        """See CanvasTask."""
        beads = self.beads(count, seed, split)
        time = np.broadcast_to(beads.time[:, None], beads.place.shape)
        seen = np.stack([beads.place, beads.velocity, time], axis=-1)
        return tensors({"beads": seen, PLACES: beads.after[..., None]})

    def beads(self, count: int, seed: int, split: str) -> Beads:
        """What the canvases show."""
        rng = random_stream(seed, split, self.splits)
        if split.startswith("level_"):
            level = np.full(count, int(split.removeprefix("level_")))
        else:
            level = rng.integers(1, TRAINED + 1, size=count)
        place = np.sort(rng.uniform(-1, 1, size=(count, BEADS)), axis=1)
        velocity = rng.uniform(-1, 1, size=place.shape)
        times, rows = meeting_times(place, velocity, LEVELS + 1), np.arange(count)
        last, following = times[rows, level - 1], times[rows, level]
        time = last + rng.uniform(size=count) * (following - last)
        return Beads(place, velocity, time, places_at(place, velocity, time))


def meeting_times(place: np.ndarray, velocity: np.ndarray, meetings: int) -> np.ndarray:
    """When beads meet for the first, the second, ... time: (B, meetings)."""
    count = len(place)
    times, met, now = np.full((count, meetings), np.inf), np.zeros(count, int), np.zeros(count)
    while (met < meetings).any():
        place, velocity, passed, is_meeting = _to_next_event(place, velocity, np.inf)
        now = now + passed
        rows = is_meeting & (met < meetings)
        times[rows, met[rows]] = now[rows]
        met += is_meeting
    return times


def places_at(place: np.ndarray, velocity: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Places (B, BEADS) at the times (B,)."""
    left = time.copy()
    while (left > 0).any():
        place, velocity, passed, _ = _to_next_event(place, velocity, left)
        left = left - passed
    return place


def _to_next_event(
    place: np.ndarray, velocity: np.ndarray, most: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Place and velocity just after the next meeting or wall, or `most` later if that is sooner;
    how much later (B,), and whether beads met (B,)."""
    closing = velocity[:, :-1] - velocity[:, 1:]
    gap = np.maximum(place[:, 1:] - place[:, :-1], 0.0)
    outward = np.stack([-velocity[:, 0], velocity[:, -1]], axis=1)
    room = np.maximum(np.stack([1 + place[:, 0], 1 - place[:, -1]], axis=1), 0.0)
    speed, way = np.concatenate([closing, outward], axis=1), np.concatenate([gap, room], axis=1)
    due = np.full_like(way, np.inf)
    np.divide(way, speed, out=due, where=speed > 0)
    event, rows = due.argmin(axis=1), np.arange(len(place))
    next_due = due[rows, event]
    passed = np.minimum(next_due, most)
    place, velocity = place + passed[:, None] * velocity, velocity.copy()
    reached = next_due <= most
    meets = reached & (event < BEADS - 1)
    pair, both = event[meets], rows[meets]
    velocity[both, pair], velocity[both, pair + 1] = (
        velocity[both, pair + 1],
        velocity[both, pair],
    )
    turns = reached & ~meets
    wall = np.where(event[turns] == BEADS - 1, 0, BEADS - 1)
    velocity[rows[turns], wall] *= -1
    return place, velocity, passed, meets
