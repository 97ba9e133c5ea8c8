"""`make demo`: the whole way from demonstrations to measured success, by the real commands.

Each stage is one or more of the installed commands, run as their own processes and shown before
they run, so that any of them can be repeated by hand. A stage that fails ends the demo.
"""

import json
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from loopdit.command import Command, run_command
from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.errors import BundleError, LoopditError, ServerError
from loopdit.eval.demo_plan import (
    BUNDLE,
    CHECKPOINT,
    DATA,
    ENDPOINT,
    VIDEOS,
    DemoConfig,
    Stage,
    plan,
    quoted,
)
from loopdit.eval.reporting.report import BENCH_FILE, DEMO_FILE, write_report
from loopdit.eval.reporting.report import FILE as REPORT_FILE
from loopdit.eval.reporting.table import results_table
from loopdit.eval.runs.results import FILE as EVAL_FILE
from loopdit.eval.runs.results import load_results
from loopdit.progress import clock_text

COMMAND = Command(
    name="make demo",
    folder="demo",
    summary="collect, train, export, serve, evaluate and benchmark a policy, and report.",
    examples=("make demo", "python -m loopdit.eval.demo out=outputs/demo episodes=100"),
)
_MADE_HERE = (DATA, CHECKPOINT, BUNDLE, VIDEOS, EVAL_FILE, BENCH_FILE, DEMO_FILE, REPORT_FILE)
_READY = "ready "
_SERVER_START_S = 120.0
_SERVER_STOP_S = 10.0


class StageFailed(LoopditError):
    """A command of the demo failed; what it said is on the screen above."""


def main() -> None:
    """Entry point of `python -m loopdit.eval.demo`."""
    run_command(COMMAND, DemoConfig, run)


def run(config: DemoConfig) -> None:
    """Run every stage and print the table. Raises StageFailed for the first that fails."""
    console = Console(highlight=False, soft_wrap=True)
    folder = Path(config.out)
    _clear(folder, console)
    stages = plan(config, _shipped())
    done: list[dict[str, Any]] = []
    began = time.monotonic()
    for number, stage in enumerate(stages):
        passed = clock_text(time.monotonic() - began)
        left = clock_text(sum(later.expected_s for later in stages[number:]))
        console.print()
        console.rule(f"[bold][{number + 1}/{len(stages)}][/] {stage.title}", align="left")
        console.print(f"{passed} passed, about {left} to go on two cores", style="dim")
        done += _run_stage(stage, console)
    seconds = round(time.monotonic() - began)
    _write_json(folder / DEMO_FILE, {"seconds": seconds, "stages": done})
    report = write_report(folder)
    console.print()
    rows = load_results(folder)["results"]
    title = f"Success in closed loop, {config.episodes} held-out starts each"
    console.print(results_table(rows, title))
    console.print(f"Done in {clock_text(seconds)}. Open the report in a browser:")
    for path in (report, folder / EVAL_FILE, folder / BENCH_FILE):
        console.print(f"  {path}")
    console.print(f"Serve the policy: {_shown(['policy-serve', f'bundle={folder / BUNDLE}'])}")


def _shipped() -> Bundle | None:
    try:
        return Bundle.open(default_bundle())
    except BundleError:
        return None


def _clear(folder: Path, console: Console) -> None:
    """Remove what an earlier demo made, and say so; nothing else in the folder is touched."""
    earlier = [folder / name for name in _MADE_HERE if (folder / name).exists()]
    if earlier:
        names = ", ".join(path.name for path in earlier)
        console.print(f"{folder} holds an earlier demo: removing its {names}.")
    for path in earlier:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder.mkdir(parents=True, exist_ok=True)


def _run_stage(stage: Stage, console: Console) -> list[dict[str, Any]]:
    """The commands it ran and the seconds each took."""
    if not stage.serves:
        return [_run(command, console) for command in stage.commands]
    server = ["policy-serve", f"bundle={stage.serves}", "address=tcp://127.0.0.1:0"]
    _announce(server, console)
    with served(_executable(server), console.print) as endpoint:
        there = quoted(endpoint)
        commands = [[part.replace(ENDPOINT, there) for part in c] for c in stage.commands]
        ran = [_run(command, console) for command in commands]
    same_port = [*server[:-1], f"address={endpoint}"]  # so that it can be repeated
    return [{"command": f"{shlex.join(same_port)} &", "seconds": 0}, *ran]


def _run(command: Sequence[str], console: Console) -> dict[str, Any]:
    """Run one command with our own terminal as its. Raises StageFailed unless it exits with 0."""
    _announce(command, console)
    began = time.monotonic()
    status = subprocess.run(_executable(command), check=False).returncode
    if status:
        raise StageFailed(
            f"the demo ends here: {command[0]} failed with status {status} for the reason it "
            f"gives above. Mend that and run make demo again, or the command: {_shown(command)}"
        )
    return {"command": shlex.join(command), "seconds": round(time.monotonic() - began, 1)}


@contextmanager
def served(command: Sequence[str], say: Callable[[str], object]) -> Generator[str]:
    """A policy server while the context lasts; gives its endpoint.

    Raises ServerError when it ends, or is not ready in time.
    """
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        overdue = threading.Timer(_SERVER_START_S, process.kill)
        overdue.start()
        try:
            for line in process.stdout:
                if line.startswith(_READY):
                    break
                say(f"  {line.rstrip()}")
            else:
                raise ServerError(
                    f"the policy server did not get ready (exit status {process.wait()}); its "
                    f"reason is above, or it took longer than {_SERVER_START_S:.0f} s."
                )
            overdue.cancel()
            yield line.removeprefix(_READY).strip()
        finally:
            overdue.cancel()
            process.terminate()
            try:
                process.communicate(timeout=_SERVER_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _announce(command: Sequence[str], console: Console) -> None:
    console.print(f"$ {_shown(command)}", style="cyan", markup=False)


def _executable(command: Sequence[str]) -> list[str]:
    """With the path of the program that is installed beside this Python."""
    return [str(Path(sys.executable).with_name(command[0])), *command[1:]]


def _shown(command: Sequence[str]) -> str:
    """As a user would type it from here."""
    program, *options = _executable(command)
    path = Path(program)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return shlex.join([str(path), *options])


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
