import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopdit.errors import ConfigError
from loopdit.eval.rollouts.latency_samples import latency_samples


def written(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    lines = content if name.endswith(".jsonl") else [content]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def test_a_list_is_of_seconds(tmp_path: Path):
    assert latency_samples(written(tmp_path, "a.json", [0.1, 0, 2])) == (0.1, 0.0, 2.0)


def test_rollouts_give_their_chunks_latencies_at_the_depth_that_is_asked_for(tmp_path: Path):
    lines = [
        {"condition": {"loops": 1, "steps": 4}, "rollout": {"latencies_s": [0.01, 0.02]}},
        {"condition": {"loops": 2, "steps": 4}, "delays": [7, 7], "latencies_s": [0.03]},
        {"condition": {"loops": 1, "steps": 4}, "latencies_s": [0.04], "subject": ""},
        {"condition": {"loops": 0, "steps": 0}, "latencies_s": [1e-5], "subject": "expert"},
    ]
    path = written(tmp_path, "rollouts.jsonl", lines)
    assert latency_samples(path, loops=1) == (0.01, 0.02, 0.04)
    assert latency_samples(path, loops=2) == (0.03,)


def test_the_latencies_of_controls_are_left_out(tmp_path: Path):
    lines = [
        {"condition": {"loops": 2}, "latencies_s": [0.03], "subject": ""},
        {"condition": {"loops": 0}, "latencies_s": [1e-5], "subject": "expert"},
    ]
    assert latency_samples(written(tmp_path, "rollouts.jsonl", lines)) == (0.03,)


def test_a_benchmark_gives_latencies_with_its_quantiles(tmp_path: Path):
    row = {"loops": 2, "p50_ms": 10.0, "p99_ms": 20.0, "min_ms": 8.0, "max_ms": 50.0}
    samples = latency_samples(written(tmp_path, "bench.json", {"rows": [row]}), loops=2)
    found = np.percentile(np.array(samples) * 1e3, [0, 50, 99, 100])
    np.testing.assert_allclose(found, [8, 10, 20, 50], rtol=0.05)


def test_several_depths_are_not_mixed(tmp_path: Path):
    rows = [{"loops": k, "latencies_s": [0.1 * k]} for k in (1, 4)]
    path = written(tmp_path, "rows.json", {"results": rows})
    with pytest.raises(ConfigError, match=r"latencies at K=1,4: say which, such as .*json:1"):
        latency_samples(path)
    with pytest.raises(ConfigError, match=r"no latency at K=3. It has K=1,4"):
        latency_samples(path, loops=3)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"results": [{"latency_ms": {"p50": 1}}]}, "has no latencies.*rollouts.jsonl beside"),
        ([-0.1], "a latency of -0.1 s"),
        ("x", "has no lat"),
    ],
)
def test_a_file_without_latencies_is_refused(tmp_path: Path, content: Any, said: str):
    with pytest.raises(ConfigError, match=said):
        latency_samples(written(tmp_path, "a.json", content))


def test_a_file_that_is_not_there_or_not_json_is_refused(tmp_path: Path):
    (tmp_path / "half.json").write_text("[0.1,")
    for name in ("none.json", "half.json"):
        with pytest.raises(ConfigError, match=f"{name}: the file cannot be read"):
            latency_samples(tmp_path / name)
