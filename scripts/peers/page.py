"""docs/peers.md from the record that collect.py makes. Pure: no files, no other script.

Success is pooled over the training seeds of an arm, with Wilson's interval; ours is compared with
a peer on the pairs (training seed, test seed) that both have.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from loopdit.eval.reporting.table import milliseconds, percent
from loopdit.eval.statistics.paired import Difference, paired_bootstrap
from loopdit.eval.statistics.success import wilson_interval
from loopdit.machine import describe_machine

Record = Mapping[str, Any]

TORCH, FUSED = "torch", "fused"  # what chunks are timed by
_DASH = "–"  # noqa: RUF001 - a dash for people
_SAME_LATENCY = 1.05  # a p50 within that is the same
_MARGIN = 0.05  # as good: the interval of the difference excludes that many successes fewer

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


class Key(NamedTuple):
    """A policy as it is measured: an arm at one condition."""

    arm: str
    loops: int
    steps: int


class Success(NamedTuple):
    """Over the training seeds: by (training seed, test seed's place), and of each training seed."""

    outcomes: dict[tuple[int, int], bool]
    by_seed: list[tuple[int, int]]

    @property
    def successes(self) -> int:
        """Of all."""
        return sum(self.outcomes.values())

    @property
    def rate(self) -> float:
        """0 to 1."""
        return self.successes / len(self.outcomes)


class Lead(NamedTuple):
    """What ours comes to against a peer on a task.

    at_equal_latency: the best K of ours that is not slower, and its success minus the peer's.
    at_equal_success: the fastest K of ours that is shown to be as good, within _MARGIN, and its
    latency as a share of the peer's. None where there is no such K.
    """

    at_equal_latency: tuple[int, Difference] | None
    at_equal_success: tuple[int, float] | None

    @property
    def verdict(self) -> str:
        """In words."""
        if self.at_equal_latency is not None and self.at_equal_latency[1].low > 0:
            return "ahead on success"
        if self.at_equal_success is not None and self.at_equal_success[1] < 1 / _SAME_LATENCY:
            return "ahead on latency"
        if self.at_equal_success is None:
            return "as good at no K"
        return "no lead shown" if self.at_equal_success[1] <= _SAME_LATENCY else "behind on latency"


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
    sections += [_dial(record), _training(record)]
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


def keys(record: Record) -> list[Key]:
    """Every arm at each of its conditions, in the record's order."""
    found = {
        Key(run["arm"], row["loops"], row["steps"]): None
        for run in record["runs"]
        for row in run["results"]
    }
    return list(found)


def success(record: Record, key: Key, task: str) -> Success | None:
    """None where it was not evaluated."""
    outcomes: dict[tuple[int, int], bool] = {}
    by_seed: list[tuple[int, int]] = []
    for run in record["runs"]:
        for row in run["results"]:
            if (Key(run["arm"], row["loops"], row["steps"]), run["task"]) == (key, task):
                every = [letter == "S" for letter in row["outcomes"]]
                outcomes |= {(run["seed"], place): done for place, done in enumerate(every)}
                by_seed.append((sum(every), len(every)))
    return Success(outcomes, by_seed) if outcomes else None


def lead(record: Record, peer: Key, task: str, backend: str = TORCH, arm: str = "") -> Lead | None:
    """Our `arm`, by default the first of ours, against `peer`, timed by `backend`; None where one
    of the two was not evaluated."""
    arm = arm or record["ours"][0]
    theirs, ms = success(record, peer, task), latency_ms(record, backend)
    ours = {
        key: found
        for key in keys(record)
        if key.arm == arm and (found := success(record, key, task)) is not None
    }
    if theirs is None or not ours or peer not in ms:
        return None
    differences = {key: _difference(theirs, found) for key, found in ours.items()}
    ratios = {key: ms[key] / ms[peer] for key in ours if key in ms}
    fast = [key for key, ratio in ratios.items() if ratio <= _SAME_LATENCY]
    best = max(fast, key=lambda key: (differences[key].value, -ratios[key]), default=None)
    good = [key for key in ratios if differences[key].low >= -_MARGIN]
    fastest = min(good, key=lambda key: ratios[key], default=None)
    return Lead(
        None if best is None else (best.loops, differences[best]),
        None if fastest is None else (fastest.loops, ratios[fastest]),
    )


def latency_ms(record: Record, backend: str = TORCH) -> dict[Key, float]:
    """The median of each key that was timed by `backend`."""
    rows: Sequence[Record] = (record["latency"] or {"rows": []})["rows"]
    return {
        Key(row["name"], row["loops"], row["steps"]): row["p50_ms"]
        for row in rows
        if row["backend"] == backend
    }


def _difference(theirs: Success, ours: Success) -> Difference:
    both = sorted(theirs.outcomes.keys() & ours.outcomes.keys())
    return paired_bootstrap(
        [theirs.outcomes[pair] for pair in both], [ours.outcomes[pair] for pair in both]
    )


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
        "([fused.md](fused.md)).\n\n" + _table(head, rows)
    )


def dial(record: Record, alone: Key, task: str) -> Difference | None:
    """The success of our checkpoint of every K at the K of `alone`, minus that of `alone`; None
    where one of the two was not evaluated."""
    one = success(record, alone, task)
    ours = success(record, Key(record["ours"][0], alone.loops, alone.steps), task)
    return None if one is None or ours is None else _difference(one, ours)


def _dial(record: Record) -> str:
    names = [arm["name"] for arm in record["arms"] if arm["alone"]]
    rows: list[list[str]] = []
    for key in keys(record):
        for task in record["study"]["tasks"] if key.arm in names else ():
            found = dial(record, key, task)
            if found is not None:
                verdict = "ahead" if found.low > 0 else "behind" if found.high < 0 else "the same"
                rows.append([key.arm, str(key.loops), task, _points(found), verdict])
    if not rows:
        return ""
    return (
        "## One checkpoint for every K\n\nIts success at a K minus that of a checkpoint trained "
        "for that K alone, in points, with the 95 % interval of a paired bootstrap over training "
        "and test seeds.\n\n" + _table(["alone", "K", "task", "difference", "every K is"], rows)
    )


def _points(found: Difference) -> str:
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


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
    head = ["ours", "peer", "K", "task", "at equal latency", "at equal success", "ours is"]
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
        f"{_SAME_LATENCY - 1:.0%}, and its success minus the peer's in points, with the 95 % "
        "interval of a paired bootstrap. At equal success: our fastest K of which that interval "
        f"excludes {100 * _MARGIN:.0f} points fewer, and its latency as a share of the peer's. Our "
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
            cells = [_condition(record, key), task, *_lead_cells(found), found.verdict]
            rows.append([arm, key.arm, *cells])
    return rows


def _lead_cells(found: Lead) -> tuple[str, str]:
    success_cell = latency_cell = _DASH
    if found.at_equal_latency is not None:
        loops, d = found.at_equal_latency
        success_cell = f"K = {loops}: {_points(d)}"
    if found.at_equal_success is not None:
        loops, ratio = found.at_equal_success
        latency_cell = f"K = {loops}: {ratio:.2f}"
    return success_cell, latency_cell


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
