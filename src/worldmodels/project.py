"""The whole of params.yaml, checked before anything runs."""

import re
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from pydantic import Field

from worldmodels.compute.engine import ClusterConfig, ComputeConfig, check_cluster
from worldmodels.controller.config import ControllerSection
from worldmodels.controller.phases.base import Given
from worldmodels.controller.worlds import MomentsConfig
from worldmodels.errors import ParamsError
from worldmodels.games.make import Game
from worldmodels.memory.features import feature_size
from worldmodels.memory.training import MemoryTraining
from worldmodels.params import PARAMS_FILE, Config, load_yaml, validate
from worldmodels.rollout.collection import CollectConfig
from worldmodels.rollout.evaluation import EvaluationConfig
from worldmodels.storage.layout import KEY, RECORDED
from worldmodels.vision.training import VisionTraining
from worldmodels.worlds.calibration import CalibrationConfig


class RecordingEntry(Config):
    """A line of ``recordings``."""

    env: str  # its environment
    folder: str = Field(pattern=r"^[\w./-]+$")  # where its episodes are, from the project's folder


class WorldModelEntry(Config):
    """A line of ``world_models``."""

    env: str  # its environment
    after: str  # the world model whose data, V and M it goes on from, or a recording
    player: str  # the agent that collects for it
    explorer: str  # the agent that collects a share beside it (`collect.explorer_share`); equal to `player` if there is none


class AgentEntry(Config):
    """A line of ``agents``."""

    env: str  # its environment
    world_model: str  # its V and M
    begin: str  # the agent at whose C the search begins; <env>-0, the random policy, for a C that has learned nothing
    controller: str  # section of `controllers`
    seed: int = Field(ge=0, lt=2**31)  # of the search alone
    study: str = Field(pattern=r"^[a-z0-9-]+$")  # the comparison that it belongs to, or `none`


class EnvironmentSection(Config):
    """All settings of one environment, by stage."""

    game: Game
    collect: CollectConfig
    vision: VisionTraining
    memory: MemoryTraining
    calibrate: CalibrationConfig
    controllers: dict[str, ControllerSection] = Field(min_length=1)
    evaluate: EvaluationConfig


class Project(Config):
    """params.yaml."""

    preset: str  # name of the parameter set, reported with every score
    seed: int = Field(ge=0, lt=2**31)  # of everything random in training
    compute: ComputeConfig  # this machine
    cluster: ClusterConfig  # other machines
    environments: list[str] = Field(min_length=1)  # names of `sections`
    recordings: dict[str, RecordingEntry] = Field(default_factory=dict)  # what was played elsewhere, by key
    world_models: dict[str, WorldModelEntry] = Field(min_length=1)  # V, M and the data behind them, by key
    agents: dict[str, AgentEntry] = Field(min_length=1)  # by key
    sections: dict[str, EnvironmentSection]  # settings by environment; in the file, they stand beside the keys above

    def behind(self, world_model: str) -> list[str]:
        """Return what a world model's data are from: itself, and all that it goes on from; a recording is the last."""
        found, known = [world_model], {**self.world_models, **self.recordings}
        while (entry := self.world_models.get(found[-1])) and entry.after in known:
            found.append(entry.after)
        return found

    def episodes_played(self, world_model: str) -> int:
        """Return how many episodes are played for a world model."""
        entry = self.world_models[world_model]
        collect = self.sections[entry.env].collect
        return collect.episodes if entry.player in self.agents else collect.first_episodes


def load_project(path: Path = PARAMS_FILE) -> Project:
    """Read and check a whole params file.

    Raises:
        ParamsError: one line for every problem found.
    """
    data = load_yaml(path)
    named = data.get("environments")
    names = dict.fromkeys(name for name in named if isinstance(name, str)) if isinstance(named, list) else {}
    wrong = []
    for name in names:
        if name in Project.model_fields:
            wrong.append(f"{path}: `environments`: {name!r} needs another name: params.yaml uses this one.")
        elif name not in data:
            wrong.append(f"{path}: `environments` names {name!r}, but there is no section `{name}`.")
        elif not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            wrong.append(f"{path}: `environments`: {name!r} needs another name: lower-case letters, digits, underscores.")
    if wrong:
        raise ParamsError("\n".join(wrong))
    sections = {name: data.pop(name) for name in names}
    try:
        project: Project = validate({**data, "sections": sections}, "", Project)
    except ParamsError as error:
        raise ParamsError(str(error).replace("`sections.", "`")) from None
    problems = [*_keys(project), *_links(project), *_explorers(project), *_controllers(project), *_progress(project)]
    problems += _first_data(project)
    problems += [problem for name, section in project.sections.items() for problem in _section(name, section)]
    if problems:
        raise ParamsError("\n".join(f"{path}: {problem}" for problem in problems))
    check_cluster(project.cluster, project.compute)
    return project


