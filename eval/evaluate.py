"""policy-eval: drive an environment with a policy in closed loop and say how often it succeeds.

    policy-eval ...            evaluate
    policy-eval compare A B    what two evaluations show about each other
    policy-eval replay ...     play a rollout again, and say whether it is the same to the bit
    policy-eval backends ...   what another back end or precision costs in closed loop
    policy-eval power ...      how many episodes a difference needs

All conditions start from the same test seeds and take turns on each. Every rollout is on the disk
when it ends: a command that was stopped and is given again goes on where it was.
"""

import sys
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from importlib import import_module
from pathlib import Path

from rich.console import Console

from loopdit.command import Command, run_command
from loopdit.errors import ConfigError, EvaluationFailed
from loopdit.eval.eval_config import EvalConfig
from loopdit.eval.reporting.report import FILE as REPORT_FILE
from loopdit.eval.reporting.report import write_report
from loopdit.eval.reporting.table import results_table
from loopdit.eval.reporting.video import require_encoder
from loopdit.eval.rollouts.rollout_record import Episode, from_record
from loopdit.eval.runs.episode_runner import EpisodeRunner, start_runner
from loopdit.eval.runs.evaluation import Evaluation
from loopdit.eval.runs.filming import film
from loopdit.eval.runs.journal import FILE as JOURNAL_FILE
from loopdit.eval.runs.journal import FORMAT, FORMAT_VERSION, JournalWriter
from loopdit.eval.runs.plan import Job
from loopdit.eval.runs.pools import open_pool
from loopdit.eval.runs.preparation import Prepared, prepare, setup_of
from loopdit.eval.runs.results import FILE, Row, require_writable, save_results
from loopdit.eval.runs.resuming import alone, decide, move_aside
from loopdit.eval.runs.worker_pool import InProcess, Pool
from loopdit.machine import machine_and_versions, usable_cores

COMMAND = Command(
    name="policy-eval",
    folder="eval",
    summary="measure a policy's closed-loop success, with intervals, under each condition.",
    examples=(
        "policy-eval env=lift loops=[1,2,3]",
        "policy-eval policy=tcp://127.0.0.1:5555 loops=[1,2,3,4] episodes=50",
        "policy-eval policy=outputs/bundle env=lift videos=2 workers=2 out=outputs/eval",
        "policy-eval env=catch-roll loops=[3] delay=[0,1,2,3] execution=[aligned,naive]",
        "policy-eval policy=informed-expert env=stack delay=[0,3,5] execution=[informed,aligned]",
        "policy-eval policy=replay data=lift.zarr out=outputs/eval append=true",
        "policy-eval env=lift loops=[4,1] episodes=auto",
        "policy-eval compare outputs/before outputs/after",
        "policy-eval replay out=outputs/eval seed=900003",
        "policy-eval backends outputs/bundle backends=[fused:fp32,fused:bf16]",
        "policy-eval power --help",
    ),
)
_SENTENCES = 4  # comparisons that are printed; the others are in the files
SUBCOMMANDS = ("backends", "compare", "power", "replay")


def main() -> None:
    """Entry point of `policy-eval`."""
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    if first in SUBCOMMANDS:
        import_module(f"loopdit.eval.{first}").main(sys.argv[2:])
    elif first and first[0] != "-" and "=" not in first:
        sys.exit(
            f"{COMMAND.name}: error: {first!r} is neither an option, name=value, nor one of the "
            f"subcommands: {', '.join(SUBCOMMANDS)}."
        )
    else:
        run_command(COMMAND, EvalConfig, run)


def run(config: EvalConfig) -> None:
    """Evaluate, write the results and the report, print a table.

    What stops it, finished rollouts are kept. Raises ConfigError, SpecMismatch, RenderingError,
    ServerError and what opening the policy raises, all before the first rollout but for a server
    that fails later; EvaluationFailed, with everything written, where all rollouts raised.
    """
    if config.videos:
        require_encoder()
    folder = Path(config.out)
    with EpisodeRunner(setup_of(config)) as runner:
        prepared = prepare(config, runner)
        require_writable(folder, config.append)
        with alone(folder):
            pool = _pool(config, runner, prepared)  # may refuse: before anything is moved
            done = _take_up(folder, prepared, config)
            with JournalWriter(folder) as journal:
                if done is None:
                    journal.append(_header(prepared))
                evaluation = Evaluation(
                    prepared.plan, prepared.common, prepared.period_s, journal, done or ()
                )
                with closing(pool):
                    _drive(config, evaluation, pool)
                runner.close()  # a served environment has one client at a time
                if config.videos:
                    film(evaluation, prepared.plan, prepared.common, folder, config.videos)
                _save(config, evaluation)
                write_report(folder)
                journal.append({"kind": "end", "run": prepared.plan.digest})
    _print(config, evaluation)


