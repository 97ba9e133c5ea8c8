"""What goes wrong with what a policy sees, and with nothing else: the world and its state stay.

    none                    frozen     stands still from a random step of the first quarter of
    frozen[:CAMERA]                    the longest episode on
    missing:CAMERA          missing    not there at all, for policies that can do without it
    black[:CAMERA]          black      all zeros
    dropped:P[:CAMERA]      dropped    each frame is lost with chance P, and the last one shown
    delayed:N[:CAMERA]      delayed    the frame of N control steps ago, or the first one
    jpeg:Q[:CAMERA]         jpeg       as it comes over the wire with `jpeg_quality=Q`, 1 to 100
    proprio-noise:SD        noise      normal, added to each element in its raw units (m, rad, 1):
                                       how far an element spreads is not known here

Without a camera, all of them are hit, frozen together, dropped each on its own. Faults joined by
"+" follow each other in that order. All that is random comes from the episode's seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loopdit.datasets.spec import IMAGE_PREFIX, PROPRIO, Observation, PolicySpec
from loopdit.deploy.jpeg_frames import JPEG, as_received, require_available
from loopdit.errors import ConfigError

NONE, MISSING = "none", "missing"
FORMS = (
    "none, frozen[:CAMERA], missing:CAMERA, black[:CAMERA], dropped:P[:CAMERA], "
    "delayed:N[:CAMERA], jpeg:Q[:CAMERA], proprio-noise:SD, or several joined by +"
)
# Sets these draws apart from the environment's, which come from the seed itself.
_STREAM = 4
_WITH_AMOUNT = ("dropped", "delayed", JPEG, "proprio-noise")
_WHOLE = ("delayed", JPEG)
_LIMITS = {"dropped": (0.0, 1.0), JPEG: (1.0, 100.0)}


@dataclass(frozen=True)
class Fault:
    """One fault. camera: "" for every camera. amount: P, N, Q or SD, 0 for a kind that has none."""

    kind: str
    amount: float = 0.0
    camera: str = ""


def parse_faults(text: str) -> tuple[Fault, ...]:
    """What `fault=text` means, none for "none". Raises ConfigError for what is unknown."""
    if text == NONE:
        return ()
    return tuple(_parse(part, text) for part in text.split("+"))


def require_cameras(faults: Sequence[Fault], spec: PolicySpec) -> None:
    """Raise ConfigError unless the cameras of `spec` are there for every fault, and what reads and
    writes JPEGs where one asks for it."""
    if any(fault.kind == JPEG for fault in faults):
        require_available()
    known = [camera.name.removeprefix(IMAGE_PREFIX) for camera in spec.cameras]
    for fault in faults:
        if fault.kind == "proprio-noise":
            continue
        if not known:
            raise ConfigError(f"fault={fault.kind} needs a camera; this environment has none.")
        if fault.camera and fault.camera not in known:
            raise ConfigError(
                f"fault={fault.kind} names the camera {fault.camera!r}. The cameras are: "
                f"{', '.join(known)}."
            )


def require_dispensable(faults: Sequence[Fault], spec: PolicySpec | None) -> None:
    """Raise ConfigError where a camera is missing that a policy of this spec cannot do without;
    None is of a policy that says nothing of what it takes."""
    missing = {f"{IMAGE_PREFIX}{fault.camera}" for fault in faults if fault.kind == MISSING}
    if not missing:
        return
    optional = () if spec is None else spec.optional
    needed = sorted(name.removeprefix(IMAGE_PREFIX) for name in missing.difference(optional))
    if needed:
        raise ConfigError(
            f"fault={MISSING}:{needed[0]} takes away a camera that this policy cannot do without. "
            f"Evaluate one that was trained with policy.optional_cameras=true, or use "
            f"fault=black:{needed[0]}."
        )
    if missing.issuperset(optional):
        raise ConfigError(
            f"fault={'+'.join(f'{f.kind}:{f.camera}' for f in faults if f.kind == MISSING)} takes "
            f"away every camera, and a policy needs one of them. Leave one out."
        )


class EpisodeFaults:
    """The faults of one episode. `apply` is to be called at every step, in order."""

    def __init__(
        self, faults: Sequence[Fault], spec: PolicySpec, seed: int, max_steps: int
    ) -> None:
        """Raises ConfigError for a camera that `spec` does not have."""
        require_cameras(faults, spec)
        self._each: list[_ProprioNoise | _CameraFault] = []
        for place, fault in enumerate(faults):
            stream = (_STREAM, seed, place)
            if fault.kind == "proprio-noise":
                self._each.append(_ProprioNoise(fault.amount, stream))
                continue
            for index, camera in enumerate(spec.cameras):
                if fault.camera in ("", camera.name.removeprefix(IMAGE_PREFIX)):
                    self._each.append(_CameraFault(fault, camera.name, index, stream, max_steps))

    def apply(self, observation: Observation, step: int) -> Observation:
        """What the policy sees of `observation` at `step`; a frame that is not there stays so."""
        for fault in self._each:
            observation = fault.apply(observation, step)
        return observation


class _ProprioNoise:
    def __init__(self, sd: float, stream: tuple[int, ...]) -> None:
        self._sd = sd
        self._stream = stream

    def apply(self, observation: Observation, step: int) -> Observation:
        proprio = observation[PROPRIO]
        noise = np.random.default_rng([*self._stream, step]).normal(0, self._sd, proprio.shape)
        return {**observation, PROPRIO: (proprio + noise).astype(proprio.dtype)}


class _CameraFault:
    """One fault of one camera. Keeps the frames it may have to show again."""

    def __init__(
        self, fault: Fault, name: str, index: int, stream: tuple[int, ...], max_steps: int
    ) -> None:
        self._fault = fault
        self._name = name
        self._index = index
        self._stream = stream
        # Not of the camera: all cameras that freeze do so together.
        self._frozen_from = int(np.random.default_rng(stream).integers(1 + max_steps // 4))
        self._frames: list[np.ndarray] = []  # what may be shown again, oldest first

    def apply(self, observation: Observation, step: int) -> Observation:
        if self._name not in observation:
            return observation
        if self._fault.kind == MISSING:
            return {name: value for name, value in observation.items() if name != self._name}
        return {**observation, self._name: self._shown(observation[self._name], step)}

    def _shown(self, frame: np.ndarray, step: int) -> np.ndarray:
        if self._fault.kind == "black":
            return np.zeros_like(frame)
        if self._fault.kind == JPEG:
            return as_received(frame, int(self._fault.amount))
        if self._fault.kind == "delayed":
            self._keep(frame, int(self._fault.amount) + 1)
            return self._frames[0]
        if not (self._frames and self._repeats(step)):
            self._keep(frame, 1)
        return self._frames[0]

    def _repeats(self, step: int) -> bool:
        if self._fault.kind == "frozen":
            return step > self._frozen_from
        drawn = np.random.default_rng([*self._stream, step, self._index]).random()
        return bool(drawn < self._fault.amount)

    def _keep(self, frame: np.ndarray, most: int) -> None:
        # A copy: an environment may draw the next frame into the same memory.
        self._frames = [*self._frames, frame.copy()][-most:]


def _parse(part: str, text: str) -> Fault:
    kind, *rest = part.split(":")
    amount = 0.0
    if kind in _WITH_AMOUNT:
        amount = _number(rest.pop(0)) if rest else math.nan
    low, high = _LIMITS.get(kind, (0.0, 1e6))
    whole = kind not in _WHOLE or amount == math.floor(amount if math.isfinite(amount) else 0.5)
    kinds = ("frozen", "black", MISSING, *_WITH_AMOUNT)
    known = kind in kinds and low <= amount <= high
    least, most = int(kind == MISSING), int(kind != "proprio-noise")  # cameras that are named
    if not (known and whole and least <= len(rest) <= most and all(rest)):
        raise ConfigError(f"fault={text}: {part!r} is unknown. Use: {FORMS}.")
    return Fault(kind, amount, rest[0] if rest else "")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
