import io
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from loopdit.deploy.backends.cuda_driver import CudaDriver, Gpu
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.doctor.backends import backend_findings, bundle_finding
from loopdit.deploy.doctor.command import DoctorConfig, findings_table
from loopdit.deploy.doctor.finding import BROKEN, NOTE, OK, Finding
from loopdit.deploy.doctor.machine import (
    clock_finding,
    clock_source_finding,
    cpu_finding,
    disk_finding,
    gpu_finding,
    port_finding,
    python_finding,
)
from loopdit.errors import ConfigError


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("version", "state"), [((3, 10), NOTE), ((3, 11), OK), ((3, 13), OK), ((3, 14), NOTE)]
)
def test_a_python_that_is_not_tested_is_noted(version: tuple[int, ...], state: str):
    assert python_finding(version).state == state


def test_a_gpu_is_told_with_its_driver():
    found = gpu_finding(CudaDriver((Gpu("NVIDIA H100", (9, 0), 80 * 2**30),), "13.0", None))
    assert found.state == OK
    assert found.said == "NVIDIA H100 (compute capability 9.0, 80 GiB); the driver runs CUDA 13.0"


def test_no_gpu_is_no_fault_but_a_driver_that_fails_is_noted():
    assert gpu_finding(CudaDriver((), "", "no NVIDIA driver")).state == OK
    found = gpu_finding(CudaDriver((), "13.0", "the NVIDIA driver refuses"))
    assert (found.state, found.said) == (NOTE, "the NVIDIA driver refuses")


def test_a_port_in_use_breaks_serving(taken_port: int):
    found = port_finding(taken_port)
    assert found.state == BROKEN
    assert "Address already in use" in found.said
    assert "policy-serve address=tcp://127.0.0.1:0" in found.remedy


def test_a_late_wake_up_is_noted():
    assert clock_finding(lambda seconds: None).state == OK
    late = clock_finding(lambda seconds: time.sleep(seconds + 0.003))
    assert late.state == NOTE
    assert "chrt" in late.remedy


def test_a_governor_that_saves_power_on_any_core_is_noted(tmp_path: Path):
    governors = [tmp_path / name for name in ("cpu0", "cpu1")]
    for governor, chosen in zip(governors, ("performance\n", "powersave\n"), strict=True):
        governor.write_text(chosen)
    found = cpu_finding(governors)
    assert found.state == NOTE
    assert "governor performance, powersave" in found.said
    assert "frequency-set -g performance" in found.remedy
    assert "frequency-set" not in cpu_finding(governors[:1]).remedy
    assert "governor" not in cpu_finding([]).said


def test_a_clock_that_is_slow_to_read_is_noted_with_a_quick_one_that_there_is(tmp_path: Path):
    source = tmp_path / "current_clocksource"
    assert clock_source_finding(source).state == OK
    source.write_text("tsc\n")
    assert clock_source_finding(source) == Finding("clock source", OK, "tsc")
    source.write_text("hpet\n")
    assert "dmesg" in clock_source_finding(source).remedy
    (tmp_path / "available_clocksource").write_text("hpet kvm-clock acpi_pm\n")
    found = clock_source_finding(source)
    assert (found.state, found.said) == (NOTE, "hpet, which is slow to read")
    assert f"echo kvm-clock | sudo tee {source}" in found.remedy


def test_room_is_looked_for_where_the_cache_will_be(tmp_path: Path):
    free = shutil.disk_usage(tmp_path).free / 2**30
    said = float(disk_finding(tmp_path / "not" / "yet").said.split()[0])
    assert said == pytest.approx(free, abs=1)


def test_a_damaged_bundle_breaks_serving(bundle_copy: Path):
    found, bundle = bundle_finding(str(bundle_copy))
    assert (found.state, bundle is None) == (OK, False)
    (bundle_copy / "model.safetensors").write_bytes(b"")
    found, bundle = bundle_finding(str(bundle_copy))
    assert (found.state, bundle is None) == (BROKEN, True)
    assert "model.safetensors is truncated" in found.said


@pytest.mark.system
def test_a_back_end_that_was_named_computes_a_chunk_and_auto_takes_it(tiny_bundle: Bundle):
    found = {finding.check: finding for finding in backend_findings(tiny_bundle, ["onnxruntime"])}
    assert found["onnxruntime"].state == OK
    assert "K = 2, 3 steps in " in found["onnxruntime"].said
    assert found["torch"].remedy == "Try it: policy-doctor backends=[torch]"
    assert (found["backend=auto"].state, found["backend=auto"].said) == (OK, "takes onnxruntime")


@pytest.mark.system
def test_where_no_back_end_runs_serving_is_broken(bundle_copy: Path):
    bundle = Bundle.open(bundle_copy)
    (bundle_copy / "denoise_k2.onnx").write_bytes(b"no graph")
    found = {finding.check: finding for finding in backend_findings(bundle, ["onnxruntime"])}
    assert found["onnxruntime"].state == NOTE
    assert "denoise_k2.onnx is truncated" in found["onnxruntime"].said
    assert found["backend=auto"].state == BROKEN


@pytest.mark.system
def test_the_command_ends_with_1_where_the_port_is_taken(tiny_bundle: Bundle, taken_port: int):
    options = [f"bundle={tiny_bundle.path}", "backends=[onnxruntime]", f"port={taken_port}"]
    done = subprocess.run(
        [sys.executable, "-m", "loopdit.deploy.doctor.command", *options, "json=true"],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert not told["serves"]
    broken = [entry["check"] for entry in told["findings"] if entry["state"] == BROKEN]
    assert broken == [f"port {taken_port}"]


def test_a_remedy_is_shown_as_it_is_to_be_typed():
    printed = io.StringIO()
    table = findings_table([Finding("x", NOTE, "slow", "policy-doctor backends=[torch]")])
    Console(width=80, file=printed).print(table)
    assert "policy-doctor backends=[torch]" in printed.getvalue()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"backends": ["tensorflow"]}, "'tensorflow'.*onnxruntime"), ({"port": 0}, "port=0")],
)
def test_options_that_cannot_work_are_refused(options: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        DoctorConfig(**options)  # pyright: ignore[reportArgumentType] - of any type, on purpose
