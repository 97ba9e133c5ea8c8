"""Coverage-guided fuzzing of `targets.py`, by atheris (pip install atheris; CPython up to 3.13).

    python -m tests.deploy.fuzz.fuzz decode -max_total_time=600 tests/deploy/fuzz/corpus/decode

The arguments after the target are libFuzzer's. New inputs that cover more come into the first
folder; `-merge=1 SMALL BIG` keeps the fewest that cover as much. A crash writes its input.
"""

import importlib
import sys
from typing import Any

atheris: Any = importlib.import_module("atheris")  # no dependency: who fuzzes installs it

with atheris.instrument_imports(include=["loopdit.deploy", "msgspec", "PIL"]):
    importlib.import_module("PIL.JpegImagePlugin")  # which is otherwise imported at its first use
    from tests.deploy.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz one target until libFuzzer is done."""
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
