"""Writes docs/commands.md from what each `policy-*` command prints for --help.

`make docs` runs it; tests/test_readme.py fails while the page is not what it would write.
"""

import io
import sys
from contextlib import redirect_stdout
from importlib.metadata import entry_points
from pathlib import Path
from unittest.mock import patch

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
HEAD = """# Commands

What each command prints for `--help`. Written by `make docs`; do not edit.
"""


def page() -> str:
    """The whole page, the commands in alphabetical order."""
    sections = [HEAD]
    for entry in sorted(entry_points(group="console_scripts"), key=lambda entry: entry.name):
        if entry.value.startswith("loopdit."):
            printed = io.StringIO()
            with redirect_stdout(printed), patch.object(sys, "argv", [entry.name, "--help"]):
                entry.load()()
            sections.append(f"## {entry.name}\n\n```text\n{printed.getvalue()}```\n")
    return "\n".join(sections)


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"wrote {PAGE.relative_to(Path.cwd())}\n")
