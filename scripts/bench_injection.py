"""What input injection and the Jacobian penalty do to loops that learn real demonstrations.

    python scripts/bench_injection.py deploy/bundles/tabletop outputs/tabletop/lift.zarr OUT

A looped stack of one block (LoopConfig, scope "stack", paper's gates) regresses the demonstrated
chunk from the observation tokens of the bundle's frozen encoders, in four arms: with and without
injection, with and without the penalty on the last loop. For each arm, over seeds: the validation
error as a share of the chunks' variance, the local Lipschitz constant of the last trained loop, the
ratio of updates and their relative size 12 loops later, and how many loops a fixed point takes,
plain and accelerated. Writes OUT/injection.json and, of the first seed, a picture of each arm.
"""

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from loopdit.datasets.mixing import DataPart
from loopdit.datasets.store import EpisodeStore
from loopdit.datasets.windows import WindowSampler
from loopdit.machine import machine_and_versions
from loopdit.policy.block import AdaLNBlock
from loopdit.policy.checkpoint import load_policy
from loopdit.policy.fixed_point.adapters import observation_loops, seeded, stack_loops
from loopdit.policy.fixed_point.anderson import AndersonConfig, solve
from loopdit.policy.fixed_point.diagnostics import diagnose
from loopdit.policy.fixed_point.jacobian import jacobian_penalty
from loopdit.policy.fixed_point.picture import draw
from loopdit.policy.fixed_point.step import LoopedMap, at_loop
from loopdit.policy.looped_policy import LoopedPolicy
from loopdit.policy.loops.config import LoopConfig
from loopdit.policy.loops.looped_stack import LoopedStack

LOOPS, BEYOND, STEPS, BATCH, WINDOWS, HELD_OUT = 4, 16, 600, 32, 4096, 200
SEEDS = (0, 1, 2)
ARMS = {
    "neither": (False, 0.0),
    "injection": (True, 0.0),
    "penalty": (False, 0.1),
    "both": (True, 0.1),
}


class Regressor(nn.Module):
    """Tokens (B, N, D) -> looped -> their mean -> a flat chunk."""

    def __init__(self, width: int, out: int, injection: bool) -> None:
        super().__init__()
        config = LoopConfig(loops=LOOPS, scope="stack", init="paper", injection=injection)
        self.stack = LoopedStack(lambda: AdaLNBlock(width), 1, width, config)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, out)

    def loops(self, tokens: Tensor) -> LoopedMap:
        """Its loops on these tokens, under a condition of zeros."""
        return stack_loops(self.stack, tokens, tokens.new_zeros(1, 1, tokens.shape[-1]))

    def run(self, tokens: Tensor) -> tuple[Tensor, LoopedMap, Tensor]:
        """Prediction, loops, and the state before the last one."""
        looped = self.loops(tokens)
        before = state = tokens
        for loop in range(LOOPS):
            before, state = state, looped.step(state, loop)
        return self.out(self.norm(state.mean(dim=1))), looped, before


def windows(policy: LoopedPolicy, part: DataPart, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Tokens (count, N, D) of the frozen encoders, and normalised chunks (count, H * A)."""
    sampler = WindowSampler([part], policy.horizon, 256, seed)
    tokens: list[Tensor] = []
    chunks: list[Tensor] = []
    for step in range(count // 256):
        batch = sampler.batch(step)
        seen = {name: torch.from_numpy(values) for name, values in batch.observations.items()}
        tokens.append(observation_loops(policy, seen).start)
        chunks.append(policy.normalizer.chunk(torch.from_numpy(batch.actions)).flatten(1))
    return torch.cat(tokens), torch.cat(chunks)


def train(arm: str, seed: int, data: tuple[Tensor, Tensor]) -> Regressor:
    """One arm from one seed."""
    injection, weight = ARMS[arm]
    tokens, chunks = data
    model = seeded(lambda: Regressor(tokens.shape[-1], chunks.shape[-1], injection), seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        rows = torch.randint(len(tokens), (BATCH,), generator=generator)
        predicted, looped, before = model.run(tokens[rows])
        loss = (predicted - chunks[rows]).square().mean()
        if weight:
            loss = loss + weight * jacobian_penalty(
                at_loop(looped.step, LOOPS - 1), before, generator
            )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval().requires_grad_(False)


def outcome(
    arm: str, seed: int, model: Regressor, data: tuple[Tensor, Tensor], out: Path
) -> dict[str, Any]:
    """The numbers of one trained model, on windows of episodes that it has not seen."""
    tokens, chunks = data
    predicted, _, _ = model.run(tokens)
    few = tokens[:32]
    looped = model.loops(few)
    report = diagnose(
        looped,
        lambda null: seeded(
            lambda: Regressor(tokens.shape[-1], chunks.shape[-1], ARMS[arm][0]), 100 + null
        ).loops(few),
        BEYOND,
        LOOPS,
        range(2 if seed == SEEDS[0] else 0),
        iterations=30,
    )
    if seed == SEEDS[0]:
        draw(report, out / f"{arm}.png", f"{arm}: trained for {LOOPS} loops on demonstrations")
    solver = AndersonConfig(tolerance=1e-3, max_steps=100)
    last = at_loop(looped.step, LOOPS - 1)
    plain, fast = solve(last, few, solver.plain()), solve(last, few, solver)
    return {
        "error": float((predicted - chunks).square().mean() / chunks.var()),
        "lipschitz": report.model.lipschitz.median[LOOPS - 1],
        "lipschitz_beyond": report.model.lipschitz.median[-1],
        "ratio_beyond": report.model.ratio.median[-1],
        "relative_update_beyond": report.model.relative_update.median[-1],
        "plain_steps": float(plain.steps.double().mean()),
        "plain_converged": float(plain.converged.double().mean()),
        "anderson_steps": float(fast.steps.double().mean()),
        "anderson_converged": float(fast.converged.double().mean()),
    }


def main() -> None:
    """Entry point."""
    bundle, store_path, out_path = sys.argv[1:]
    torch.set_num_threads(1)
    out = Path(out_path)
    out.mkdir(parents=True, exist_ok=True)
    policy, store = load_policy(bundle), EpisodeStore.open(store_path)
    count = len(store.episodes)
    training = windows(policy, DataPart(store, range(count - HELD_OUT)), WINDOWS, 0)
    validation = windows(policy, DataPart(store, range(count - HELD_OUT, count)), 2048, 0)
    results: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for seed in SEEDS:
        for arm in ARMS:
            model = train(arm, seed, training)
            results[arm].append(outcome(arm, seed, model, validation, out))
            sys.stdout.write(f"{seed} {arm} {results[arm][-1]}\n")
            sys.stdout.flush()
    for arm, rows in results.items():
        cells = [
            f"{name} {median(row[name] for row in rows):.3f} "
            f"({min(row[name] for row in rows):.3f} to {max(row[name] for row in rows):.3f})"
            for name in rows[0]
        ]
        sys.stdout.write(f"{arm}: {'; '.join(cells)}\n")
    written = {"seeds": SEEDS, "arms": ARMS, "results": results, **machine_and_versions()}
    (out / "injection.json").write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
