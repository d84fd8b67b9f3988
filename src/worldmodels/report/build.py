"""From the artifacts and scores of a run to ``reports/``: the page, the scores as a table, the figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from worldmodels.games.make import Game
from worldmodels.params import flat, section
from worldmodels.report import comparisons
from worldmodels.report.html import page
from worldmodels.report.parts import agent_part, search_table, world_model_part
from worldmodels.report.pictures import png_bytes, write_png
from worldmodels.report.table import read_scores, rivals, table, title
from worldmodels.report.verdict import best_agent, chain, headline, pays_nothing, variants
from worldmodels.report.video import picture_of
from worldmodels.storage.episodes import COLLECTED
from worldmodels.storage.files import read_curve, read_json, write_bytes
from worldmodels.storage.layout import NO_STUDY, REPORTS, STAGES, AgentFiles, WorldModelFiles

_ALIKE = 0.02  # rates that differ by less say nothing: a step pays the same, as in games of survival


class _GameRun(NamedTuple):
    """All that a run has of one game, in the order of params.yaml."""

    rules: str  # of the game
    environments: list[str]  # sections of params.yaml that are this game
    agents: dict[str, AgentFiles]  # key -> files
    world_models: dict[str, WorldModelFiles]  # key -> files
    scores: list[dict[str, Any]]  # of the agents


def build_report(root: Path, params: Mapping[str, Any]) -> None:
    """Read ``metrics/`` and ``artifacts/`` of all agents and world models of the params, and write ``reports/``.

    Writes index.html, which needs no other file; scores.csv, a row an agent, with the names of ``metrics/<key>.json``, such as
    real.mean; and every figure of the page as a PNG file. The same artifacts and params give the same bytes.

    Args:
        root: the project's folder.
        params: the params file as a mapping; agents and world models that it does not name are left out.

    Raises:
        ArtifactError: a file is missing or cannot be read, with the command that makes it.
        ParamsError: a section of a game is missing or wrong.
    """
    runs, reports = _read_run(root, params), root / REPORTS
    scores = pd.DataFrame([flat(score) for run in runs for score in run.scores]).dropna(axis=1, how="all")
    write_bytes(reports / "scores.csv", scores.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode())
    games = [_game(run, reports, params) for run in runs]
    titles = [game["title"] for game in games]
    for game, run in zip(games, runs, strict=True):
        if titles.count(game["title"]) > 1:  # one game by two sets of rules
            game["title"] += f", {' and '.join(run.environments)}"
    stages = [stage for stage, keys in STAGES.items() if keys != "recordings" or params.get("recordings")]
    write_bytes(reports / "index.html", page("page.html.jinja", stages=stages, games=games))


def _read_run(root: Path, params: Mapping[str, Any]) -> list[_GameRun]:
    """Return the games of a run that have agents. Environments with the same rules are one game: their scores compare.

    Args:
        root: the project's folder.
        params: the params file as a mapping.

    Raises:
        ArtifactError: scores of an agent are missing or damaged.
        ParamsError: a section of a game is missing or wrong.
    """
    rules: dict[str, list[str]] = {}
    for name in params["environments"]:
        rules.setdefault(section(dict(params), f"{name}.game", Game).rules, []).append(name)
    runs = []
    for each, names in rules.items():
        keys = [key for name in names for key, entry in params["agents"].items() if entry["env"] == name]
        agents = {key: AgentFiles(key, root) for key in keys}
        models = {key: WorldModelFiles(key, root) for key, entry in params["world_models"].items() if entry["env"] in names}
        runs.append(_GameRun(each, names, agents, models, [read_scores(files.scores) for files in agents.values()]))
    return [run for run in runs if run.agents]


def _game(run: _GameRun, reports: Path, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template shows of a game; its figures are written into ``reports``."""
    name, scores, best = run.environments[0], run.scores, best_agent(run.scores)
    shown, paid, video = chain(scores), not pays_nothing(best), run.agents[best["key"]].video
    curves = {score["key"]: search_table(run.agents[score["key"]]) for score in shown}
    films = {score["world_model"]: run.agents[score["key"]] for score in reversed(scores)}  # the first agent of each
    found = collected(run.world_models)
    errors = open_loop(run.world_models)
    studies = []
    for study in dict.fromkeys(score["study"] for score in scores if score["study"] != NO_STUDY):
        own = [score for score in scores if score["study"] == study]
        image = comparisons.study_bars(study, variants(own))
        models = ", ".join(dict.fromkeys(score["world_model"] for score in own))
        studies.append({"name": study, "models": models, "png": write_png(reports / f"study-{name}-{study}.png", image)})
    return {
        "title": title(run.rules),
        "rules": f"{run.rules}, scored on {', '.join(dict.fromkeys(score['backend'] for score in scores))}",
        "headline": headline(best),
        "episodes": f"{best['real']['n']} {best['block']}",
        "paid": paid,
        "standing": write_png(reports / f"standing-{name}.png", comparisons.standing_bars(rivals(best))) if paid else None,
        "poster": png_bytes(picture_of(video)),
        "film": video.read_bytes(),
        "table": table(scores),
        "best": best["key"],
        "bars": write_png(reports / f"agents-{name}.png", comparisons.agent_bars(shown)),
        "searches": write_png(reports / f"search-{name}.png", comparisons.search_rounds(curves)),
        "measure": found[0],
        "collected": write_png(reports / f"collected-{name}.png", comparisons.collected_lines(*found))
        if any(found[1].values())
        else None,
        "horizon": write_png(reports / f"horizon-{name}.png", comparisons.open_loop_lines(errors)) if errors else None,
        "studies": studies,
        "agents": [agent_part(run.agents[score["key"]], score, reports, params) for score in scores],
        "world_models": [world_model_part(files, films.get(key), reports, params) for key, files in run.world_models.items()],
    }


