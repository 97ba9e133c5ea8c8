"""Which episodes of a store go into which part: by shares, by outcome, or by instruction.

Whole episodes only: two windows of one episode in training and validation would be nearly the same
data twice. Decides by the episodes' content alone, not by their order in the list.
"""

import hashlib
import re
from collections.abc import Sequence

from loopdit.datasets.episode import EpisodeRecord
from loopdit.errors import ConfigError

_NAMES = {2: ("train", "validation"), 3: ("train", "validation", "test")}
_OUTCOMES = {True: "success", False: "failure", None: "unknown"}
_LONGEST = 60  # letters of an instruction in a file's name

Parts = dict[str, list[int]]


def by_shares(
    records: Sequence[EpisodeRecord], shares: Sequence[float], names: Sequence[str], seed: int
) -> Parts:
    """The indices of each part, in the list's order. The same for the same episodes and seed.

    Episodes of equal content go into one part, and each part has one at least. `names` may be
    empty: then train and validation, or numbers. Raises ConfigError for shares that do not sum
    to 1 and for more parts than different episodes.
    """
    named = _part_names(shares, names)
    groups = _equal_episodes(records)
    order = sorted(groups, key=lambda digest: hashlib.sha256(f"{seed}:{digest}".encode()).digest())
    if len(order) < len(shares):
        raise ConfigError(
            f"shares={_listed(shares)} are {len(shares)} parts, and the store has {len(order)} "
            f"different episodes. Ask for fewer parts."
        )
    parts: Parts = {}
    first = 0
    for place, name in enumerate(named):
        wanted = round(sum(shares[: place + 1]) * len(order))
        # At least one for each part, and for each that is still to come.
        end = min(max(wanted, first + 1), len(order) - (len(named) - 1 - place))
        parts[name] = sorted(index for digest in order[first:end] for index in groups[digest])
        first = end
    return parts


def by_outcome(records: Sequence[EpisodeRecord]) -> Parts:
    """The indices of the episodes that succeeded, failed, and whose outcome nobody knows."""
    parts: Parts = {}
    for success, name in _OUTCOMES.items():
        chosen = [index for index, record in enumerate(records) if record.success is success]
        if chosen:
            parts[name] = chosen
    return parts


def by_instruction(records: Sequence[EpisodeRecord]) -> Parts:
    """The indices of the episodes of each instruction, by a name that a file can have."""
    told: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        told.setdefault(record.instruction, []).append(index)
    parts: Parts = {}
    for instruction in sorted(told):
        name = _slug(instruction)
        number = 2
        while name in parts:  # two instructions that differ in what the name leaves out
            name = f"{_slug(instruction)}-{number}"
            number += 1
        parts[name] = told[instruction]
    return parts


def _part_names(shares: Sequence[float], names: Sequence[str]) -> list[str]:
    whole = abs(sum(shares) - 1) <= 1e-6  # also refuses what is no number
    if len(shares) < 2 or min(shares) <= 0 or not whole:
        raise ConfigError(
            f"shares={_listed(shares)} must be two or more, each above 0, and sum to 1; they sum "
            f"to {sum(shares):g}. Write for example shares=[0.9,0.1]."
        )
    made = list(names) or list(_NAMES.get(len(shares), ()))
    made = made or [f"part-{number}" for number in range(len(shares))]
    if len(made) != len(shares):
        raise ConfigError(f"{len(made)} names for {len(shares)} shares. Give a name to each.")
    for name in made:
        if made.count(name) > 1 or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
            raise ConfigError(
                f"names: {name!r} cannot be a part's name. Use letters, digits, '_', '-' and '.', "
                f"each name once."
            )
    return made


def _equal_episodes(records: Sequence[EpisodeRecord]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        groups.setdefault(record.digest, []).append(index)
    return groups


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_LONGEST] or "no-instruction"


def _listed(shares: Sequence[float]) -> str:
    return f"[{','.join(f'{share:g}' for share in shares)}]"
