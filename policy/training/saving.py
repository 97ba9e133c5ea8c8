"""Checkpoints written beside training: the step that saves waits for a copy in memory only."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from loopdit.policy.checkpoint import CheckpointContent, write_checkpoint


class CheckpointSaver:
    """One checkpoint folder, one write at a time. What it raises comes out at the next call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def save(self, content: CheckpointContent) -> None:
        """Replace the checkpoint, a little later. Waits for the write before this one."""
        self.finish()
        self._writing = self._pool.submit(write_checkpoint, self.folder, content.copied())

    def check(self) -> None:
        """Raise CheckpointError now if a write has failed. Waits for nothing."""
        if self._writing is not None and self._writing.done():
            self.finish()

    def finish(self) -> None:
        """Return when the last checkpoint is on the disk. Raises CheckpointError."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Let a write come to its end; for `finally`, so it raises nothing of it."""
        self._pool.shutdown(wait=True)