def collected(models: Mapping[str, WorldModelFiles]) -> tuple[str, dict[str, dict[str, float]]]:
    """Return what the episodes of world models were worth: reward per step, or returns if every step pays alike.

    In a game with a map it is how much of the map an episode comes to: rewards are rare there, and say nothing of the rest.

    Returns:
        What is measured, and world model's key -> way of playing -> its worth.
    """
    played = {key: read_json(files.data, COLLECTED)["policies"] for key, files in models.items()}
    mapped = {
        key: {_way(policy): each["coverage"]["cells"] for policy, each in ways.items() if "coverage" in each}
        for key, ways in played.items()
    }
    if any(mapped.values()):
        return "share of the map in the mean episode", mapped
    rates = [each["reward_per_step"] for ways in played.values() for each in ways.values()]
    alike = bool(rates) and max(rates) - min(rates) < _ALIKE * abs(max(rates))
    field, measure = ("mean_return", "mean return of an episode") if alike else ("reward_per_step", "reward per step")
    return measure, {key: {_way(policy): each[field] for policy, each in ways.items()} for key, ways in played.items()}


def open_loop(models: Mapping[str, WorldModelFiles]) -> dict[str, dict[int, float]]:
    """Return the last errors of dreams on real actions: world model's key -> steps ahead -> error over the variance of z.

    World models whose held-out episodes are too short to say are left out.
    """
    errors = {}
    for key, files in models.items():
        judged = read_curve(files.memory_curve, ("split",)).query("split == 'validation'").tail(1)
        found = judged.filter(regex=r"^open_loop_\d+$").dropna(axis=1)
        if len(found.columns):
            errors[key] = {int(str(column).rpartition("_")[2]): float(found[column].iloc[0]) for column in found}
    return errors


def _way(policy: str) -> str:
    """Return a way of playing without the name of the agent.

    >>> _way("random, walk 0.9"), _way("doom-1, strength 0.2"), _way("doom-1 rejected, strength 0")
    ('random, walk 0.9', 'agent, strength 0.2', 'rejected, strength 0')
    >>> _way("home-1-curious explorer, strength 0")
    'explorer, strength 0'
    """
    who, _, how = policy.partition(", ")
    _, _, kind = who.partition(" ")  # keys have no spaces
    return policy if who == "random" else f"{kind or 'agent'}, {how}"
