"""An environment in another process against the same one here."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.eval.counting_env import FakeClock
from tests.eval.tally_env import TallyEnv

from loopdit.deploy.client import PolicyClient
from loopdit.deploy.messages import Bye, Error, ErrorCode, Hello, WireError
from loopdit.deploy.protocol import encode
from loopdit.errors import ConfigError, ServerError
from loopdit.eval.env_driver import SILENCE_S, Driver
from loopdit.eval.env_messages import ENV_WIRE, EnvErrorCode, EnvMessage, Open, Opened, Start, Step
from loopdit.eval.env_server import EnvServer
from loopdit.eval.environment import Environment
from loopdit.eval.remote_env import RemoteEnv

TALLY = Path(__file__).with_name("tally_env.py")


@pytest.fixture
def endpoint() -> Iterator[str]:
    """An environment served from a thread of this process."""
    server = EnvServer(Driver("tally", TallyEnv, time.monotonic), "tcp://127.0.0.1:0")
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield server.endpoint
    server.stop()
    thread.join()


@pytest.fixture
def remote(endpoint: str) -> Iterator[RemoteEnv]:
    env = RemoteEnv(endpoint, image_size=8, env="tally")
    yield env
    env.close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """An environment served by a process of its own."""
    where = tmp_path / "endpoint"
    command = [sys.executable, str(TALLY), f"ipc://{tmp_path}/env", str(where)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        yield f"ipc://{tmp_path}/env", child
        child.kill()


def act(dx: float, gripper: float = 1) -> np.ndarray:
    return np.array([dx, gripper], np.float32)


def test_the_spec_and_what_else_describes_an_environment_arrive_whole(remote: RemoteEnv):
    here = TallyEnv(image_size=8)
    assert remote.policy_spec == here.policy_spec
    for name in ("instruction", "control_period_s", "max_steps", "stages", "simulator"):
        assert getattr(remote, name) == getattr(here, name), name


def test_an_episode_in_another_process_is_the_episode_here(remote: RemoteEnv):
    def episode(env: Environment) -> list[object]:
        observation, info = env.reset(seed=7)
        expert = env.expert()
        seen: list[object] = [observation["images.front"].tolist(), dict(info)]
        ended = False
        while not ended:
            action = expert.action() * np.float32(0.9)
            observation, reward, terminated, truncated, info = env.step(action)
            ended = terminated or truncated
            seen += [observation[name].tolist() for name in sorted(observation)]
            seen += [reward, terminated, truncated, info["success"], info["stage"]]
            seen += [env.state().tolist(), env.render().tolist(), env.idle(action).tolist()]
        return seen

    there, here = episode(remote), episode(TallyEnv(image_size=8))
    assert there[2:] == here[2:]


def test_info_carries_plain_values_and_nothing_else(remote: RemoteEnv):
    _, info = remote.reset(seed=1)
    assert info == {"success": False, "unstable": False, "rejected": False, "stage": "start"}


def test_who_does_not_look_is_sent_no_frames(remote: RemoteEnv):
    remote.observing = False
    observation, _ = remote.reset(seed=1)
    assert set(observation) == {"proprio"}
    remote.observing = True
    assert set(remote.step(act(0.1))[0]) == {"proprio", "images.front"}


def test_without_cameras_the_spec_has_none(endpoint: str):
    env = RemoteEnv(endpoint, image_size=0)
    assert env.policy_spec.cameras == ()
    assert set(env.reset(seed=0)[0]) == {"proprio"}
    env.close()


def test_arrays_from_afar_can_be_written_to(remote: RemoteEnv):
    observation, _ = remote.reset(seed=1)
    for array in (observation["images.front"], remote.expert().action()):
        array[:] = 0
        assert not array.any()


def test_what_an_environment_raises_is_raised_here_and_it_can_go_on(remote: RemoteEnv):
    remote.reset(seed=13)
    with pytest.raises(ConfigError, match="no scripted expert on this seed"):
        remote.expert()
    with pytest.raises(ValueError, match=r"an action is 2 numbers; got \(3,\)"):
        remote.step(np.zeros(3, np.float32))
    with pytest.raises(ServerError, match="tally raised RuntimeError: the abacus broke"):
        remote.step(act(0.5))
    assert remote.step(act(0.125))[0]["proprio"][1] == 0.125


def test_another_environment_than_the_one_meant_is_refused_by_both_names(endpoint: str):
    with pytest.raises(ConfigError, match=r"env=other/task was asked for.*runs tally"):
        RemoteEnv(endpoint, env="other/task")


def test_a_second_client_is_refused_until_the_first_leaves(endpoint: str, remote: RemoteEnv):
    remote.reset(seed=3)
    with pytest.raises(WireError, match="another client is driving tally") as refused:
        RemoteEnv(endpoint)
    assert refused.value.code == EnvErrorCode.BUSY
    assert remote.step(act(0.125))[0]["proprio"].tolist() == [3, 0.125]
    remote.close()
    RemoteEnv(endpoint).close()


def test_a_client_that_comes_while_another_leaves_is_let_in(endpoint: str, remote: RemoteEnv):
    leaving = threading.Timer(0.3, remote.close)
    leaving.start()
    with contextlib.closing(RemoteEnv(endpoint)) as following:
        leaving.join()
        assert following.reset(seed=5)[0]["proprio"][0] == 5


def test_nobody_at_the_address_is_said_with_the_command_that_helps(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("loopdit.eval.remote_env._CONNECT_S", 0.2)
    with pytest.raises(ServerError, match=r"no environment server answers at tcp://127.0.0.1:9"):
        RemoteEnv("tcp://127.0.0.1:9")
    with pytest.raises(ServerError, match="is not an address"):
        RemoteEnv("nowhere")


def test_a_policy_client_at_an_environment_server_is_told_so(endpoint: str):
    with pytest.raises(WireError, match="LDE1"):
        PolicyClient(endpoint)


def test_a_server_that_dies_in_an_episode_is_a_clear_error_at_once(
    process: tuple[str, "subprocess.Popen[str]"],
):
    address, child = process
    env = RemoteEnv(address, image_size=8, ended=lambda: _how(child))
    env.reset(seed=1)
    env.step(act(0.125))
    began = time.monotonic()
    with pytest.raises(ServerError, match=r"tally is gone.*for step.*lost.*It ended with 3"):
        env.step(act(0.25))
    assert time.monotonic() - began < 10
    with pytest.raises(ServerError, match="is gone"):  # and stays so
        env.reset(seed=2)
    env.close()


def test_a_server_killed_between_two_steps_is_noticed_at_the_next(
    process: tuple[str, "subprocess.Popen[str]"],
):
    address, child = process
    env = RemoteEnv(address, image_size=8, ended=lambda: _how(child))
    env.reset(seed=1)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with pytest.raises(ServerError, match="is gone"):
        env.step(act(0.125))
    env.close()


def _how(child: "subprocess.Popen[str]") -> str | None:
    status = child.poll()
    return None if status is None else f"ended with {status}."


class Asker:
    """Messages to a driver and its answers, without sockets."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.driver = Driver("tally", TallyEnv, self.clock)

    def ask(self, peer: bytes, message: EnvMessage, action: np.ndarray | None = None) -> EnvMessage:
        tensors = {} if action is None else {"action": action}
        frames = [bytes(frame) for frame in ENV_WIRE.encode(message, tensors)]
        answer = self.driver.receive(peer, frames)
        assert answer is not None
        return answer[0]

    def refusal(self, peer: bytes, message: EnvMessage, action: np.ndarray | None = None) -> str:
        answer = self.ask(peer, message, action)
        assert isinstance(answer, Error)
        assert answer.seq == message.seq
        return answer.code


