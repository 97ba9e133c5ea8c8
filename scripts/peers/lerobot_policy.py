"""Train LeRobot's diffusion policy on one of our stores, and serve it as one of our policies.

    export PYTHONPATH=src
    .suites/lerobot/bin/python scripts/peers/lerobot_policy.py train DATA OUT [--steps 10000]
    .suites/lerobot/bin/python scripts/peers/lerobot_policy.py serve OUT [--port 0]

Training is LeRobot's, step for step: its loss, optimiser, schedule and clipping, whose defaults
stay (it keeps no average of its weights); our data in our order, our batch size and number of
steps. OUT gets the weights, peer.json and metrics.jsonl; a training that was stopped goes on. The
server speaks docs/protocol.md, so that `policy-eval policy=tcp://...` drives it like any other; its
one depth is called K = 1, and its steps are denoising steps.
"""

import argparse
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot_data import LeRobotWindows, Windows
from lerobot_model import (
    SIZES,
    load_peer,
    make_peer,
    save_peer,
    statistics_of,
    weights_id,
)

from loopdit.datasets.episode_filter import hold_out
from loopdit.datasets.mixing import DataPart
from loopdit.datasets.spec import Observation, PolicySpec
from loopdit.datasets.statistics import compute_statistics
from loopdit.datasets.store import EpisodeStore
from loopdit.deploy.serving.served_policy import Inference
from loopdit.deploy.serving.server import PolicyServer
from loopdit.whole_file import whole_file

_STATE, _METRICS = "state.pt", "metrics.jsonl"
_VALIDATION_BATCHES, _VALIDATION_SEED = 8, 0
_CHOSEN = ("data", "steps", "batch_size", "seed", "validation")


