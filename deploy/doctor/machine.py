"""What `policy-doctor` says of the machine: all but the bundle and its back ends.

Nothing here imports torch, a runtime or the simulator: what is installed is asked of the package
index on disk, and OpenGL is tried in a process of its own, as the environments would.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from loopdit.cache_folder import cache_folder
from loopdit.deploy.backends import DEFAULT_THREADS
from loopdit.deploy.backends.cuda_driver import CudaDriver, cuda_driver
from loopdit.deploy.doctor.finding import BROKEN, NOTE, OK, Finding
from loopdit.machine import usable_cores

_PYTHONS = ((3, 11), (3, 13))  # the oldest and newest that are tested
_GL_TIMEOUT_S = 120.0
_SLEEP_S, _SLEEPS = 0.001, 200
_LATE_S = 0.002  # a tenth of the control period of a quick arm, 20 ms
_LEAST_FREE_BYTES = 2 * 2**30  # engines and unpacked bundles of a few policies
_GOVERNORS = ("/sys/devices/system/cpu", "cpu[0-9]*/cpufreq/scaling_governor")
_CLOCK_SOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
# Read from user space, in tens of nanoseconds; any other is a system call, of about a microsecond
# (man 7 vdso, and the kernel's timekeeping documentation). Each message reads it several times.
_QUICK_SOURCES = ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter")


def machine_findings(port: int) -> list[Finding]:
    """One finding for each thing that can be looked at without a bundle."""
    return [
        python_finding(sys.version_info[:2]),
        torch_finding(),
        gl_finding(),
        gpu_finding(cuda_driver()),
        port_finding(port),
        clock_finding(time.sleep),
        clock_source_finding(_CLOCK_SOURCE),
        cpu_finding(sorted(Path(_GOVERNORS[0]).glob(_GOVERNORS[1]))),
        disk_finding(cache_folder("")),
    ]


def python_finding(version: tuple[int, ...]) -> Finding:
    """Whether loopdit is tested with this Python."""
    said = ".".join(map(str, version))
    oldest, newest = (".".join(map(str, v)) for v in _PYTHONS)
    if _PYTHONS[0] <= version <= _PYTHONS[1]:
        return Finding("python", OK, said)
    remedy = f"Make the environment with Python {oldest} to {newest}."
    return Finding("python", NOTE, f"{said} is not one that loopdit is tested with", remedy)


def torch_finding() -> Finding:
    """Which torch is installed; serving does without."""
    if find_spec("torch") is not None:
        return Finding("torch", OK, metadata.version("torch"))
    remedy = "To train, export or use backend=torch: pip install 'loopdit[train,serve]'"
    return Finding("torch", NOTE, "not installed", remedy)


def gl_finding() -> Finding:
    """Whether cameras render here, as the environments themselves say it."""
    if find_spec("mujoco") is None:
        remedy = "To simulate: pip install 'loopdit[sim]'"
        return Finding("OpenGL", NOTE, "not looked for: mujoco is not installed", remedy)
    # By name, because deployment may not depend on the environments.
    command = [sys.executable, "-m", "loopdit.envs.gl"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        said = f"no answer in {_GL_TIMEOUT_S:g} s"
        return Finding("OpenGL", NOTE, said, "Try it alone: python -m loopdit.envs.gl")
    if done.returncode == 0:
        return Finding("OpenGL", OK, f"{done.stdout.strip()} renders")
    said = done.stderr.strip().splitlines()[-1:] or ["it ended without a word"]
    return Finding("OpenGL", NOTE, said[0], "Only simulated cameras need it.")


def gpu_finding(driver: CudaDriver) -> Finding:
    """Which NVIDIA GPUs there are; a machine without one serves on its CPU."""
    if driver.gpus:
        names = ", ".join(
            f"{gpu.name} (compute capability {gpu.compute_capability[0]}."
            f"{gpu.compute_capability[1]}, {gpu.memory_bytes / 2**30:.0f} GiB)"
            for gpu in driver.gpus
        )
        return Finding("GPU", OK, f"{names}; the driver runs CUDA {driver.version}")
    state = NOTE if driver.version else OK  # a driver without a GPU is no choice of anybody's
    remedy = "Back ends on the CPU do without it." if state == NOTE else ""
    return Finding("GPU", state, driver.problem or "none", remedy)


def port_finding(port: int) -> Finding:
    """Whether a server could listen on this port of the loopback address."""
    check = f"port {port}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError as error:
            remedy = (
                "End what uses it, or serve on another: policy-serve address=tcp://127.0.0.1:0 "
                "takes a free one."
            )
            return Finding(check, BROKEN, f"cannot be listened on: {error.strerror}", remedy)
    return Finding(check, OK, "free")


def clock_finding(sleep: Callable[[float], None]) -> Finding:
    """How late `sleep` wakes up a control loop, by the monotonic clock."""
    late = np.empty(_SLEEPS)
    for i in range(_SLEEPS):
        began = time.monotonic()
        sleep(_SLEEP_S)
        late[i] = time.monotonic() - began - _SLEEP_S
    p99 = float(np.percentile(late, 99))
    resolution = time.get_clock_info("monotonic").resolution
    said = f"monotonic, in steps of {resolution * 1e9:g} ns; waking up is {p99 * 1e3:.2f} ms late"
    said += f" (p99 of {_SLEEPS})"
    if p99 <= _LATE_S:
        return Finding("clock", OK, said)
    remedy = "Leave the control loop a core of its own, or raise its priority (chrt -f 50)."
    return Finding("clock", NOTE, said, remedy)


def clock_source_finding(source: Path) -> Finding:
    """What the kernel's clock is read from."""
    check = "clock source"
    if not source.is_file():
        return Finding(check, OK, "not told by this system")
    chosen = source.read_text().strip()
    if chosen in _QUICK_SOURCES:
        return Finding(check, OK, chosen)
    offered = source.with_name("available_clocksource")
    names = offered.read_text().split() if offered.is_file() else []
    quick = next((name for name in _QUICK_SOURCES if name in names), "")
    remedy = (
        f"Choose {quick}: echo {quick} | sudo tee {source}."
        if quick
        else "See the kernel's log for why (dmesg | grep -i clocksource)."
    )
    return Finding(check, NOTE, f"{chosen}, which is slow to read", remedy)


