"""The whole of params.yaml, checked before anything runs."""

import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from pydantic import Field

from worldmodels.compute.engine import ClusterConfig, ComputeConfig, check_cluster
from worldmodels.controller.config import ControllerSection
from worldmodels.controller.phases.base import Given
from worldmodels.errors import ParamsError
from worldmodels.games.make import Game
from worldmodels.memory.features import feature_size
from worldmodels.memory.training import MemoryTraining
from worldmodels.params import PARAMS_FILE, Config, load_yaml, validate
from worldmodels.rollout.collection import CollectConfig
from worldmodels.rollout.evaluation import EvaluationConfig
from worldmodels.storage.layout import KEY
from worldmodels.vision.training import VisionTraining
from worldmodels.worlds.calibration import CalibrationConfig

NO_STUDY = "none"
"""`study` of an agent that is part of the chain."""


class WorldModelEntry(Config):
    """A line of ``world_models``.

    Attributes:
        env: its environment.
        after: the world model whose data, V and M it goes on from.
        player: the agent that collects for it.
    """

    env: str
    after: str
    player: str


class AgentEntry(Config):
    """A line of ``agents``.

    Attributes:
        env: its environment.
        world_model: its V and M.
        begin: the agent at whose C the search begins; ``<env>-0``, the random policy, for a C that has learned nothing.
        controller: section of ``controllers``.
        seed: of the search alone.
        study: the comparison that it belongs to, or ``none``.
    """

    env: str
    world_model: str
    begin: str
    controller: str
    seed: int = Field(ge=0, lt=2**31)
    study: str = Field(pattern=r"^[a-z0-9-]+$")


class EnvironmentSection(Config):
    """All settings of one environment, by stage."""

    game: Game
    collect: CollectConfig
    vision: VisionTraining
    memory: MemoryTraining
    calibrate: CalibrationConfig
    controllers: dict[str, ControllerSection] = Field(min_length=1)
    evaluate: EvaluationConfig


class Measured(Config):
    """How long a preset took, by part, where it was measured.

    Attributes:
        hardware: on which machine.
        minutes: part of the run -> minutes.
    """

    hardware: str
    minutes: dict[str, float]


class Project(Config):
    """params.yaml.

    Attributes:
        preset: name of the parameter set, reported with every score.
        seed: of everything random in training.
        compute: this machine.
        cluster: other machines.
        measured: how long the preset took; empty if nobody has measured it.
        environments: names of the sections below.
        world_models: V, M and the data behind them, by key.
        agents: by key.
        sections: settings by environment.
    """

    preset: str
    seed: int = Field(ge=0, lt=2**31)
    compute: ComputeConfig
    cluster: ClusterConfig
    measured: list[Measured] = Field(default=[])
    environments: list[str] = Field(min_length=1)
    world_models: dict[str, WorldModelEntry] = Field(min_length=1)
    agents: dict[str, AgentEntry] = Field(min_length=1)
    sections: dict[str, EnvironmentSection]


def load_project(path: Path = PARAMS_FILE) -> Project:
    """Read and check a whole params file.

    Raises:
        ParamsError: one line for every problem found.
    """
    data = load_yaml(path)
    names = data.get("environments")
    names = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    taken = [name for name in names if name in Project.model_fields]
    if taken:
        raise ParamsError(f"{path}: `environments`: {taken[0]!r} needs another name: params.yaml uses this one.")
    sections = {name: data.pop(name) for name in names if name in data}
    missing = [name for name in names if name not in sections]
    if missing:
        raise ParamsError(f"{path}: `environments` names {missing[0]!r}, but there is no section `{missing[0]}`.")
    problems = []
    for name, content in sections.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ParamsError(f"{path}: `environments`: {name!r} needs another name: lower-case letters, digits, underscores.")
        try:
            validate(content, name, EnvironmentSection)
        except ParamsError as error:
            problems.append(str(error))
    if problems:
        raise ParamsError("\n".join(problems))
    project: Project = validate({**data, "sections": sections}, "", Project)
    problems = [
        *_keys(project),
        *_links(project),
        *_controllers(project),
        *(problem for name, section in project.sections.items() for problem in _section(name, section)),
    ]
    if problems:
        raise ParamsError("\n".join(f"{path}: {problem}" for problem in problems))
    check_cluster(project.cluster, project.compute)
    return project


