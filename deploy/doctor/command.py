"""`policy-doctor`: what of this machine serves a policy, what does not, and what to do about it.

    policy-doctor
    policy-doctor bundle=outputs/bundle json=true

Ends with status 1 where serving would fail: the bundle does not open, no back end runs it, or the
port is taken. What only training, simulation or a faster back end needs is a note.
"""

import json
import sys
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loopdit.command import Command, option, run_command
from loopdit.deploy.backends import BACKEND_NAMES
from loopdit.deploy.bundle.bundle import default_bundle
from loopdit.deploy.doctor.backends import backend_findings, bundle_finding
from loopdit.deploy.doctor.finding import BROKEN, NOTE, OK, Finding
from loopdit.deploy.doctor.machine import machine_findings
from loopdit.errors import ConfigError

COMMAND = Command(
    name="policy-doctor",
    folder="doctor",
    summary="what of this machine serves a policy, what does not, and what to do about it.",
    examples=(
        "policy-doctor",
        "policy-doctor bundle=outputs/bundle port=5556",
        "policy-doctor backends=[torch-compile] json=true",
    ),
)
_STYLES = {OK: "green", NOTE: "yellow", BROKEN: "bold red"}


@dataclass(frozen=True)
class DoctorConfig:
    """The options of `policy-doctor`."""

    bundle: str = option("", "the bundle to try; empty: the one shipped with loopdit")
    backends: list[str] = option([], "back ends to try; empty: all that need not compile first")
    port: int = option(5555, "TCP port that policy-serve is to listen on")
    json: bool = option(False, "print one JSON object")

    def __post_init__(self) -> None:
        unknown = [name for name in self.backends if name not in BACKEND_NAMES]
        if unknown:
            raise ConfigError(
                f"backends={self.backends} has {unknown[0]!r}. Choose from: "
                f"{', '.join(BACKEND_NAMES)}."
            )
        if not 1 <= self.port <= 65535:
            raise ConfigError(f"port={self.port} is not a TCP port. Give 1 to 65535.")


def examine(config: DoctorConfig) -> list[Finding]:
    """Everything, in the order in which it is shown."""
    found, bundle = bundle_finding(config.bundle or str(default_bundle()))
    tried = [] if bundle is None else backend_findings(bundle, config.backends)
    return [*machine_findings(config.port), found, *tried]


def findings_table(findings: list[Finding]) -> Table:
    """For people."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("found, and what to do")
    for finding in findings:
        lines = [finding.said, finding.remedy] if finding.remedy else [finding.said]
        # As text, because a command's [list] is no markup.
        table.add_row(
            finding.check, Text(finding.state, _STYLES[finding.state]), Text("\n".join(lines))
        )
    return table


def _run(config: DoctorConfig) -> None:
    findings = examine(config)
    broken = [finding.check for finding in findings if finding.state == BROKEN]
    if config.json:
        facts = {"serves": not broken, "findings": [finding.to_dict() for finding in findings]}
        sys.stdout.write(json.dumps(facts) + "\n")
    else:
        console = Console(highlight=False)
        console.print(findings_table(findings))
        console.print(f"Broken: {', '.join(broken)}." if broken else "A policy can be served here.")
    if broken:
        sys.exit(1)


def main() -> None:
    """Entry point of `policy-doctor`."""
    run_command(COMMAND, DoctorConfig, _run)


if __name__ == "__main__":
    main()
