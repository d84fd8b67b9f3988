"""The registry's commands: find a version by what a person calls it; list, compare, promote, roll back, tell the history."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldmodels.cli.folder import nearest
from worldmodels.errors import ParamsError
from worldmodels.tracking.store import lock, opened, require_store

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

PREFIX = "worldmodels-"
HEADINGS = ("version", "agent", "study", "aliases", "preset", "real ± std. error", "n", "rules", "gate")


def list_versions(root: Path, model: str | None) -> list[dict[str, Any]]:
    """Return the versions of a model, or of all, as plain data, newest first within a model."""
    with _registry(root) as (client, _):
        models = _models(client)
        chosen = models.values() if model is None else [models[_model(models, model)]]
        return [_row(entry, version) for entry in chosen for version in _versions(client, entry.name)]


def list_text(rows: list[dict[str, Any]]) -> str:
    """Return ``list_versions`` as text, a table for each model."""
    from worldmodels.report.table import align, with_error

    if not rows:
        return "The registry is empty. `wm track sync` registers what `make repro` trained."
    parts = []
    for name in dict.fromkeys(row["model"] for row in rows):
        lines = [HEADINGS]
        for row in rows:
            if row["model"] == name:
                score = "-" if row["mean"] is None else with_error(row["mean"], row["stderr"] or math.nan)
                gate = (row["gate"] or "-").partition(" ")[0]
                count = "-" if row["n"] is None else str(row["n"])
                named = (row["version"], row["agent"], row["study"], ", ".join(row["aliases"]) or "-")
                lines.append((*named, row["preset"], score, count, row["rules"], gate))
        parts.append(f"{name}\n{align(lines, right=(0, 5, 6))}")
    return "\n\n".join(parts)


def compare_versions(root: Path, first: str, second: str | None, alpha: float) -> dict[str, Any]:
    """Return what the gate would say of ``first`` against ``second``: a version, ``random``, or None for the champion.

    Nothing is written. Keys: challenger, reference, passed, reason, difference, stderr, p.
    """
    from worldmodels.tracking.release import RANDOM, fetch_outcomes, judge, judge_against_champion

    with _registry(root) as (client, _):
        challenger = _find(client, first)
        if second is None:
            verdict, against = judge_against_champion(client, challenger, alpha)
            reference = against if against == RANDOM else f"{challenger.name}/{against}"
        elif second == RANDOM:
            own = fetch_outcomes(challenger)
            verdict, reference = judge(own["real"], own[RANDOM], alpha), RANDOM
        else:
            other = _find(client, second)
            if other.name != challenger.name:
                raise ParamsError(f"{challenger.name} and {other.name} are different games: they cannot be compared.")
            verdict = judge(fetch_outcomes(challenger)["real"], fetch_outcomes(other)["real"], alpha)
            reference = f"{other.name}/{other.version}"
    return {"challenger": f"{challenger.name}/{challenger.version}", "reference": reference, **vars(verdict)}


def compare_text(result: dict[str, Any]) -> str:
    """Return ``compare_versions`` as text."""
    answer = "yes" if result["passed"] else "no evidence" if result["p"] is not None else "cannot be said"
    return f"{result['reason']}\nIs {result['challenger']} better than {result['reference']}? {answer}"


def promote_version(root: Path, text: str, alpha: float) -> str:
    """Make a version the champion if it passes the gate; return a sentence, or raise RefusedError with the reason."""
    from worldmodels.tracking.release import promote

    with _registry(root) as (client, _), lock(root):
        return promote(client, _find(client, text), alpha)


def roll_back(root: Path, model: str, *, retire: bool) -> str:
    """Point ``champion`` at the champion before this one; return a sentence, or raise RefusedError if there is none."""
    from worldmodels.tracking.release import rollback

    with _registry(root) as (client, _), lock(root):
        return rollback(client, _model(_models(client), model), retire=retire)


def champions(root: Path, model: str) -> list[dict[str, Any]]:
    """Return the changes of a model's champion as plain data, the last one first.

    Keys: time, version (None if there is no champion from then on), agent, gate, reason, champion (whether it still is).
    """
    from worldmodels.tracking.champions import history
    from worldmodels.tracking.release import champion_of

    with _registry(root) as (client, _):
        name = _model(_models(client), model)
        agents = {str(version.version): version.tags.get("wm.key", "-") for version in _versions(client, name)}
        now, rows = champion_of(client, name), [vars(change) for change in history(client, name)]
    told = [row | {"agent": agents.get(row["version"], "-"), "champion": False} for row in reversed(rows)]
    if told and told[0]["version"] is not None:
        told[0]["champion"] = told[0]["version"] == now
    return told


def champions_text(rows: list[dict[str, Any]]) -> str:
    """Return ``champions`` as text: a line for each change, and the reason below it."""
    if not rows:
        return "No version was ever promoted. `wm registry promote` makes a champion."
    lines = []
    for row in rows:
        what = "no champion" if row["version"] is None else f"version {row['version']} ({row['agent']})"
        mark = ", the champion now" if row["champion"] else ""
        lines.append(f"{row['time']}  {row['gate']}: {what}{mark}\n  {row['reason']}")
    return "\n".join(lines)


def _registry(root: Path) -> "AbstractContextManager[tuple[MlflowClient, str]]":
    require_store(root)
    return opened(root)


def _models(client: "MlflowClient") -> "dict[str, RegisteredModel]":
    found = client.search_registered_models(f"name LIKE '{PREFIX}%'", max_results=1000)
    return {model.name: model for model in sorted(found, key=lambda model: model.name)}


def _versions(client: "MlflowClient", name: str) -> "list[ModelVersion]":
    return sorted(client.search_model_versions(f"name='{name}'"), key=lambda version: -int(version.version))


def _row(model: "RegisteredModel", version: "ModelVersion") -> dict[str, Any]:
    tags = version.tags

    def number(name: str) -> float | None:
        try:
            value = float(tags.get(name, "nan"))
        except ValueError:  # written by hand
            return None
        return value if math.isfinite(value) else None

    count = number("real.n")
    return {
        "model": model.name,
        "version": str(version.version),
        "aliases": sorted(alias for alias, each in model.aliases.items() if str(each) == str(version.version)),
        "agent": tags.get("wm.key", "-"),
        "world_model": tags.get("wm.world_model", "-"),
        "controller": tags.get("wm.controller", "-"),
        "study": tags.get("wm.study", "-"),
        "preset": tags.get("wm.preset", "-"),
        "rules": tags.get("wm.rules", "-"),
        "backend": tags.get("wm.backend", "-"),
        "mean": number("real.mean"),
        "stderr": number("real.stderr"),
        "n": None if count is None else int(count),
        "gate": tags.get("wm.gate"),
    }


def _model(models: "dict[str, RegisteredModel]", text: str) -> str:
    """Return the name of the model that a person calls ``text``: its own, or the environment's.

    Raises:
        ParamsError: there is none; the message names what is near.
    """
    name = PREFIX + text.removeprefix("models:/").removeprefix(PREFIX)
    if name in models:
        return name
    hint = nearest(name, models) or " The registry is empty: `wm track sync` registers what `make repro` trained."
    raise ParamsError(f"there is no registered model `{text}`.{hint}")


def _find(client: "MlflowClient", text: str) -> "ModelVersion":
    """Find a version: ``doom@champion``, ``doom/3``, ``doom-2`` (an agent), ``doom`` (its candidate), also as a model URI.

    Raises:
        ParamsError: nothing is called so; the message names what is near.
    """
    from worldmodels.tracking.registry import CANDIDATE, alias_of

    models, bare = _models(client), text.removeprefix("models:/").removeprefix(PREFIX)
    if not any(mark in bare for mark in "/@") and PREFIX + bare not in models:
        return _agent(client, models, bare)
    game, mark, label = next((bare.partition(mark) for mark in "/@" if mark in bare), (bare, "@", CANDIDATE))
    name = _model(models, game)
    aliases, versions = models[name].aliases, {str(version.version): version for version in _versions(client, name)}
    found = label if mark == "/" else str(aliases.get(label, aliases.get(alias_of(label))))
    if found in versions:
        return versions[found]
    hint = nearest(label, versions if mark == "/" else sorted(aliases))
    raise ParamsError(f"there is no version `{name}{mark}{label}`.{hint}")


def _agent(client: "MlflowClient", models: "dict[str, RegisteredModel]", key: str) -> "ModelVersion":
    """Return the version of an agent: the one of dvc.lock, else the newest.

    Raises:
        ParamsError: no agent and no model is called so; the message names what is near.
    """
    from worldmodels.tracking.registry import alias_of

    known: dict[str, ModelVersion] = {}
    for model in models.values():
        for version in _versions(client, model.name):
            agent = version.tags.get("wm.key")
            if agent and (agent not in known or str(model.aliases.get(alias_of(agent))) == str(version.version)):
                known[agent] = version
    if key in known:
        return known[key]
    hint = nearest(key, [*known, *(name.removeprefix(PREFIX) for name in models)])
    hint = hint or " The registry is empty: `wm track sync` registers what `make repro` trained."
    raise ParamsError(f"there is no registered agent or model `{key}`.{hint}")
