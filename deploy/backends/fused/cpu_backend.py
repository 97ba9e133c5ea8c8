"""The policy by our own C++ on the CPU: one call encodes, one takes all the denoising steps.

The trained module is read once, for its weights and for what depends on nothing but the number
of steps or the instruction; a chunk is computed without torch.

Shapes: B batch, which is computed one by one; N observation tokens, R action tokens, H action
horizon, A action dim, F actions in flight.
"""

import ctypes
import weakref
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from loopdit.datasets.spec import COMMITTED, PROPRIO, Observation
from loopdit.deploy.backends.fused.cpu_library import Sizes, cpu_library
from loopdit.deploy.backends.fused.sampler import StepPlan, step_plan, whole_step
from loopdit.deploy.backends.fused.weights import kernel_weights, require_supported
from loopdit.deploy.backends.protocol import Context
from loopdit.deploy.backends.registry import FP32, BackendOptions
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.errors import BundleError
from loopdit.policy.checkpoint import load_policy
from loopdit.policy.encoders.absent_cameras import AVAILABLE
from loopdit.policy.encoders.vocabulary import INSTRUCTION
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.objectives.gripper import GripperObjective
from loopdit.policy.objectives.regression import Regression

_KEPT = 32  # plans by steps, and instructions: a client may ask for any
_CONTEXT = "context"

Key = TypeVar("Key")
Value = TypeVar("Value")