class Training:
    """A peer with LeRobot's optimiser and schedule, from the step that OUT has on."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        store = EpisodeStore.open(chosen.data)
        trained, held = hold_out(store, chosen.validation, chosen.seed)
        part = DataPart(store, trained)
        settings = {**SIZES[chosen.size], **_parsed(chosen.set)}
        torch.manual_seed(chosen.seed)
        statistics = statistics_of(store.spec, compute_statistics([part]))
        self.peer = peer = make_peer(store.spec, settings, statistics)
        self.chosen = chosen
        config = peer.policy.config
        size = (config.n_obs_steps, config.horizon, config.drop_n_last_frames)
        self.windows = LeRobotWindows(part, *size, chosen.seed)
        self.held = LeRobotWindows(DataPart(store, held), *size, 0) if held else None
        preset = config.get_optimizer_preset()
        self.clip: float = preset.grad_clip_norm
        self.optimizer: Any = preset.build(peer.policy.get_optim_params())
        self.schedule: Any = config.get_scheduler_preset().build(self.optimizer, chosen.steps)
        self.step, self.elapsed_s = 0, 0.0
        self._resume()

    @property
    def facts(self) -> dict[str, Any]:
        """For the record."""
        asked = {name: getattr(self.chosen, name) for name in _CHOSEN}
        return {"step": self.step, "elapsed_s": round(self.elapsed_s, 1), "asked": asked}

    def run(self) -> None:
        """All steps that are left, with a row each `every` steps and at the end."""
        steps, size, out = self.chosen.steps, self.chosen.batch_size, self.chosen.out
        positions = self.windows.positions(steps * size).reshape(steps, size)[self.step :]
        losses: list[float] = []
        began = saved = row_at = time.monotonic()
        spent = self.elapsed_s
        for batch in self.windows.ahead(positions):
            losses.append(self.learn(batch))
            now = time.monotonic()
            self.elapsed_s = spent + now - began
            last = self.step == steps
            validating = last or self.step % self.chosen.validate_every == 0
            if validating or self.step % self.chosen.every == 0:
                rate = len(losses) * size / (now - row_at)
                self._row(float(np.mean(losses)), rate, validating)
                losses, row_at = [], time.monotonic()
            if now - saved > self.chosen.save_every_s:
                self._save(out)
                saved = now
        self._save(out)

    def learn(self, batch: Windows) -> float:
        """One step as LeRobot's `update_policy` does it; returns the loss."""
        policy = self.peer.policy
        policy.train()
        torch.manual_seed(self.chosen.seed * 1_000_003 + self.step)
        loss, _ = policy.forward(self.peer.normalize(batch))
        if not math.isfinite(loss.item()):
            sys.exit(f"step {self.step + 1}: the loss is {loss.item()}.")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.step += 1
        return loss.item()

    @torch.no_grad()
    def validate(self) -> float | None:
        """Its own loss on held-out windows, with noise that is always the same."""
        if self.held is None:
            return None
        size = min(self.chosen.batch_size, self.held.windows // 2)
        positions = self.held.positions(size * _VALIDATION_BATCHES)
        policy = self.peer.policy.eval()
        torch.manual_seed(_VALIDATION_SEED)
        batches = (self.held.batch(at) for at in positions.reshape(-1, size))
        losses = [policy.forward(self.peer.normalize(batch))[0].item() for batch in batches]
        return float(np.mean(losses))

    def _row(self, loss: float, rate: float, validating: bool) -> None:
        row: dict[str, Any] = {
            "step": self.step,
            "elapsed_s": round(self.elapsed_s, 2),
            "loss": {"1": loss},
            "learning_rate": self.schedule.get_last_lr()[0],
            "samples_per_s": round(rate, 1),
        }
        if validating and (held := self.validate()) is not None:
            row["validation"] = {"loss": {"1": held}}
        with (self.chosen.out / _METRICS).open("a") as file:
            file.write(json.dumps(row) + "\n")
        sys.stdout.write(f"step {self.step}  loss {loss:.4f}  {rate:.0f} samples/s\n")
        sys.stdout.flush()

    def _save(self, out: Path) -> None:
        state = {
            "weights": self.peer.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "settings": self.peer.settings,
            **self.facts,
        }
        with whole_file(out / _STATE) as aside:
            torch.save(state, aside)
        save_peer(out, self.peer, self.facts)

    def _resume(self) -> None:
        """From OUT, where there is something. Rows after its step are dropped: they come again."""
        out: Path = self.chosen.out
        metrics = out / _METRICS
        if (out / _STATE).exists():
            state: dict[str, Any] = torch.load(out / _STATE, weights_only=True)
            if (state["asked"], state["settings"]) != (self.facts["asked"], self.peer.settings):
                sys.exit(f"{out} has another training. Choose another OUT.")
            self.peer.policy.load_state_dict(state["weights"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            self.step, self.elapsed_s = state["step"], state["elapsed_s"]
        if metrics.exists():
            lines = [line for line in metrics.read_text().splitlines() if line.endswith("}")]
            kept = [line for line in lines if json.loads(line)["step"] <= self.step]
            metrics.write_text("".join(f"{line}\n" for line in kept))


class ServedPeer:
    """A peer behind our server (see `deploy/served_policy`)."""

    loops = (1,)

    def __init__(self, folder: Path) -> None:
        self._peer, _ = load_peer(folder)
        self.spec: PolicySpec = self._peer.spec
        self.model_id = weights_id(folder)
        config = self._peer.policy.config
        self.horizon: int = config.n_action_steps
        self.steps: int = config.num_train_timesteps

    def infer(
        self, observation: Observation, *, seed: int, loops: int, steps: int, instruction: str = ""
    ) -> Inference:
        """One chunk (n_action_steps, A); `steps` are denoising steps."""
        batched: Mapping[str, np.ndarray] = {n: v[None] for n, v in observation.items()}
        torch.manual_seed(seed % 2**63)
        began = time.perf_counter_ns()
        actions = self._peer.chunk(batched, steps)[0]
        took_us = (time.perf_counter_ns() - began) // 1000
        return Inference(actions, loops, steps, encode_us=0, denoise_us=took_us)


def serve(folder: Path, port: int) -> None:
    """Until SIGINT or SIGTERM; says `ready ENDPOINT` when it answers."""
    policy = ServedPeer(folder)
    blank = {t.name: np.zeros(t.shape, t.dtype) for t in policy.spec.observations}
    policy.infer(blank, seed=0, loops=1, steps=policy.steps)  # the first one is slower
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with PolicyServer(policy, f"tcp://127.0.0.1:{port}") as server:
        sys.stdout.write(f"ready {server.endpoint}\n")
        sys.stdout.flush()
        stop.wait()


def _parsed(settings: list[str]) -> dict[str, Any]:
    pairs = (setting.partition("=") for setting in settings)
    return {name: json.loads(value) for name, _, value in pairs}


def main() -> None:
    """Parse, then train or serve."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train")
    train.add_argument("data")
    train.add_argument("out", type=Path)
    train.add_argument("--steps", type=int, default=10_000)
    train.add_argument("--batch-size", type=int, default=64)
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--validation", type=float, default=0.05)
    train.add_argument("--validate-every", type=int, default=500)
    train.add_argument("--every", type=int, default=50)
    train.add_argument("--save-every-s", type=float, default=300.0)
    train.add_argument("--size", choices=SIZES, default="matched")
    train.add_argument(
        "--set", nargs="*", default=[], help="fields of its configuration: NAME=JSON"
    )
    served = commands.add_parser("serve")
    served.add_argument("folder", type=Path)
    served.add_argument("--port", type=int, default=0)
    for each in (train, served):
        each.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.command == "serve":
        serve(chosen.folder, chosen.port)
        return
    chosen.out.mkdir(parents=True, exist_ok=True)
    Training(chosen).run()


if __name__ == "__main__":
    main()
