"""How long a run takes, stage by stage, before it runs: what its params ask for, over what a machine was measured to do."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from worldmodels.controller.phases.base import LearnerConfig, PhaseConfig
from worldmodels.controller.phases.cmaes import CMAESConfig
from worldmodels.controller.phases.ppo import PPOConfig
from worldmodels.controller.phases.sac import SACConfig
from worldmodels.controller.phases.skill import SkillConfig
from worldmodels.controller.phases.value_gradient import BATCH, HORIZON, ValueGradientConfig
from worldmodels.controller.training import contestants_of
from worldmodels.errors import ArtifactError
from worldmodels.games.base import GameConfig
from worldmodels.project import EnvironmentSection, Project

RATES = Path("results/rates.csv")
"""What machines were measured to do: ``hardware,what,value,source``."""
Rates = Mapping[str, float]


def read_rates(path: Path) -> dict[str, dict[str, float]]:
    """Return hardware -> what -> value; nothing if there is no such file.

    Raises:
        ArtifactError: it is no table of rates.
    """
    rates: dict[str, dict[str, float]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                rates.setdefault(row["hardware"], {})[row["what"]] = float(row["value"])
    except FileNotFoundError:
        return {}
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise ArtifactError(f"{path} is no table of rates ({error}). `git checkout {path}` restores it.") from None
    return rates


def forecast(project: Project, rates: Rates, recorded: Mapping[str, int] | None = None) -> dict[str, float]:
    """Return stage -> seconds, in the order of the stages; a stage is called as DVC calls it. What was not measured is NaN.

    It is an estimate for a run from nothing, on as many cores as the rates are of. How long episodes last is not known before
    they are played: it is taken from the rates too; ``recorded`` says how many frames a recording has. V is taken to learn
    whenever it may, and runs in which others share the machine take longer.
    """
    found: dict[str, float] = {}
    works = {name: _Work(section, rates) for name, section in project.sections.items()}
    for name, work in works.items():
        found[f"initialise@{name}"] = work.initialise()
    found |= {f"recording@{key}": 0.0 for key in project.recordings}  # in a second or so
    frames: dict[str, float] = {}  # world model -> frames of it and of all before it
    for key, entry in project.world_models.items():
        behind = project.behind(key)  # `after` may stand below in the file
        models = [project.world_models[each] for each in behind if each in project.world_models]
        frames[key] = sum(works[model.env].frames(first=model.player not in project.agents) for model in models)
        frames[key] += sum((recorded or {}).get(each, 0) for each in behind)
        work, first, looking = works[entry.env], entry.after not in project.world_models, entry.player in project.agents
        found[f"collect@{key}"] = work.played(work.frames(first=not looking), looking=looking)
        found[f"vision@{key}"] = work.vision(frames[key], first=first)
        found[f"encode@{key}"] = frames[key] / work.rate("encoding")
        found[f"memory@{key}"] = work.memory(frames[key], first=first)
        found[f"calibrate@{key}"] = work.calibrate()
    for key, agent in project.agents.items():
        work = works[agent.env]
        found[f"controller@{key}"] = work.controller(agent.controller, begins=agent.begin in project.agents)
        found[f"evaluate@{key}"] = work.evaluate()
        found[f"film@{key}"] = work.rate("seconds of a film")
    start = rates.get("seconds to start a stage", math.nan)
    return {stage: seconds + start for stage, seconds in (found | {"report": 0.0}).items()}


def frames_collected(project: Project, rates: Rates, environment: str) -> float:
    """Return about how many frames all world models of a game collect; NaN if it is not known how long its episodes last."""
    work = _Work(project.sections[environment], rates)
    models = [entry for entry in project.world_models.values() if entry.env == environment]
    return sum(work.frames(first=entry.player not in project.agents) for entry in models)


def span(seconds: float) -> str:
    """Return a time in words.

    >>> span(40), span(5400), span(200_000), span(float("nan"))
    ('40 s', '1.5 hours', '2.3 days', 'not measured')
    """
    if math.isnan(seconds):
        return "not measured"
    units = {"days": 86400, "hours": 3600, "min": 60}
    unit, size = next(((unit, size) for unit, size in units.items() if seconds >= 1.2 * size), ("s", 1))
    return f"{seconds / size:,.{unit in ('days', 'hours') and seconds < 10 * size:d}f} {unit}"


class _Work:
    """What the stages of an environment do, in seconds."""

    def __init__(self, section: EnvironmentSection, rates: Rates) -> None:
        self.section, self.game, self._rates = section, section.game, rates
        memory = section.memory.model.build(section.vision.model.latent, self.game.action_size)
        self._parameters = sum(parameter.numel() for parameter in memory.parameters())

    def rate(self, what: str) -> float:
        return self._rates.get(what, math.nan)

    def life(self, who: str, most: int = 0) -> float:
        """Return how many steps an episode lasts: by ``random`` play or an ``agent``, of ``most`` steps if it is not 0.

        One that is not known to end goes on to the limit.
        """
        game, most = self.game, min(self.game.steps, most or self.game.steps)
        ends = game.survival or (who == "random" and game.patience > 0)
        name = f"game steps of an episode, {_name(game).split()[1]}, {who}"
        return min(most, self._rates.get(name, game.limit) / game.frame_skip) if ends else most

    def played(self, steps: float, *, looking: bool = True, scoring: bool = False) -> float:
        """Return the seconds of steps in the game, with V and M or without."""
        return steps / self.rate(f"steps, {_name(self.game, scoring=scoring)}") + looking * steps / self.rate("steps seen")

    def dreamt(self, steps: float) -> float:
        return steps * self._parameters / self.rate("parameters dreamt")

    def learned(self, steps: float) -> float:
        """Return the seconds in which M is differentiated over steps."""
        return steps * self._parameters / self.rate("parameters learned")

    def frames(self, *, first: bool) -> float:
        collect = self.section.collect
        episodes = collect.first_episodes if first else collect.episodes
        return episodes * (1 + (self.life("random", collect.first_limit) if first else self.life("agent")))

    def initialise(self) -> float:
        steps = self.section.evaluate.episodes * len(self.game.policies) * self.life("random")
        return self.played(steps, looking=False, scoring=True)

    def vision(self, frames: float, *, first: bool) -> float:
        config = self.section.vision.optimiser
        config = config.counted(frames) if first else config.warm()
        return config.updates * config.batch / self.rate("frames learned")

    def memory(self, frames: float, *, first: bool) -> float:
        config, sequence = self.section.memory.optimiser, self.section.memory.sequence
        config = config.counted(frames / sequence) if first else config.warm()
        return self.learned(config.updates * config.batch * sequence)

    def calibrate(self) -> float:
        return self.dreamt(self.section.calibrate.dreams * len(self.game.policies) * self.life("random"))

    def controller(self, name: str, *, begins: bool) -> float:
        config = self.section.controllers[name]
        contestants = (len(contestants_of(config)) + begins) if config.selection.episodes else 1
        games = config.selection.games(contestants) if contestants > 1 else 0
        return sum(map(self._phase, config.phases.values())) + self.played(games * self.life("agent"))

    def _phase(self, phase: PhaseConfig) -> float:
        if isinstance(phase, CMAESConfig):
            # A dream whose C is paid with probabilities goes on to its end.
            life = self.life("agent", phase.num_steps) if phase.pay == "return" else phase.num_steps or self.game.steps
            steps = phase.generations * phase.population * phase.rollouts * life
        elif isinstance(phase, LearnerConfig) and not isinstance(phase, SACConfig):
            steps = phase.per_run * phase.repeats * phase.num_envs * phase.num_steps
        else:
            return 0.0 if isinstance(phase, SkillConfig) else math.nan  # an imitation plays nothing
        spent = self.dreamt(steps) if phase.world == "dream" else self.played(steps)
        if isinstance(phase, PPOConfig):
            spent += steps * phase.epochs / self.rate("steps learned by ppo")
        if isinstance(phase, ValueGradientConfig):
            spent += self.learned(phase.updates * phase.gradient_steps * BATCH * HORIZON)
        return spent

    def evaluate(self) -> float:
        config, life = self.section.evaluate, self.life("agent")
        return self.played(config.episodes * life, scoring=True) + (self.dreamt(config.dreams * life) if config.dreams else 0)


def _name(game: GameConfig, *, scoring: bool = False) -> str:
    """Return what a rate calls a game: its kind, what is played, and what it is drawn by."""
    told = game.model_dump()
    backend = "gymnasium" if scoring and "backend" in told else told.get("backend", "")
    parts = (told["kind"], told.get("scenario") or told.get("id") or "track", told.get("resolution") or backend)
    return " ".join(str(part) for part in parts if part)
