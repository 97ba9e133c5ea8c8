"""What an operator is answered at each path: health, metrics, the live page, the emergency stop.

Knows no sockets and no HTTP headers but a status and a type: `http_door` has those.
"""

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec

from loopdit.deploy.messages import Pong
from loopdit.deploy.operation.metrics import CONTENT_TYPE, exposition, present
from loopdit.deploy.operation.operator_link import OperatorLink
from loopdit.deploy.operation.png import png
from loopdit.deploy.operation.watch import Watch
from loopdit.errors import ServerError
from loopdit.pages import page_templates

# An inference that runs for this long never ends, or is no use to a robot.
HUNG_S = 30.0
STOP_PATH = "/stop"
MAX_BODY_BYTES = 1024
# Whoever asks these has no page of ours, and learns nothing that is worth protecting.
OPEN_PATHS = ("/healthz", "/metrics")
_JSON, _HTML, _PNG = "application/json", "text/html; charset=utf-8", "image/png"
_CAMERA = "/camera/"
_TEMPLATES = Path(__file__).resolve().parent / "templates"


@dataclass(frozen=True)
class Answer:
    """`nonce`: what the page's own script and style are known by."""

    status: int
    content_type: str
    body: bytes
    nonce: str = ""


class _StopOrder(msgspec.Struct, forbid_unknown_fields=True):
    pressed: bool


class Console:
    """`token` is in the page, and in each of its orders: no other page can read it."""

    def __init__(self, link: OperatorLink, watch: Watch) -> None:
        self._link = link
        self._watch = watch
        self.token = secrets.token_urlsafe(32)
        self._templates = page_templates([_TEMPLATES])

    def get(self, path: str) -> Answer:
        """The answer to a GET; `path` without its query."""
        if path == "/healthz":
            return self._health()
        if path == "/metrics":
            found = [*present(self._pong(), self._watch.stopped), *self._watch.metrics()]
            return Answer(200, CONTENT_TYPE, exposition(found))
        if path == "/":
            nonce = secrets.token_urlsafe(16)
            page = self._templates.get_template("live.html").render(token=self.token, nonce=nonce)
            return Answer(200, _HTML, page.encode(), nonce)
        if path == "/live.json":
            return _json(200, self._present())
        if path.startswith(_CAMERA):
            frame = self._watch.frame(unquote(path.removeprefix(_CAMERA)))
            if frame is not None:
                return Answer(200, _PNG, png(frame))
        return _json(404, {"error": "there is nothing at this path"})

    def post(self, path: str, body: bytes) -> Answer:
        """The answer to a POST of somebody who has shown the token."""
        if path != STOP_PATH:
            return _json(404, {"error": "there is nothing at this path"})
        try:
            order = msgspec.json.decode(body, type=_StopOrder)
        except msgspec.DecodeError as fault:
            return _json(400, {"error": f"not an order: {fault}"})
        try:
            ack = self._link.stop(order.pressed, "pressed on the live page")
        except ServerError as fault:
            return _json(503, {"error": str(fault)})
        return _json(200, {"pressed": ack.pressed, "reason": ack.reason})

    def _health(self) -> Answer:
        pong = self._pong()
        if pong is None:
            if self._watch.warming:
                return _json(503, {"status": "warming", "why": "the policy warms up"})
            why = "it does not answer a ping" if self._watch.running else "it has stopped"
            return _json(503, {"status": "not ready", "why": why})
        facts = {"model_id": pong.model_id, "busy_s": pong.busy_us / 1e6, "queued": pong.queued}
        if pong.busy_us > HUNG_S * 1e6:
            return _json(503, {"status": "hung", "why": "an inference does not end", **facts})
        return _json(200, {"status": "ready", **facts})

    def _pong(self) -> Pong | None:
        if not self._watch.running:
            return None
        try:
            return self._link.ping()
        except ServerError:
            return None

    def _present(self) -> dict[str, Any]:
        pong = self._pong()
        server = None if pong is None else msgspec.structs.asdict(pong)
        return {"server": server, **self._watch.to_dict()}


def _json(status: int, facts: Any) -> Answer:
    return Answer(status, _JSON, json.dumps(facts, allow_nan=False).encode())
