"""Train and measure the policy that we ship beside its peers; goes on where it was stopped.

    python scripts/peers/run.py                        all of it: days on two cores
    python scripts/peers/run.py --only ship dense      these arms; a second process may do others
    python scripts/peers/run.py --only latency         chunk latencies, while the machine is quiet
    python scripts/peers/run.py --dry-run              what is left

For each training seed, task and arm: a training of equally many optimizer steps, 200 rollouts at
each of its depths, and the error on held-out windows; once, the latency of all arms in turn. What
has its result, in OUT or in the record of an earlier run of the same sizes, is skipped (remove
OUT/chunk_latency.json to measure that again), and so is what another process is at. Then the page
is written anew from all results that there are: DOCS/peers.md and DOCS/results/peers.json. The
programs' output is in OUT/<arm>/<task>-<seed>/log.txt. See arms.py; LeRobot's arms need
scripts/lerobot_env.sh.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arms import ARMS, Study
from collect import RECORD, collected, recorded
from page import page
from pieces import LATENCY, ROOT, Failed, Runner

from loopdit.errors import ConfigError, LoopditError
from loopdit.folder_lock import alone_in
from loopdit.progress import clock_text
from loopdit.whole_file import whole_file


def main() -> None:
    """Run what is left, write the page; the exit status is 1 where something failed."""
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    chosen = _parse()
    study = _study(chosen)
    known = recorded(study, list(ARMS.values()), chosen.docs / RECORD)
    runner = Runner(study, chosen.threads, chosen.repetitions, known)
    if chosen.dry_run:
        for piece in runner.pieces(chosen.only):
            if not piece.done():
                _say(f"{piece.name}{'' if piece.ready() else ' (after its training)'}")
        return
    failures = 0
    try:
        runner.study.take_up()
        if not chosen.page_only:
            runner.study.require_demonstrations()
            failures = _run(runner, chosen.only)
        _publish(runner.study, chosen.docs)
    except LoopditError as error:
        sys.exit(f"run: {error}")
    except KeyboardInterrupt:
        sys.exit("run: stopped; the same command goes on.")
    sys.exit(1 if failures else 0)


def _run(runner: Runner, only: Sequence[str]) -> int:
    """Each piece that is left; the number of those that failed, which does not stop the others."""
    failures = 0
    for name in [piece.name for piece in runner.pieces(only)]:
        # Made anew: what can be measured follows from what has been done since.
        piece = next(p for p in runner.pieces(only) if p.name == name)
        if piece.done():
            continue
        piece.folder.mkdir(parents=True, exist_ok=True)
        try:
            with alone_in(piece.folder, ConfigError("another process is at it")):
                if piece.done() or not piece.ready():
                    continue
                began = time.monotonic()
                _say(f"{name}: began")
                piece.run()
                _say(f"{name}: {clock_text(time.monotonic() - began)}")
                if not piece.done():
                    raise Failed(f"it left no result: see {piece.folder}/log.txt")
        except ConfigError as error:
            _say(f"{name}: left out, {error}")
        except (Failed, OSError) as error:
            failures += 1
            _say(f"{name}: FAILED, {error}")
    return failures


def _publish(study: Study, docs: Path) -> None:
    """The record and the page, from every result that there is, whoever made it."""
    content = collected(study, list(ARMS.values()), docs / RECORD)
    if not content["runs"]:
        return
    (docs / RECORD).parent.mkdir(parents=True, exist_ok=True)
    with whole_file(docs / RECORD) as aside:
        aside.write_text(json.dumps(content, indent=1) + "\n")
    with whole_file(docs / "peers.md") as aside:
        aside.write_text(page(content))
    _say(f"wrote {docs / 'peers.md'}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=[], choices=[*ARMS, LATENCY])
    parser.add_argument("--dry-run", action="store_true", help="list what is left")
    parser.add_argument("--page-only", action="store_true", help="write the page, run nothing")
    parser.add_argument("--tasks", nargs="+", default=Study.tasks)
    parser.add_argument("--seeds", nargs="+", type=int, default=Study.seeds)
    parser.add_argument("--steps", type=int, default=Study.steps)
    parser.add_argument("--episodes", type=int, default=Study.episodes)
    parser.add_argument("--windows", type=int, default=Study.windows)
    parser.add_argument("--repetitions", type=int, default=40, help="of each latency")
    parser.add_argument("--threads", type=int, default=1, help="of each training")
    parser.add_argument("--data", type=Path, default=Study.data)
    parser.add_argument("--out", type=Path, default=Study.out)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    return parser.parse_args()


def _study(chosen: argparse.Namespace) -> Study:
    names = ("tasks", "seeds", "steps", "episodes", "windows", "data", "out")
    values: dict[str, Any] = {name: getattr(chosen, name) for name in names}
    return Study(**values)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
