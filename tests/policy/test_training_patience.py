import json
from pathlib import Path
from typing import Any

import pytest
from tests.policy.graft.squares import squares_store
from tests.policy.graft.trainings import small_training
from tests.policy.trainings import rows

from loopdit.errors import ConfigError
from loopdit.policy.graft.checkpoint import load_graft_checkpoint
from loopdit.policy.graft.train import train_graft
from loopdit.policy.training.closed_loop import BEST, EvaluateConfig
from loopdit.policy.training.config import TrainConfig
from loopdit.policy.training.patience import Patience


def _row(step: int, shallow: float, deep: float) -> dict[str, Any]:
    return {"step": step, "validation": {"action_error": {"2": shallow, "10": deep}}}


def test_patience_is_over_when_the_deepest_error_has_not_fallen_for_so_many_validations():
    patience = Patience(2)
    seen = [(1, 9.0, 5.0), (2, 1.0, 6.0), (3, 1.0, 4.0), (4, 0.1, 4.0), (5, 0.1, 4.1)]
    rows = [_row(*each) for each in seen]
    over: list[bool] = []
    for row in rows:
        patience.improved(row["step"], row["validation"])
        over.append(patience.over)
    assert over == [False, False, False, False, True]
    assert (patience.step, patience.best) == (3, 4.0)
    resumed = Patience(2)
    resumed.take_up([{"step": 1, "loss": {}}, *rows])
    assert resumed == patience


def test_a_training_without_patience_never_is_over():
    patience = Patience(0)
    patience.take_up([_row(step, 1.0, 1.0) for step in range(9)])
    assert not patience.over


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A training that soon only spoils what it has: its rate is far too high."""
    folder = tmp_path_factory.mktemp("patience")
    squares = squares_store(folder / "squares.zarr")
    out = folder / "out"
    train_graft(_impatient(squares, out))
    return squares, out


def _impatient(squares: str, out: Path, **changes: Any) -> Any:
    options = {"learning_rate": 0.1, "warmup_steps": 5, "ema_decay": 0.0}
    given = {"steps": 60, "validate_every": 1, "patience": 3, "video_weight": 0.0}
    return small_training(squares, out, **(options | given | changes))


def test_a_training_ends_early_and_keeps_the_weights_of_its_best_validation(
    ended: tuple[str, Path],
):
    _, out = ended
    errors = [row["validation"]["action_error"]["2"] for row in rows(out)]
    best = min(range(len(errors)), key=errors.__getitem__)
    assert len(errors) == best + 1 + 3 < 60
    found = load_graft_checkpoint(out / BEST)
    assert found.provenance["step"] == best + 1
    assert json.loads((out / "checkpoint.json").read_text())["provenance"]["step"] == len(errors)


def test_a_training_whose_patience_was_over_goes_on_to_nothing(ended: tuple[str, Path]):
    squares, out = ended
    before = rows(out)
    train_graft(_impatient(squares, out, resume=True))
    assert rows(out) == before


def test_patience_needs_something_held_out_and_no_other_judge():
    with pytest.raises(ConfigError, match="patience=2 waits for validations"):
        TrainConfig(patience=2, validation=0.0)
    with pytest.raises(ConfigError, match=r"evaluate\.env=lift and patience=2"):
        TrainConfig(patience=2, evaluate=EvaluateConfig(env="lift"))
