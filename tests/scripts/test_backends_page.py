"""What the page of `bench_peer_backends.py` says of a record."""

import runpy
from pathlib import Path
from typing import Any

import loopdit

PEERS = Path(loopdit.__file__).parents[2] / "scripts" / "peers"
PAGE: Any = runpy.run_path(str(PEERS / "backends_page.py"))["backends_page"]

RECORD: dict[str, Any] = {
    "began_at": "2026-11-28T20:00:00Z",
    "commit": None,
    "clock": "wall",
    "steps": 10,
    "rounds": 40,
    "visit": 5,
    "outliers": "none removed",
    "parameters": {"peer": 1_014_567, "ours": 1_033_820},
    "model_id": "0123",
    "peer": {
        "settings": {"down_dims": [64, 96]},
        "parameters": {"encoder": 312_576},
        "versions": {"lerobot": "0.4.4"},
    },
    "missing": [{"backend": "openvino", "reason": "it is not installed"}],
    "machine": {"cpu": "x", "cores": 2, "memory_gib": 4, "load_average": 0.1, "os": "y"},
    "versions": {"python": "3.11", "torch": "2.13.0"},
}


def row(policy: str, backend: str, loops: int | None, p50: float, on_core: float) -> dict[str, Any]:
    times = dict.fromkeys(("p90_ms", "p99_ms", "min_ms", "max_ms"), p50)
    who = {"policy": policy, "backend": backend, "loops": loops}
    return {**who, **times, "p50_ms": p50, "cpu_p50_ms": on_core, "repetitions": 200}


def ratio(backend: str, loops: int, value: float, **more: Any) -> dict[str, Any]:
    interval = {"value": value, "low": value - 0.1, "high": value + 0.1}
    return {"backend": backend, "loops": loops, "peer_over_ours": interval, **more}


def test_the_slowest_is_first_by_the_clock_that_ratios_go_by():
    rows = [row("ours", "fused", 1, 1.0, 9.0), row("peer", "torch", None, 5.0, 2.0)]
    for clock, first in (("wall", "| peer, torch |"), ("cpu", "| ours, fused |")):
        page = PAGE({**RECORD, "clock": clock, "rows": rows, "ratios": []})
        named = [line for line in page.splitlines() if line.startswith(("| peer,", "| ours,"))]
        assert [line.startswith(first) for line in named] == [True, False]


def test_ratios_are_of_one_back_end_and_of_the_fastest_of_each():
    ratios = [
        *(ratio("torch", k, 1.0 + k, peer_backend="torch") for k in (2, 1)),
        *(ratio("fused", k, 4.0 + k, peer_backend="openvino", fastest=True) for k in (1, 2)),
    ]
    page = PAGE({**RECORD, "rows": [], "ratios": ratios})
    assert "| both by torch | 2.00 [1.90, 2.10] | 3.00 [2.90, 3.10] |" in page
    assert "| each by its fastest (openvino and fused) | 5.00 [4.90, 5.10] | 6.00 [" in page
    assert "Not measured: openvino: it is not installed" in page


def test_the_page_says_what_was_measured_on_what():
    page = PAGE({**RECORD, "rows": [], "ratios": []})
    for said in (
        *("1,014,567 parameters of theirs", "our 1,033,820", "40 rounds of 5", "lerobot 0.4.4"),
        *("2026-11-28T20:00:00Z", "commit unknown", "openvino not installed", "none removed"),
    ):
        assert said in page
