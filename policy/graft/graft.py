"""Every block of a CogVideoX transformer, looped in place; and the way back.

    grafted = graft(transformer, GraftConfig(loops=3, freeze="half"))
    told = grafted(latents, text, timesteps, loops=2)     # told.sample, told.hidden
    transformer = grafted.unloop()                        # as it was, to the bit

Shapes: B batch, T latent frames, C channels, H and W of a latent frame, N = T H W / 4 video tokens,
S text tokens, D width. Knows nothing of actions, of cameras or of noise: `latents` are whatever the
transformer is to see. What may be trained is decided here, by `GraftConfig.freeze`.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from diffusers.models.attention_processor import CogVideoXAttnProcessor2_0
from diffusers.models.transformers.cogvideox_transformer_3d import (
    CogVideoXBlock,
    CogVideoXTransformer3DModel,
)
from torch import Tensor, nn

from loopdit.errors import ConfigError
from loopdit.policy.graft.attention import LoopedAttention
from loopdit.policy.graft.config import ALL, BACKBONE, FROZEN, HALF, TOKEN, UNFROZEN, GraftConfig
from loopdit.policy.graft.looped_block import (
    LOOPING,
    NO_CHECKPOINT,
    LoopedCogVideoXBlock,
    Looping,
)
from loopdit.policy.graft.robots import robot_of_tokens, token_mask

_INSIDE = ".block."  # in the name of what was a block's own before it was looped

# What each level trains of the backbone, beside the loops: each has what those before it have.
_TRAINED = {
    FROZEN: ("norm_final",),
    HALF: ("norm_final", "time_embedding", "norm_out", "proj_out"),
    UNFROZEN: ("norm_final", "time_embedding", "norm_out", "proj_out", "patch_embed"),
}


class GraftOutput(NamedTuple):
    """What a grafted transformer says.

    `sample` (B, T, C, H, W), as diffusers' model: a velocity, of CogVideoX. `hidden` (B, N, D): the
    video tokens after `norm_final`, from which actions are read. `loops_used` (B, N): of each
    token, the mean over blocks. `ponder`: what to add to the loss, 0 without halting.
    """

    sample: Tensor
    hidden: Tensor
    loops_used: Tensor
    ponder: Tensor


class Graft(nn.Module):
    """A transformer that is looped as `config` says; made by `graft`."""

    def __init__(self, transformer: CogVideoXTransformer3DModel, config: GraftConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = transformer
        self._trained_before = {
            name: value.requires_grad for name, value in transformer.named_parameters()
        }
        self._originals = {
            name: value.detach().to("cpu" if value.device.type != "meta" else "meta", copy=True)
            for name, value in transformer.named_parameters()
            if _is_trained(name, config.freeze)
        }
        for name, value in transformer.named_parameters():
            value.requires_grad_(name in self._originals)
        self._processors: dict[str, Any] = {}
        self._masks: dict[Any, Tensor] = {}
        if config.looped == BACKBONE:
            self._loop_blocks()
        self._trained = {n for n, p in transformer.named_parameters() if p.requires_grad}

    @property
    def depths(self) -> range:
        """Every K that can be asked for."""
        return self.config.depths

    def forward(
        self,
        latents: Tensor,
        text: Tensor,
        timesteps: Tensor,
        loops: int | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        checkpointing: str = NO_CHECKPOINT,
    ) -> GraftOutput:
        """latents (B, T, C, H, W), text (B, S, E), timesteps (B,) -> what the transformer says.

        `loops`: K of each block, all where it is None. `checkpointing`: see `Looping`. Raises
        ConfigError for a K that there is not.
        """
        most = self.config.backbone_loops
        loops = most if loops is None else loops
        if not 1 <= loops <= most:
            raise ConfigError(
                f"loops={loops} is out of range: this graft was made for 1 to {most} loops."
            )
        if self.config.halting == TOKEN and checkpointing != NO_CHECKPOINT:
            raise ConfigError(
                f"checkpoint={checkpointing} does not go with halting={TOKEN}, whose keys and "
                f"values outlive their loop. Use checkpoint={NO_CHECKPOINT}."
            )
        positions, mask = self._positions(latents, text), self._mask(latents, text)
        looping = Looping(loops, positions, mask, checkpointing)
        more: dict[str, Any] = {}
        if self.config.looped == BACKBONE:
            more["attention_kwargs"] = {LOOPING: looping}
        if rotary is not None:
            more["image_rotary_emb"] = rotary
        with _output_of(self.transformer.norm_final) as said:
            (sample,) = self.transformer(latents, text, timesteps, return_dict=False, **more)
        hidden = said[0]
        used = hidden.new_full(hidden.shape[:2], loops)
        if looping.used:
            used = torch.stack(looping.used).mean(0)
        return GraftOutput(sample, hidden, used, self.config.ponder * used.mean())

    def trained(self) -> dict[str, nn.Parameter]:
        """What training may change, by its name in the transformer: a delta holds these."""
        return {n: p for n, p in self.transformer.named_parameters() if n in self._trained}

    @property
    def blocks(self) -> list[LoopedCogVideoXBlock]:
        """The looped blocks, none where another part is looped."""
        blocks = self.transformer.transformer_blocks
        return [b for b in blocks if isinstance(b, LoopedCogVideoXBlock)]

    def loop_parameters(self) -> list[nn.Parameter]:
        """Those that the graft added to the transformer."""
        return [value for block in self.blocks for value in block.own_parameters()]

    def base(self) -> dict[str, Tensor]:
        """Every parameter of the transformer as it was given, by its name there: what `unloop`
        gives back. On the CPU where it has been trained since."""
        added = {id(value) for value in self.loop_parameters()}
        found = {
            name.replace(_INSIDE, ".", 1): value.detach()
            for name, value in self.transformer.named_parameters()
            if id(value) not in added
        }
        return {name: self._originals.get(name, value) for name, value in found.items()}

    def unloop(self) -> CogVideoXTransformer3DModel:
        """The transformer that was given, with its own blocks and every parameter as it was.

        What was trained is gone from it: save the delta first. The graft is of no use afterwards.
        """
        blocks = self.transformer.transformer_blocks
        for i, block in enumerate(blocks):
            if _is_looped(block):
                blocks[i] = cast(LoopedCogVideoXBlock, block).block
        if self._processors:
            self.transformer.set_attn_processor(self._processors)
        with torch.no_grad():
            for name, value in self.transformer.named_parameters():
                if name in self._originals:
                    value.copy_(self._originals[name])
                value.requires_grad_(self._trained_before[name])
        return self.transformer

    def _loop_blocks(self) -> None:
        transformer, config = self.transformer, self.config
        changes_attention = config.sharpest > 1 or config.geometric or config.halting == TOKEN
        if changes_attention or config.keeps_robots_apart:
            processors = dict(transformer.attn_processors)
            _require_known(processors)
            self._processors = processors
            transformer.set_attn_processor(cast(Any, LoopedAttention()))
        blocks = transformer.transformer_blocks
        for i, block in enumerate(blocks):
            blocks[i] = _wrapped(cast(CogVideoXBlock, block), config)

    def _mask(self, latents: Tensor, text: Tensor) -> Tensor | None:
        """Which tokens may see which (S + N, S + N), of several robots that are kept apart: made
        once for each size, since a CUDA graph cannot fetch it from the host."""
        config = self.config
        if not config.keeps_robots_apart:
            return None
        sizes = (tuple(latents.shape[1:]), text.shape[1], latents.device)
        if sizes not in self._masks:
            with torch.inference_mode(False):  # or training could not use it later
                video = self.robot_of_tokens(sizes[0]).to(latents.device)
                self._masks[sizes] = token_mask(config.topology, config.robots, sizes[1], video)
        return self._masks[sizes]

    def robot_of_tokens(self, latents: tuple[int, ...]) -> Tensor:
        """Whose each video token is (N,), of latents (T, C, H, W)."""
        size: int = self.transformer.config["patch_size"]
        frames, _, height, width = latents
        return robot_of_tokens(frames, height // size, width // size, self.config.robots)

    def _positions(self, latents: Tensor, text: Tensor) -> Tensor | None:
        """Of the text's tokens, 0, and of the video's in [-1, 1]: (S + N, 3) of a geometric
        graft."""
        if not self.config.geometric:
            return None
        frames, height, width = latents.shape[1], *latents.shape[-2:]
        size: int = self.transformer.config["patch_size"]
        axes = [
            torch.linspace(-1, 1, n, device=latents.device, dtype=torch.float32)
            if n > 1
            else torch.zeros(1, device=latents.device)
            for n in (frames, height // size, width // size)
        ]
        video = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 2)
        return torch.cat([video.new_zeros(text.shape[1], video.shape[1]), video])


def graft(transformer: CogVideoXTransformer3DModel, config: GraftConfig) -> Graft:
    """Loop the blocks of `transformer`, which is changed in place, and freeze the rest of it.

    Raises ConfigError for a transformer that is grafted already, and for what its kind excludes.
    """
    if any(_is_looped(block) for block in transformer.transformer_blocks):
        raise ConfigError("this transformer is grafted already. unloop() it first.")
    if config.halting == TOKEN and transformer.config["use_rotary_positional_embeddings"]:
        raise ConfigError(
            f"halting={TOKEN} needs positions that are added to the tokens, as CogVideoX-2B has "
            f"them; this model rotates queries and keys. Use halting=none."
        )
    return Graft(transformer, config)


def _wrapped(block: CogVideoXBlock, config: GraftConfig) -> LoopedCogVideoXBlock:
    """On the block's device. The loops' parameters are float32, whatever the block is stored in."""
    with torch.device(block.norm1.linear.weight.device):
        return LoopedCogVideoXBlock(block, config).train(block.training)


def _is_looped(block: nn.Module) -> bool:
    return isinstance(block, LoopedCogVideoXBlock)


def _is_trained(name: str, freeze: str) -> bool:
    return freeze == ALL or name.split(".")[0] in _TRAINED[freeze]


def _require_known(processors: dict[str, Any]) -> None:
    for name, processor in processors.items():
        if not isinstance(processor, CogVideoXAttnProcessor2_0):
            raise ConfigError(
                f"sharpening, positions and halting take the place of CogVideoX's own attention, "
                f"and {name} is {type(processor).__name__}. Unfuse it, or leave those options out."
            )


@contextmanager
def _output_of(module: nn.Module) -> Generator[list[Tensor]]:
    """The outputs of `module` while the block runs: diffusers returns the last layer's alone."""
    said: list[Tensor] = []

    def note(_module: nn.Module, _given: Any, output: Tensor) -> None:
        said.append(output)

    handle = module.register_forward_hook(note)
    try:
        yield said
    finally:
        handle.remove()
