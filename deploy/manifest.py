"""`manifest.json`, format version 1: what a bundle says of itself.

Whether its files are what it says is for `bundle` to verify.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loopdit.datasets.spec import PolicySpec
from loopdit.deploy.witness import Witness
from loopdit.policy.encoders.vocabulary import NO_INSTRUCTION, vocabulary_of

FORMAT = "loopdit-bundle"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
GRAPH_KINDS = ("encode", "denoise")


@dataclass(frozen=True)
class BundleFile:
    """What the manifest says of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything `manifest.json` says; `to_dict` and `from_dict` are its format, version 1.

    loops: each K that has graphs, ascending. default_loops, steps: what is run when nobody chooses.
    temperature: spread of the starting noise, 0 for none.
    normalisation: statistics of what the graphs undo, for people; nothing reads it back.
    parity, latency: measured at export. witness: what every back end must repeat; None only while
    the export has not proven itself. provenance: how the weights were trained. instruction: how
    the policy is told its task ("words" or "task"), and the instructions it was trained with;
    "none" and none where it has one task.
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
            "model_id": self.model_id,
            "horizon": self.horizon,
            "loops": list(self.loops),
            "default_loops": self.default_loops,
            "steps": self.steps,
            "temperature": self.temperature,
            **self._task(),
            "spec": self.spec.to_dict(),
            "normalisation": dict(self.normalisation),
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
        )


def graph_name(kind: str, loops: int) -> str:
    """File name of one graph; `kind` is one of GRAPH_KINDS."""
    return f"{kind}_k{loops}.onnx"
