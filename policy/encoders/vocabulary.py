"""The words that a policy was trained to be told, and their numbers.

Shapes: W = `length`, the words that an instruction may have. Number 0 is padding, 1 a word that was
not in the data, and those of the vocabulary follow in alphabetical order. Words are runs of letters
and digits in lower case: case and punctuation say nothing.

Numpy only: whoever serves a policy numbers the instruction, with no need of torch.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from loopdit.errors import ObservationError

# The key of those numbers beside an observation's own.
INSTRUCTION = "instruction"
# Ways to be told a task by numbers (see `told`), and none.
NO_INSTRUCTION, WORDS, TASK = "none", "words", "task"

PADDING, UNKNOWN = 0, 1
_FIRST = 2  # number of the first word
# Three times what the built-in tasks use; a longer one in the data makes room for itself.
_LENGTH = 24


def words_of(instruction: str) -> list[str]:
    """Its words in order: "Lift the CUBE!" -> ["lift", "the", "cube"]."""
    return re.findall(r"[^\W_]+", instruction.lower())


@dataclass(frozen=True)
class Vocabulary:
    """Known words, and the instructions they come from; make one with `of`.

    `instructions` are what the policy was trained with, the numbers of its tasks being their places
    here. `length` is W.
    """

    words: tuple[str, ...]
    instructions: tuple[str, ...] = ()
    length: int = _LENGTH

    def __post_init__(self) -> None:
        if list(self.words) != sorted(set(self.words)):
            raise ValueError("words must be sorted, each once.")
        for word in self.words:
            if words_of(word) != [word]:
                raise ValueError(f"{word!r} is not one word in lower case.")
        if self.length < 1:
            raise ValueError(f"length is {self.length}; it must be at least 1.")

    @classmethod
    def of(cls, instructions: Iterable[str]) -> "Vocabulary":
        """The vocabulary of a data set's instructions, in any order and however often."""
        known = sorted(set(instructions))
        told = [words_of(instruction) for instruction in known]
        return cls(
            words=tuple(sorted({word for words in told for word in words})),
            instructions=tuple(known),
            length=max([_LENGTH, *map(len, told)]),
        )

    @property
    def size(self) -> int:
        """How many numbers there are, with padding and unknown."""
        return _FIRST + len(self.words)

    def ids(self, instruction: str) -> np.ndarray:
        """The numbers of its words, (W,) int64, padded with 0.

        Raises ObservationError where fewer than half of its words are known ("the" alone names no
        task), or there are more than W. An empty instruction is allowed where the data had one.
        """
        words = words_of(instruction)
        numbers = {word: _FIRST + place for place, word in enumerate(self.words)}
        known_silence = not words and any(not words_of(known) for known in self.instructions)
        known = sum(word in numbers for word in words)
        if not known_silence and not (known and 2 * known >= len(words)):
            raise ObservationError(
                f"instruction {instruction!r:.60} has {known or 'no'} word{'s' * (known > 1)} that "
                f"the policy knows{f' of {len(words)}' if known else ''}. "
                f"{self._closest(instruction)}"
            )
        if len(words) > self.length:
            raise ObservationError(
                f"instruction {instruction!r:.60} has {len(words)} words; the policy reads at most "
                f"{self.length}. {self._closest(instruction)}"
            )
        ids = np.full(self.length, PADDING, np.int64)
        ids[: len(words)] = [numbers.get(word, UNKNOWN) for word in words]
        return ids

    def task(self, instruction: str) -> np.ndarray:
        """The number of the task that has these words in this order, () int64.

        Raises ObservationError where there is none.
        """
        words = words_of(instruction)
        for number, known in enumerate(self.instructions):
            if words_of(known) == words:
                return np.array(number, np.int64)
        raise ObservationError(
            f"instruction {instruction!r} is none of the policy's {len(self.instructions)} tasks. "
            f"{self._closest(instruction)}"
        )

    def told(self, kind: str, instruction: str) -> np.ndarray:
        """What a policy that is told its task by "words" or by "task" is given. Raises like `ids`
        and `task`."""
        return self.task(instruction) if kind == TASK else self.ids(instruction)

    def told_shape(self, kind: str) -> tuple[int, ...]:
        """The shape of that."""
        return () if kind == TASK else (self.length,)

    def _closest(self, instruction: str) -> str:
        """The known instructions most like it, in a sentence."""
        by_letters = {known.lower(): known for known in self.instructions if known}
        found = difflib.get_close_matches(instruction.lower(), by_letters, n=3, cutoff=0.0)
        if not found:
            return "It was trained without instructions."
        return f"The closest it was trained with: {'; '.join(repr(by_letters[f]) for f in found)}."


@cache
def vocabulary_of(instructions: tuple[str, ...]) -> Vocabulary:
    """`Vocabulary.of`, made once: it is asked for with every observation."""
    return Vocabulary.of(instructions)
