"""The loop of a training: steps, and what is due between them.

What is computed, and which rows metrics.jsonl gets, follows from the options and the step alone.
When a checkpoint is written follows from the clock, and changes nothing else.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from accelerate.utils import broadcast

from loopdit.datasets.windows import Batch
from loopdit.errors import ConfigError, LoopditError, StoreError
from loopdit.policy.checkpoint import (
    MANIFEST,
    CheckpointContent,
    TrainingState,
    write_checkpoint,
)
from loopdit.policy.training.closed_loop import BEST, ClosedLoop, Evaluated
from loopdit.policy.training.logs import Logger
from loopdit.policy.training.metrics import Row, RunningMean, append_row, flat, read_rows
from loopdit.policy.training.patience import Patience
from loopdit.policy.training.saving import CheckpointSaver
from loopdit.policy.training.steps import NotFinite, StepTrainer
from loopdit.policy.training.stopping import Stopped, StopRequest
from loopdit.progress import Progress

_SINCE_ROW = "since_row"  # in a checkpoint: what is summed up for the next row


class Places(Protocol):
    """A sampler, of which a loop asks what to name in an error."""

    def places(self, step: int, part: tuple[int, int] = (0, 1)) -> list[tuple[str, int]]:
        """Where the windows of a batch are: the episode in words, its step."""
        ...


class Measured(Protocol):
    """What a validation found."""

    def to_dict(self) -> dict[str, Any]:
        """For metrics.jsonl."""
        ...

    def sentence(self) -> str:
        """For the screen."""
        ...


class Measure(Protocol):
    """A validation: of a trainer's average, on a device."""

    def measure(self, policy: Any, device: torch.device, /) -> Measured:
        """Draws nothing from global generators."""
        ...


