"""policy-experiment: the paper's experiments and ours, run at a scale and reported.

    policy-experiment list out=DIR            what there is, and what of it is done
    policy-experiment run NAME scale=cpu      run what is missing; NAME may be all
    policy-experiment report out=DIR          what the results show

Each subcommand is a module, imported when it is asked for.
"""

from loopdit.subcommand import CommandGroup

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
    CommandGroup(
        name="policy-experiment",
        does="the paper's experiments and ours, run at a scale and reported.",
        subcommands=SUBCOMMANDS,
        module=_MODULES.__getitem__,
        note="What each experiment claims and runs: configs/experiment/NAME.yaml",
    ).main()


if __name__ == "__main__":
    main()
