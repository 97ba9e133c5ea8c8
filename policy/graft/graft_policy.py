"""A grafted video model as a robot policy: raw observations in, raw action chunks out, at any K.

A clip of frames up to the present becomes latents, noise of a chosen level is added, and the
transformer runs once over it, each block K times; a decoder reads the action chunk from what it
says. Nothing of the video is denoised while a robot waits.

Shapes: B batch, F frames of a clip, T latent frames of C x h x w, H action horizon, A action dim.
The spec is the data's with a history of F; of its cameras one is looked at.
"""

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from loopdit.datasets.spec import PolicySpec, TensorSpec
from loopdit.datasets.video.clips import ONE_FRAME, fitted
from loopdit.errors import ConfigError
from loopdit.policy.encoders.vocabulary import INSTRUCTION
from loopdit.policy.graft.backbone import Backbone, keep_positions, load_backbone
from loopdit.policy.graft.decoders.decoder import DEFAULT_STEPS, make_decoder
from loopdit.policy.graft.decoders.head import Head
from loopdit.policy.graft.features import Features
from loopdit.policy.graft.graft import graft
from loopdit.policy.graft.latents import LatentEncoder, latent_shape
from loopdit.policy.graft.policy_config import T5, GraftPolicyConfig
from loopdit.policy.graft.text import learned_text, t5_text
from loopdit.policy.normalizer import Normalizer
from loopdit.policy.objectives.gripper import gripper_ends, gripper_mask
from loopdit.policy.objectives.objective import BCE, DIFFUSIONS, Objective

_NOISE_SEED = 0


class GraftContext(NamedTuple):
    """What denoising needs of an observation: what the decoder has read, and how often its own
    blocks are applied."""

    memory: tuple[Tensor, ...]
    loops: int


