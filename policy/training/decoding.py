"""What has to be decoded before a training can read it, with a bar that says how far it is."""

from collections.abc import Callable

from loopdit.datasets.decoding_ahead import Tell
from loopdit.progress import Progress


def with_progress(label: str, decode: Callable[[Tell], None], shown: bool = True) -> None:
    """Call `decode` with what it is to tell of its progress; nothing is said of nothing to do."""
    if not shown:
        decode(lambda done, total: None)
        return
    with Progress(label, 1.0) as progress:
        decode(lambda done, total: progress.update(done / total, f"{done}/{total} files"))
