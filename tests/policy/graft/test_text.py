from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from loopdit.errors import ConfigError
from loopdit.policy.graft.text import LEARNED, TaskText, learned_text, t5_text

WORDS, WIDTH = 10, 24
TASKS = ("lift the cube", "put carrot on plate")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pipeline with a small T5 of random weights and a tokenizer of few words."""
    folder = tmp_path_factory.mktemp("pipeline")
    said = ["<pad>", "</s>", "<unk>", *sorted({w for task in TASKS for w in task.split()})]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(said)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue] - it has a setter
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(said), d_model=WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    T5EncoderModel(config).save_pretrained(folder / "text_encoder")
    return folder


def test_a_learned_table_gives_each_task_its_tokens_and_pads_with_zeros():
    text = learned_text(3, WORDS, WIDTH)
    found = text(torch.tensor([2, 0, 2]))
    assert found.shape == (3, WORDS, WIDTH)
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])
    assert (found[:, LEARNED:] == 0).all()
    found.sum().backward()
    gradient = text.tokens.grad
    assert gradient is not None
    assert gradient.abs().sum((1, 2)).tolist() == [LEARNED * WIDTH, 0, 2 * LEARNED * WIDTH]


def test_t5_embeds_each_instruction_as_the_pipeline_does_padding_included(pipeline: Path):
    text = t5_text(pipeline, TASKS, WORDS, WIDTH)
    encoder = T5EncoderModel.from_pretrained(pipeline / "text_encoder")
    # Alphabetical after the three special tokens: carrot cube lift on plate put the.
    ids = torch.tensor([[8, 3, 6, 7, *[0] * 6]])
    with torch.no_grad():
        wanted = encoder(ids).last_hidden_state
    found = text(torch.tensor([1])).detach()
    torch.testing.assert_close(found.float(), wanted, atol=0.02, rtol=0.02)  # bfloat16
    assert found.shape == (1, WORDS, WIDTH)
    assert (found[0, -1] != 0).any()
    assert not text.tokens.requires_grad


def test_a_text_encoder_that_does_not_fit_is_refused(pipeline: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"embeds in 24 numbers, and the transformer reads 4096"):
        t5_text(pipeline, TASKS, WORDS, 4096)
    with pytest.raises(ConfigError, match="holds no T5 encoder with its tokenizer"):
        t5_text(tmp_path, TASKS, WORDS, WIDTH)
    with pytest.raises(ConfigError, match=r"embeddings of 20000 instructions take 34\.5 GiB"):
        t5_text(pipeline, ["a task"] * 20_000, 226, 4096)


def test_data_without_instructions_and_too_long_a_text_are_refused():
    with pytest.raises(ConfigError, match="no instruction"):
        learned_text(0, WORDS, WIDTH)
    with pytest.raises(ConfigError, match="12 tokens where the transformer reads 10"):
        TaskText(torch.zeros(1, 12, WIDTH), WORDS, frozen=False)