class GraftPolicy(nn.Module):
    """A normaliser, a grafted video model and a decoder, for one spec.

    `spec` is of the data, or of the policy itself. `backbone` is what `config` names, loaded where
    it is None.
    """

    served_noise: Tensor

    def __init__(
        self, spec: PolicySpec, config: GraftPolicyConfig, backbone: Backbone | None = None
    ) -> None:
        super().__init__()
        if not config.instructions:
            raise ConfigError("a graft policy needs the instructions of its data; there are none.")
        recorded = spec.recorded
        self.spec = recorded.with_history(config.video.frames)
        self.config = config
        self.camera = config.video.chosen_camera(recorded).name
        transformer, vae, self.scheduler = backbone or load_backbone(config.model)
        self.normalizer = Normalizer(self.spec)
        self.encoder = LatentEncoder(vae)
        self.latent_shape = latent_shape(vae, config.video)
        sizes = transformer.config
        words, width = int(sizes["max_text_seq_length"]), int(sizes["text_embed_dim"])
        tasks = config.vocabulary.instructions
        self.text = (
            t5_text(config.model, tasks, words, width)
            if config.text == T5
            else learned_text(len(tasks), words, width)
        )
        hidden = int(sizes["num_attention_heads"]) * int(sizes["attention_head_dim"])
        frames, _, height, width = self.latent_shape
        keep_positions(transformer, frames, height, width)
        self.graft = graft(transformer, config.graft)
        apart = config.graft.keeps_robots_apart
        self.decoder = make_decoder(
            config.decoder,
            hidden,
            int(sizes["out_channels"]),
            config.action_horizon,
            self.spec.action.shape[-1],
            self._gripper_mask(),
            config.graft.expert_loops,
            self.graft.robot_of_tokens(self.latent_shape) if apart else None,
        )
        # Always the same, so that the same frames have the same features.
        generator = torch.Generator().manual_seed(_NOISE_SEED)
        noise = torch.randn(self.latent_shape, generator=generator)
        self.register_buffer("served_noise", noise, persistent=False)
        self.register_buffer("_gripper_ends", gripper_ends(self.spec), persistent=False)

    @property
    def objective(self) -> Objective:
        """What the decoder is trained to say, and how chunks are sampled."""
        return self.decoder.objective(self.ends)

    @property
    def ends(self) -> Tensor:
        """A gripper's closed and open (2, A), in normalised units."""
        return self.normalizer.chunk(self.get_buffer("_gripper_ends"))

    @property
    def temperature(self) -> float:
        """Spread of the starting noise where nobody chooses."""
        return 1.0 if self.config.decoder.learned.kind in DIFFUSIONS else 0.0

    @property
    def horizon(self) -> int:
        """Actions in a chunk, H."""
        return self.config.action_horizon

    @property
    def max_loops(self) -> int:
        """The deepest K."""
        return self.config.depths[-1]

    @property
    def depths(self) -> range:
        """Every K that can be asked for."""
        return self.config.depths

    @property
    def encode_inputs(self) -> tuple[TensorSpec, ...]:
        """What `encode` reads of an observation, without the batch axis."""
        frames = next(t for t in self.spec.observations if t.name == self.camera)
        return frames, TensorSpec(INSTRUCTION, (), "int64")

    def trained(self) -> dict[str, nn.Parameter]:
        """What training may change, by name."""
        found = {f"graft/{name}": value for name, value in self.graft.trained().items()}
        found |= {f"decoder/{name}": value for name, value in self.decoder.named_parameters()}
        if self.config.text != T5:
            found["text/tokens"] = self.text.tokens
        return found

    def latents(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Raw batched frames (B, F, H, W, 3) of the camera, (B, H, W, 3) of a clip of one frame ->
        (B, T, C, h, w)."""
        frames = observation[self.camera]
        if self.config.video.frames == ONE_FRAME:
            frames = frames[:, None]
        video = self.config.video
        if tuple(frames.shape[2:4]) != (video.height, video.width):
            pictures = [
                torch.from_numpy(fitted(clip.numpy(), video.height, video.width, video.fit))
                for clip in frames.cpu()
            ]
            frames = torch.stack(pictures).to(frames.device)
        return self.encoder(frames)

    def noised(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """Latents (B, T, C, h, w) with noise of the same shape, at levels (B,) int64."""
        return self.scheduler.add_noise(latents, noise, levels)  # pyright: ignore[reportArgumentType] - its annotation says IntTensor

    def features(self, latents: Tensor, task: Tensor, loops: int) -> Features:
        """Latents (B, T, C, h, w) and numbers of tasks (B,) -> what the transformer makes of them
        at the noise level that is served, for K = `loops`."""
        levels = torch.full((len(latents),), self.config.noise_level, device=latents.device)
        noisy = self.noised(latents, self.served_noise.expand_as(latents), levels)
        said = self.graft(noisy, self.text(task), levels, self._of_backbone(loops))
        return Features(said.hidden, said.sample)

    def encode(self, observation: Mapping[str, Tensor], loops: int) -> GraftContext:
        """Raw batched observation -> what denoising needs of it, for K = `loops`."""
        features = self.features(self.latents(observation), observation[INSTRUCTION], loops)
        return self.read(features, loops)

    def read(self, features: Features, loops: int) -> GraftContext:
        """What denoising needs of features."""
        memory = cast(Head, self.decoder.head).read(features)
        return GraftContext(memory, loops if self.decoder.loops > 1 else 1)

    def sample(self, context: GraftContext, noise: Tensor, steps: int) -> Tensor:
        """Noise (B, H, A) -> a chunk in normalised units."""
        return self.decoder.sample_from(context.memory, noise, steps, context.loops, self.ends)

    def to_actions(self, sample: Tensor) -> Tensor:
        """A chunk in normalised units -> raw actions (B, H, A) within the spec's limits."""
        return self.normalizer.raw_chunk(sample)

    @torch.inference_mode()
    def act(
        self,
        observation: Mapping[str, Tensor],
        noise: Tensor,
        loops: int,
        steps: int = DEFAULT_STEPS,
        fresh: Tensor | None = None,
    ) -> Tensor:
        """Raw batched observation and noise (B, H, A) -> raw actions (B, H, A). No sampler of a
        decoder draws `fresh` noise."""
        del fresh
        return self.to_actions(self.sample(self.encode(observation, loops), noise, steps))

    def _of_backbone(self, loops: int) -> int:
        if loops not in self.depths:
            most = self.depths[-1]
            raise ConfigError(f"loops={loops} is out of range: this policy has 1 to {most} loops.")
        return min(loops, self.config.graft.backbone_loops)

    def _gripper_mask(self) -> Tensor | None:
        learned = self.config.decoder.learned
        if learned.gripper != BCE:
            return None
        words = learned.gripper_labels
        if not any(word in label for word in words for label in self.spec.action.labels):
            labels = ", ".join(self.spec.action.labels) or "without labels"
            raise ConfigError(
                f"decoder.gripper={BCE}, and no action is called by {' or '.join(words)}. The "
                f"actions are: {labels}. Use decoder.gripper=regress."
            )
        return gripper_mask(self.spec, words)