def cpu_finding(governors: Sequence[Path]) -> Finding:
    """Cores, load, the frequency governors, and the threads that back ends are given."""
    cores, load = usable_cores(), os.getloadavg()[0]
    said = f"{cores} cores, load {load:.1f}, {DEFAULT_THREADS} thread(s) for one inference"
    asked = os.environ.get("OMP_NUM_THREADS")
    if asked:
        said += f", OMP_NUM_THREADS={asked} (back ends set their own)"
    remedies: list[str] = []
    chosen = sorted({governor.read_text().strip() for governor in governors})
    if chosen:
        said += f", governor {', '.join(chosen)}"
    if "powersave" in chosen:
        remedies.append(
            "The first inference after a pause is slow at a low frequency: "
            "cpupower frequency-set -g performance."
        )
    if load > cores / 2:
        remedies.append("Latency here shows the other work, too; end it to measure.")
    return Finding("CPU", NOTE if remedies else OK, said, " ".join(remedies))


def disk_finding(folder: Path) -> Finding:
    """Room for what is kept between runs: engines, compiled code, unpacked bundles."""
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    said = f"{free / 2**30:.1f} GiB free for the cache"
    if free >= _LEAST_FREE_BYTES:
        return Finding("disk", OK, said)
    remedy = f"Free some, or set LOOPDIT_CACHE to a folder elsewhere (it is {folder})."
    return Finding("disk", NOTE, said, remedy)
