"""What `make demo` runs: its stages, each a few of the installed commands with their options.

Pure: from the demo's options to a list of stages. Running them is `demo`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loopdit.command import option
from loopdit.deploy.bundle.bundle import Bundle
from loopdit.errors import ConfigError
from loopdit.eval.seeds import FIRST_TEST_SEED

DATA, CHECKPOINT, BUNDLE, VIDEOS = "demonstrations.zarr", "checkpoint", "bundle", "videos"
ENDPOINT = "ENDPOINT"  # in the commands of a stage with a server: where it listens
_SHIPPED_LABEL = "shipped policy"


@dataclass(frozen=True)
class DemoConfig:
    """How long a demo to run, and where."""

    out: str = option("outputs/demo", "folder for everything it makes")
    collect: list[str] = option(["recipe=demo"], "options of policy-collect")
    train: list[str] = option(["recipe=demo"], "options of policy-train")
    episodes: int = option(50, "rollouts for each depth and each control")
    loops: list[int] = option([1, 2, 3, 4], "compute depths K to measure")
    repetitions: int = option(100, "timed chunks for each back end and depth")

    def __post_init__(self) -> None:
        for name in ("episodes", "repetitions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1.")
        if not self.loops:
            raise ConfigError("loops=[] is empty. Give at least one depth, such as loops=[1].")


@dataclass(frozen=True)
class Stage:
    """Commands (program and options) that run one after another.

    expected_s: what they take on two cores. serves: the bundle that is behind a server meanwhile.
    """

    title: str
    expected_s: float
    commands: Sequence[Sequence[str]]
    serves: str = ""


def plan(config: DemoConfig, shipped: Bundle | None) -> list[Stage]:
    """The stages in order. `shipped` is the bundle that comes with loopdit, if it does."""
    data, checkpoint, bundle = (str(Path(config.out, n)) for n in (DATA, CHECKPOINT, BUNDLE))
    collect = ["policy-collect", *config.collect, f"out={data}"]
    train = ["policy-train", *config.train, f"data={data}", f"out={checkpoint}"]
    export = ["policy-export", f"checkpoint={checkpoint}", f"data={data}", f"out={bundle}"]
    each_depth = _evaluate(config, f"policy={ENDPOINT}", _loops(config.loops), "videos=2")
    controls = [
        _evaluate(config, "policy=untrained", f"bundle={bundle}", _loops([max(config.loops)])),
        _evaluate(config, "policy=replay", f"data={data}"),
        _evaluate(config, "policy=expert"),
    ]
    bench = ["policy-bench", f"bundle={bundle}", f"data={data}", f"out={config.out}"]
    bench += ["backends=[onnxruntime,torch]", f"repetitions={config.repetitions}"]
    stages = [
        Stage("A scripted expert records demonstrations", 30, [collect]),
        Stage("A looped DiT learns from them", 330, [train]),
        Stage("The checkpoint becomes a bundle, compared with torch", 40, [export]),
        Stage("A server runs it; evaluation over the wire at each depth", 20, [each_depth], bundle),
        Stage("Controls on the same starts: untrained, replay, expert", 40, controls),
        Stage("Latency of each back end at each depth", 12, [bench]),
    ]
    if shipped is not None:
        loops = _loops([shipped.default_loops])
        label = f"label={quoted(_SHIPPED_LABEL)}"
        evaluate = _evaluate(config, f"policy={ENDPOINT}", loops, label, "videos=2")
        title = "The policy that ships with loopdit, from a longer recipe"
        stages.append(Stage(title, 8, [evaluate], str(shipped.path)))
    return stages


def _evaluate(config: DemoConfig, *options: str) -> list[str]:
    """Every evaluation uses the same starts and adds to the same results. The demo has controls of
    its own."""
    starts = [f"episodes={config.episodes}", f"seed={FIRST_TEST_SEED}", "controls=false"]
    return ["policy-eval", *options, *starts, f"out={config.out}", "append=true"]


def _loops(loops: Sequence[int]) -> str:
    return f"loops=[{','.join(map(str, loops))}]"


def quoted(value: str) -> str:
    """`value` as the command line takes it: in quotes where it has brackets or parentheses."""
    return f'"{value}"' if set(value) & set("[](){}") else value
