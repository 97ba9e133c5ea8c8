"""`make results`: measure what docs/results.md says, by the commands, and write the page.

    python scripts/results.py                all of it: hours on two cores
    python scripts/results.py lift push      these stages
    python scripts/results.py page           the page alone, from the records

A stage is a few of the installed commands, run as a user would. What they measured is kept in
docs/results/<stage>.json: eval.json with one letter for each rollout (S success, F failure,
U unstable, E error) in place of its details. A stage that was stopped goes on where it was.
"""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from loopdit.envs.registry import ENV_NAMES
from loopdit.eval.reporting.table import interval_text, milliseconds, policy_text, success_text
from loopdit.eval.statistics.matching import varying
from loopdit.machine import describe_machine
from loopdit.whole_file import whole_file

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "docs" / "results"
PAGE = ROOT / "docs" / "results.md"
# Timed on a quiet machine or not at all, so `make bench-envs` leaves its record here by hand.
_SPEED = RECORDS / "env_bench.json"
_LETTERS = {"success": "S", "failure": "F", "unstable": "U", "error": "E"}
_METAWORLD = tuple(
    f"metaworld/{task}-v3"
    for task in (
        "reach",
        "drawer-open",
        "button-press-topdown",
        "window-open",
        "push",
        "pick-place",
    )
)
_SHOWN = (
    *("env", "variation", "fault", "rate_hz", "execution", "execute_horizon", "delay", "steps"),
    "loops",
)
_HEAD = """# Results

Written by `make results`, which says how each number came to be; do not edit. Success is on test
seeds, which no demonstration used, with its 95 % Wilson interval. Latency is that of a chunk in the
evaluating process on the machine named below each table, which other jobs shared. `docs/results/`
has the records, a letter for each rollout.
"""


@dataclass(frozen=True)
class Stage:
    """`commands` in order; the last ones write `out`/eval.json. text: what it is about.

    made: what makes a command needless where it is there: hours of work are not done twice.
    """

    title: str
    text: str
    out: str
    commands: Sequence[str]
    made: Mapping[str, str] = field(default_factory=dict[str, str])


def _trained(task: str, text: str) -> Stage:
    out = f"outputs/{task}"
    made = {
        f"policy-collect recipe={task}": f"{out}/demonstrations.zarr",
        f"policy-train recipe={task}": f"{out}/checkpoint",
        f"policy-export recipe={task}": f"{out}/bundle",
    }
    commands = [*made, f"policy-eval recipe={task} workers=2"]
    return Stage(f"`{task}` at each depth", text, out, commands, made)


def _under_delay(name: str, title: str, text: str, arms: Mapping[str, tuple[str, str]]) -> Stage:
    """What joining costs policies of `catch-roll`. arms: name of a checkpoint -> options of its
    training (none: that of `catch-roll` itself), ways of joining."""
    folder = "outputs/catch-roll"
    evaluate = "policy-eval recipe=delay env=catch-roll execute_horizon=[2] episodes=100 workers=2"
    made: dict[str, str] = {}
    commands: list[str] = []
    for arm, (options, ways) in arms.items():
        bundle = f"{folder}/{arm}-bundle" if options else f"{folder}/bundle"
        if options:
            checkpoint = f"{folder}/{arm}"
            train = f"policy-train recipe=catch-roll {options} out={checkpoint}"
            export = f"policy-export recipe=catch-roll checkpoint={checkpoint} out={bundle}"
            made |= {train: checkpoint, export: bundle}
            commands += [train, export]
        commands.append(
            f"{evaluate} policy={bundle} execution=[{ways}] out=outputs/{name} append=true"
        )
    return Stage(title, text, f"outputs/{name}", commands, made)


def _suites(episodes: Mapping[str, int], steps: Mapping[str, int]) -> Stage:
    """Like any other environment: an expert demonstrates, a policy learns from the state."""
    made: dict[str, str] = {}
    commands: list[str] = []
    for env, count in episodes.items():
        out = f"outputs/{env.replace('/', '-')}"
        data, checkpoint, bundle = (
            f"{out}/demonstrations.zarr",
            f"{out}/checkpoint",
            f"{out}/bundle",
        )
        collect = f"policy-collect env={env} image_size=0 episodes={count} out={data}"
        train = f"policy-train data={data} out={checkpoint} steps={steps[env]}"
        export = f"policy-export checkpoint={checkpoint} data={data} out={bundle}"
        made |= {collect: data, train: checkpoint, export: bundle}
        evaluate = f"policy-eval env={env} policy={bundle} loops=[1,4] episodes=50"
        commands += [collect, train, export, f"{evaluate} out=outputs/suites append=true"]
    return Stage(
        "Public suites",
        "Meta-World with its own experts, robosuite's Lift with ours; from the state, by the "
        "commands that serve every other task.",
        "outputs/suites",
        commands,
        made,
    )


