"""A grafted video model has no graphs in its bundle; that it could have is held here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from tests.policy.graft.graft_policies import policy_of
from torch import Tensor, nn

from loopdit.policy.graft.graft_policy import GraftContext, GraftPolicy


class _Part(nn.Module):
    def __init__(self, policy: GraftPolicy, compute: Callable[..., Any]) -> None:
        super().__init__()
        self.policy = policy
        self._compute = compute

    def forward(self, *tensors: Tensor) -> Any:
        return self._compute(*tensors)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's, of its own internals
def test_every_part_of_a_small_graft_traces_into_onnx(tmp_path: Path):
    policy = policy_of(loops=2).eval().requires_grad_(False)
    frames = torch.randint(0, 256, (1, 9, 32, 48, 3), dtype=torch.uint8)
    latents, task = policy.encoder(frames), torch.tensor([1])

    def encode(latents: Tensor, task: Tensor) -> tuple[Tensor, ...]:
        return policy.read(policy.features(latents, task, 2), 2).memory

    def denoise(noise: Tensor, *memory: Tensor) -> Tensor:
        return policy.to_actions(policy.sample(GraftContext(memory, 1), noise, 3))

    noise = torch.zeros(1, policy.horizon, 4)
    parts: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
        "latents": (policy.encoder, (frames,)),
        "encode": (encode, (latents, task)),
        "denoise": (denoise, (noise, *encode(latents, task))),
    }
    for name, (compute, given) in parts.items():
        module = _Part(policy, compute).eval()
        session_of: Any = onnxruntime.InferenceSession  # its types are loose
        program = torch.onnx.export(module, given, dynamo=True, opset_version=20, verbose=False)
        assert program is not None
        path = tmp_path / f"{name}.onnx"
        program.save(path)
        session = session_of(path, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        arrays = [tensor.numpy() for tensor in given]
        found = session.run(None, dict(zip(names, arrays, strict=True)))
        wanted = compute(*given)
        for one, other in zip(
            found, wanted if isinstance(wanted, tuple) else (wanted,), strict=True
        ):
            np.testing.assert_allclose(one, other.numpy(), atol=5e-5)
