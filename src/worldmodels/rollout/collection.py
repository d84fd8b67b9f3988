"""Playing to gather data."""

from collections.abc import Callable, Sequence

from pydantic import Field, model_validator

from worldmodels.games.blind import RandomPolicyConfig
from worldmodels.games.sight import Sight
from worldmodels.params import Config
from worldmodels.rollout.loop import EpisodeRecorder, run_episodes
from worldmodels.rollout.policies import Policy
from worldmodels.rollout.world import World
from worldmodels.shapes import Episode

NUM_ENVS = 32
"""Games at a time. What is collected does not depend on it."""
ENOUGH = 100
"""Episodes after which it is clear whether a game shows anything."""


class CollectConfig(Config):
    """The ``collect`` section of an environment. The game says the rest: its limit, its patience, what is won."""

    # of the first world model, all by the random policy; 0: none, it goes on from a recording
    first_episodes: int = Field(default=10_000, ge=0, le=1_000_000)
    # steps after which one of these is truncated; 0: the game's own limit. Random play that has left the road teaches little
    # more
    first_limit: int = Field(default=0, ge=0, le=1_000_000)
    # of each later world model; 0: none, it keeps the data of the one before
    episodes: int = Field(default=10_000, ge=0, le=1_000_000)
    random: RandomPolicyConfig | None = None  # the random policy; None: the game's usual one
    random_share: float = Field(default=0.0, ge=0, le=1)  # share of the later episodes that the random policy plays
    # share of the later episodes that rejected controllers play, in turn: those that the search for C preferred in the dream
    # and that were not kept. M sees what becomes of them
    rejected_share: float = Field(default=0.0, ge=0, le=1)
    # share of the later episodes that the agent `explorer` plays, if it is another than `player`
    explorer_share: float = Field(default=0.0, ge=0, le=1)
    # share of every policy's episodes that is played on the back end that scores, if another one trains (CarRacing: gymnasium
    # beside EnvPool), so that V sees the frames of both. It is slower
    scoring_share: float = Field(default=0.0, ge=0, le=1)
    # the agent's actions are disturbed by this much of the random policy's; each episode takes one of these. 0 is undisturbed
    strengths: list[float] = Field(default=[0.0], min_length=1)

    @model_validator(mode="after")
    def _shares_fit(self) -> "CollectConfig":
        if self.random_share + self.rejected_share + self.explorer_share > 1:
            raise ValueError("random_share, rejected_share and explorer_share are of the same episodes: together at most 1")
        return self

    def borders(self, rejected: int, *, explores: bool) -> list[int]:
        """Return where, among the episodes of a later world model, each policy's begin and the last one's end.

        The random policy plays first, then each of so many ``rejected`` controllers, the explorer, and the player.

        >>> CollectConfig(episodes=10, random_share=0.2, rejected_share=0.4, explorer_share=0.1).borders(2, explores=True)
        [0, 2, 4, 6, 7, 10]
        """
        by_random = round(self.random_share * self.episodes)
        by_rejected = round(self.rejected_share * self.episodes) if rejected else 0
        by_explorer = round(self.explorer_share * self.episodes) if explores else 0
        ends = [by_random + by_rejected * part // max(1, rejected) for part in range(rejected + 1)]
        return [0, *ends, ends[-1] + by_explorer, self.episodes]


def collect_episodes(
    world: World,
    policy: Policy,
    seeds: Sequence[int],
    *,
    sight: Sight,
    keep: Callable[[Episode], object],
    lanes: int = NUM_ENVS,
) -> None:
    """Play the episodes, ``lanes`` at a time; hand them to ``keep`` in the order of ``seeds``, whichever ends first.

    What has ended waits in memory for those before it. ``sight`` sees all episodes of the collection, and is asked after
    ``ENOUGH`` of them whether the game shows anything; at the end, the caller asks it.

    Raises:
        EnvironmentFault: ``ENOUGH`` episodes showed nothing.
    """
    waiting: dict[int, Episode] = {}
    order = iter(seeds)
    expected = next(order, None)

    def sort(episode: Episode) -> None:
        nonlocal expected
        sight.see(episode.frames)
        if sight.episodes == ENOUGH:
            sight.check(f"the first {ENOUGH} episodes")
        waiting[episode.seed] = episode
        while expected in waiting:
            keep(waiting.pop(expected))
            expected = next(order, None)

    run_episodes(world, policy, seeds, lanes=lanes, recorder=EpisodeRecorder(sort))