STAGES = {
    "experts": Stage(
        "Scripted experts",
        "Every built-in task, from privileged state.",
        "outputs/experts",
        [
            f"policy-eval env={env} policy=expert episodes=200 workers=2 out=outputs/experts "
            f"append=true"
            for env in ENV_NAMES
        ],
    ),
    "tabletop": Stage(
        "The policy that is shipped, at each depth",
        "Seven tasks in one policy, each told by its instruction (`make recipe-tabletop`).",
        "outputs/tabletop/results",
        [
            f"policy-eval recipe=tabletop env={env} workers=2 append=true"
            for env in ENV_NAMES
            if env != "catch-roll"
        ],
    ),
    "lift": _trained("lift", "3,000 demonstrations from pixels, of this task alone."),
    "push": _trained("push", "2,000 demonstrations from pixels."),
    "place": _trained("place", "2,000 demonstrations from pixels."),
    "catch-roll": _trained(
        "catch-roll",
        "2,000 demonstrations from pixels; a new chunk is asked for every 2 actions.",
    ),
    "horizon-catch-roll": Stage(
        "How often to look: `catch-roll`",
        "K = 4; so many actions of each chunk are executed before the next one.",
        "outputs/horizon-catch-roll",
        [
            "policy-eval recipe=catch-roll loops=[4] execute_horizon=[8,4,2,1] episodes=100 "
            "workers=2 out=outputs/horizon-catch-roll"
        ],
    ),
    "latency-lift": Stage(
        "Success against latency: `lift`",
        "K = 4; a chunk comes so many control steps of 100 ms after its observation.",
        "outputs/latency-lift",
        ["policy-eval recipe=latency workers=2 out=outputs/latency-lift"],
    ),
    "latency-catch-roll": Stage(
        "Success against latency: `catch-roll`",
        "The dynamic task; K = 4, a new chunk asked for every 2 actions.",
        "outputs/latency-catch-roll",
        [
            "policy-eval recipe=latency env=catch-roll policy=outputs/catch-roll/bundle "
            "execute_horizon=[2] workers=2 out=outputs/latency-catch-roll"
        ],
    ),
    "working-points-lift": Stage(
        "Working points: `lift`",
        "Control rate (it was demonstrated at 10 Hz), denoising steps, depth and delay together.",
        "outputs/working-points-lift",
        [
            "policy-eval recipe=latency execution=[naive] delay=[0,2] loops=[1,4] steps=[1,10] "
            "rate_hz=[5,10,20] workers=2 out=outputs/working-points-lift"
        ],
    ),
    "delay-stack": Stage(
        "How chunks are joined: `stack` under delay",
        "The policy that is shipped, K = 4, control at 10 Hz; see "
        "[the log](experiments/2026-11-28-delay.md). Several runs in one table, not equally long.",
        "outputs/delay-stack",
        [
            "policy-eval recipe=delay execution=[tracked] delay=[0,2] episodes=200 append=true",
            "policy-eval recipe=delay execution=[blocking,guided,tracked-ensemble] episodes=40 "
            "append=true",
            "policy-eval recipe=delay execution=[tracked] delay=[1,3] episodes=40 append=true",
            "policy-eval recipe=delay execution=[naive,aligned,ensemble] delay=[1,2,3] episodes=25 "
            "append=true",
        ],
    ),
    "delay-stack-50hz": Stage(
        "How chunks are joined: `stack` at 50 Hz",
        "Each action in five control steps of 20 ms; delays of 0 to 300 ms.",
        "outputs/delay-stack-50hz",
        [
            "policy-eval recipe=delay rate_hz=[50] divide=[5] delay=[0,5,10,15] "
            "execution=[tracked,naive] episodes=25 out=outputs/delay-stack-50hz"
        ],
    ),
    "delay-lift": Stage(
        "How chunks are joined: `lift` under delay",
        "As `stack`.",
        "outputs/delay-lift",
        [
            "policy-eval recipe=delay env=lift execution=[tracked,naive,aligned,blocking,"
            "tracked-ensemble,guided] episodes=20 out=outputs/delay-lift"
        ],
    ),
    "delay-catch-roll": Stage(
        "How chunks are joined: the ball that does not wait",
        "A scripted expert with perfect foresight, a new chunk every 2 actions: what is lost is "
        "lost by the joining alone.",
        "outputs/delay-catch-roll",
        [
            "policy-eval recipe=delay env=catch-roll policy=foreseeing-expert execute_horizon=[2] "
            "execution=[tracked,informed,naive,aligned,blocking] episodes=20 "
            "out=outputs/delay-catch-roll"
        ],
    ),
    "delay-catch-roll-trained": _under_delay(
        "delay-catch-roll-trained",
        "How chunks are joined: trained policies and the ball that does not wait",
        "K = 4, a new chunk every 2 actions. One policy is told nothing, the other (`informed`) "
        "what will be executed before its chunk comes, as the beginning of that chunk.",
        {
            "plain": ("", "tracked,tracked-ensemble,guided,naive,aligned,blocking"),
            "told": ("policy.in_flight=6 policy.told=prefix", "informed"),
        },
    ),
    "delay-catch-roll-seen": _under_delay(
        "delay-catch-roll-seen",
        "How chunks are joined: trained policies that see how the ball moves",
        "As above, with the last three pictures in the place of one, trained for half as many "
        "steps.",
        {
            "seen": ("steps=4000 policy.history=3", "tracked,naive,aligned"),
            "seen-told": (
                "steps=4000 policy.history=3 policy.in_flight=6 policy.told=prefix",
                "informed",
            ),
        },
    ),
    "variations": Stage(
        "Robustness: another world",
        "`lift`, K = 4: one axis of domain randomisation at a time. The demonstrations had none.",
        "outputs/variations",
        ["policy-eval recipe=variations workers=2"],
    ),
    "cameras": Stage(
        "Robustness: broken cameras",
        "`lift`, K = 4: what is seen is not what is there.",
        "outputs/cameras",
        ["policy-eval recipe=cameras workers=2"],
    ),
    "suites": _suites(
        {**dict.fromkeys(_METAWORLD, 100), "robosuite/lift": 150},
        {**dict.fromkeys(_METAWORLD, 3000), "robosuite/lift": 4000},
    ),
}


