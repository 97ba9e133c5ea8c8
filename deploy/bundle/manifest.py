"""`manifest.json`, format version 2: what a bundle says of itself.

Whether its files are what it says is for `bundle` to verify; version 1 becomes this one in
`manifest_migration`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loopdit.datasets.spec import PolicySpec
from loopdit.deploy.bundle.witness import Witness
from loopdit.policy.checkpoint_files import LOOPED
from loopdit.policy.encoders.vocabulary import NO_INSTRUCTION, vocabulary_of

FORMAT = "loopdit-bundle"
FORMAT_VERSION = 2
MANIFEST = "manifest.json"
GRAPH_KINDS = ("encode", "denoise")
FP32, FP16, BF16, INT8 = "fp32", "fp16", "bf16", "int8"
LOOPS_INPUT = "loops"  # of a graph that has K as an input, () int64
PRECISIONS = (FP32, FP16, BF16, INT8)


def graph_name(kind: str, loops: int | None, precision: str = FP32) -> str:
    """File name of a graph: `kind` is one of GRAPH_KINDS, and K is an input where `loops` is None.

    `denoise_k3.onnx`, `denoise_loop.onnx`, `denoise_k3.bf16.onnx`.
    """
    depth = "loop" if loops is None else f"k{loops}"
    return f"{kind}_{depth}{_suffix(precision)}.onnx"


def weights_name(precision: str = FP32) -> str:
    """File name of the weights that only graphs of a precision read: `model.bf16.safetensors`."""
    return f"model{_suffix(precision)}.safetensors"


def _suffix(precision: str) -> str:
    return "" if precision == FP32 else f".{precision}"


WEIGHTS = weights_name()


@dataclass(frozen=True)
class BundleFile:
    """What the manifest says of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything `manifest.json` says; `to_dict` and `from_dict` are its format, version 2.

    loops: each K that has graphs, ascending. loop_graphs: whether there are graphs with K as an
    input besides. precisions: those that have graphs, fp32 first. default_loops, steps: what is run
    when nobody chooses. max_steps: the most denoising steps that the policy's sampler has, None
    where any number will do. temperature: spread of the starting noise, 0 for none.
    normalisation: statistics of what the graphs undo; layout: which tokens there are
    (`export.token_layout`), empty where an older export did not say; both for people, and nothing
    reads them back.
    adaptive: when to stop looping, as `policy.depth_calibration.Calibration` says it, None where
    nobody has calibrated. parity: measured at export. latency: tables of rows, one for each machine
    that it was measured on. witness: what every back end must repeat; None only while the export
    has not proven itself. provenance: how the weights were trained. instruction: how the policy is
    told its task ("words" or "task"), and the instructions it was trained with; "none" and none
    where it has one task. kind: what kind of policy it is, as its checkpoint says; a grafted video
    model has no graphs.
    """

    spec: PolicySpec
    horizon: int
    loops: tuple[int, ...]
    default_loops: int
    steps: int
    temperature: float
    model_id: str
    files: Mapping[str, BundleFile]
    normalisation: Mapping[str, Any]
    provenance: Mapping[str, Any]
    exported: Mapping[str, Any]
    parity: Mapping[str, Any] = field(default_factory=dict[str, Any])
    witness: Witness | None = None
    latency: tuple[Mapping[str, Any], ...] = ()
    instruction: str = NO_INSTRUCTION
    instructions: tuple[str, ...] = ()
    max_steps: int | None = None
    precisions: tuple[str, ...] = (FP32,)
    loop_graphs: bool = False
    adaptive: Mapping[str, Any] | None = None
    layout: Mapping[str, Any] = field(default_factory=dict[str, Any])
    kind: str = LOOPED

    def graph_names(self, precision: str) -> list[str]:
        """The file of every graph that there is of one of `precisions`."""
        if self.kind != LOOPED:
            return []
        depths = [*self.loops, *([None] if self.loop_graphs else [])]
        return [graph_name(kind, loops, precision) for loops in depths for kind in GRAPH_KINDS]

    @property
    def required_files(self) -> list[str]:
        """Graphs and weights of every precision."""
        graphs = [name for precision in self.precisions for name in self.graph_names(precision)]
        return [*graphs, *(weights_name(precision) for precision in self.precisions)]

    def told(self, instruction: str) -> np.ndarray | None:
        """What the graphs are given for an instruction, None where they are told none.

        Raises ObservationError for one that the policy cannot understand.
        """
        if self.instruction == NO_INSTRUCTION:
            return None
        return vocabulary_of(self.instructions).told(self.instruction, instruction)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, the format's name and version first."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            **({} if self.kind == LOOPED else {"kind": self.kind}),
            "model_id": self.model_id,
            "horizon": self.horizon,
            "loops": list(self.loops),
            "loop_graphs": self.loop_graphs,
            "precisions": list(self.precisions),
            "default_loops": self.default_loops,
            "steps": self.steps,
            "max_steps": self.max_steps,
            "temperature": self.temperature,
            "adaptive": None if self.adaptive is None else dict(self.adaptive),
            **self._task(),
            "spec": self.spec.to_dict(),
            "normalisation": dict(self.normalisation),
            **({"layout": dict(self.layout)} if self.layout else {}),
            "files": {
                name: {"bytes": entry.bytes, "sha256": entry.sha256}
                for name, entry in sorted(self.files.items())
            },
            "parity": dict(self.parity),
            "witness": self.witness and self.witness.to_dict(),
            "latency": [dict(table) for table in self.latency],
            "provenance": dict(self.provenance),
            "exported": dict(self.exported),
        }

    def _task(self) -> dict[str, Any]:
        if self.instruction == NO_INSTRUCTION:
            return {}  # as it was before there were instructions
        return {"instruction": self.instruction, "instructions": list(self.instructions)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Manifest":
        """Read what `to_dict` wrote. Raises KeyError, TypeError, ValueError or LoopditError."""
        if not 0 <= float(data["temperature"]) <= 1:
            raise ValueError(f"temperature={data['temperature']} is not from 0 to 1")
        precisions = tuple(str(name) for name in data["precisions"])
        if precisions[:1] != (FP32,) or not set(precisions) <= set(PRECISIONS):
            known = ", ".join(PRECISIONS)
            raise ValueError(f"precisions={list(precisions)} is not fp32 and others of {known}")
        most = data["max_steps"]
        return cls(
            spec=PolicySpec.from_dict(data["spec"]),
            horizon=int(data["horizon"]),
            loops=tuple(int(k) for k in data["loops"]),
            default_loops=int(data["default_loops"]),
            steps=int(data["steps"]),
            temperature=float(data["temperature"]),
            model_id=str(data["model_id"]),
            files={name: BundleFile(**entry) for name, entry in data["files"].items()},
            normalisation=data["normalisation"],
            provenance=data["provenance"],
            exported=data["exported"],
            parity=data["parity"],
            witness=data["witness"] and Witness.from_dict(data["witness"]),
            latency=tuple(data["latency"]),
            instruction=str(data.get("instruction", NO_INSTRUCTION)),
            instructions=tuple(str(said) for said in data.get("instructions", ())),
            max_steps=None if most is None else int(most),
            precisions=precisions,
            loop_graphs=bool(data["loop_graphs"]),
            adaptive=data["adaptive"],
            layout=data.get("layout", {}),
            kind=str(data.get("kind", LOOPED)),
        )