class TrainingLoop:
    """One run of steps, with its outputs in `out`; of several processes, only the main one writes.

    `closed_loop` and `validation` may be None. `provenance` goes into each checkpoint.
    """

    def __init__(
        self,
        trainer: StepTrainer,
        sampler: Places,
        out: Path,
        provenance: dict[str, Any],
        clock: Callable[[], float],
        validation: Measure | None = None,
        loggers: list[Logger] | None = None,
    ) -> None:
        self.trainer = trainer
        self.closed_loop: ClosedLoop | None = None
        self._sampler = sampler
        self._out = out
        self._provenance = provenance
        self._clock = clock
        self._validation = validation
        self._loggers = loggers or []
        self._main = trainer.accelerator.is_main_process
        self._saver = CheckpointSaver(out)
        self.patience = Patience(trainer.config.patience)
        self._since_row = RunningMean()
        self._row_at = self._started = clock()
        self._spent = trainer.elapsed_s
        self._note = ""
        self._more: tuple[str, ...] = ()  # of a row, what not every trainer tells
        self._has_saved = False

    def go_on_from(self, state: TrainingState) -> None:
        """Take up the sums of a checkpoint that `trainer` has been put to."""
        self._since_row.load_state(state.numbers[_SINCE_ROW], self.trainer.accelerator.device)
        self._spent = self.trainer.elapsed_s
        self._has_saved = True
        if self._main:
            self.patience.take_up(read_rows(self._out))

    def run(self, batches: Iterator[Batch]) -> None:
        """All steps that are left, or until patience is over, and the checkpoint of the last.

        Raises Stopped when it was asked to stop, with the last whole step saved, ConfigError
        or StoreError for what is not finite, CheckpointError when the disk is full.
        """
        trainer = self.trainer
        already = trainer.progress
        try:
            with (
                StopRequest() as stop,
                Progress("train", 1.0, self._clock, already)
                if self._main
                else nullcontext() as progress,
            ):
                saved_at = self._row_at = self._started = self._clock()
                while trainer.progress < 1 and not self._is_over():
                    self._step(next(batches))
                    now = self._clock()
                    trainer.elapsed_s = self._shared(self._spent + now - self._started)
                    self._after_step()
                    if progress is not None:
                        progress.update(trainer.progress, self._note)
                    if self._any(stop.asked):
                        stop.asked = True
                        break
                    due = now - saved_at >= trainer.config.save_every_s
                    if self._any(due) if trainer.sharded else due:
                        self._save()
                        saved_at = now
            self._save()
            self._saver.finish()
        finally:
            self._saver.close()
        if stop.asked and trainer.progress < 1:
            self.say(f"saved step {trainer.step}; go on with resume=true")
            raise Stopped

    def say(self, line: str) -> None:
        """A line for people, above the progress."""
        if self._main:
            sys.stdout.write(f"\r\x1b[2K{line}\n" if sys.stdout.isatty() else f"{line}\n")
            sys.stdout.flush()

    def record(self, evaluated: Evaluated) -> None:
        """Keep what an evaluation in closed loop came to."""
        self._write(
            {
                "step": evaluated.step,
                "elapsed_s": round(self.trainer.elapsed_s, 2),
                "evaluation": evaluated.to_dict(),
            }
        )

    def content(self, with_state: bool) -> CheckpointContent:
        """What a checkpoint of this moment holds; its tensors are the trainer's own."""
        trainer = self.trainer
        found = {
            **self._provenance,
            "step": trainer.step,
            "elapsed_s": round(trainer.elapsed_s, 1),
        }
        state = None
        if with_state:
            state = trainer.state()
            sums = {_SINCE_ROW: self._since_row.state()}
            state = replace(state, numbers={**state.numbers, **sums})
        return trainer.content(found, state)

    def _step(self, batch: Batch) -> None:
        world, rank = (
            self.trainer.accelerator.num_processes,
            self.trainer.accelerator.process_index,
        )
        start = rank * (self.trainer.config.batch_size // world)
        try:
            result = self.trainer.train_step(batch, start)
        except NotFinite as found:
            raise self._explained(found, (rank, world)) from found
        self._since_row.add(loss=result.error, gradient_norm=result.gradient_norm, **result.more)
        self._more = tuple(result.more)

    def _after_step(self) -> None:
        trainer, config = self.trainer, self.trainer.config
        last = trainer.progress >= 1
        validate = self._validation is not None and (
            last or trainer.step % config.validate_every == 0
        )
        if last or validate or trainer.step % config.log.every == 0:
            self._add_row(validate)
        if self._main:
            self._saver.check()
        if self.closed_loop is not None:
            if trainer.step % config.evaluate.every == 0:
                self.closed_loop.snapshot(trainer.step, self.content(with_state=False))
            self.closed_loop.poll()

    def _add_row(self, validate: bool) -> None:
        trainer = self.trainer
        means, steps = self._since_row.take()
        if not self._takes_part:
            return
        now = self._clock()
        passed, self._row_at = max(now - self._row_at, 1e-9), now
        rate = steps * trainer.config.batch_size / passed
        row: Row = {
            "step": trainer.step,
            "elapsed_s": round(trainer.elapsed_s, 2),
            "loss": {str(k): v for k, v in zip(trainer.depths, means["loss"], strict=True)},
            "learning_rate": trainer.optimizer.param_groups[0]["lr"],
            "gradient_norm": means["gradient_norm"],
            "samples_per_s": round(rate, 1),
            **{name: means[name] for name in self._more},
        }
        per_loop = " ".join(f"K{k}={loss:.3f}" for k, loss in row["loss"].items())
        self._note = f"step {trainer.step}  loss {per_loop}  {rate:.0f} samples/s"
        if validate and self._validation is not None:
            result = self._validation.measure(trainer.average, trainer.accelerator.device)
            row["validation"] = result.to_dict()
            self.say(f"step {trainer.step}  {result.sentence()}")
            if trainer.config.patience:
                self._keep_if_best(row["validation"])
        self._write(row)

    def _keep_if_best(self, validation: dict[str, Any]) -> None:
        trainer = self.trainer
        best = self._main and self.patience.improved(trainer.step, validation)
        if self._any(best) if trainer.sharded else best:
            content = self.content(with_state=False)
            if self._main:
                write_checkpoint(self._out / BEST, content.copied())

    def _is_over(self) -> bool:
        """Whether what is held out has got no better for too long: the main process knows."""
        return bool(self.patience.most) and self._any(self.patience.over)

    @property
    def _takes_part(self) -> bool:
        """Whether this process is needed for what only the main one writes."""
        return self._main or self.trainer.sharded

    def _write(self, row: Row) -> None:
        if not self._main:
            return
        append_row(self._out, row)
        for logger in self._loggers:
            logger.log(row["step"], flat(row))

    def _save(self) -> None:
        if not self._takes_part:
            return
        try:
            self.trainer.require_finite_weights()
        except NotFinite as found:
            raise self._explained(found, (0, 1)) from found
        content = self.content(with_state=True)
        if self._main:
            self._saver.save(content)
        self._has_saved = True

    def _shared(self, elapsed_s: float) -> float:
        """The main process's time: the schedule must not differ between processes."""
        trainer = self.trainer
        if not trainer.config.minutes or trainer.accelerator.num_processes == 1:
            return elapsed_s
        mine = torch.tensor(elapsed_s, dtype=torch.float64, device=trainer.accelerator.device)
        return float(cast(torch.Tensor, broadcast(mine)))

    def _any(self, asked: bool) -> bool:
        """Whether any process says so: to stop, to save, to end. A signal reaches them at different
        steps, their clocks differ, and who goes alone leaves the others waiting."""
        accelerator = self.trainer.accelerator
        if accelerator.num_processes == 1:
            return asked
        mine = torch.tensor(float(asked), device=accelerator.device)
        return float(cast(torch.Tensor, accelerator.reduce(mine, "sum"))) > 0

    def _explained(self, found: NotFinite, part: tuple[int, int]) -> LoopditError:
        """The error for whoever trains: step, batch, tensor, and what to do."""
        trainer = self.trainer
        step = trainer.step
        places = self._sampler.places(step, part)
        kept = self._kept()
        if found.rows:
            episode, at = places[found.rows[0]]
            return StoreError(
                f"step {step + 1} stopped: {found.tensor} is not finite in window {found.rows[0]} "
                f"of batch {step}, {episode}, from its step {at}. Take that episode out, or record "
                f"it again. {kept}"
            )
        episode, at = places[0]
        return ConfigError(
            f"step {step + 1} stopped: {found.tensor} is not finite at batch {step} "
            f"({len(places)} windows, the first: {episode}, step {at}). "
            f"Lower learning_rate={trainer.config.learning_rate} and begin again "
            f"(overwrite=true). {kept}"
        )

    def _kept(self) -> str:
        """What of this training is left when it ends here, in a sentence."""
        if self._has_saved:
            return f"The checkpoint in {self._out} is that of an earlier step."
        if (self._out / MANIFEST).exists():
            return f"The checkpoint in {self._out} is still that of the training before."
        return "No checkpoint was saved yet."
