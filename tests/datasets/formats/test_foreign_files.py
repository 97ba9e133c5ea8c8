"""What is true of every file that robomimic's, Diffusion Policy's and Minari's writers leave."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopdit.datasets.formats.foreign import Export, ForeignEpisode
from loopdit.datasets.formats.registry import format_named

# Of each format: a name that it takes, and the keys of its action and of a text.
PLACES = {
    "robomimic": ("any.hdf5", "actions", "ep_meta/lang"),
    "diffusion_policy": ("any.zarr", "action", "instruction"),
    "minari": ("any-v0", "actions", "infos/instruction"),
}
SHAPES = st.tuples(
    st.sampled_from(["f4", "f8", "u1", "i8", "i4", "?", "u2"]),
    st.lists(st.integers(1, 3), max_size=3),
)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))  # HDF5 ends at 0


@pytest.mark.parametrize("name", PLACES)
@settings(deadline=None, max_examples=10)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    extras=st.dictionaries(
        st.from_regex(r"((obs|observations|infos|more)/)?[a-hj-z]{1,5}", fullmatch=True).filter(
            lambda key: key not in ("obs", "more", "infos")
        ),
        SHAPES,
        max_size=4,
    ),
    text=TEXTS,
    seed=st.integers(0, 2**31),
)
def test_any_shapes_dtypes_and_texts_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    lengths: list[int],
    extras: dict[str, tuple[str, list[int]]],
    text: str,
    seed: int,
):
    target, action, place = PLACES[name]
    path = tmp_path_factory.mktemp("any") / target
    random = np.random.default_rng(seed)
    episodes = [
        ForeignEpisode(
            "",
            {
                key: random.integers(0, 2, (length, *shape)).astype(dtype)
                for key, (dtype, shape) in extras.items()
            }
            | {action: random.uniform(-1, 1, (length, 2))},
            {place: (text,)} if text else {},
            {"seed": int(seed), "note": {"text": text}},
        )
        for length in lengths
    ]
    module = format_named(name)
    module.write(path, Export(iter(episodes), len(episodes), 10.0, [], {}, {}))
    data = module.open(path)
    assert len(data) == len(lengths)
    for index, before in enumerate(episodes):
        after = data.episode(index)
        for key, values in before.steps.items():
            np.testing.assert_array_equal(after.steps[key], values, strict=True)
        assert after.texts == before.texts
        assert before.metadata.items() <= after.metadata.items()


FULL_DISK = """
import sys
from pathlib import Path
import numpy as np
from loopdit.datasets.formats.foreign import Export, ForeignEpisode
from loopdit.datasets.formats.registry import format_named
from loopdit.errors import StoreError
name, target, action = sys.argv[1:]
noise = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3)).astype(np.uint8)
steps = {action: np.zeros((20, 2)), "obs/front_image": noise, "observations/front": noise}
episodes = iter([ForeignEpisode("", steps)] * 5)
try:
    format_named(name).write(Path(target), Export(episodes, 5, 10.0, [], {}, {}))
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize("name", PLACES)
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, name: str):
    """A limit on the size of files does to a writer what a full disk does."""
    target, action, _ = PLACES[name]
    path = tmp_path / "out" / target

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, name, str(path), action],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"cannot write {path}: File too large" in done.stdout
    assert done.stderr == ""
    assert list(path.parent.iterdir()) == []
