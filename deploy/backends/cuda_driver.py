"""Which NVIDIA GPUs the CUDA driver offers this process, asked of the driver itself.

By ctypes, because it must be cheap and work where no CUDA runtime is installed, which is when the
answer is wanted. Honours CUDA_VISIBLE_DEVICES. Makes no CUDA context, so it takes no GPU memory.
"""

import ctypes
from dataclasses import dataclass
from functools import cache

# From cuda.h, which promises that they stay.
_COMPUTE_CAPABILITY_MAJOR = 75
_COMPUTE_CAPABILITY_MINOR = 76
_ERRORS = {
    100: "no GPU (or CUDA_VISIBLE_DEVICES hides them all)",
    803: "the driver and the kernel module are of different versions: restart the machine",
    804: "the driver is too old for this GPU's forward compatibility package",
    999: "the kernel module fails: see what `nvidia-smi` and `dmesg` say",
}


@dataclass(frozen=True)
class Gpu:
    """One GPU. compute_capability: (9, 0) is Hopper. memory_bytes: all of it, used or not."""

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int


@dataclass(frozen=True)
class CudaDriver:
    """What the driver says: its GPUs in CUDA's order, or why there are none.

    version: the newest CUDA release that it runs, such as "13.0"; empty where there is no driver.
    """

    gpus: tuple[Gpu, ...]
    version: str
    problem: str | None


@cache
def cuda_driver() -> CudaDriver:
    """Ask once for the whole process."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return CudaDriver((), "", "no NVIDIA driver (libcuda.so.1 is not found)")
    status = library.cuInit(0)
    version = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    said = f"{version.value // 1000}.{version.value % 1000 // 10}"
    if status:
        reason = _ERRORS.get(status, "see what `nvidia-smi` says")
        return CudaDriver((), said, f"the NVIDIA driver refuses (CUDA error {status}): {reason}")
    count = ctypes.c_int()
    library.cuDeviceGetCount(ctypes.byref(count))
    if not count.value:
        return CudaDriver((), said, "the NVIDIA driver offers no GPU; is CUDA_VISIBLE_DEVICES set?")
    return CudaDriver(tuple(_gpu(library, i) for i in range(count.value)), said, None)


def _gpu(library: ctypes.CDLL, index: int) -> Gpu:
    device = ctypes.c_int()
    library.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(256)
    library.cuDeviceGetName(name, len(name), device)
    memory = ctypes.c_size_t()
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability: list[int] = []
    for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR):
        number = ctypes.c_int()
        library.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        capability.append(number.value)
    return Gpu(name.value.decode(), (capability[0], capability[1]), memory.value)