def test_a_silent_client_loses_the_environment_to_one_that_asks():
    asker = Asker()
    assert isinstance(asker.ask(b"a", Open(1, 1, 11, 8)), Opened)
    asker.clock.now += SILENCE_S - 1
    assert asker.refusal(b"b", Open(1, 1, 22, 8)) == EnvErrorCode.BUSY
    asker.clock.now += 1
    assert isinstance(asker.ask(b"b", Open(2, 1, 22, 8)), Opened)
    assert asker.refusal(b"a", Start(2, 0)) == ErrorCode.NO_SESSION


def test_what_a_hostile_client_sends_is_answered_with_its_fault():
    asker = Asker()
    assert asker.refusal(b"a", Start(1, 0)) == ErrorCode.NO_SESSION
    assert asker.refusal(b"a", Open(2, 9, 11, 8)) == ErrorCode.VERSION
    asker.ask(b"a", Open(3, 1, 11, 8))
    asker.ask(b"a", Start(4, 0))
    assert asker.refusal(b"a", Step(5)) == ErrorCode.UNKNOWN  # without its action
    assert asker.refusal(b"a", Opened(6, 1, "", "", 0.1, 1, (), "", {})) == ErrorCode.UNKNOWN_KIND
    junk = {
        b"": ErrorCode.MALFORMED,
        b"LDE1" + msgspec.msgpack.encode(["OPEN", -1]): ErrorCode.MALFORMED,
        b"LDE1" + msgspec.msgpack.encode(["FROB", 1]): ErrorCode.UNKNOWN_KIND,
        b"LDE2" + msgspec.msgpack.encode(["OPEN", 1]): ErrorCode.VERSION,
        bytes(encode(Hello(1, 1, 1, 5))[0]): ErrorCode.MALFORMED,  # the policy's family
    }
    for header, code in junk.items():
        answer = asker.driver.receive(b"a", [header])
        assert answer is not None
        assert isinstance(answer[0], Error)
        assert answer[0].code == code, header


def test_a_client_that_left_is_not_answered_and_leaves_the_environment_free():
    asker = Asker()
    asker.ask(b"a", Open(1, 1, 11, 8))
    assert asker.driver.receive(b"a", [bytes(ENV_WIRE.encode(Bye(2))[0])]) is None
    assert isinstance(asker.ask(b"b", Open(1, 1, 22, 0)), Opened)


def test_neither_side_loads_more_than_the_bare_install_and_the_suite():
    # In a suite's own environment there is nothing else; and starting it must not take long.
    script = (
        "import loopdit.eval.env_server, loopdit.eval.remote_env, loopdit.eval.suite_env, sys\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    heavy = {"torch", "hydra", "omegaconf", "mujoco", "gymnasium", "zarr", "onnxruntime", "rich"}
    assert set(done.stdout.split()) & heavy == set()
