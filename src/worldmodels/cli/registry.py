"""The registry's commands: find a version by what a person calls it; list, compare, promote, roll back, tell the history."""

import math
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel

from worldmodels.cli.folder import nearest
from worldmodels.errors import ParamsError
from worldmodels.report.table import align, with_error
from worldmodels.tracking import release
from worldmodels.tracking.registry import CANDIDATE, CHAMPION, alias_of, lost_champion
from worldmodels.tracking.store import PREFIX, lock, opened

HEADINGS = ("version", "agent", "study", "aliases", "preset", "real ± std. error", "n", "rules", "gate")
TAGS = ("world_model", "controller", "study", "preset", "rules", "backend")
EMPTY = " The registry is empty: `wm track sync` registers what `make repro` trained."


def list_versions(root: Path, model: str | None) -> list[dict[str, Any]]:
    """Return the versions of a model, or of all, as plain data, newest first within a model.

    ``lost`` of the champion says what to do if its files are gone; it is empty otherwise, and of all other versions.
    """
    rows = []
    with opened(root, make=False) as client:
        models = _models(client)
        for entry in models.values() if model is None else [models[_model(models, model)]]:
            gone = lost_champion(entry)
            for row in (_row(entry, version) for version in _versions(client, entry.name)):
                rows.append(row | {"lost": gone if CHAMPION in row["aliases"] else ""})
    return rows


def list_text(rows: list[dict[str, Any]]) -> str:
    """Return ``list_versions`` as text, a table for each model."""
    if not rows:
        return "The registry is empty. `wm track sync` registers what `make repro` trained."
    tables: dict[str, list[tuple[str, ...]]] = {}
    for row in rows:
        score = "-" if row["mean"] is None else with_error(row["mean"], row["stderr"] or math.nan)
        count, gate = "-" if row["n"] is None else str(row["n"]), (row["gate"] or "-").partition(" ")[0]
        named = (row["version"], row["agent"], row["study"], ", ".join(row["aliases"]) or "-", row["preset"])
        tables.setdefault(row["model"], [HEADINGS]).append((*named, score, count, row["rules"], gate))
    gone = {row["model"]: f"\nwarning: {row['lost']}" for row in rows if row["lost"]}
    return "\n\n".join(f"{name}\n{align(lines, right=(0, 5, 6))}{gone.get(name, '')}" for name, lines in tables.items())


def compare_versions(root: Path, first: str, second: str | None, alpha: float) -> dict[str, Any]:
    """Return what the gate would say of ``first`` against ``second``: a version, ``random``, or None for the champion.

    Nothing is written. Keys: challenger, reference, passed, reason, difference, stderr, p.
    """
    with opened(root, make=False) as client:
        challenger = _find(client, first)
        if second is None or second == release.RANDOM:
            champion = None if second else release.champion_of(client, challenger.name)
            other = None if champion is None else client.get_model_version(challenger.name, champion)
        else:
            other = _find(client, second)
            if other.name != challenger.name:
                raise ParamsError(f"{challenger.name} and {other.name} are different games: they cannot be compared.")
        verdict = release.judge_version(challenger, other, alpha)
    reference = release.RANDOM if other is None else f"{other.name}/{other.version}"
    return {"challenger": f"{challenger.name}/{challenger.version}", "reference": reference, **vars(verdict)}


def compare_text(result: dict[str, Any]) -> str:
    """Return ``compare_versions`` as text."""
    answer = "yes" if result["passed"] else "no evidence" if result["p"] is not None else "cannot be said"
    return f"{result['reason']}\nIs {result['challenger']} better than {result['reference']}? {answer}"


def promote_version(root: Path, text: str, alpha: float) -> str:
    """Make a version the champion if it passes the gate; return a sentence, or raise RefusedError with the reason."""
    with opened(root, make=False) as client, lock(root):
        return release.promote(client, _find(client, text), alpha)


