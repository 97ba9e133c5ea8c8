"""The driver is asked in a process of its own, of a library that answers as NVIDIA's would."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="makes a stand-in for libcuda: needs cc")

# The declarations that cuda.h has, for one GPU or none.
DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return STATUS; }
int cuDriverGetVersion(int *version) { *version = 13010; return 0; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "GPU X", size); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)80 << 30; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 9 : attribute == 76 ? 1 : -1;
  return 0;
}
"""


def asked(folder: Path, status: int = 0, count: int = 1) -> str:
    """What a process says of the driver in `folder`."""
    assert COMPILER is not None
    source = folder / "driver.c"
    source.write_text(DRIVER)
    defined = [f"-DSTATUS={status}", f"-DCOUNT={count}"]
    library = ["-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(source)]
    subprocess.run([COMPILER, *defined, *library], check=True)
    script = (
        "from loopdit.deploy.backends.cuda_driver import cuda_driver\n"
        "from loopdit.deploy.backends.registry import KINDS\n"
        "print(cuda_driver())\n"
        "print(KINDS['onnxruntime-cuda'].missing())\n"
    )
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_a_gpu_is_described_and_a_cpu_build_of_the_runtime_is_what_is_missing(tmp_path: Path):
    said = asked(tmp_path)
    assert "Gpu(name='GPU X', compute_capability=(9, 1), memory_bytes=85899345920)" in said
    assert "version='13.1', problem=None" in said
    assert "CPU build" in said
    assert "pip install onnxruntime-gpu" in said


def test_a_driver_that_hides_its_gpus_is_told_from_one_that_fails(tmp_path: Path):
    assert "CUDA_VISIBLE_DEVICES" in asked(tmp_path, count=0)
    assert "CUDA error 803" in (said := asked(tmp_path, status=803))
    assert "restart the machine" in said
