"""`policy-export` of a grafted video model: a bundle of its weights, that torch runs.

There are no ONNX graphs in it, by decision. The parts of a small one do trace, and ONNX Runtime
computes what torch does (tests/deploy/export/test_graft_graphs.py). But who would run them?

- Graphs are for robots without torch or without a GPU, and one pass of CogVideoX-2B is 15.6 TFLOP
  for a clip of nine frames: minutes of a CPU's core.
- On a GPU what a graph saves is launches, and `backend=cuda-graph` has none; what is left are
  products and attention, by the same libraries.
- A graph carries the video model's 3.4 GB, which a checkpoint leaves in their folder for all of its
  deltas to share, and it cannot scale frames to the clip's size as the policy does.
"""

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from loopdit.deploy.bundle.bundle import Bundle
from loopdit.deploy.bundle.manifest import FP32
from loopdit.deploy.bundle.probes import Probes
from loopdit.deploy.bundle.witness import Witness, witness_inputs
from loopdit.deploy.bundle.writer import staged_bundle, write_manifest
from loopdit.deploy.export.config import ExportConfig
from loopdit.deploy.export.described import described
from loopdit.deploy.export.parity import reference_chunks
from loopdit.errors import ConfigError
from loopdit.policy.checkpoint import GRAFT, copy_policy
from loopdit.policy.encoders.vocabulary import TASK
from loopdit.policy.graft.checkpoint import load_graft_checkpoint
from loopdit.policy.looped_dit_config import depths_text
from loopdit.policy.objectives.objective import DIFFUSIONS


def export_graft(config: ExportConfig, console: Console) -> Bundle:
    """Write the bundle of a graft policy. Raises LoopditError, leaving nothing behind."""
    if config.precisions != (FP32,):
        raise ConfigError(
            f"{config.checkpoint} is a grafted video model, which is exported without graphs: "
            f"precision={config.precision} is of graphs. Choose it when the bundle is served."
        )
    source = load_graft_checkpoint(config.checkpoint)
    policy = source.policy
    loops = tuple(sorted(set(config.loops or policy.depths)))
    wrong = [k for k in (*loops, config.default_loops or loops[0]) if k not in policy.depths]
    if wrong:
        raise ConfigError(
            f"loops={wrong[0]} was not trained: {config.checkpoint} has K = "
            f"{depths_text(policy.depths)}."
        )
    learned = policy.config.decoder.learned
    with staged_bundle(config.out, config.overwrite) as staging:
        copy_policy(config.checkpoint, staging)
        manifest = replace(
            described(policy, source.provenance, loops, None, config, staging),
            instruction=TASK,
            instructions=policy.config.vocabulary.instructions,
            max_steps=learned.train_timesteps if learned.kind in DIFFUSIONS else None,
            kind=GRAFT,
        )
        told = manifest.told(manifest.instructions[0])
        observation, noise = witness_inputs(policy.spec, policy.horizon, told)
        probe = Probes(observation, noise, "the witness")
        actions = reference_chunks(policy, probe, manifest.default_loops, manifest.steps)[0]
        rows = tuple(tuple(row) for row in actions.tolist())
        witness = Witness(manifest.default_loops, manifest.steps, config.tolerance, rows)
        write_manifest(staging, replace(manifest, witness=witness))
    console.print(
        f"{config.out}: a grafted video model, without graphs. backend=torch runs it.",
        markup=False,
        highlight=False,
    )
    return Bundle.open(Path(config.out))
