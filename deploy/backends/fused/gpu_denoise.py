"""All denoising steps of a batch of contexts, on the device where they are, by one launch.

Shapes as in `triton_kernel`. With TRITON_INTERPRET=1 the kernel is interpreted, on the CPU too:
that is how it is tested without a GPU.
"""

from collections import OrderedDict
from typing import Any, NamedTuple

import torch
from torch import Tensor

from loopdit.deploy.backends.fused.gpu_chunk import Given, chunk_by
from loopdit.deploy.backends.fused.gpu_form import (
    kernel_form,
    kernel_tensors,
    launch_options,
)
from loopdit.deploy.backends.fused.sampler import step_plan
from loopdit.deploy.backends.fused.triton_kernel import denoise_kernel
from loopdit.policy.looped_dit import Context
from loopdit.policy.looped_policy import LoopedPolicy

_KEPT = 32  # plans by their number of steps: a client may ask for any


class Plan(NamedTuple):
    """A `sampler.StepPlan` on the device."""

    schedule: Tensor
    modulations: Tensor


class Prepared(NamedTuple):
    """What chunks of one batch size and number of steps read and work in, at addresses that stay.

    Not for two chunks at once.
    """

    plan: Plan
    summands: Tensor
    arrivals: Tensor


class GpuDenoise:
    """A policy's denoising, for contexts that were encoded anywhere.

    policy: float32, on the CPU. dtype: of the weights of its blocks. device: where it computes.
    processors: how many programs are sure to be there at the same time; multiprocessors.
    Raises BundleError for a policy that the kernel cannot compute.
    """

    def __init__(
        self, policy: LoopedPolicy, dtype: torch.dtype, device: str, processors: int
    ) -> None:
        self.form = kernel_form(policy)
        self._policy = policy
        self._device = device
        self._processors = processors
        with torch.inference_mode():
            tensors = kernel_tensors(policy, dtype)
        self._tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
        self._plans: OrderedDict[int, Plan] = OrderedDict()

    def prepared(self, batch: int, steps: int) -> Prepared:
        """Raises ConfigError for steps that the sampler does not have."""
        form = self.form
        units = form.heads + form.tiles
        summands = torch.empty(batch, units, form.rows, form.width, device=self._device)
        arrivals = torch.zeros(batch, dtype=torch.int32, device=self._device)
        return Prepared(self._plan(steps), summands, arrivals)

    def __call__(
        self, policy: LoopedPolicy, context: Context, noise: Tensor, prepared: Prepared
    ) -> Tensor:
        """Noise (B, H, A) -> raw actions (B, H, A). `policy` is the same on the noise's device."""
        return chunk_by(lambda given: self._run(given, prepared), policy, context, noise)

    def _run(self, given: Given, prepared: Prepared) -> tuple[Tensor, Tensor]:
        chunk, said = torch.empty_like(given.noise), torch.empty_like(given.noise)
        prepared.arrivals.zero_()
        batch, form = len(given.noise), self.form
        programs = form.programs(batch, self._processors)
        kernel: Any = denoise_kernel[(programs, batch)]  # which takes Triton's options too
        kernel(
            **given._asdict(),
            schedule=prepared.plan.schedule,
            modulations=prepared.plan.modulations,
            **self._tensors,
            batch=batch,
            tokens=given.keys.shape[3],
            loops=len(given.keys) // form.blocks,
            steps=len(prepared.plan.schedule),
            chunk=chunk,
            said=said,
            summands=prepared.summands,
            arrivals=prepared.arrivals,
            **form.constants,
            **launch_options(programs),
        )
        return chunk, said

    def _plan(self, steps: int) -> Plan:
        if steps not in self._plans:
            while len(self._plans) >= _KEPT:
                self._plans.popitem(last=False)
            made = step_plan(self._policy, steps)
            self._plans[steps] = Plan(*(torch.from_numpy(t).to(self._device) for t in made))
        return self._plans[steps]
