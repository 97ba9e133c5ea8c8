"""Tiny backbones with random weights, saved as the hub's are; nothing here has a network."""

import json
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.policy.encoders.graphs import through_onnx
from torch import Tensor

from loopdit.errors import ConfigError
from loopdit.policy.encoders.images import make_encoder
from loopdit.policy.encoders.pretrained import PretrainedEncoder

transformers: Any = pytest.importorskip("transformers")

MEAN, SPREAD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
BACKBONES = ("dinov2", "resnet", "vit", "clip")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("something asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def fresh(kind: str) -> Any:
    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    if kind == "dinov2":
        config = transformers.Dinov2Config(**small, image_size=56, patch_size=14)
        return transformers.Dinov2Model(config)
    if kind == "resnet":
        config = transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
        )
        return transformers.ResNetModel(config)
    vision = {**small, "intermediate_size": 64, "image_size": 32, "patch_size": 16}
    if kind == "vit":
        return transformers.ViTModel(transformers.ViTConfig(**vision))
    text = {**small, "intermediate_size": 64, "vocab_size": 50}
    return transformers.CLIPModel(
        transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=16)
    )


def saved(kind: str, folder: Path) -> Path:
    fresh(kind).save_pretrained(folder)
    described = {"do_normalize": True, "image_mean": MEAN, "image_std": SPREAD}
    (folder / "preprocessor_config.json").write_text(json.dumps(described))
    return folder


def frames(count: int, size: int = 64) -> Tensor:
    return 2 * torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) - 1


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_backbone_makes_a_handful_of_tokens_of_a_frame(kind: str, tmp_path: Path):
    torch.manual_seed(1)
    encoder = make_encoder(f"pretrained:{saved(kind, tmp_path)}", 48, 64)
    assert encoder.tokens == 4
    found = encoder(frames(3))
    assert found.shape == (3, 4, 48)
    assert found.isfinite().all()


def test_the_backbone_gets_frames_as_it_was_trained_with_them(tmp_path: Path):
    """Written out from [0, 255], with its own mean and spread, by its own classes."""
    torch.manual_seed(1)
    encoder = PretrainedEncoder(str(saved("resnet", tmp_path)), 48, 64)
    raw = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(2))
    normal = (raw / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(SPREAD)[:, None, None]
    reference = transformers.ResNetModel.from_pretrained(tmp_path, local_files_only=True).eval()
    features = reference(normal).last_hidden_state  # (2, 16, 8, 8)
    cells = features.unflatten(3, (2, 4)).unflatten(2, (2, 4)).mean((3, 5)).flatten(2).mT
    expected = encoder.project(encoder.norm(cells)) + encoder.position
    torch.testing.assert_close(encoder(raw / 127.5 - 1), expected, rtol=1e-4, atol=1e-4)


def test_tokens_of_a_transformer_leave_out_the_class_token_and_keep_their_places(tmp_path: Path):
    torch.manual_seed(1)
    encoder = PretrainedEncoder(str(saved("dinov2", tmp_path)), 48, 56, grid=4)
    given = frames(2, 56)
    mean, spread = (torch.tensor(v)[:, None, None] for v in (MEAN, SPREAD))
    hidden = encoder.backbone(((given + 1) / 2 - mean) / spread).last_hidden_state  # (2, 17, 32)
    expected = encoder.project(encoder.norm(hidden[:, 1:])) + encoder.position
    torch.testing.assert_close(encoder(given), expected, rtol=1e-4, atol=1e-4)


def test_frames_are_enlarged_to_whole_patches(tmp_path: Path):
    encoder = PretrainedEncoder(str(saved("dinov2", tmp_path)), 48, 64)
    assert encoder.side == 70
    flat = torch.full((1, 3, 64, 64), 0.3)
    # A frame of one colour has the same colour at any size.
    torch.testing.assert_close(encoder(flat), encoder(torch.full((1, 3, 70, 70), 0.3)))


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_a_backbone_stays_in_evaluation_mode_and_only_thaws_when_asked(kind: str, tmp_path: Path):
    """Running statistics are no weights: an average over training would miss them."""
    folder = saved(kind, tmp_path)
    for frozen in (True, False):
        encoder = make_encoder(f"pretrained:{folder}", 48, 64, frozen=frozen).train()
        before = {name: value.clone() for name, value in encoder.named_buffers()}
        encoder(frames(2)).square().sum().backward()
        assert all(torch.equal(value, before[name]) for name, value in encoder.named_buffers())
        learning = {name for name, p in encoder.named_parameters() if p.grad is not None}
        assert {"project.weight", "norm.weight", "position"} <= learning
        assert any(name.startswith("backbone.") for name in learning) is not frozen


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_robot_makes_it_from_the_checkpoint_without_the_backbones_files(
    kind: str, tmp_path: Path
):
    torch.manual_seed(1)
    trained = PretrainedEncoder(str(saved(kind, tmp_path)), 48, 64)
    plain = json.loads(json.dumps(trained.configuration))
    again = PretrainedEncoder("not/here", 48, 64, configuration=plain)
    again.load_state_dict(trained.state_dict())
    assert torch.equal(again(frames(2)), trained(frames(2)))


@pytest.mark.system
@pytest.mark.parametrize("kind", BACKBONES)
def test_an_exported_backbone_makes_the_same_tokens(kind: str, tmp_path: Path):
    torch.manual_seed(1)
    encoder = PretrainedEncoder(str(saved(kind, tmp_path)), 48, 64)
    found = through_onnx(encoder, frames(2), frames(3))
    expected = encoder(frames(3)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_a_backbone_that_is_not_here_is_named_with_where_it_was_looked_for():
    with pytest.raises(ConfigError) as caught:
        make_encoder("pretrained:facebook/dinov2-nowhere", 48, 64)
    told = str(caught.value)
    assert "pretrained:facebook/dinov2-nowhere" in told
    from huggingface_hub.constants import HF_HUB_CACHE

    assert str(HF_HUB_CACHE) in told
    assert "hf download facebook/dinov2-nowhere" in told


@pytest.mark.parametrize("lacking", ["preprocessor_config.json", "config.json"])
def test_a_folder_that_lacks_a_file_is_refused(lacking: str, tmp_path: Path):
    folder = saved("resnet", tmp_path)
    (folder / lacking).unlink()
    with pytest.raises(ConfigError, match=f"no folder {folder} and nothing of that name in"):
        make_encoder(f"pretrained:{folder}", 48, 64)


def test_weights_that_do_not_fill_the_backbone_are_refused(tmp_path: Path):
    """transformers would draw them at random, in silence."""
    folder = saved("resnet", tmp_path)
    model = fresh("resnet")
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("encoder.stages.1")}
    model.save_pretrained(folder, state_dict=state)
    with pytest.raises(ConfigError, match=r"lack \d+ weights of ResNetModel, as encoder.stages.1"):
        make_encoder(f"pretrained:{folder}", 48, 64)


def test_without_transformers_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"needs transformers, .* pip install transformers"):
        make_encoder("pretrained:facebook/dinov2-small", 48, 64)
