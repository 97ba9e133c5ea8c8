"""docs/peers.md from the record that collect.py makes. Pure: no files. What follows from the record
is standings.py's; success is pooled over the training seeds of an arm, with Wilson's interval.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import product

from standings import (
    FUSED,
    MARGIN,
    SAME_LATENCY,
    TORCH,
    Gap,
    Key,
    Lead,
    Record,
    Success,
    dial,
    gap,
    keys,
    latency_ms,
    lead,
    success,
)

from loopdit.eval.reporting.table import milliseconds, percent
from loopdit.eval.statistics.paired import Difference
from loopdit.eval.statistics.success import wilson_interval
from loopdit.machine import describe_machine

_DASH = "–"  # noqa: RUF001 - a dash for people

_TWO_INTERVALS = (
    "\nDifferences below are in points and have two 95 % intervals. Of these trainings: a paired "
    "bootstrap over the pairs of training and test seed, as if no other training could end "
    "elsewhere. Of trainings to come: Student's t over the differences of the training seeds. What "
    "is said of a policy, and not of its checkpoints here, goes by the second; where trainings of "
    "one arm end far apart, few of them show little.\n"
)

_HEAD = """# Peers

Written by `scripts/peers/run.py`; do not edit. The policy that we ship beside a plain DiT of
matched depth and one of matched parameters, the dense canvas, and LeRobot's own diffusion policy:
trained on the same demonstrations ({demonstrations}) in the same order for {steps:,} optimizer
steps of 64 windows, and evaluated alike on {episodes} test seeds after each training. {of_how_many}
"""

_LEROBOT = """
LeRobot's is its own class with its own loss, schedulers, normalisation (but that elements which
never move are constant), optimiser and learning rate. Its trainer keeps no average of the weights,
and leaves out windows that begin in an episode's last 7 steps: so does ours of it. Its smallest
encoder, a ResNet-18, has 11 million parameters: here it has a block a stage and a quarter of the
width, and the U-Net 32 and 64 channels; narrower ones hardly learned, which is why it is larger
than ours. Its learning rate of 1e-4 is for 100,000 steps of 8 windows by default, so that it is
trained at ours, 1e-3, too. With 100 denoising steps it samples as it was trained (DDPM), with 10
by its other scheduler (DDIM).
"""


def page(record: Record) -> str:
    """The whole page."""
    study = record["study"]
    demonstrations = ", ".join(
        f"{task}: {of['episodes']:,} episodes, digest {of['digest']}"
        for task, of in study["data"].items()
    )
    head = _HEAD.format(
        demonstrations=demonstrations,
        steps=study["steps"],
        episodes=study["episodes"],
        of_how_many=_runs(record),
    )
    sections = [head, _arms(record), _successes(record)]
    sections += [_dial(record), _deeper(record), _training(record)]
    if record["latency"] is not None:
        sections.append(_leads(record))
    return "\n".join([*sections, _how(record)])


def _runs(record: Record) -> str:
    """How many training seeds there are of each, in words."""
    seeds: dict[tuple[str, str], int] = {}
    for run in record["runs"]:
        of = (run["arm"], run["task"])
        seeds[of] = seeds.get(of, 0) + 1
    fewest, most = min(seeds.values()), max(seeds.values())
    if fewest == most:
        return f"Of each arm and task: {most} training seeds."
    return f"Of an arm on a task: {fewest} to {most} training seeds; what is missing was not run."


def _arms(record: Record) -> str:
    rows: list[list[str]] = []
    for arm in record["arms"]:
        first = next(run for run in record["runs"] if run["arm"] == arm["name"])
        parts = {name: n for name, n in first["parameters"].items() if name != "all"}
        told = "".join(f", {name} {n:,}" for name, n in parts.items())
        rows.append([arm["name"], arm["title"], f"{first['parameters']['all']:,}{told}"])
    table = _table(["arm", "policy", "parameters"], rows)
    return table + (_LEROBOT if any(arm["lerobot"] for arm in record["arms"]) else "")


def _successes(record: Record) -> str:
    tasks = record["study"]["tasks"]
    clocks = [latency_ms(record, backend) for backend in (TORCH, FUSED)]
    rows = [
        [
            key.arm,
            _condition(record, key),
            *(_success_text(success(record, key, task)) for task in tasks),
            *(_error_text(record, key, task) for task in tasks),
            *(milliseconds(ms.get(key)) for ms in clocks),
        ]
        for key in keys(record)
    ]
    head = ["arm", "K", *tasks, *(f"error, {task}" for task in tasks)]
    head += [f"chunk p50, ms, {backend}" for backend in (TORCH, FUSED)]
    return (
        "## Success, error and latency\n\nSuccess over all training seeds with its 95 % interval, "
        "and in brackets of each; the interval is of the test seeds, for these trainings. Error: "
        "of the first 8 actions of sampled chunks on held-out windows, mean squared, in units of "
        "the actions' standard deviations; at each seed in turn. "
        "A fair draw, which LeRobot's sampler makes, errs by its spread too; ours starts from its "
        "best guess. Latency: all arms in turn in one thread, by torch and, where there are "
        "kernels for the policy, by those that serve it on a CPU "
        "([fused.md](fused.md)).\n\n" + _table(head, rows) + _TWO_INTERVALS
    )


def _dial(record: Record) -> str:
    names = [arm["name"] for arm in record["arms"] if arm["alone"]]
    rows: list[list[str]] = []
    for key in keys(record):
        for task in record["study"]["tasks"] if key.arm in names else ():
            found = dial(record, key, task)
            if found is not None:
                rows.append([key.arm, str(key.loops), task, *_gap_cells(found)])
    if not rows:
        return ""
    head = ["alone", "K", "task", "these trainings", "every K is", "to come", "every K is"]
    return (
        "## One checkpoint for every K\n\nIts success at a K minus that of a checkpoint trained "
        "for that K alone.\n\n" + _table(head, rows)
    )


def _deeper(record: Record) -> str:
    """One row for each deeper pass of an arm that has several, beside its shallowest."""
    rows: list[list[str]] = []
    first: dict[str, Key] = {}
    for key in keys(record):
        shallow = first.setdefault(key.arm, key)
        for task in record["study"]["tasks"] if key.loops > shallow.loops else ():
            one, deep = success(record, shallow, task), success(record, key, task)
            if one is not None and deep is not None:
                rows.append([key.arm, str(key.loops), task, *_gap_cells(gap(one, deep))])
    if not rows:
        return ""
    head = ["arm", "K", "task", "these trainings", "deeper is", "to come", "deeper is"]
    return (
        "## What depth adds to one checkpoint\n\nIts success at a K minus that of the same weights "
        "at K = 1.\n\n" + _table(head, rows)
    )


def _gap_cells(found: Gap) -> list[str]:
    beyond = _DASH if found.beyond is None else _standing(found.beyond, "not shown")
    return [_here(found), _standing(found.here, "the same"), _bounds(found.beyond), beyond]


def _standing(found: Difference, otherwise: str) -> str:
    return "ahead" if found.low > 0 else "behind" if found.high < 0 else otherwise


def _here(found: Gap) -> str:
    return f"{100 * found.here.value:+.1f} {_bounds(found.here)}"


def _bounds(found: Difference | None) -> str:
    return _DASH if found is None else f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def _training(record: Record) -> str:
    rows = [
        [
            arm["name"],
            task,
            " ".join(f"{run['samples_per_s']['median']:.0f}" for run in runs),
            " ".join(f"{run['minutes']:.0f}" for run in runs),
            " ".join(_validation_text(run["validation"]) for run in runs),
        ]
        for arm in record["arms"]
        for task in record["study"]["tasks"]
        if (runs := [r for r in record["runs"] if (r["arm"], r["task"]) == (arm["name"], task)])
    ]
    head = ["arm", "task", "samples/s, median", "minutes", "own validation loss, deepest exit"]
    return (
        "## Training\n\nOf each training seed in turn. The machine was shared, so speeds are those "
        "of its spare time. A loss is of each model's own objective: of chunks from noise for "
        "ours, of the noise for LeRobot's; they are not comparable with each other.\n\n"
        + _table(head, rows)
    )


def _leads(record: Record) -> str:
    head = ["ours", "peer", "K", "task", "at equal latency", "to come"]
    head += ["at equal success", "ours is", "to come"]
    by_torch, by_kernels = (
        _table(head, _lead_rows(record, backend)) if latency_ms(record, backend) else ""
        for backend in (TORCH, FUSED)
    )
    served = (
        "\nThe same as they are served on a CPU, by the fused kernels, to which it matters how "
        "many weights there are to read.\n\n"
    )
    return (
        "## Ours against each peer\n\nAt equal latency: our best K that is not slower by more than "
        f"{SAME_LATENCY - 1:.0%}, and its success minus the peer's, with both intervals. "
        "At equal success: our fastest K of which the interval of these trainings "
        f"excludes {100 * MARGIN:.0f} points fewer, and its latency as a share of the peer's. Our "
        "K is chosen on the test seeds, the peer's is given. Timed by torch:\n\n"
        + by_torch
        + (served + by_kernels if by_kernels else "")
    )


def _lead_rows(record: Record, backend: str) -> list[list[str]]:
    peers = [key for key in keys(record) if key.arm not in record["ours"]]
    rows: list[list[str]] = []
    for arm, key, task in product(record["ours"], peers, record["study"]["tasks"]):
        found = lead(record, key, task, backend, arm)
        if found is not None:
            cells = [arm, key.arm, _condition(record, key), task, *_lead_cells(found)]
            rows.append([*cells, found.verdict, found.verdict_beyond])
    return rows


def _lead_cells(found: Lead) -> tuple[str, str, str]:
    success_cell = bounds_cell = latency_cell = _DASH
    if found.at_equal_latency is not None:
        loops, between = found.at_equal_latency
        success_cell, bounds_cell = f"K = {loops}: {_here(between)}", _bounds(between.beyond)
    if found.at_equal_success is not None:
        loops, ratio = found.at_equal_success
        latency_cell = f"K = {loops}: {ratio:.2f}"
    return success_cell, bounds_cell, latency_cell


def _how(record: Record) -> str:
    about, latency = record["about"], record["latency"]
    commits = sorted({_commit(run["commit"]) for run in record["runs"]})
    cpus = Counter(run["machine"]["cpu"] for run in record["runs"])
    theirs = ", ".join(f"{name} {v}" for name, v in (about["lerobot"] or {}).items())
    timed = (
        ""
        if latency is None
        else f" Latencies: {latency['repetitions']} repetitions, {describe_machine(latency)}."
    )
    study = record["study"]
    collected = "".join(
        f"OPENBLAS_CORETYPE=SkylakeX policy-collect env={task} episodes={of['episodes']} "
        f"out=outputs/demos/{task}.zarr\n"
        for task, of in study["data"].items()
    )
    return (
        f"Runs: {', '.join(f'{count} on {cpu}' for cpu, count in cpus.items())}, the newest on: "
        f"{describe_machine(about)}; commit {', '.join(commits)}."
        f"{f' LeRobot: {theirs}.' if theirs else ''}{timed} "
        f"Record: [peers.json](results/peers.json)\n\n"
        "A CPU without AVX-512 rounds otherwise and collects other episodes: compare the digests, "
        "which `policy-info` prints.\n\n"
        f"```sh\n{collected}python scripts/peers/run.py --steps {study['steps']}\n```\n"
    )


def _commit(found: str | None) -> str:
    """Shortened; "-dirty" where files differed from it."""
    commit, dash, dirty = str(found or "unknown").partition("-")
    return commit[:12] + dash + dirty


def _condition(record: Record, key: Key) -> str:
    lerobot = next(arm["lerobot"] for arm in record["arms"] if arm["name"] == key.arm)
    return f"{key.steps} denoising steps" if lerobot else str(key.loops)


def _success_text(found: Success | None) -> str:
    if found is None:
        return _DASH
    low, high = wilson_interval(found.successes, len(found.outcomes))
    each = ", ".join(str(successes) for successes, _ in found.by_seed)
    counted = f"{found.successes}/{len(found.outcomes)}"
    return f"{counted}, {percent(found.rate)} % [{percent(low)}, {percent(high)}] ({each})"


def _error_text(record: Record, key: Key, task: str) -> str:
    errors = [
        f"{row['error']:.3f}"
        for run in record["runs"]
        if (run["arm"], run["task"]) == (key.arm, task) and run["held_out"] is not None
        for row in run["held_out"]["errors"]
        if (row["loops"], row["steps"]) == (key.loops, key.steps)
    ]
    return " ".join(errors) or _DASH


def _validation_text(validation: Record | None) -> str:
    if validation is None:
        return _DASH
    return f"{list(validation['loss'].values())[-1]:.4f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:], ""])