def main(names: Sequence[str]) -> None:
    """Run the stages `names`, keep what they measured, write the page."""
    unknown = [name for name in names if name not in (*STAGES, "page")]
    if unknown:
        sys.exit(f"results: no stage is named {unknown[0]}. There are: {', '.join(STAGES)}, page.")
    for name in names or STAGES:
        if name != "page":
            _run(STAGES[name])
            keep(name)
    sections = [_section(name) for name in STAGES if _record(name).exists()]
    page = "\n".join([_HEAD, *sections, _speed() if _SPEED.exists() else ""])
    with whole_file(PAGE) as aside:
        aside.write_text(page)
    sys.stdout.write(f"wrote {PAGE.relative_to(ROOT)}\n")


def keep(name: str) -> None:
    """The record of stage `name`, from what it left."""
    content = json.loads((ROOT / STAGES[name].out / "eval.json").read_text())
    for row in [*content["results"], *content["controls"]]:
        row["outcomes"] = "".join(_LETTERS[r["outcome"]] for r in row.pop("rollouts"))
        del row["videos"]
    RECORDS.mkdir(parents=True, exist_ok=True)
    with whole_file(_record(name)) as aside:
        aside.write_text(json.dumps(content, indent=1) + "\n")


def _run(stage: Stage) -> None:
    for line in stage.commands:
        if line in stage.made and (ROOT / stage.made[line]).exists():
            continue
        sys.stdout.write(f"$ {line}\n")
        sys.stdout.flush()
        program, *options = shlex.split(line)
        path = Path(sys.executable).with_name(program)
        if subprocess.run([str(path), *options], cwd=ROOT, check=False).returncode:
            sys.exit(f"results: {program} failed for the reason above; the same command goes on.")


def _record(name: str) -> Path:
    return RECORDS / f"{name}.json"


