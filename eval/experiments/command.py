"""policy-experiment: the paper's experiments and ours, run at a scale and reported.

    policy-experiment list out=DIR            what there is, and what of it is done
    policy-experiment run NAME scale=cpu      run what is missing; NAME may be all
    policy-experiment report out=DIR          what the results show

Each subcommand is a module, imported when it is asked for.
"""

import sys
from importlib import import_module

from loopdit.subcommand import refuse_subcommand

NAME = "policy-experiment"
SUBCOMMANDS = {
    "list": "the experiments: what they claim, how much is to be run, what is done.",
    "run": "run what is missing of one experiment, or of all, at a scale.",
    "report": "verdicts on the claims, with intervals, figures and the paper's own tables.",
}
_MODULES = {
    "list": "loopdit.eval.experiments.list_command",
    "run": "loopdit.eval.experiments.run_command",
    "report": "loopdit.eval.experiments.report.command",
}


def main() -> None:
    """Entry point of `policy-experiment`."""
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    if first in SUBCOMMANDS:
        import_module(_MODULES[first]).main(sys.argv[2:])
    elif first in ("--help", "-h"):
        sys.stdout.write(_help_text())
    elif not first:
        sys.exit(f"{NAME}: error: no subcommand is given. They are: {', '.join(SUBCOMMANDS)}.")
    else:
        refuse_subcommand(NAME, first, SUBCOMMANDS)


def _help_text() -> str:
    lines = [f"{NAME}: the paper's experiments and ours, run at a scale and reported.", ""]
    lines += ["Subcommands (each with a --help of its own):"]
    lines += [f"  {name:<10}{summary}" for name, summary in SUBCOMMANDS.items()]
    lines += ["", "What each experiment claims and runs: configs/experiment/NAME.yaml"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