def _keys(project: Project) -> list[str]:
    """Return what is wrong with the names that DVC puts into commands and paths."""
    named: list[tuple[str, str]] = [("world_models", key) for key in project.world_models]
    named += [("agents", key) for key in project.agents]
    for name, section in project.sections.items():
        named += [(f"{name}.controllers", key) for key in section.controllers]
        named += [(f"{name}.controllers.{key}.phases", phase) for key, c in section.controllers.items() for phase in c.phases]
    wrong = [
        f"`{where}`: the key {key!r} must consist of letters, digits, `_` and `-`."
        for where, key in named
        if not re.fullmatch(KEY, key)
    ]
    random = ", ".join(f"{name}-0" for name in project.environments)
    wrong += [
        f"`{where}.{key}`: `-0` at the end is for the random policies ({random})."
        for where, key in named
        if where in ("world_models", "agents") and key.endswith("-0")
    ]
    wrong += [f"`{where}.selection`: a phase cannot be called `selection`." for where, key in named if key == "selection"]
    return wrong


_LINKS = {
    "world_models": {"after": "world_models", "player": "agents"},
    "agents": {"world_model": "world_models", "begin": "agents"},
}
"""Section -> its keys that name an entry of a section."""


def _links(project: Project) -> list[str]:
    """Return what is wrong with the entries that name each other."""
    wrong = []
    sections: dict[str, dict[str, Any]] = {"world_models": dict(project.world_models), "agents": dict(project.agents)}
    needs: dict[str, list[str]] = {}
    for section, links in _LINKS.items():
        for key, entry in sections[section].items():
            where = f"`{section}.{key}`"
            if entry.env not in project.sections:
                wrong.append(f"{where}: env = {entry.env!r} is not one of `environments`: {', '.join(project.environments)}.")
                continue
            for name, other in links.items():
                named, known = getattr(entry, name), sections[other]
                if named in known and _same_game(project, known[named].env, entry.env):
                    needs.setdefault(f"{section}.{key}", []).append(f"{other}.{named}")
                elif named in known:
                    wrong.append(f"{where}: {name} = {named!r} is of another game ({known[named].env}, not {entry.env}).")
                elif named != f"{entry.env}-0" or name == "world_model":
                    zero = "" if name == "world_model" else f", or {entry.env}-0"
                    wrong.append(f"{where}: {name} = {named!r} is not one of `{other}`: name one of them{zero}.")
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        wrong.append(f"these need each other in a circle: {' <- '.join(error.args[1])}.")
    return wrong


def _controllers(project: Project) -> list[str]:
    """Return what is wrong with how agents are searched for."""
    wrong = []
    for key, entry in project.agents.items():
        where, section = f"`agents.{key}`", project.sections.get(entry.env)
        if section is None:
            continue
        controller = section.controllers.get(entry.controller)
        if controller is None:
            known = ", ".join(section.controllers)
            wrong.append(f"{where}: controller = {entry.controller!r} is not one of `{entry.env}.controllers`: {known}.")
            continue
        begin = project.agents.get(entry.begin)
        if begin is None or begin.env not in project.sections:
            continue
        if controller.memory == "untrained":
            wrong.append(f"{where}: with memory: untrained, C begins from nothing: set begin: {entry.env}-0.")
        theirs = project.sections[begin.env].controllers.get(begin.controller)
        if theirs is not None and theirs.model != controller.model and not controller.model.bias:
            wrong.append(f"{where}: begin = {entry.begin!r} has a C of another shape: to imitate it, set model.bias: true.")
    return wrong


def _same_game(project: Project, one: str, other: str) -> bool:
    sections = project.sections
    return one in sections and other in sections and sections[one].game.rules == sections[other].game.rules


def _section(name: str, section: EnvironmentSection) -> list[str]:
    """Return what of a section does not fit together, and would be found after hours of training otherwise."""
    wrong = []
    game, memory = section.game, section.memory.model
    dreams = bool(section.evaluate.dreams)
    for key, controller in section.controllers.items():
        where = f"`{name}.controllers.{key}"
        latent, features = section.vision.model.latent, controller.model.features
        inputs = feature_size(features, latent, memory.build(latent, game.action_size))
        given = Given(game, memory, controller.model, inputs)
        for phase_name in controller.order:
            phase = controller.phases[phase_name]
            dreams |= phase.world == "dream"
            wrong += [f"{where}.phases.{phase_name}`: {problem}" for problem in phase.check(given)]
        if controller.selection.every > controller.generations:
            wrong.append(
                f"{where}.selection.every` is more than the {controller.generations} generations: no C would be chosen from."
            )
    if dreams and not game.survival and memory.reward == "none":
        wrong.append(f"`{name}.memory.model.reward` must be `event`: a dream of {name} has no reward without it.")
    if dreams and game.survival and not memory.done:
        wrong.append(f"`{name}.memory.model.done` must be true: nothing else ends a dream of {name}.")
    random: Any = section.collect.random
    if random is not None and len(random.mean) != game.action_size:
        wrong.append(f"`{name}.collect.random` has {len(random.mean)} action components, the game has {game.action_size}.")
    return wrong
