"""LeRobot's way: gRPC, an observation in pieces, then a call for the actions; pickled both ways.

Written anew from lerobot's `transport/services.proto` and `async_inference/`, whose module brings
torch and the models. The real server costs more (it logs, copies and sorts); this one does the
least that its wire asks for. It unpickles, and so it listens on loopback and while measured only.
"""

import importlib.util
import pickle
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from loopdit.datasets.spec import Observation
from loopdit.deploy.bench.transport.workload import FRONT, STATE, WRIST, no_op_policy

_PIECE_BYTES = 2 * 1024 * 1024
_SERVICE = "transport.AsyncInference"
_BEGIN, _MIDDLE, _END = 1, 2, 3
_FPS = 30


class LeRobotPeer:
    """See the module."""

    what = "gRPC with the wire behaviour of lerobot's async inference, two calls a chunk"

    def missing(self) -> str:
        """Why it cannot be measured here; empty: it can."""
        lacking = [
            package
            for package, module in (("grpcio", "grpc"), ("protobuf", "google.protobuf"))
            if importlib.util.find_spec(module.partition(".")[0]) is None
        ]
        return f"not installed: pip install {' '.join(lacking)}" if lacking else ""

    def prepare(self, folder: Path) -> None:
        """Nothing to prepare."""

    def serve(self, folder: Path, ready: Callable[[str], None]) -> None:
        """Until the process is ended."""
        import grpc

        Observed, Actions, Empty = _messages()  # noqa: N806 - classes, made at run time
        waiting: queue.Queue[Any] = queue.Queue(maxsize=1)

        def send_observations(pieces: Iterable[Any], _: Any) -> Any:
            raw = b"".join(piece.data for piece in pieces)
            if waiting.full():
                waiting.get_nowait()
            waiting.put(pickle.loads(raw))
            return Empty()

        def get_actions(_: Any, __: Any) -> Any:
            stamp, step, seen = waiting.get(timeout=2)
            chunk = no_op_policy(seen[FRONT], seen[WRIST], seen[STATE])
            timed = [(stamp + i / _FPS, step + i, action) for i, action in enumerate(chunk)]
            return Actions(data=pickle.dumps(timed))

        handlers = {
            "SendObservations": grpc.stream_unary_rpc_method_handler(
                send_observations, Observed.FromString, Empty.SerializeToString
            ),
            "GetActions": grpc.unary_unary_rpc_method_handler(
                get_actions, Empty.FromString, Actions.SerializeToString
            ),
        }
        server = grpc.server(ThreadPoolExecutor(max_workers=4))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        ready(f"127.0.0.1:{port}")
        server.wait_for_termination()

    def connect(
        self, folder: Path, address: str, until: ExitStack
    ) -> Callable[[Observation], np.ndarray]:
        """A function that makes one round trip."""
        import grpc

        Observed, Actions, Empty = _messages()  # noqa: N806
        channel = until.enter_context(grpc.insecure_channel(address))
        send = channel.stream_unary(
            f"/{_SERVICE}/SendObservations", Observed.SerializeToString, Empty.FromString
        )
        get = channel.unary_unary(
            f"/{_SERVICE}/GetActions", Empty.SerializeToString, Actions.FromString
        )

        def pieces(raw: bytes) -> Iterator[Any]:
            for at in range(0, len(raw), _PIECE_BYTES):
                last = at + _PIECE_BYTES >= len(raw)
                state = _END if last else _MIDDLE if at else _BEGIN
                yield Observed(transfer_state=state, data=raw[at : at + _PIECE_BYTES])

        def round_trip(observation: Observation) -> np.ndarray:
            send(pieces(pickle.dumps((time.time(), 0, dict(observation)))))
            answer = get(Empty())
            return np.stack([action for _, _, action in pickle.loads(answer.data)])

        return round_trip


def _messages() -> tuple[Any, Any, Any]:
    """Observation, Actions and Empty of lerobot's services.proto, described without protoc."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="lerobot_like.proto", package="transport")
    field = descriptor_pb2.FieldDescriptorProto
    described: dict[str, tuple[tuple[str, int], ...]] = {
        "Observation": (("transfer_state", field.TYPE_INT32), ("data", field.TYPE_BYTES)),
        "Actions": (("data", field.TYPE_BYTES),),
        "Empty": (),
    }
    for name, fields in described.items():
        message = file.message_type.add(name=name)
        for number, (key, kind) in enumerate(fields, start=1):
            message.field.add(name=key, number=number, type=kind, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = [pool.FindMessageTypeByName(f"transport.{name}") for name in described]
    observed, actions, empty = (message_factory.GetMessageClass(kind) for kind in made)
    return observed, actions, empty
