"""The whole of params.yaml, checked before anything runs."""

import re
from pathlib import Path
from typing import Any

from pydantic import Field

from worldmodels.compute.engine import ComputeConfig
from worldmodels.controller.training import ControllerTraining
from worldmodels.errors import ParamsError
from worldmodels.games.make import EnvironmentConfig
from worldmodels.memory.training import MemoryTraining
from worldmodels.params import PARAMS_FILE, Config, load_yaml, validate
from worldmodels.rollout.collection import CollectConfig
from worldmodels.rollout.evaluation import CalibrationConfig, EvaluationConfig
from worldmodels.training.trial import TrialConfig, trial_training
from worldmodels.vision.training import VisionTraining


class ChainLink(Config):
    """One iteration: its environment, and the iteration whose agent collects for it."""

    env: str
    after: str


class EnvironmentSection(Config):
    """All settings of one environment, by stage."""

    environment: EnvironmentConfig
    collect: CollectConfig
    vision: VisionTraining
    memory: MemoryTraining
    calibrate: CalibrationConfig
    controller: ControllerTraining
    evaluate: EvaluationConfig


class Project(Config):
    """params.yaml.

    Attributes:
        preset: name of the parameter set, reported with every score.
        seed: of everything random in training.
        compute: the machine.
        environments: names of the sections below.
        chain: iterations by key.
        trials: other searches for C, by key.
        sections: settings by environment.
    """

    preset: str
    seed: int = Field(ge=0, lt=2**31)
    compute: ComputeConfig
    environments: list[str] = Field(min_length=1)
    chain: dict[str, ChainLink] = Field(min_length=1)
    trials: dict[str, TrialConfig]
    sections: dict[str, EnvironmentSection]


def load_project(path: Path = PARAMS_FILE) -> Project:
    """Read and check a whole params file.

    Raises:
        ParamsError: one line for every problem found.
    """
    data = load_yaml(path)
    names = data.get("environments")
    names = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    sections = {name: data.pop(name) for name in names if name in data and name not in Project.model_fields}
    missing = [name for name in names if name not in sections]
    if missing:
        raise ParamsError(f"{path}: `environments` names {missing[0]!r}, but there is no section `{missing[0]}`.")
    for name, content in sections.items():
        _check_name(name, path)
        validate(content, name, EnvironmentSection)
    project = validate({**data, "sections": sections}, "", Project)
    _check_chain(project, path)
    _check_trials(project, sections, path)
    _check_sizes(project, path)
    return project


def _check_name(name: str, path: Path) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ParamsError(f"{path}: the environment {name!r} needs another name: lower-case letters, digits and underscores.")


def _check_chain(project: Project, path: Path) -> None:
    for key, link in project.chain.items():
        where = f"{path}: `chain.{key}`"
        if link.env not in project.sections:
            raise ParamsError(f"{where}: env = {link.env!r} is not one of `environments`: {', '.join(project.environments)}.")
        if not re.fullmatch(rf"{link.env}-[1-9][0-9]*", key):
            raise ParamsError(f"{where}: the key must be `{link.env}-` and a number from 1, such as `{link.env}-1`.")
    followers: dict[str, str] = {}
    for key, link in project.chain.items():
        where = f"{path}: `chain.{key}`"
        before = project.chain.get(link.after)
        if link.after != f"{link.env}-0" and before is None:
            raise ParamsError(
                f"{where}: after = {link.after!r} is no iteration. Name an earlier key of {link.env}, or {link.env}-0 (random)."
            )
        if before is not None and before.env != link.env:
            raise ParamsError(f"{where}: after = {link.after!r} is of another environment ({before.env}, not {link.env}).")
        if before is not None and _number(link.after) >= _number(key):
            raise ParamsError(f"{where}: after = {link.after!r} does not come before it: numbers rise along a chain.")
        if link.after in followers:
            raise ParamsError(
                f"{where}: `chain.{followers[link.after]}` comes after {link.after!r} already: a chain cannot fork."
            )
        followers[link.after] = key


def _check_trials(project: Project, sections: dict[str, Any], path: Path) -> None:
    for key, trial in project.trials.items():
        where = f"{path}: `trials.{key}`"
        link = project.chain.get(trial.of)
        if link is None or link.env != trial.env:
            raise ParamsError(f"{where}: of = {trial.of!r} is no iteration of {trial.env!r} in `chain`.")
        others = [f"trials/{name}" for name, other in project.trials.items() if other.of == trial.of and name != key]
        if trial.agent not in (trial.of, *others):
            raise ParamsError(f"{where}: agent = {trial.agent!r} is neither {trial.of} nor trials/KEY of another trial of it.")
        training = trial_training(sections[trial.env]["controller"], trial, key)
        dreams = training.dream.generations or (training.ppo.generations and training.ppo.world == "dream")
        if trial.memory == "untrained" and (dreams or training.gradient.generations):
            raise ParamsError(
                f"{where}: an M that was never trained has no dreams to learn in: set the dream's generations to 0."
            )


def _check_sizes(project: Project, path: Path) -> None:
    for name, section in project.sections.items():
        random, baseline = section.collect.random, section.evaluate.real.baseline
        if len(random.mean) != len(baseline.mean):
            raise ParamsError(
                f"{path}: `{name}.collect.random` has {len(random.mean)} action components, "
                f"`{name}.evaluate.real.baseline` has {len(baseline.mean)}: they play the same game."
            )
        for blind in section.evaluate.real.blind:
            if len(blind.first) != len(baseline.mean):
                raise ParamsError(
                    f"{path}: `{name}.evaluate.real.blind` {blind.name!r} has {len(blind.first)} action components, "
                    f"`{name}.evaluate.real.baseline` has {len(baseline.mean)}: they play the same game."
                )
        dreams = section.controller.dream.generations or section.evaluate.dream.episodes
        survival = section.environment.kind == "doom"
        if dreams and not survival and section.memory.model.reward == "none":
            raise ParamsError(
                f"{path}: `{name}.memory.model.reward` must be `event`: a dream of {name} has no reward without it."
            )
        if survival and dreams and not section.memory.model.done:
            raise ParamsError(f"{path}: `{name}.memory.model.done` must be true: nothing else ends a dream of {name}.")


def _number(key: str) -> int:
    return int(key.rpartition("-")[2])
