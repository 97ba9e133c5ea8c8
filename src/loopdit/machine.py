"""What a measurement ran on: the machine, the versions of what matters, the commit.

Every JSON of results carries this, because a latency without its machine means nothing. Standard
library alone, and nothing that names the machine's owner: no host name, no paths.
"""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from loopdit import __version__

# Whatever of these is installed is listed; what is absent is left out.
_LIBRARIES = (
    "gymnasium",
    "msgspec",
    "mujoco",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxscript",
    "openvino",
    "pyzmq",
    "safetensors",
    "torch",
    "zarr",
)


def machine_and_versions() -> dict[str, Any]:
    """{"machine": ..., "versions": ..., "commit": ...}, plain JSON types; `commit` may be None."""
    return {
        "machine": {
            "cpu": _cpu_model(),
            "architecture": platform.machine(),
            "cores": usable_cores(),
            "memory_gib": _memory_gib(),
            "os": _os_name(),
            "kernel": platform.release(),
            "load_average": round(os.getloadavg()[0], 2),
        },
        "versions": {"loopdit": __version__, "python": platform.python_version()}
        | _installed_versions(),
        "commit": _commit(),
    }


def describe_machine(facts: dict[str, Any]) -> str:
    """One line for people, from what `machine_and_versions` returned."""
    machine, versions = facts["machine"], facts["versions"]
    libraries = ", ".join(
        f"{name} {versions[name]}" for name in ("torch", "onnxruntime") if name in versions
    )
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"load {machine['load_average']}; {machine['os']}; "
        f"Python {versions['python']}" + (f", {libraries}" if libraries else "")
    )


def usable_cores() -> int:
    """Cores this process may run on: its affinity, cut by the quota of its control group."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _quota_cores(Path("/sys/fs/cgroup/cpu.max"))
    return max(1, min(cores or 1, quota or cores or 1))


def _quota_cores(path: Path) -> int | None:
    """Whole cores of a control group's CPU quota ("200000 100000" is 2), None where unlimited."""
    try:
        limit, period = path.read_text().split()[:2]
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) // int(period) or 1


def _cpu_model() -> str:
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _installed_versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """The checkout's commit, "-dirty" when files differ from it; None when not in a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    git = ("git", "-C", str(root))
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}-dirty" if changed else head
