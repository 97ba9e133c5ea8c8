"""Writes docs/commands.md from what each `policy-*` command prints for --help.

`make docs` runs it; tests/test_readme.py fails while the page is not what it would write.
"""

import io
import sys
from contextlib import redirect_stdout
from importlib.metadata import entry_points
from pathlib import Path
from unittest.mock import patch

from loopdit.datasets.commands.data import SUBCOMMANDS as DATA_SUBCOMMANDS
from loopdit.eval.evaluate import SUBCOMMANDS as EVAL_SUBCOMMANDS
from loopdit.eval.experiments.command import SUBCOMMANDS as EXPERIMENT_SUBCOMMANDS
from loopdit.policy.training.train import SUBCOMMANDS as TRAIN_SUBCOMMANDS

# Words that a command takes first, each with a help of its own.
SUBCOMMANDS = {
    "policy-bench": ("transport",),
    "policy-serve": ("keys",),
    "policy-data": (*DATA_SUBCOMMANDS,),
    "policy-eval": EVAL_SUBCOMMANDS,
    "policy-experiment": (*EXPERIMENT_SUBCOMMANDS,),
    "policy-train": TRAIN_SUBCOMMANDS,
}
PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
HEAD = """# Commands

What each command prints for `--help`. Written by `make docs`; do not edit.
"""


def page() -> str:
    """The whole page, the commands in alphabetical order."""
    sections = [HEAD]
    for entry in sorted(entry_points(group="console_scripts"), key=lambda entry: entry.name):
        if entry.value.startswith("loopdit."):
            for words in ([], *([word] for word in SUBCOMMANDS.get(entry.name, ()))):
                command = [entry.name, *words]
                printed = io.StringIO()
                with redirect_stdout(printed), patch.object(sys, "argv", [*command, "--help"]):
                    entry.load()()
                title = " ".join(command)
                sections.append(f"## {title}\n\n```text\n{printed.getvalue()}```\n")
    return "\n".join(sections)


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"wrote {PAGE.relative_to(Path.cwd())}\n")
