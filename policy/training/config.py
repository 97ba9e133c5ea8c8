"""The options of `policy-train`."""

from dataclasses import dataclass

from loopdit.command import option, require_choice, require_effect
from loopdit.datasets.action_filters import ActionsConfig
from loopdit.datasets.episode_filter import EpisodeFilter
from loopdit.errors import ConfigError
from loopdit.policy.looped_dit_config import DENSE, ONE_WAY, LoopedDiTConfig
from loopdit.policy.objectives.depth import DepthConfig
from loopdit.policy.training.augmentation import AugmentConfig
from loopdit.policy.training.closed_loop import EvaluateConfig
from loopdit.policy.training.logs import LogConfig
from loopdit.policy.training.normalization import NormalizeConfig
from loopdit.policy.training.run_config import RunConfig


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """One training run of a looped policy."""

    short_episodes: str = option(
        "pad", "episodes shorter than a chunk: pad (their last action is repeated), drop or refuse"
    )
    proprio_noise: float = option(0.02, "noise on normalised proprio while training")
    compile: bool = option(False, "torch.compile the losses: minutes at the start, then faster")
    init: str = option(
        "", "checkpoint or bundle to begin from (fine-tuning); what fits is reused, and listed"
    )
    init_statistics: bool = option(
        False, "normalise as init= does, not by the statistics of the data"
    )
    policy: LoopedDiTConfig = option(LoopedDiTConfig(), "")
    depth: DepthConfig = option(DepthConfig(), "")
    filter: EpisodeFilter = option(EpisodeFilter(), "")
    actions: ActionsConfig = option(ActionsConfig(), "")
    normalize: NormalizeConfig = option(NormalizeConfig(), "")
    augment: AugmentConfig = option(AugmentConfig(), "")
    evaluate: EvaluateConfig = option(EvaluateConfig(), "")
    log: LogConfig = option(LogConfig(), "")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.evaluate.require_alone(self.patience)
        self.require_amount("proprio_noise")
        require_choice("short_episodes", self.short_episodes, ("pad", "drop", "refuse"))
        self.policy.require_effect()
        self.depth.require_trains(self.policy.depths, self.steps)
        self._require_contraction()
        if self.init_statistics and not self.init:
            raise ConfigError("init_statistics=true needs init=FOLDER, whose statistics to keep.")

    def _require_contraction(self) -> None:
        """Raise ConfigError where depth.contract has no loops that can contract."""
        if not (self.policy.injection and self.policy.max_loops > 1):
            needs = "policy.injection=true and policy.max_loops of 2 or more"
            require_effect(self.depth, ("contract",), needs, "depth.")
        if self.depth.contract and self.policy.topology == DENSE:
            raise ConfigError(
                f"depth.contract={self.depth.contract} is of the loops of the observation, which "
                f"policy.topology={DENSE} mixes with the noise. Use {ONE_WAY}, or leave it out."
            )
        if self.depth.contract and self.compile:
            raise ConfigError(
                f"depth.contract={self.depth.contract} differentiates a gradient, which "
                f"compile=true cannot. Leave one of them out."
            )
