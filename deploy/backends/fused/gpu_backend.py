"""The policy on an NVIDIA GPU: encoded by torch, denoised by one launch; a chunk is one CUDA graph.

Not yet run on a GPU: docs/fused.md says what has been tested without one.
"""

import torch

from loopdit.deploy.backends.cuda_graph_backend import CudaGraphBackend, require_cuda
from loopdit.deploy.backends.fused.gpu_denoise import GpuDenoise
from loopdit.deploy.backends.gpu_memory import gpu_memory
from loopdit.deploy.backends.registry import BackendOptions
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.errors import BundleError
from loopdit.policy.checkpoint import load_policy

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_OLDEST = (8, 0)  # that Triton supports


def load(bundle: Bundle, options: BackendOptions) -> CudaGraphBackend:
    """See `registry.Loader`."""
    require_cuda()
    gpu = torch.cuda.get_device_properties()
    if (gpu.major, gpu.minor) < _OLDEST:
        raise BundleError(
            f"backend=fused-cuda needs compute capability {'.'.join(map(str, _OLDEST))}, and "
            f"{gpu.name} has {gpu.major}.{gpu.minor}. Use backend=cuda-graph."
        )
    policy = load_policy(bundle.path).eval().requires_grad_(False)
    dtype = _DTYPES[options.precision]
    with gpu_memory():
        denoise = GpuDenoise(policy, dtype, "cuda", gpu.multi_processor_count)
    return CudaGraphBackend(bundle, options, "fused-cuda", denoise)