def _take_up(folder: Path, prepared: Prepared, config: EvalConfig) -> list[Episode] | None:
    """What a run that was stopped has done, None to begin one. Says what becomes of what is there.

    Raises ConfigError for a journal that cannot be read.
    """
    decision = decide(folder, prepared.plan.digest, config.append)
    if decision.torn:
        _say(f"{folder / JOURNAL_FILE} ends in half a line; that rollout is run again.")
    if decision.going_on is not None:
        done = [from_record(record) for record in decision.going_on.rollouts]
        _say(f"Going on with the evaluation in {folder}: {len(done)} rollouts are done.")
        return done
    if decision.move:
        moved = move_aside(folder)
        _say(f"Earlier results, of a finished or another evaluation, moved to {moved}.")
    return None


def _header(prepared: Prepared) -> Row:
    return {
        "kind": "run",
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "run": prepared.plan.digest,
        "plan": prepared.plan.to_dict(),
        "about": prepared.common,
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **machine_and_versions(),
    }


def _pool(config: EvalConfig, runner: EpisodeRunner, prepared: Prepared) -> Pool[Job, Episode]:
    """One worker is this process: nothing to start, and a debugger gets to see it."""
    workers = min(config.workers or usable_cores(), prepared.plan.total)
    if workers == 1 and config.launcher == "processes":
        return InProcess(runner.run)
    runner.close()
    start = partial(start_runner, setup_of(config), prepared.common["model_id"])
    return open_pool(start, workers, config.launcher)


def _drive(config: EvalConfig, evaluation: Evaluation, pool: Pool[Job, Episode]) -> None:
    """Run what is missing; save what there is of it when something stops it."""
    try:
        evaluation.run(pool, f"evaluating {config.label or config.policy}")
    except BaseException:
        rows = evaluation.rows()
        if rows:
            with suppress(ConfigError):  # a full disk: what stopped it says more
                _save(config, evaluation)
                _say(f"\nstopped; {_finished(rows, config)}. The same command goes on with them.")
        raise


def _finished(rows: Sequence[Row], config: EvalConfig) -> str:
    """How many rollouts there are, and where."""
    counts = sorted({row["episodes"] for row in rows})
    spread = " to ".join(map(str, (counts[0], counts[-1])[: len(counts)]))
    under = f" under each of {len(rows)} conditions" if len(rows) > 1 else ""
    where = Path(config.out, FILE)
    return f"finished rollouts are in {where}: {spread} of {config.most_episodes}{under}"


def _save(config: EvalConfig, evaluation: Evaluation) -> None:
    save_results(
        Path(config.out),
        evaluation.rows(),
        config.append,
        evaluation.controls(),
        evaluation.comparisons(),
    )


def _print(config: EvalConfig, evaluation: Evaluation) -> None:
    console = Console()
    rows = evaluation.rows()
    console.print(results_table(rows, title=f"{config.env}: success in closed loop"))
    if controls := evaluation.controls():
        console.print(results_table(controls, title="Controls on the same seeds"))
    for line in (*_sentences(evaluation, rows), *_warnings(evaluation, [*rows, *controls])):
        console.print(line, soft_wrap=True, markup=False)
    folder = Path(config.out)
    console.print(f"Results: {folder / FILE}   Report: {folder / REPORT_FILE}", soft_wrap=True)
    if all(row["errors"] == row["episodes"] for row in rows):
        raise EvaluationFailed(
            f"no rollout came to an end, so nothing was measured. The first: "
            f"{evaluation.first_error()}"
        )


def _sentences(evaluation: Evaluation, rows: Sequence[Row]) -> list[str]:
    """What the comparisons show, and how episodes=auto ended."""
    every = [str(comparison["sentence"]) for comparison in evaluation.comparisons()]
    found = every[:_SENTENCES]
    if len(every) > _SENTENCES:
        found.append(f"{len(every) - _SENTENCES} more comparisons are in {FILE}.")
    stop = evaluation.stop
    if stop is not None:
        told = f"{stop.decided} of {stop.comparisons} comparisons decided"
        found.append(f"Stopped after {rows[0]['episodes']} seeds: {told}.")
    return found


def _warnings(evaluation: Evaluation, rows: Sequence[Row]) -> list[str]:
    """What has no verdict, and workers that died."""
    found: list[str] = []
    errors, unstable = (sum(row[name] for row in rows) for name in ("errors", "unstable"))
    no_success = "counted as no success"
    if errors:
        raised = _counted(errors, "rollout")
        found.append(f"{raised} raised an error, {no_success}. {evaluation.first_error()}")
    if unstable:
        found.append(f"{_counted(unstable, 'rollout')} ended in broken physics, {no_success}.")
    if evaluation.restarts:
        found.append(f"{_counted(evaluation.restarts, 'process')} died and had to be replaced.")
    return found


def _counted(count: int, name: str) -> str:
    if count == 1:
        return f"1 {name}"
    return f"{count} {name}es" if name.endswith("s") else f"{count} {name}s"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