def _keys(project: Project) -> list[str]:
    """Return what is wrong with the names that DVC puts into commands and paths."""
    named: dict[str, Iterable[str]] = {name: getattr(project, name) for name in ("recordings", "world_models", "agents")}
    for name, section in project.sections.items():
        named[f"{name}.controllers"] = section.controllers
        named |= {f"{name}.controllers.{key}.phases": each.phases for key, each in section.controllers.items()}
    random, wrong = ", ".join(f"{name}-0" for name in project.environments), []
    for where, key in ((where, key) for where, keys in named.items() for key in keys):
        if not re.fullmatch(KEY, key):
            wrong.append(f"`{where}`: the key {key!r} must consist of letters, digits, `_` and `-`.")
        if where in ("world_models", "agents") and key.endswith("-0"):
            wrong.append(f"`{where}.{key}`: `-0` at the end is for the random policies ({random}).")
        if where in ("recordings", "world_models", "agents") and key.endswith(RECORDED) != (where == "recordings"):
            wrong.append(f"`{where}.{key}`: the key of a recording, and no other, ends with `{RECORDED}`.")
        if where.endswith(".phases") and key == "selection":
            wrong.append(f"`{where}.selection`: a phase cannot be called `selection`.")
    return wrong


_LINKS = {
    "world_models": {"after": "world_models", "player": "agents", "explorer": "agents"},
    "agents": {"world_model": "world_models", "begin": "agents"},
}
"""Section -> its keys that name an entry of a section."""


def _links(project: Project) -> list[str]:
    """Return what is wrong with the entries that name each other."""
    wrong, rules = [], {name: section.game.rules for name, section in project.sections.items()}
    sections: dict[str, Mapping[str, Any]] = {"world_models": project.world_models, "agents": project.agents}
    needs: dict[str, list[str]] = {}
    for key, recording in project.recordings.items():
        if recording.env not in rules:
            wrong.append(f"`recordings.{key}`: env = {recording.env!r} is not one of `environments`: {', '.join(rules)}.")
    for section, links in _LINKS.items():
        for key, entry in sections[section].items():
            where = f"`{section}.{key}`"
            if entry.env not in rules:
                wrong.append(f"{where}: env = {entry.env!r} is not one of `environments`: {', '.join(rules)}.")
                continue
            for name, other in links.items():
                named, known = getattr(entry, name), {**sections[other], **(project.recordings if name == "after" else {})}
                if named in known and rules.get(known[named].env) == rules[entry.env]:
                    needs.setdefault(f"{section}.{key}", []).append(f"{other}.{named}")
                elif named in known:
                    wrong.append(f"{where}: {name} = {named!r} is of another game ({known[named].env}, not {entry.env}).")
                elif named != f"{entry.env}-0" or name == "world_model":
                    zero = "" if name == "world_model" else f", or {entry.env}-0"
                    zero = f", or of `recordings`{zero}" if name == "after" and project.recordings else zero
                    wrong.append(f"{where}: {name} = {named!r} is not one of `{other}`: name one of them{zero}.")
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        wrong.append(f"these need each other in a circle: {' <- '.join(error.args[1])}.")
    return wrong


def _explorers(project: Project) -> list[str]:
    """Return which world models have an explorer that would play nothing."""
    wrong = []
    for key, model in project.world_models.items():
        where, section = f"`world_models.{key}`", project.sections.get(model.env)
        if section is None or model.explorer == model.player:
            continue
        if f"{model.env}-0" in (model.explorer, model.player):
            wrong.append(f"{where}: if the random policy plays, set explorer to the same as player: {model.player}.")
        elif not section.collect.explorer_share:
            wrong.append(f"{where}: the explorer {model.explorer!r} plays nothing: set `{model.env}.collect.explorer_share`.")
    return wrong


def _controllers(project: Project) -> list[str]:
    """Return what is wrong with how agents are searched for."""
    wrong, controllers = [], {name: section.controllers for name, section in project.sections.items()}
    for key, entry in project.agents.items():
        where, begin = f"`agents.{key}`", project.agents.get(entry.begin)
        known = controllers.get(entry.env, {})
        controller = known.get(entry.controller)
        if known and controller is None:
            names = ", ".join(known)
            wrong.append(f"{where}: controller = {entry.controller!r} is not one of `{entry.env}.controllers`: {names}.")
        if controller is None or begin is None:
            continue
        if controller.memory == "untrained":
            wrong.append(f"{where}: with memory: untrained, C begins from nothing: set begin: {entry.env}-0.")
        theirs = controllers.get(begin.env, {}).get(begin.controller)
        if theirs is not None and theirs.model != controller.model and not controller.model.bias:
            wrong.append(f"{where}: begin = {entry.begin!r} has a C of another shape: to imitate it, set model.bias: true.")
    return wrong


