"""CURVE: who may connect, and that nobody else reads or changes what is said.

A side's keys are two files, as `policy-serve keys` makes them: NAME.key (public, to be copied to
the other side) and NAME.key_secret (its owner's alone). A server takes only clients whose NAME.key
lies in its folder of clients. The format is that of `zmq.auth`, so czmq's tools read it too.
"""

import os
import re
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import zmq

from loopdit.errors import ConfigError

SECRET_SUFFIX, PUBLIC_SUFFIX = ".key_secret", ".key"
_KEY = re.compile(r'^\s*(public|secret)-key\s*=\s*"([!-~]{40})"\s*$', re.MULTILINE)
_DOMAIN = "policy"  # what ZeroMQ's authentication calls one server's clients
_MAKE_KEYS = "Make keys with: policy-serve keys out=FOLDER"


@dataclass(frozen=True)
class CurveKeys:
    """One side's keys. `known` are the public keys of the clients that a server lets in."""

    public: bytes
    secret: bytes = field(repr=False)  # in no log
    known: frozenset[bytes] = frozenset()

    def secure_server(self, socket: "zmq.Socket[bytes]") -> None:
        """Before it is bound."""
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)
        socket.setsockopt(zmq.ZAP_DOMAIN, _DOMAIN.encode())

    def secure_client(self, socket: "zmq.Socket[bytes]", server_key: bytes) -> None:
        """Before it connects."""
        socket.setsockopt(zmq.CURVE_SERVERKEY, server_key)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)

    def knowing(self, client: "CurveKeys") -> "CurveKeys":
        """The same of a server that lets in one more client."""
        return replace(self, known=self.known | {client.public})


# What a client connects with: its own keys and its server's public one, or nothing.
ClientKeys: TypeAlias = tuple[CurveKeys | None, bytes]
NO_KEYS: ClientKeys = (None, b"")


class Admission:
    """Lets the clients in whose keys the server knows: ZeroMQ asks it at each handshake."""

    def __init__(self, context: Any, keys: CurveKeys) -> None:
        # Imported here: it brings asyncio, and a client needs neither.
        from zmq.auth.thread import ThreadAuthenticator

        self._known = keys.known
        self._authenticator = ThreadAuthenticator(context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(_DOMAIN, self)

    def callback(self, domain: str, key: bytes) -> bool:
        """What the authenticator asks: whether the client of this public key is let in."""
        return key in self._known

    def stop(self) -> None:
        """Let nobody in any more."""
        self._authenticator.stop()


def server_keys(secret_file: str, clients: str) -> CurveKeys:
    """A server's keys, and the folder of the clients' public ones. Raises ConfigError."""
    folder = Path(clients)
    if not clients or not folder.is_dir():
        raise ConfigError(
            f"curve.clients={clients} is no folder. Name one with the NAME.key of each client that "
            "may connect."
        )
    known = frozenset(public_key(path) for path in folder.glob(f"*{PUBLIC_SUFFIX}"))
    if not known:
        raise ConfigError(
            f"curve.clients={clients} has no *{PUBLIC_SUFFIX}: nobody could connect. Copy the "
            "NAME.key of each client there."
        )
    keys = own_keys(secret_file)
    return CurveKeys(keys.public, keys.secret, known)


def new_keys() -> CurveKeys:
    """A pair that is in no file."""
    public, secret = zmq.curve_keypair()
    return CurveKeys(public, secret)


def own_keys(secret_file: str | Path) -> CurveKeys:
    """The keys in a NAME.key_secret. Raises ConfigError, also where others can read it."""
    path = Path(secret_file)
    public, secret = _read(path)
    if secret is None:
        raise ConfigError(
            f"{path} has a public key alone. Give the NAME{SECRET_SUFFIX} beside it, or make keys "
            "with: policy-serve keys out=FOLDER"
        )
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        raise ConfigError(
            f"others can read the secret key {path} (its mode is {mode:o}). Take that away with: "
            f"chmod 600 {path}"
        )
    return CurveKeys(public, secret)


def client_keys(secret_file: str | Path, server_file: str | Path) -> ClientKeys:
    """A client's own keys and the key of its server, from the files that it was given; None where
    it was given none. Raises ConfigError."""
    if bool(secret_file) != bool(server_file):
        raise ConfigError(
            "keys= and server_key= go together: this client's NAME.key_secret, and the server's "
            "NAME.key."
        )
    return (own_keys(secret_file), public_key(server_file)) if secret_file else NO_KEYS


def public_key(path: str | Path) -> bytes:
    """The key in a NAME.key, such as a client's copy of the server's. Raises ConfigError, also for
    a file with the secret in it: that one belongs to its owner alone."""
    public, secret = _read(Path(path))
    if secret is not None:
        raise ConfigError(
            f"{path} has a secret key in it, which must not leave its owner. Copy the "
            f"NAME{PUBLIC_SUFFIX} beside it."
        )
    return public


def _read(path: Path) -> tuple[bytes, bytes | None]:
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}). {_MAKE_KEYS}") from error
    # By hand: zmq.auth, which reads the same, costs a client asyncio.
    keys = {name: key.encode() for name, key in _KEY.findall(text)}
    if "public" not in keys:
        raise ConfigError(f"{path} has no public key of 40 characters. {_MAKE_KEYS}")
    return keys["public"], keys.get("secret")
