"""Playing to gather data."""

from collections.abc import Callable, Sequence

from pydantic import Field, model_validator

from worldmodels.rollout.policies import Policy, RandomPolicyConfig
from worldmodels.rollout.recorders import EpisodeRecorder
from worldmodels.rollout.loop import run_episodes
from worldmodels.rollout.world import World
from worldmodels.games.base import check_frames
from worldmodels.params import Config
from worldmodels.shapes import Episode


class CollectConfig(Config):
    """The ``collect`` section of an environment.

    Attributes:
        first_episodes: of iteration 1, all by the random policy. They are short, cheap, and each shows a death.
        first_limit: most steps of one of them: random play leaves the road, and what follows there teaches little.
        episodes: of each later iteration.
        limit: most steps of one of these; the environment's own limit holds too.
        lanes: games at a time.
        patience: steps without a reward above 0 after which an episode is lost: it ends soon after it was last paid
            (``cut_when_decided``), and M learns what leads there as the risk of an end. Without, a dream has no crashes: they
            are rare, what follows is long, and M's roads forgive. 0: no episode ends so.
        aftermath: steps that are kept of those without a reward: they show M a car that stands, or one on the grass.
        goal: sum of rewards at which an episode is won, so that it is not lost where it is paid no more; with a ``patience``.
            0: none is.
        random: the random policy.
        random_share: share of the episodes of a later iteration that the random policy plays.
        rejected_share: share of the episodes of a later iteration that means of the previous search play, in turn, which were
            not kept: M sees what becomes of those that the dream preferred.
        scoring_share: share of every policy's episodes that is played on the back end that scores, where another one trains
            (CarRacing: gymnasium beside EnvPool), so that V sees the frames of both. It is slower.
        strengths: the previous controller's actions are disturbed by this much of the random policy's; one of these an
            episode. 0 is undisturbed.
    """

    first_episodes: int = Field(ge=1, le=1_000_000)
    first_limit: int = Field(ge=1, le=1_000_000)
    episodes: int = Field(ge=1, le=1_000_000)
    limit: int = Field(ge=1, le=1_000_000)
    lanes: int = Field(ge=1, le=4096)
    patience: int = Field(ge=0, le=1_000_000)
    aftermath: int = Field(ge=0, le=1_000_000)
    goal: float = Field(ge=0, le=1e9)
    random: RandomPolicyConfig
    random_share: float = Field(ge=0, le=1)
    rejected_share: float = Field(ge=0, le=1)
    scoring_share: float = Field(ge=0, le=1)
    strengths: list[float] = Field(min_length=1)

    @model_validator(mode="after")
    def _shares_fit(self) -> "CollectConfig":
        if self.random_share + self.rejected_share > 1:
            raise ValueError("random_share and rejected_share are shares of the same episodes: together at most 1")
        return self


def collect_episodes(
    world: World,
    policy: Policy,
    seeds: Sequence[int],
    *,
    lanes: int,
    name: str,
    keep: Callable[[Episode], object],
) -> None:
    """Play the episodes; hand them to ``keep`` in the order of ``seeds``, whichever ends first. ``name`` is the policy's.

    What has ended waits in memory for those before it: no more than ``lanes`` times the limit of frames.

    Raises:
        EnvironmentFault: where an episode shows nothing but one colour, or never changes.
    """
    waiting: dict[int, Episode] = {}
    order = iter(seeds)
    expected = next(order, None)

    def sort(episode: Episode) -> None:
        nonlocal expected
        check_frames(episode.frames, f"episode {episode.seed} ({name})")
        waiting[episode.seed] = episode
        while expected in waiting:
            keep(waiting.pop(expected))
            expected = next(order, None)

    run_episodes(world, policy, seeds, lanes=lanes, recorder=EpisodeRecorder(sort))
