"""Which seeds are for what: training, choosing between policies, and testing never share one.

Demonstrations are recorded on training seeds. Whoever picks a checkpoint or an option by its
success does so on selection seeds, and what is reported was measured on test seeds, which have
then influenced nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from loopdit.errors import ConfigError

FIRST_SELECTION_SEED = 800_000
FIRST_TEST_SEED = 900_000
# A rollout multiplies its seed by ten thousand for the noise of its chunks, within 64 bits.
_END = 2**31

SEEDS = {
    "training": range(0, FIRST_SELECTION_SEED),
    "selection": range(FIRST_SELECTION_SEED, FIRST_TEST_SEED),
    "test": range(FIRST_TEST_SEED, _END),
}
EVALUATION_PURPOSES = ("test", "selection")


def require_purpose(first: int, count: int, purpose: str) -> None:
    """Raise ConfigError unless the `count` seeds from `first` on are all for `purpose`."""
    last = first + count - 1
    allowed = SEEDS[purpose]
    if first in allowed and last in allowed:
        return
    if last >= _END:
        raise ConfigError(
            f"seed={first}: seeds {first} to {last} must be for {purpose}, and the last one there "
            f"is is {_END - 1}. Use seed={allowed.start}, or fewer episodes=."
        )
    found = " and ".join(name for name, seeds in SEEDS.items() if first in seeds or last in seeds)
    ranges = ", ".join(f"{name} {_text(seeds)}" for name, seeds in SEEDS.items())
    raise ConfigError(
        f"seed={first}: seeds {first} to {last} are for {found or 'nothing'}, and here they must "
        f"be for {purpose}. The ranges are: {ranges}. {_advice(first, last, purpose)}"
    )


def require_unseen(first: int, count: int, trained: Sequence[int], source: str) -> None:
    """Raise ConfigError when one of the seeds is in `trained`, which `source` says it learned."""
    seen = sorted(set(trained).intersection(range(first, first + count)))
    if seen:
        more = f" and {len(seen) - 1} more" if len(seen) > 1 else ""
        free = max(max(trained) + 1, FIRST_TEST_SEED)
        raise ConfigError(
            f"seed {seen[0]}{more} of seeds {first} to {first + count - 1} was demonstrated: "
            f"{source} was trained on it, and success there says little. Use seed={free}."
        )


def trained_seeds(provenance: Mapping[str, Any]) -> range:
    """The seeds a policy's provenance says it was trained on; empty where it does not say.

    `data_seeds` [first, last] where training wrote it down. Otherwise from what was asked of
    policy-collect, which leaves out that seeds its expert failed on were replaced by later ones.
    """
    if "data_seeds" in provenance:
        first, last = provenance["data_seeds"]
        return range(first, last + 1)
    settings = provenance.get("data_provenance", {}).get("settings", {})
    if "seed" not in settings:
        return range(0)
    return range(settings["seed"], settings["seed"] + int(provenance.get("episodes", 0)))


def trained_envs(provenance: Mapping[str, Any]) -> list[str]:
    """The environments whose demonstrations a policy's provenance names; none where it names none.

    Of one data set it has the settings, of several those of each.
    """
    data = provenance.get("data_provenance", {})
    stores = data.get("stores", [{"provenance": data}])
    settings = (store.get("provenance", {}).get("settings", {}) for store in stores)
    return [each["env"] for each in settings if "env" in each]


def _text(seeds: range) -> str:
    return f"{seeds.start} on" if seeds.stop == _END else f"{seeds.start} to {seeds.stop - 1}"


def _advice(first: int, last: int, purpose: str) -> str:
    if purpose == "training":
        return "Use a lower seed= or fewer episodes=."
    if first in SEEDS["selection"] and last in SEEDS["selection"]:
        return f"Use purpose=selection, or seed={FIRST_TEST_SEED}."
    return f"Use seed={SEEDS[purpose].start}, or fewer episodes=."
