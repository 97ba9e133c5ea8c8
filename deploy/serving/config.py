"""The options of `policy-serve`, and which of them go together."""

import os
from dataclasses import dataclass

from loopdit.command import option, require_choice, require_effect
from loopdit.deploy.backends import AUTO, BACKEND_NAMES
from loopdit.deploy.bundle.bundle import default_bundle
from loopdit.deploy.operation import logs
from loopdit.deploy.robot.control.config import ControlConfig
from loopdit.deploy.robot.safety.config import SafetyConfig
from loopdit.deploy.security.access import CurveConfig
from loopdit.deploy.security.limits import NETWORK_MESSAGES_PER_S
from loopdit.deploy.serving.making import PROCESSES, RAY, BundleOptions
from loopdit.deploy.serving.offer import MAX_STEPS
from loopdit.deploy.serving.server import DEFAULT_ENDPOINT
from loopdit.deploy.serving.sessions import MAX_SESSIONS
from loopdit.errors import ConfigError

BUNDLE, ZEROS = "bundle", "zeros"
REPLY, CONTROL = "reply", "control"
_STORE_SUFFIX = ".zarr"
_MOST_GPUS, _MOST_MB = 16, 2**24


@dataclass(frozen=True)
class ServeConfig:
    """The options of `policy-serve`."""

    bundle: str = option("", "folder of the bundle; empty: the one shipped with loopdit")
    policy: str = option(BUNDLE, "bundle; or zeros, to try a robot's plumbing without weights")
    spec: str = option(
        "", "what zeros are for: a bundle, a store, a JSON; empty: the shipped bundle"
    )
    address: str = option(DEFAULT_ENDPOINT, "where to listen; port 0: any that is free")
    mode: str = option(REPLY, "reply: answer observations; control: own the control loop")
    backend: str = option("auto", f"what runs the policy: auto, {', '.join(BACKEND_NAMES)}")
    precision: str = option("fp32", "what it computes in: fp32, fp16, bf16, int8, where it has it")
    threads: int = option(0, "threads for one inference; 0: chosen for this machine")
    loops: str = option(AUTO, "loops when a client does not say: auto, to be in time, or a K")
    steps: int = option(0, "denoising steps when a client does not say; 0: the bundle's, or fewer")
    open_to_network: bool = option(
        False, "yes, anybody who reaches address= may command the robot, without keys"
    )
    curve: CurveConfig = option(CurveConfig(), "keys: who may connect from elsewhere")
    messages_per_s: float = option(
        0.0,
        f"most messages of one client; 0: none on loopback, {NETWORK_MESSAGES_PER_S:g} elsewhere",
    )
    openpi_port: int = option(0, "also answer openpi's clients at this port; 0: do not")
    openpi_keys: str = option("", "what they call observations: OURS=THEIRS,...; empty: as LIBERO")
    groot_port: int = option(0, "also answer GR00T's clients at this port; 0: do not")
    groot_keys: str = option("", "what they call observations: OURS=THEIRS,...")
    batch: int = option(0, "most requests computed at once; 0: what pays on the back end")
    replicas: int = option(1, "processes that compute at the same time")
    launcher: str = option(PROCESSES, "where those are: processes of this machine; or ray")
    replica_gpus: float = option(0.0, "launcher=ray: GPUs, or a part of one, of each replica")
    http_port: int = option(
        0, "a live page with an emergency stop, /healthz, /metrics at this port; 0: none"
    )
    record: str = option("", "store (FOLDER.zarr) to record what is served to; empty: do not")
    record_mb: int = option(1024, "most memory, in MiB, for what is not yet in that store")
    log: str = option(logs.TEXT, "text, or json: one object a line")
    control: ControlConfig = option(ControlConfig(), "how mode=control owns the loop")
    safety: SafetyConfig = option(
        SafetyConfig(), "limits between policy and robot, in mode=control"
    )

    def __post_init__(self) -> None:
        require_choice("policy", self.policy, (BUNDLE, ZEROS))
        require_choice("mode", self.mode, (REPLY, CONTROL))
        require_choice("log", self.log, (logs.TEXT, logs.JSON))
        require_choice("launcher", self.launcher, (PROCESSES, RAY))
        if self.loops != AUTO and not (self.loops.isdecimal() and int(self.loops)):
            raise ConfigError(f"loops={self.loops} is neither auto nor a number of loops.")
        for name in ("openpi_port", "groot_port", "http_port"):
            if not 0 <= getattr(self, name) <= 65535:
                raise ConfigError(f"{name}={getattr(self, name)} is no port. Give 0 to 65535.")
        if not self.record:
            require_effect(self, ("record_mb",), "record=FOLDER.zarr")
        if not self.openpi_port:
            require_effect(self, ("openpi_keys",), "openpi_port=PORT")
        if not self.groot_port:
            require_effect(self, ("groot_keys",), "groot_port=PORT")
        self._require_sizes()
        if self.record and not self.record.rstrip("/").endswith(_STORE_SUFFIX):
            raise ConfigError(f"record={self.record} has to end in {_STORE_SUFFIX}, as stores do.")
        if self.launcher != RAY:
            require_effect(self, ("replica_gpus",), f"launcher={RAY}")
        if self.policy == ZEROS:
            computing = ("bundle", "backend", "precision", "threads", "batch")
            require_effect(self, (*computing, "replicas", "launcher"), f"policy={BUNDLE}")
        else:
            require_effect(self, ("spec",), f"policy={ZEROS}")
        if self.mode == CONTROL:
            replying = (
                *(
                    "replicas",
                    "launcher",
                    "batch",
                    "openpi_port",
                    "groot_port",
                    "messages_per_s",
                ),
            )
            require_effect(self, replying, f"mode={REPLY}")
        else:
            require_effect(self, ("control", "safety"), f"mode={CONTROL}")

    def _require_sizes(self) -> None:
        """Each within what can be of use: a core computes one thread, a session has one request."""
        cores = os.cpu_count() or 1
        for name, least, most, which in (
            ("threads", 0, cores, "the cores of this machine"),
            ("steps", 0, MAX_STEPS, "the most that is served"),
            ("batch", 0, MAX_SESSIONS, "the sessions that are served at once"),
            ("replicas", 1, MAX_SESSIONS, "the sessions that are served at once"),
            ("replica_gpus", 0, _MOST_GPUS, "the GPUs of a machine"),
            ("record_mb", 1, _MOST_MB, "more than any memory"),
        ):
            value = getattr(self, name)
            if value < least:
                raise ConfigError(f"{name}={value} is below {least}, the least.")
            if value > most:
                raise ConfigError(f"{name}={value} is above {most}, {which}.")

    @property
    def pinned_loops(self) -> int:
        """The K to run whatever the time; 0: chosen for each request."""
        return 0 if self.loops == AUTO else int(self.loops)


def bundle_options(config: ServeConfig) -> BundleOptions:
    """What `making` goes by."""
    return BundleOptions(
        bundle=config.bundle or (str(default_bundle()) if config.policy == BUNDLE else ""),
        backend=config.backend,
        precision=config.precision,
        threads=config.threads,
        loops=config.pinned_loops,
        steps=config.steps,
        batch=config.batch,
        replicas=config.replicas,
        launcher=config.launcher,
        replica_gpus=config.replica_gpus,
    )