def _progress(project: Project) -> list[str]:
    """Return which agents are paid for the progress of an M that cannot be compared with the one before."""
    wrong = []
    for key, agent in project.agents.items():
        model, section = project.world_models.get(agent.world_model), project.sections.get(agent.env)
        controller = section.controllers.get(agent.controller) if section else None
        if model is None or controller is None:
            continue
        if not any(getattr(phase, "pay", "") == "progress" for phase in controller.phases.values()):
            continue
        where, earlier = f"`agents.{key}`: pay: progress compares M with the one before", project.world_models.get(model.after)
        now, then = (project.sections.get(each.env) if each else None for each in (model, earlier))
        if now is None or then is None:
            wrong.append(f"{where}, and {agent.world_model} goes on from none: take pay: surprise, or a later world model.")
        elif now.vision.optimiser.warm_updates or now.vision.model != then.vision.model:
            wrong.append(f"{where} on the same latents: V must stay, set `{model.env}.vision.optimiser.warm_updates: 0`.")
        elif now.memory.model != then.memory.model:
            wrong.append(f"{where}, and {agent.world_model} has an M of another shape, which begins untrained.")
    return wrong


def _first_data(project: Project) -> list[str]:
    """Return what asks for more than a world model can have whose data are its first episodes alone."""
    wrong = []
    for key, model in project.world_models.items():
        section = project.sections.get(model.env)
        if section is None or not model.after == model.player == f"{model.env}-0":
            continue
        if not section.collect.first_episodes:
            wrong.append(f"`{model.env}.collect.first_episodes` is 0, and {key} goes on from nothing: it would have no data.")
            continue
        steps = section.game.at_most(section.collect.first_limit).steps
        wrong += too_little(project, key, frames=section.collect.first_episodes * (steps + 1), steps=steps)
    return wrong


def too_little(project: Project, key: str, *, frames: int, steps: int) -> list[str]:
    """Return what asks for more than a world model has: so many frames, and so many steps in its longest episode, at most."""
    wrong, env = [], project.world_models[key].env
    section = project.sections[env]
    batches = {"vision": section.vision.optimiser.batch, "memory": section.memory.optimiser.batch * section.memory.sequence}
    for part, batch in batches.items():
        if batch > frames and getattr(section, part).optimiser.updates:
            where = f"`{env}.{part}.optimiser.batch`"
            wrong.append(f"{where} takes {batch:,} frames at a time, and {key} has {frames:,} at most.")
    used = {agent.controller for agent in project.agents.values() if agent.world_model == key}
    for name in sorted(used & section.controllers.keys()):
        for phase_name, phase in section.controllers[name].phases.items():
            moments = getattr(phase, "moments", MomentsConfig())
            if moments.share and moments.context >= steps:
                where = f"`{env}.controllers.{name}.phases.{phase_name}.moments.context`"
                wrong.append(f"{where} is {moments.context}, and an episode of {key} has {steps} steps at most.")
    return wrong


def _section(name: str, section: EnvironmentSection) -> list[str]:
    """Return what of a section does not fit together, and would be found after hours of training otherwise."""
    wrong, game, memory, dreams = [], section.game, section.memory.model, bool(section.evaluate.dreams)
    try:
        actions = game.action_size
    except ParamsError as error:  # the game cannot be made
        return [f"`{name}.game`: {error}"]
    for key, controller in section.controllers.items():
        where = f"`{name}.controllers.{key}"
        latent, features = section.vision.model.latent, controller.model.features
        inputs = feature_size(features, latent, memory.build(latent, actions))
        given = Given(game, memory, controller.model, inputs)
        for phase_name in controller.order:
            phase = controller.phases[phase_name]
            # What M's hazard pays for needs no reward, unless rewards say when an episode is won.
            dreams |= phase.world == "dream" and (getattr(phase, "pay", "") != "hazard" or game.goal > 0)
            wrong += [f"{where}.phases.{phase_name}`: {problem}" for problem in phase.check(given)]
        if controller.selection.every > controller.generations:
            wrong.append(
                f"{where}.selection.every` is more than the {controller.generations} generations: no C would be chosen from."
            )
    if dreams and not game.survival and memory.reward == "none":
        wrong.append(f"`{name}.memory.model.reward` must be `levels` or `event`: a dream of {name} has no reward without it.")
    if dreams and game.survival and not memory.done:
        wrong.append(f"`{name}.memory.model.done` must be true: nothing else ends a dream of {name}.")
    random = section.collect.random
    if random is not None and len(random.mean) != actions:
        wrong.append(f"`{name}.collect.random` has {len(random.mean)} action components, the game has {actions}.")
    return wrong
