import numpy as np
import pytest
import torch
from tests.policy.encoders.graphs import through_onnx
from torch import Tensor

from loopdit.errors import ConfigError
from loopdit.policy.encoders.vocabulary import PADDING, UNKNOWN, Vocabulary
from loopdit.policy.encoders.words import (
    InstructionEncoder,
    drop_words,
    make_instruction_encoder,
)

TOLD = ("stack the red cube on the blue cube", "pick up the red cube", "open the drawer")
VOCABULARY = Vocabulary.of(TOLD)


def ids(*told: str) -> Tensor:
    return torch.from_numpy(np.stack([VOCABULARY.ids(one) for one in told]))


def words_encoder() -> InstructionEncoder:
    torch.manual_seed(0)
    made = make_instruction_encoder("words", 32, VOCABULARY)
    assert isinstance(made, InstructionEncoder)
    return made


def test_an_instruction_is_the_mean_of_its_words_seen_with_their_neighbours():
    """Written out, word by word."""
    encoder = words_encoder()
    for told in TOLD:
        numbers = [int(number) for number in ids(told)[0] if number]
        vectors = [torch.zeros(32), *encoder.words.weight[numbers], torch.zeros(32)]
        kernel, bias = encoder.neighbours.weight, encoder.neighbours.bias
        assert bias is not None
        seen = [
            torch.nn.functional.silu(
                sum((kernel[..., k] @ vectors[i + k] for k in range(3)), start=bias)
            )
            for i in range(len(numbers))
        ]
        expected = encoder.project(torch.stack(seen).mean(0))
        torch.testing.assert_close(encoder(ids(told))[0, 0], expected, rtol=1e-5, atol=1e-5)


def test_the_order_of_the_words_matters():
    """The two share their words and their pairs of words: only triples tell them apart."""
    first, second = words_encoder()(ids(TOLD[0], "stack the blue cube on the red cube"))
    assert (first - second).abs().max() > 1e-3


def test_padding_changes_nothing_whatever_is_learned_for_it():
    encoder = words_encoder()
    before = encoder(ids(*TOLD))
    with torch.no_grad():
        encoder.words.weight[PADDING] = 1e3
    assert torch.equal(encoder(ids(*TOLD)), before)
    shorter = encoder(ids(TOLD[0])[:, :8])
    torch.testing.assert_close(shorter, before[:1], rtol=1e-5, atol=1e-6)


def test_no_word_at_all_is_a_token_like_any_other_with_finite_gradients():
    encoder = words_encoder()
    found = encoder(torch.zeros(2, 5, dtype=torch.int64))
    found.square().sum().backward()
    assert found.shape == (2, 1, 32)
    assert found.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.system
@pytest.mark.parametrize("kind", ["words", "task"])
def test_an_exported_encoder_says_the_same(kind: str):
    torch.manual_seed(0)
    encoder = make_instruction_encoder(kind, 32, VOCABULARY)
    given = ids(*TOLD) if kind == "words" else torch.tensor([2, 0, 1])
    expected = encoder(given)
    assert expected.shape == (3, 1, 32)
    found = through_onnx(encoder, given[:2], given)
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5, atol=1e-5)


def test_a_task_is_its_own_row():
    torch.manual_seed(0)
    tasks = make_instruction_encoder("task", 32, VOCABULARY)
    rows = tasks(torch.arange(3))[:, 0]
    assert torch.equal(rows, next(tasks.parameters()))


def test_words_are_hidden_as_often_as_asked_but_never_all_of_them():
    """n = 40,000 instructions of eight words: all eight drawn is 0.3 ** 8, 7e-5, so the share of
    hidden words is 0.3; six standard deviations of it are 0.005."""
    many = ids(TOLD[0]).repeat(40_000, 1)
    chances = torch.rand(many.shape, generator=torch.Generator().manual_seed(0))
    left = drop_words(many, chances, 0.3)
    assert torch.equal(left == PADDING, many == PADDING)
    changed = left != many
    assert (left[changed] == UNKNOWN).all()
    assert abs(changed[:, :8].float().mean() - 0.3) < 0.005
    assert (drop_words(many[:100], chances[:100], 1.0)[:, :8] != UNKNOWN).sum() == 100
    assert torch.equal(drop_words(many, chances, 0.0), many)


def test_dropping_words_trains_the_unknown_one():
    encoder = words_encoder()
    given = ids(*TOLD)
    chances = torch.rand(given.shape, generator=torch.Generator().manual_seed(0))
    encoder(drop_words(given, chances, 0.5)).square().sum().backward()
    gradient = encoder.words.weight.grad
    assert gradient is not None
    assert gradient[UNKNOWN].abs().max() > 0
    assert gradient[PADDING].abs().max() == 0


@pytest.mark.parametrize("kind", ["words", "task"])
@pytest.mark.parametrize("said", [[], [""]])
def test_what_the_data_does_not_have_cannot_be_asked_for(kind: str, said: list[str]):
    told = f"policy.instruction={kind}, but the data has no instruction"
    with pytest.raises(ConfigError, match=told):
        make_instruction_encoder(kind, 32, Vocabulary.of(said))
