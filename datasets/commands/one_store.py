"""What the subcommands are told that only look at one store: which it is, and who reads them."""

from dataclasses import dataclass

from loopdit.command import option

STORE_HELP = "the episode store: a folder or a URL; the first word is it, too"


@dataclass(frozen=True)
class OneStoreConfig:
    """Which store, and for whom."""

    store: str = option("???", STORE_HELP)
    json: bool = option(False, "print one JSON object")