class FusedCpuBackend:
    """See `Backend`.

    `require_loops` raises BundleError for a K that is not served. Raises BundleError for a policy,
    precision or machine that there are no kernels for.
    """

    name = "fused"
    device = "cpu"
    threads = 1  # whatever is asked for: a second one does not pay (cpu_block.hpp)

    def __init__(
        self, policy: LoopedPolicy, precision: str, require_loops: Callable[[int], None]
    ) -> None:
        require_supported(policy)  # before half a minute of compiling for nothing
        self.precision = precision
        self._policy = policy
        self._require_loops = require_loops
        self._library = cpu_library()
        self._model = _create(self._library, policy, precision)
        weakref.finalize(self, self._library.fused_destroy, self._model)
        self._plans: dict[int, StepPlan] = {}
        self._whole_steps: dict[float, StepPlan] = {}
        self._told: dict[bytes, np.ndarray] = {}
        normalizer = policy.normalizer
        names = ("action_mean", "action_spread", "action_low", "action_high")
        self._mean, self._spread, self._low, self._high = (
            normalizer.get_buffer(name).numpy() for name in names
        )
        objective = policy.objective
        self._gripper = _Gripper(objective) if isinstance(objective, GripperObjective) else None
        hidden = self._gripper.mask if self._gripper else np.zeros(len(self._mean), bool)
        self._visible = (~hidden).astype(np.float32)
        inner = objective.inner if isinstance(objective, GripperObjective) else objective
        self._from_noise = not isinstance(inner, Regression)

    def encode(self, observation: Observation, loops: int) -> Context:
        """See `Backend.encode`. Raises BundleError for a K that was not exported."""
        self._require_loops(loops)
        spec = self._policy.spec
        given = {name: _in_place(value) for name, value in observation.items()}
        frames = [given[camera.name] for camera in spec.cameras]
        proprio = self._proprio(given)
        batch = len(proprio)
        floats = self._library.fused_context_floats(self._model, loops)
        contexts = np.empty((batch, floats), np.float32)
        available = self._available(given)
        for i in range(batch):
            seen = [frame[i] for frame in frames]
            if spec.history > 1:
                seen = [frame[step] for step in range(spec.history) for frame in seen]
            addresses = (ctypes.c_void_p * len(seen))(*(frame.ctypes.data for frame in seen))
            told = self._instruction(given[INSTRUCTION][i]) if INSTRUCTION in given else None
            self._library.fused_encode(
                self._model,
                ctypes.addressof(addresses),
                proprio[i].ctypes.data,
                None if told is None else told.ctypes.data,
                None if available is None else available[i].ctypes.data,
                loops,
                contexts[i].ctypes.data,
            )
        tensors = {_CONTEXT: contexts}
        if COMMITTED in given and self._policy.config.prefix:
            tensors[COMMITTED] = given[COMMITTED]
        return Context(loops, batch, tensors)

    def denoise(self, context: Context, noise: np.ndarray, steps: int) -> np.ndarray:
        """See `Backend.denoise`."""
        plan = _kept(self._plans, steps, lambda: step_plan(self._policy, steps))
        sample = np.array(noise, np.float32, order="C")
        if not self._from_noise:
            sample[:] = 0.0
        self._move(context, plan, sample)
        sample *= self._spread
        sample += self._mean
        return np.minimum(np.maximum(sample, self._low), self._high)

    def predict(self, context: Context, sample: np.ndarray, level: float) -> np.ndarray:
        """See `guided.PredictingBackend`."""
        plan = _kept(self._whole_steps, level, lambda: whole_step(self._policy, level))
        chunk = np.array(sample, np.float32, order="C")
        self._move(context, plan, chunk)
        return chunk

    def _move(self, context: Context, plan: StepPlan, sample: np.ndarray) -> None:
        """Takes the sample (B, H, A) through the steps of a plan, in place; normalised units."""
        known, shares = self._begun(sample, context)
        output = np.empty_like(sample)
        for i in range(context.batch):
            self._library.fused_denoise(
                self._model,
                context.tensors[_CONTEXT][i].ctypes.data,
                context.loops,
                plan.modulations.ctypes.data,
                plan.schedule.ctypes.data,
                len(plan.schedule),
                None if shares is None else shares[i].ctypes.data,
                None if known is None else known[i].ctypes.data,
                self._visible.ctypes.data,
                sample[i].ctypes.data,
                output[i].ctypes.data,
            )
        if self._gripper is not None:
            self._gripper.decide(sample, output, known)

    def _proprio(self, given: Observation) -> np.ndarray:
        """(B, ...) raw, rolled forward by the actions in flight where the policy is told so."""
        if self._policy.roller is None:
            return given[PROPRIO]
        pair = (torch.from_numpy(given[name].copy()) for name in (PROPRIO, COMMITTED))
        with torch.inference_mode():
            return np.ascontiguousarray(self._policy.roller(*pair).numpy())

    def _available(self, given: Observation) -> np.ndarray | None:
        """Which observation tokens may be attended to, (B, N) uint8; None for all."""
        if AVAILABLE not in given:
            return None
        there = given[AVAILABLE].astype(np.uint8)
        always = np.ones((len(there), 1), np.uint8)
        each = np.repeat(there, self._policy.model.camera_tokens, axis=1)
        steps = np.tile(np.concatenate([each, always], axis=1), (1, self._policy.spec.history))
        return np.concatenate([steps, always], axis=1) if INSTRUCTION in given else steps

    def _instruction(self, told: np.ndarray) -> np.ndarray:
        """The token (D,) float32 of what the policy is told."""

        def made() -> np.ndarray:
            assert self._policy.model.instruction is not None
            with torch.inference_mode():
                token = self._policy.model.instruction(torch.from_numpy(np.array(told)[None]))
            return np.ascontiguousarray(token[0, 0].numpy())

        return _kept(self._told, told.tobytes(), made)

    def _begun(
        self, sample: np.ndarray, context: Context
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Puts what is committed into the sample (B, H, A); which actions are (B, H) uint8, and
        each token's share of them (B, R) float32. None where the policy is never told."""
        committed = context.tensors.get(COMMITTED)
        if committed is None:
            return None, None
        known = np.zeros(sample.shape[:2], np.uint8)
        count = committed.shape[1]
        known[:, :count] = committed[..., -1] > 0
        chunk = (committed[..., :-1] - self._mean) / self._spread
        bound = self._policy.normalizer.action_bound
        if bound is not None:
            chunk = np.clip(chunk, -bound.numpy(), bound.numpy())
        there = known[:, :count, None] > 0
        sample[:, :count] = np.where(there, chunk, sample[:, :count])
        shares = known.reshape(len(known), -1, self._policy.config.actions_per_token)
        return known, shares.mean(2, dtype=np.float32)


class _Gripper:
    """Grippers that are open or closed: `gripper.GripperObjective` after the last step."""

    def __init__(self, objective: GripperObjective) -> None:
        self.mask = objective.mask.numpy()
        self._closed = objective.closed.numpy()[self.mask]
        self._open = objective.open.numpy()[self.mask]
        self._settled = objective.settled

    def decide(self, sample: np.ndarray, output: np.ndarray, known: np.ndarray | None) -> None:
        """Sets the gripper's elements of `sample` (B, H, A) by the logits in `output`; those of
        known actions (B, H) stay, and count as what came before."""
        chance = 1 / (1 + np.exp(-output[..., self.mask]))
        before = sample[..., self.mask]
        if known is not None:
            share = (before - self._closed) / (self._open - self._closed)
            chance = np.where(known[..., None] > 0, share.clip(0, 1), chance)
        held = chance[:, 0] >= 0.5
        opened = np.empty(chance.shape, bool)
        for action in range(chance.shape[1]):
            now = chance[:, action]
            held = (now > self._settled) | (held & (now >= 1 - self._settled))
            opened[:, action] = held
        value = np.where(opened, self._open, self._closed)
        if known is not None:
            value = np.where(known[..., None] > 0, before, value)
        sample[..., self.mask] = value


def load(bundle: Bundle, options: BackendOptions) -> FusedCpuBackend:
    """See `registry.Loader`."""
    return FusedCpuBackend(load_policy(bundle.path), options.precision, bundle.require_loops)


def _create(library: ctypes.CDLL, policy: LoopedPolicy, precision: str) -> int:
    """The address of a packed model."""
    bfloat16 = precision != FP32
    if bfloat16 and not library.fused_has_bfloat16():
        raise BundleError(
            "backend=fused with precision=bf16 needs a CPU with AVX-512 BF16, which this one is "
            "not. Use precision=fp32."
        )
    weights = kernel_weights(policy)
    sizes = Sizes(**weights.sizes, bfloat16=int(bfloat16))
    tensors = (ctypes.c_void_p * len(weights.tensors))(
        *(tensor.ctypes.data for tensor in weights.tensors)
    )
    model = library.fused_create(
        ctypes.byref(sizes), weights.frames.ctypes.data, ctypes.addressof(tensors)
    )
    if not model:
        raise BundleError("backend=fused: there is no memory for its packed weights. Free some.")
    return model


def _in_place(value: np.ndarray) -> np.ndarray:
    """`value`, copied where C cannot read it: a tensor inside a received message may start at any
    byte. Asked here because numpy's own `require` takes longer than to encode a token."""
    flags = value.flags
    return value if flags.c_contiguous and flags.aligned else np.require(value, None, ["C", "A"])


def _kept(memory: dict[Key, Value], key: Key, make: Callable[[], Value]) -> Value:
    """`memory[key]`, made where it is not there; emptied when it is full."""
    if key not in memory:
        if len(memory) >= _KEPT:
            memory.clear()
        memory[key] = make()
    return memory[key]