def _section(name: str) -> str:
    stage, content = STAGES[name], json.loads(_record(name).read_text())
    commands = "\n".join(stage.commands)
    return (
        f"## {stage.title}\n\n{stage.text}\n\n"
        f"{_frontier(content['results'])}"
        f"{_table(content['results'])}\n{_controls(content['controls'])}\n\n"
        f"{describe_machine(content)}; {content['simulator']}; commit "
        f"{_commit(content)}; seeds {content['seeds'][0]} to "
        f"{content['seeds'][1]}. Record: [{name}.json](results/{name}.json)\n\n"
        f"```sh\n{commands}\n```\n"
    )


def _commit(content: dict[str, Any]) -> str:
    """Shortened; "-dirty" where files differed from it, be it only the records of other stages."""
    commit, dash, dirty = str(content["commit"] or "unknown").partition("-")
    return commit[:12] + dash + dirty


def _speed() -> str:
    content = json.loads(_SPEED.read_text())
    rates = "\n".join(
        f"| {what} | {median(values):.0f} |" for what, values in content["rates"].items()
    )
    ratios = "\n".join(
        f"| {r['what']} | {r['against']} | {r['median']:.2f} | {r['low']:.2f} to {r['high']:.2f} |"
        for r in content["ratios"]
    )
    return (
        f"## Speed of the environments\n\n`{content['env']}`, {content['image_size']} pixels, "
        f"{content['repetitions']} interleaved blocks of {content['block_s']} s.\n\n"
        f"| | control steps a second, median |\n|---|---|\n{rates}\n\n"
        f"| ratio of | to | median | quartiles |\n|---|---|---|---|\n{ratios}\n\n"
        f"{describe_machine(content)}; mujoco {content['versions']['mujoco']}; "
        f"{content['robosuite']}; commit {_commit(content)}. "
        f"Record: [env_bench.json](results/env_bench.json)\n\n```sh\nmake bench-envs\n```\n"
    )


def _controls(rows: Sequence[dict[str, Any]]) -> str:
    """One line: what each control came to, over all conditions it was driven under; "" without."""
    if not rows:
        return ""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        found.setdefault(policy_text(row), {})[success_text(row)] = None
    told = (f"{name} {' or '.join(counts)}" for name, counts in found.items())
    return f"Controls on the same seeds, each time: {', '.join(told)}."


def _frontier(rows: Sequence[dict[str, Any]]) -> str:
    """Success by execution mode and delay, the two axes of a latency stage, and the jerk where
    chunks take over, of those rows that have it; "" for other stages."""
    delays = list(dict.fromkeys(row["delay"] for row in rows))
    modes = list(dict.fromkeys(row["execution"] for row in rows))
    if len(delays) == 1 or len(modes) == 1:
        return ""
    found = {(row["execution"], row["delay"]): row for row in rows}

    def table(head: str, cell: Callable[[dict[str, Any]], str]) -> list[str]:
        lines = [f"| {head} | {' | '.join(delays)} |", "|---|" + "---|" * len(delays)]
        for mode in modes:
            cells = [cell(found[mode, d]) if (mode, d) in found else "–" for d in delays]  # noqa: RUF001
            lines.append(f"| {mode} | {' | '.join(cells)} |")
        return [*lines, ""]

    tables = table("success; delay, control steps", success_text)
    if all("border_jerk" in row for row in rows):
        tables += table("jerk where chunks take over", lambda row: f"{row['border_jerk']:.3f}")
    return "\n".join([*tables, ""])


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown; the columns that tell the rows apart, then what was measured."""
    if not rows:
        return ""
    keys = [key for key in _SHOWN if key in varying(rows) or len({str(r[key]) for r in rows}) > 1]
    titles = ["K" if key == "loops" else key for key in keys]
    head = ["policy", *titles, "success", "rate, 95 %", "median time to success", "chunk p50"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        seconds = row["time_to_success_s"]
        lines.append(
            "| "
            + " | ".join(
                [
                    policy_text(row),
                    *("–" if row[key] is None else str(row[key]) for key in keys),  # noqa: RUF001
                    success_text(row),
                    interval_text(row),
                    f"{seconds['p50']:.1f} s" if seconds else "–",  # noqa: RUF001
                    f"{milliseconds(row['latency_ms']['p50'])} ms",
                ]
            )
            + " |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main(sys.argv[1:])
