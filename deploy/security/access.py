"""Who may reach a server, and how much each may ask: what `policy-serve` is told of it."""

from dataclasses import dataclass

from loopdit.command import option
from loopdit.deploy.security.curve import CurveKeys, server_keys
from loopdit.errors import ConfigError


@dataclass(frozen=True)
class Access:
    """The default lets in the programs of this machine, without keys."""

    keys: CurveKeys | None = None  # the server's: whoever connects shows one that it knows
    open_to_network: bool = False  # said in words: no keys, on an address that others reach
    messages_per_s: float = 0.0  # of one client; 0: no limit on loopback, 1000 elsewhere
    shared_memory: bool = True  # lanes for clients of the same user on this machine

    def __post_init__(self) -> None:
        if not 0 <= self.messages_per_s < float("inf"):
            raise ConfigError(f"messages_per_s={self.messages_per_s} must be 0 or more.")


@dataclass(frozen=True)
class CurveConfig:
    """The options `curve.*` of `policy-serve`."""

    keys: str = option("", "the server's NAME.key_secret, of policy-serve keys; empty: no keys")
    clients: str = option("", "folder with the NAME.key of each client that may connect")

    def __post_init__(self) -> None:
        if bool(self.keys) != bool(self.clients):
            raise ConfigError(
                "curve.keys= and curve.clients= go together: the server's NAME.key_secret, and a "
                "folder with the NAME.key of each client."
            )


def access_of(curve: CurveConfig, open_to_network: bool, messages_per_s: float) -> Access:
    """What these options mean. Raises ConfigError."""
    if curve.keys and open_to_network:
        raise ConfigError("open_to_network=true does nothing with curve.keys=: leave one out.")
    keys = server_keys(curve.keys, curve.clients) if curve.keys else None
    return Access(keys=keys, open_to_network=open_to_network, messages_per_s=messages_per_s)
