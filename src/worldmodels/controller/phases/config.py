"""The phases of a search for C, as params.yaml sets them."""

from typing import Literal

from pydantic import Field, model_validator

from worldmodels.params import Config


class MomentsConfig(Config):
    """Dreams that begin in the middle of real play.

    Attributes:
        share: of all dreams of the phase; the others begin at first frames.
        random_play: so it is too where no agent has played yet. Else all dreams begin at first frames then: random play may be
            where no agent wants to be, as a car off its road.
        context: steps that M reads before such a dream.
        newest: frames, at the end of the data, among which the moments lie: what the latest agents saw.
    """

    share: float = Field(ge=0, le=1)
    random_play: bool
    context: int = Field(ge=1, le=1_000_000)
    newest: int = Field(ge=1, le=1_000_000_000)


class DreamPhase(Config):
    """A stretch of CMA-ES in the dream, where a generation is played at once.

    Attributes:
        generations: how many; 0 leaves the dream out.
        rollouts: E, dreams that each candidate is judged on.
        limit: most steps of a dream.
        temperature: tau.
        survival: above 0, candidates are judged by their expected returns instead of sampled deaths (``DreamWorld``), down to
            this probability of being alive.
        goal: above 0, sum of rewards, without what every step costs, at which a dream is over (``DreamWorld``).
        moments: where dreams begin, beside first frames.
    """

    generations: int = Field(ge=0, le=100_000)
    rollouts: int = Field(ge=1, le=10_000)
    limit: int = Field(ge=1, le=1_000_000)
    temperature: float = Field(gt=0, le=10)
    survival: float = Field(ge=0, lt=1)
    goal: float = Field(ge=0, le=1e9)
    moments: MomentsConfig


class RealPhase(Config):
    """A stretch of CMA-ES in the game.

    Attributes:
        generations: how many; 0 leaves the game out.
        rollouts: E, episodes that each candidate is judged on.
        limit: most steps of an episode.
        lanes: most games at a time.
        patience: steps without a reward above 0 after which an episode ends (``PatientWorld``); 0: none does.
        sigma: first step size. Episodes of a game are few and their returns far apart: around a C that can play already, small
            steps lose less.
    """

    generations: int = Field(ge=0, le=100_000)
    rollouts: int = Field(ge=1, le=10_000)
    limit: int = Field(ge=1, le=1_000_000)
    lanes: int = Field(ge=1, le=4096)
    patience: int = Field(ge=0, le=1_000_000)
    sigma: float = Field(gt=0, le=10)


class LearnerPhase(Config):
    """A stretch in which one C improves by gradients, from the mean where the search before it ended.

    Attributes:
        generations: collections, each followed by its updates; 0 leaves the phase out.
        runs: how often; the first goes on from C, every other begins anew, from weights of its own, and the selection keeps the
            best C of them all. What a dream finds alike may be far apart in the game.
        critic_generations: the first so many train the critic alone, so that an untrained one does not spoil C.
        lanes: games at a time.
        limit: steps of a collection in every lane; it begins with new episodes, and those that end are followed by others.
        patience: in the game, ``RealPhase``'s.
        epochs: passes over a collection.
        batch: steps of an update.
        learning_rate: of Adam, at the start.
        final_learning_rate: at the end of a run, with a straight line between; 0: the same as at the start. Steps that grow
            smaller average over more episodes: without, C in the game wanders about what it has found.
        discount: gamma.
        noise: standard deviation of an action before its tanh, at the start.
        risk: above 0, a step costs this much times M's probability of an end, as M dreams (``DreamWorld``) or reads the game
            (``RealWorld``): a sharper signal than deaths are.
    """

    generations: int = Field(ge=0, le=100_000)
    runs: int = Field(ge=1, le=1000)
    critic_generations: int = Field(ge=0, le=100_000)
    lanes: int = Field(ge=1, le=4096)
    limit: int = Field(ge=2, le=1_000_000)
    patience: int = Field(ge=0, le=1_000_000)
    epochs: int = Field(ge=1, le=1000)
    batch: int = Field(ge=2, le=1_000_000)
    learning_rate: float = Field(gt=0, le=1)
    final_learning_rate: float = Field(ge=0, le=1)
    discount: float = Field(gt=0, lt=1)
    noise: float = Field(gt=0, le=10)
    risk: float = Field(default=0.0, ge=0, le=1e6)

    def learning_rate_at(self, generation: int) -> float:
        """Return the learning rate of a generation of a run."""
        last = self.final_learning_rate or self.learning_rate
        return self.learning_rate + (last - self.learning_rate) * generation / max(1, self.generations - 1)


class PPOPhase(LearnerPhase):
    """PPO (Schulman et al. 2017). Its critic says what the rest of an episode is worth: short dreams need not be short-sighted.

    With a ``risk`` C is not paid for living.

    Attributes:
        world: the game, or the dream, at the ``dream`` phase's temperature and from its starts.
    """

    world: Literal["dream", "real"]

    @model_validator(mode="after")
    def _risk_or_patience(self) -> "PPOPhase":
        if self.risk and self.patience:
            raise ValueError("risk pays no rewards that a patience could wait for: set one of them to 0")
        return self


class GradientPhase(LearnerPhase):
    """Value gradients (``training.gradient``): the game's states and values, M's derivatives.

    A step is worth, of what M expects there, ``pay`` times the reward, less ``drought`` times the probability that so many
    steps alike would earn nothing, less the ``risk``.

    Attributes:
        updates: of C, after each collection.
        horizon: steps that M dreams on from a state of the game before the critic says what the rest is worth.
        goal: an episode that has earned this much is not lost where its patience runs out: a lap that lacks a tile.
        loss: what an episode that is lost costs, beside the risk.
        pay: weight of the reward. A discounted sum pays for speed a hundred steps ahead, a lap pays for its tiles.
        drought: weight of the steps that are as good as surely unpaid, where M foretells events: off the road.
        drought_steps: so many.
        hard: share of the episodes that were lost before and are played again until C wins them.
        peril: share of the states that C learns from that lie shortly before a loss, or in it.
        remembered: collections that the critic learns from, and those states are taken from; a checkpoint holds them.
    """

    updates: int = Field(ge=1, le=100_000)
    horizon: int = Field(ge=1, le=1000)
    goal: float = Field(ge=0, le=1e9)
    loss: float = Field(ge=0, le=1e6)
    pay: float = Field(ge=0, le=1e6)
    drought: float = Field(ge=0, le=1e6)
    drought_steps: int = Field(ge=1, le=100_000)
    hard: float = Field(ge=0, lt=1)
    peril: float = Field(ge=0, lt=1)
    remembered: int = Field(ge=1, le=1000)
