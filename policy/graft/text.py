"""What a video transformer reads as its prompt: the task, as text tokens of the width it expects.

Shapes: B batch, M tasks, W words that the transformer reads at most, E width of a text embedding.

CogVideoX was trained with embeddings of T5. Where that encoder is in a local folder, each
instruction of the data is embedded by it once, as diffusers' pipeline does (padded to W tokens, the
padding embedded too), and the table is frozen: a robot needs the table and no T5. Where it is not,
the table is learned: `LEARNED` tokens for each instruction, the rest of the W zero. A task is known
by its instruction; another wording is another task, or none (`Vocabulary.task`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loopdit.errors import ConfigError

LEARNED = 4
# What a frozen table may take: 1,100 instructions of 226 tokens of 4,096 numbers.
_MOST_BYTES = 4 << 30


class TaskText(nn.Module):
    """The embeddings of the tasks: `tokens` (M, up to W, E), learned or `frozen`."""

    def __init__(self, tokens: Tensor, words: int, frozen: bool) -> None:
        super().__init__()
        if tokens.shape[1] > words:
            raise ConfigError(
                f"the text has {tokens.shape[1]} tokens where the transformer reads {words}."
            )
        self.words = words
        self.tokens = nn.Parameter(tokens, requires_grad=not frozen)

    def forward(self, task: Tensor) -> Tensor:
        """Numbers of tasks (B,) int64 -> (B, W, E)."""
        found = self.tokens[task]
        return nn.functional.pad(found, (0, 0, 0, self.words - found.shape[1]))


def learned_text(tasks: int, words: int, width: int) -> TaskText:
    """A table to be learned, at the small scale that embeddings of T5 have."""
    if tasks < 1:
        raise ConfigError("the data has no instruction. Record the episodes with one.")
    return TaskText(0.02 * torch.randn(tasks, min(LEARNED, words), width), words, frozen=False)


def t5_text(folder: str | Path, instructions: Sequence[str], words: int, width: int) -> TaskText:
    """The frozen table of T5's embeddings of these instructions.

    `folder` is that of a CogVideoX pipeline (text_encoder/, tokenizer/) or has both in itself.
    Raises ConfigError where there is none, where its width is another one than the transformer's,
    or where the table would not fit 4 GiB.
    """
    size = 2 * len(instructions) * words * width
    if size > _MOST_BYTES:
        raise ConfigError(
            f"the embeddings of {len(instructions)} instructions take {size / 2**30:.1f} GiB, more "
            f"than {_MOST_BYTES / 2**30:.0f}. Learn them (text=learned), or train on fewer tasks "
            f"(filter.contains=...)."
        )
    tokenizer, encoder = _load_t5(Path(folder))
    if encoder.config.d_model != width:
        raise ConfigError(
            f"the text encoder of {folder} embeds in {encoder.config.d_model} numbers, and the "
            f"transformer reads {width}. Name the text encoder that it was trained with."
        )
    rows: list[Tensor] = []
    with torch.no_grad():
        for instruction in instructions:
            read = tokenizer(
                instruction,
                padding="max_length",
                max_length=words,
                truncation=True,
                return_tensors="pt",
            )
            # Without the mask, as the pipeline: the transformer was trained on padding embedded so.
            rows.append(encoder(read.input_ids).last_hidden_state[0].to(torch.bfloat16))
    return TaskText(torch.stack(rows), words, frozen=True)


def _load_t5(folder: Path) -> tuple[Any, Any]:
    try:
        from transformers import AutoTokenizer, T5EncoderModel
    except ImportError as error:
        raise ConfigError(
            "text=t5 needs the package transformers. Install it: pip install 'loopdit[pretrained]'"
        ) from error
    encoder_at = folder / "text_encoder" if (folder / "text_encoder").is_dir() else folder
    tokenizer_at = folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer_at, local_files_only=True)
        encoder: Any = T5EncoderModel.from_pretrained(
            encoder_at, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{folder} holds no T5 encoder with its tokenizer ({reason:.200}). Name the folder of "
            f"a whole CogVideoX pipeline, or learn the tasks' embeddings: text=learned."
        ) from error
    return tokenizer, encoder.eval()
