from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from tests.policy.policies import small_spec
from torch import Tensor

from loopdit.datasets.spec import FROM_COMMITTED
from loopdit.errors import ConfigError
from loopdit.policy.training.augmentation import (
    AugmentConfig,
    augment_frames,
    augmented,
    draw_chances,
    require_possible,
)

SPEC = small_spec(cameras=2)
MEAN = torch.tensor([0.5, -1.0, 2.0])
ALL = AugmentConfig(
    shift=0.2, crop=0.3, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1, proprio_dropout=0.5
)


def frames(*leading: int, size: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (*leading, size, size, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def observations(count: int) -> dict[str, Tensor]:
    pictures = frames(2, count)
    return {
        "images.camera0": pictures[0],
        "images.camera1": pictures[1],
        "proprio": torch.randn(count, 3, generator=torch.Generator().manual_seed(1)),
    }


def chances(config: AugmentConfig, count: int, seed: int = 0) -> Tensor:
    drawn = draw_chances(config, SPEC, count, torch.Generator().manual_seed(seed))
    assert drawn is not None
    return drawn


def for_frames(**given: float) -> Tensor:
    """One window's chances (1, 7) with the named ones set and the others in the middle."""
    names = ("y", "x", "crop", "brightness", "contrast", "saturation", "hue")
    return torch.tensor([[given.get(name, 0.5) for name in names]])


def test_by_default_nothing_changes_and_no_random_number_is_drawn():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    drawn = draw_chances(AugmentConfig(), SPEC, 4, generator)
    assert drawn is None
    assert torch.equal(generator.get_state(), before)
    given = observations(4)
    found = augmented(AugmentConfig(), SPEC, given, drawn, MEAN)
    assert found.seen is None
    assert all(found.observations[name] is value for name, value in given.items())


def test_a_shifted_frame_is_a_part_of_the_frame_with_its_border_repeated():
    config = AugmentConfig(shift=0.25)
    drawn = torch.rand(8, 7, generator=torch.Generator().manual_seed(3))
    given = frames(8)
    found = augment_frames(config, given, drawn)
    assert found.dtype == torch.uint8
    offsets = ((2 * drawn[:, :2] - 1) * 0.25 * 16).round().int().tolist()
    assert len({tuple(offset) for offset in offsets}) == 8
    for before, after, (y, x) in zip(given.numpy(), found.numpy(), offsets, strict=True):
        padded = np.pad(before, ((4, 4), (4, 4), (0, 0)), mode="edge")
        np.testing.assert_array_equal(after, padded[4 + y : 20 + y, 4 + x : 20 + x])


def test_a_crop_is_enlarged_to_the_whole_frame():
    """On a ramp the result is known: the ramp of the part that was cut out."""
    ramp = torch.arange(64, dtype=torch.uint8).repeat(64, 1)[None, ..., None].expand(1, 64, 64, 3)
    drawn = for_frames(crop=0.5, x=1.0, y=0.0)  # a quarter cut off; all on the left side
    found = augment_frames(AugmentConfig(crop=0.5), ramp, drawn)[0, :, :, 0]
    expected = 16 + 0.75 * (torch.arange(64) + 0.5) - 0.5
    torch.testing.assert_close(found[:, :-1], expected.expand(64, 64)[:, :-1], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "enhance"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
@pytest.mark.parametrize("chance", [0.0, 0.8])
def test_colours_change_as_pillow_changes_them(name: str, enhance: Any, chance: float):
    strengths: dict[str, Any] = {name: 0.4}
    config = AugmentConfig(**strengths)
    given = frames(1)
    found = augment_frames(config, given, for_frames(**{name: chance}))[0].numpy()
    factor = 1 + 0.4 * (2 * chance - 1)
    expected = np.asarray(enhance(Image.fromarray(given[0].numpy())).enhance(factor))
    assert np.abs(found - expected).max() <= 1.5  # Pillow rounds the mean, the grey, the result


def test_another_hue_keeps_luma_and_greys():
    luma = torch.tensor([0.299, 0.587, 0.114])
    colours = torch.randint(100, 156, (1, 16, 16, 3), dtype=torch.uint8)
    colours[:, 0] = 77
    found = augment_frames(AugmentConfig(hue=0.5), colours, for_frames(hue=1.0))
    torch.testing.assert_close(found @ luma, colours.float() @ luma, rtol=0, atol=0.05)
    torch.testing.assert_close(found[:, 0], colours[:, 0].float(), rtol=0, atol=0.05)
    # Half a turn: each colour's difference from its grey is turned around.
    grey = (colours.float() @ luma)[..., None]
    torch.testing.assert_close(found - grey, grey - colours.float(), rtol=0, atol=0.2)


def test_all_frames_of_a_window_are_changed_alike_and_windows_differ():
    given = frames(3)[:, None].expand(3, 4, 16, 16, 3)  # the same frame at each of four steps
    found = augment_frames(ALL, given, chances(ALL, 3)[:, :7])
    torch.testing.assert_close(found, found[:, :1].expand_as(found))
    same = frames(1).expand(3, 16, 16, 3)
    apart = augment_frames(ALL, same, chances(ALL, 3)[:, :7])
    assert (apart[0] - apart[1]).abs().mean() > 1
    assert (apart[1] - apart[2]).abs().mean() > 1


def test_a_batch_may_be_split_with_its_chances():
    given, drawn = observations(6), chances(ALL, 6)
    whole = augmented(ALL, SPEC, given, drawn, MEAN).observations
    for rows in (slice(0, 2), slice(2, 6)):
        part = {name: value[rows] for name, value in given.items()}
        found = augmented(ALL, SPEC, part, drawn[rows], MEAN).observations
        for name, value in found.items():
            torch.testing.assert_close(value, whole[name][rows])


def test_each_camera_has_chances_of_its_own_and_may_be_left_out():
    given = observations(4)
    given["images.camera1"] = given["images.camera0"]
    drawn = chances(ALL, 4)
    both = augmented(ALL, SPEC, given, drawn, MEAN).observations
    assert not torch.equal(both["images.camera0"], both["images.camera1"])
    only = AugmentConfig(shift=0.2, cameras=["camera1"])
    found = augmented(only, SPEC, given, drawn, MEAN).observations
    assert found["images.camera0"] is given["images.camera0"]
    assert not torch.equal(found["images.camera1"], given["images.camera1"])


def test_the_past_is_hidden_as_often_as_asked_and_the_present_never():
    spec = SPEC.with_history(3)
    config = AugmentConfig(history_dropout=0.3)
    drawn = draw_chances(config, spec, 20_000, torch.Generator().manual_seed(0))
    seen = augmented(config, spec, {}, drawn, MEAN).seen
    assert seen is not None
    assert seen[:, 2].all()
    assert torch.equal(seen[:, 0], seen[:, 1])
    # n = 20,000: further than 0.016 off by chance once in 10^6.
    assert (~seen[:, 0]).float().mean().item() == pytest.approx(0.3, abs=0.016)


def test_hidden_proprio_is_the_mean_at_every_step():
    given = {"proprio": torch.randn(1000, 2, 3)}
    config = AugmentConfig(proprio_dropout=0.5)
    drawn = draw_chances(config, SPEC, 1000, torch.Generator().manual_seed(0))
    found = augmented(config, SPEC, given, drawn, MEAN).observations["proprio"]
    hidden = (found == MEAN).all(-1).all(-1)
    assert 400 < hidden.sum() < 600
    assert torch.equal(found[~hidden], given["proprio"][~hidden])


def test_what_cannot_be_changed_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"'wrist'\. The cameras are: camera0, camera1\."):
        require_possible(AugmentConfig(cameras=["wrist"]), SPEC, "none")
    with pytest.raises(ConfigError, match=r"no history to hide.*policy\.history=2"):
        require_possible(AugmentConfig(history_dropout=0.1), SPEC, "none")
    require_possible(AugmentConfig(history_dropout=0.1), SPEC.with_history(2), "none")
    rolled = SPEC.with_committed(2, FROM_COMMITTED)
    with pytest.raises(ConfigError, match=r"told=prefix"):
        require_possible(AugmentConfig(proprio_dropout=0.1), rolled, "none")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shift": 0.6}, r"augment.shift=0.6 must be from 0 to 0.5"),
        ({"brightness": 1.0}, r"augment.brightness=1.0 must be from 0 to below 1"),
        ({"history_dropout": -0.1}, r"augment.history_dropout=-0.1"),
    ],
)
def test_strengths_that_mean_nothing_are_refused(options: dict[str, Any], said: str):
    with pytest.raises(ConfigError, match=said):
        AugmentConfig(**options)
