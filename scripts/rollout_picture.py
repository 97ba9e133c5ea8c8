"""Write docs/rollout.png: moments of one rollout of the shipped policy, as its report shows them.

Run by `make docs`. The same seed gives the same picture on the same OpenGL renderer.
"""

import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from loopdit.deploy.backends import load_backend
from loopdit.deploy.bundle.bundle import Bundle, default_bundle
from loopdit.deploy.robot.executions import make_execution
from loopdit.deploy.serving.served_bundle import ServedBundle
from loopdit.envs.registry import make_env
from loopdit.eval.reporting.video import picture
from loopdit.eval.rollouts.delays import parse_delay
from loopdit.eval.rollouts.policies import ModelPolicy, in_process
from loopdit.eval.rollouts.rollout import rollout
from loopdit.eval.seeds import FIRST_TEST_SEED

OUT = Path(__file__).resolve().parents[1] / "docs" / "rollout.png"
SEED = FIRST_TEST_SEED + 4
MOMENTS = 4


def main() -> None:
    """Roll out, keep a few moments, write them side by side."""
    bundle = Bundle.open(default_bundle())
    model = ServedBundle(bundle, load_backend(bundle))
    env = make_env("stack", bundle.spec.cameras[0].shape[0])
    pictures: list[np.ndarray] = []
    done = rollout(
        env,
        ModelPolicy(in_process(model), bundle.default_loops, bundle.steps),
        SEED,
        make_execution("aligned", 8, bundle.spec.action),
        parse_delay("0"),
        faults=(),
        clock=lambda: 0.0,
        on_observation=lambda seen: pictures.append(
            picture(env.render(), [seen[camera.name] for camera in bundle.spec.cameras])
        ),
    )
    env.close()
    if not done.success:
        sys.exit(f"the shipped policy fails from seed {SEED}: choose another for the picture.")
    chosen = np.linspace(0, len(pictures) - 1, MOMENTS).round().astype(int)
    write_png(OUT, np.concatenate([pictures[i] for i in chosen], axis=1))
    sys.stdout.write(f"wrote {OUT.name}: seed {SEED}, {done.steps} control steps\n")


def write_png(path: Path, image: np.ndarray) -> None:
    """image (H, W, 3) uint8."""
    codec = av.CodecContext.create("png", "w")
    codec.height, codec.width = image.shape[:2]
    codec.pix_fmt = "rgb24"
    codec.time_base = Fraction(1, 1)
    packets = [*codec.encode(av.VideoFrame.from_ndarray(image, "rgb24")), *codec.encode(None)]
    path.write_bytes(b"".join(bytes(packet) for packet in packets))


if __name__ == "__main__":
    main()
