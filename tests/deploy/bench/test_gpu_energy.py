"""NVML is asked in a process of its own, of a library that answers as NVIDIA's would."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="makes a stand-in for NVML: needs cc")

# The declarations of nvml.h. The board uses 250 W.
NVML = """
#include <string.h>
#include <time.h>
static int initialized = 0;
int nvmlInit_v2(void) { initialized = 1; return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
  if (!initialized) return 1;
  if (strcmp(uuid, "GPU-0123")) return 6;
  *device = (void *)42;
  return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) {
  struct timespec now;
  if (device != (void *)42 || !SUPPORTED) return 3;
  clock_gettime(CLOCK_MONOTONIC, &now);
  *millijoules = 9007199254740993ULL + (now.tv_sec * 1000 + now.tv_nsec / 1000000) * 250;
  return 0;
}
"""
ASK = """
import json, sys, time
from loopdit.deploy.bench.gpu_energy import GpuEnergyMeter
meter = GpuEnergyMeter(sys.argv[1])
print(json.dumps([meter.problem, meter.joules_of_each(lambda: time.sleep(0.01), 0.3)]))
"""


def asked(folder: Path, uuid: str, library: bool = True, supported: bool = True) -> list[object]:
    """The meter's problem, and the joules of one call of 10 ms, in a process of its own."""
    if library:
        assert COMPILER is not None
        source = folder / "nvml.c"
        source.write_text(NVML)
        out = ["-shared", "-fPIC", "-o", str(folder / "libnvidia-ml.so.1"), str(source)]
        subprocess.run([COMPILER, f"-DSUPPORTED={int(supported)}", *out], check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    command = [sys.executable, "-c", ASK, uuid]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_a_call_takes_its_share_of_what_the_board_used(tmp_path: Path):
    problem, joules = asked(tmp_path, "GPU-0123")
    assert problem is None
    assert isinstance(joules, float)
    assert 2.5 * 0.8 <= joules < 250  # 10 ms of 250 W; more where sleeping takes longer


@pytest.mark.parametrize(
    ("uuid", "library", "supported", "said"),
    [
        ("GPU-4567", True, True, "does not know GPU-4567"),
        ("GPU-0123", True, False, "no energy counter"),
        ("GPU-0123", False, True, "libnvidia-ml.so.1"),
    ],
)
def test_what_cannot_be_read_is_a_reason_and_no_number(
    tmp_path: Path, uuid: str, library: bool, supported: bool, said: str
):
    problem, joules = asked(tmp_path, uuid, library, supported)
    assert said in str(problem)
    assert joules != joules