def roll_back(root: Path, model: str, *, retire: bool) -> str:
    """Point ``champion`` at the champion before this one; return a sentence, or raise RefusedError if there is none."""
    with opened(root, make=False) as client, lock(root):
        return release.rollback(client, _model(_models(client), model), retire=retire)


def champions(root: Path, model: str) -> list[dict[str, Any]]:
    """Return the changes of a model's champion as plain data, the last one first.

    Keys: time, version (None if there is no champion from then on), agent, gate, reason, champion (whether it still is),
    reigns (the champions up to this one, to which `wm registry rollback` goes back).
    """
    with opened(root, make=False) as client:
        name = _model(_models(client), model)
        agents = {str(version.version): version.tags.get("wm.key", "-") for version in _versions(client, name)}
        now, changes = release.champion_of(client, name), release.history(client, name)
    rows = [change._asdict() | {"agent": agents.get(change.version or "", "-"), "champion": False} for change in changes]
    if rows:
        rows[-1]["champion"] = rows[-1]["version"] is not None and rows[-1]["version"] == now
    return rows[::-1]


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


def _models(client: MlflowClient) -> dict[str, RegisteredModel]:
    found = client.search_registered_models(f"name LIKE '{PREFIX}%'", max_results=1000)
    return {model.name: model for model in sorted(found, key=lambda model: model.name)}


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    return sorted(client.search_model_versions(f"name='{name}'"), key=lambda version: -int(version.version))


def _row(model: RegisteredModel, version: ModelVersion) -> dict[str, Any]:
    def number(name: str) -> float | None:
        try:
            value = float(version.tags[name])
        except (KeyError, ValueError):  # ValueError: written by hand
            return None
        return value if math.isfinite(value) else None

    count = number("real.n")
    return {
        "model": model.name,
        "version": str(version.version),
        "aliases": sorted(alias for alias, each in model.aliases.items() if str(each) == str(version.version)),
        "agent": version.tags.get("wm.key", "-"),
        **{name: version.tags.get(f"wm.{name}", "-") for name in TAGS},
        "mean": number("real.mean"),
        "stderr": number("real.stderr"),
        "n": None if count is None else int(count),
        "gate": version.tags.get("wm.gate"),
    }


def _model(models: dict[str, RegisteredModel], text: str) -> str:
    """Return the name of the model that a person calls ``text``: its own, or the environment's.

    Raises:
        ParamsError: there is none; the message names what is near.
    """
    name = PREFIX + text.removeprefix("models:/").removeprefix(PREFIX)
    if name in models:
        return name
    raise ParamsError(f"there is no registered model `{text}`.{nearest(name, models) or EMPTY}")


def _find(client: MlflowClient, text: str) -> ModelVersion:
    """Find a version: ``doom@champion``, ``doom/3``, ``doom-2`` (an agent), ``doom`` (its candidate), also as a model URI.

    Raises:
        ParamsError: nothing is called so; the message names what is near.
    """
    called: dict[str, ModelVersion] = {}
    for model in _models(client).values():
        game, versions = model.name.removeprefix(PREFIX), _versions(client, model.name)
        numbered = {str(version.version): version for version in versions}
        aliased = {alias: numbered[str(number)] for alias, number in model.aliases.items() if str(number) in numbered}
        for version in reversed(versions):  # of an agent: the version of dvc.lock, else the newest
            key = version.tags.get("wm.key", "-")
            called[key] = called[f"{game}@{key}"] = aliased.get(alias_of(key), version)
        called |= {f"{game}/{number}": version for number, version in numbered.items()}
        called |= {f"{game}@{alias}": version for alias, version in aliased.items()}
        called |= {game: aliased[CANDIDATE]} if CANDIDATE in aliased else {}
    bare = text.removeprefix("models:/").removeprefix(PREFIX)
    if bare in called:
        return called[bare]
    raise ParamsError(f"nothing in the registry is called `{text}`.{nearest(bare, called) or EMPTY}")
