"""The GPU's kernel compiled ahead of time, for a GPU that need not be there.

For who launches it without Triton and Python, by `cuLaunchKernelEx`, and to know before a launch
what it takes of a GPU. The kernel's arguments are those of `triton_kernel.denoise_kernel` up to its
constants, in that order, and two null pointers, Triton's own scratch memory, which it does not use.
"""

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from loopdit.deploy.backends.fused.gpu_form import MATRICES, KernelForm, launch_options
from loopdit.deploy.backends.fused.triton_kernel import denoise_kernel

_NUMBERS = ("batch", "tokens", "loops", "steps")
_ALIGNMENT = 16  # bytes, of every pointer


@dataclass(frozen=True)
class CompiledKernel:
    """A kernel for one compute capability.

    name: of the function in `cubin` and in `ptx`. threads: of each program, along x. shared_bytes:
    dynamic shared memory to launch it with. registers: of each thread. stack_bytes: of each thread,
    where what does not fit in registers is spilled to.
    """

    name: str
    cubin: bytes
    ptx: str
    threads: int
    shared_bytes: int
    registers: int
    stack_bytes: int


def compile_denoise(form: KernelForm, dtype: str, capability: tuple[int, int]) -> CompiledKernel:
    """The kernel for programs that meet. dtype: of the weights of blocks, and of keys and values:
    "fp32", "bf16" or "fp16"."""
    constants = form.constants
    signature: dict[str, str] = {}
    for name in denoise_kernel.arg_names:
        if name in constants:
            signature[name] = "constexpr"
        elif name in _NUMBERS:
            signature[name] = "i32"
        else:
            weights = dtype if name in (*MATRICES, "keys", "values") else "fp32"
            signature[name] = "*i32" if name == "arrivals" else f"*{weights}"
    aligned = [["tt.divisibility", _ALIGNMENT]]
    attributes = {
        (i,): aligned for i, kind in enumerate(signature.values()) if kind.startswith("*")
    }
    source = ASTSource(
        fn=denoise_kernel, signature=signature, constexprs=constants, attrs=attributes
    )
    target = GPUTarget("cuda", 10 * capability[0] + capability[1], 32)
    compiled: Any = triton.compile(source, target=target, options=launch_options(2))
    cubin: bytes = compiled.asm["cubin"]
    registers, stack_bytes = _resources(cubin, compiled.metadata.name)
    return CompiledKernel(
        name=compiled.metadata.name,
        cubin=cubin,
        ptx=compiled.asm["ptx"],
        threads=32 * compiled.metadata.num_warps,
        shared_bytes=compiled.metadata.shared,
        registers=registers,
        stack_bytes=stack_bytes,
    )


def _resources(cubin: bytes, name: str) -> tuple[int, int]:
    """Registers and bytes of stack of each thread, as NVIDIA's cuobjdump reads them, which comes
    with Triton."""
    program = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        said = subprocess.run(
            [str(program), "--dump-resource-usage", str(path)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    of_kernel = said[said.index(f"Function {name}:") :].split()
    found = dict(part.split(":", 1) for part in of_kernel if part.count(":") == 1)
    return int(found["REG"]), int(found["STACK"])
