"""The gate before ``champion``: a version is released if its real score is better, with statistical evidence.

The test: both have played the same test episodes, so that each episode gives a difference of returns. If the challenger were no
better, each difference could as well have had the other sign; p is the share of sign flips whose mean is at least the observed
one (a one-sided paired permutation test, Fisher 1935). It assumes no distribution of returns. At level alpha, a challenger
that is as good as the champion passes with probability alpha at most, each time that one is tried.

What was last decided is written on the version: ``wm.gate`` (a sentence), ``wm.gate.passed``, ``.against`` (the champion's
version, or ``random``), ``.p``, ``.alpha``. Each change of the champion is a tag of the model, and none is overwritten.
"""

import json
import re
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from worldmodels.errors import ArtifactError, WorldModelsError
from worldmodels.report.table import markdown
from worldmodels.tracking.registry import CHAMPION, RETURNS, bar_of
from worldmodels.tracking.runs import NOTE, RunStore
from worldmodels.tracking.store import reason_of

ALPHA = 0.05
RANDOM = "random"
"""Names the random policy, which the first champion must beat."""
FLIPS = 20_000
"""Sign flips to draw, from a fixed seed; if there are fewer, all of them are taken."""
BATCH = 1_000
"""Flips held in memory at once."""
HEADINGS = ("agent", "score", "n", "dream", "best blind", "paper", "champion")
"""Of the table in the description of an iteration."""
CHANGE = "wm.champion."
"""Name of the tag of a change of the champion, before the time of the change."""


@dataclass(frozen=True)
class Outcome:
    """What a policy earned in test episodes."""

    name: str  # as sentences call it
    rules: str  # of the game
    backend: str  # that ran it
    block: str  # of the episodes: `test`, or another one
    seeds: np.ndarray  # of the episodes, ascending
    returns: np.ndarray  # of the episodes, (E,)


@dataclass(frozen=True)
class Verdict:
    """What the gate says."""

    passed: bool  # whether the challenger is better
    reason: str  # a sentence
    difference: float | None = None  # mean of challenger minus reference over episodes; None if they cannot be compared
    stderr: float | None = None  # of the difference
    p: float | None = None  # of the one-sided test


class Change(NamedTuple):
    """A change of the champion."""

    version: str | None  # the champion from then on; None if there is none
    time: str  # in UTC, to the minute
    gate: str  # how it came to be: promoted, rolled back, retired
    reason: str  # a sentence
    reigns: list[str]  # the versions that were champion one after the other, up to this one: the way back


class RefusedError(WorldModelsError):
    """A version that does not pass the gate."""


def sign_flip_p(differences: np.ndarray) -> float:
    """Return the probability, under random signs of ``differences`` (E,), of a mean as large as the observed one.

    Never 0: if flips are drawn, the observed one counts as one of them, so that the level is kept (Phipson & Smyth 2010).

    >>> sign_flip_p(np.array([1.0, 2.0, 3.0]))
    0.125
    """
    from scipy.stats import permutation_test

    if len(differences) < 2:
        return 0.5 if differences.sum() > 0 else 1.0
    options = {"permutation_type": "samples", "alternative": "greater", "n_resamples": FLIPS - 1, "batch": BATCH}
    return float(permutation_test((differences,), np.mean, vectorized=True, rng=0, **options).pvalue)


def judge(challenger: Outcome, reference: Outcome, alpha: float = ALPHA) -> Verdict:
    """Return whether ``challenger`` is better than ``reference`` at level ``alpha``; not without the same test episodes."""
    for what, own, other in (
        ("by other rules", challenger.rules, reference.rules),
        ("on another back end", challenger.backend, reference.backend),
        ("on another block of episodes", challenger.block, reference.block),
        ("on other episodes", _seeds(challenger), _seeds(reference)),
    ):
        if own != other:
            found = f"{challenger.name} was tested {what} than {reference.name} ({own}, not {other})"
            return Verdict(False, f"{found}: they cannot be compared. Test both with the same preset, then try again.")
    differences = challenger.returns - reference.returns
    count, mean, p = len(differences), float(differences.mean()), sign_flip_p(differences)
    error = float(differences.std(ddof=1) / count**0.5) if count > 1 else None
    sign, margin = "<" if p < alpha else "not below", "?" if error is None else f"{error:.1f}"
    few = "" if p < alpha or 0.5**count < alpha else " So few episodes cannot show that it is better."
    reason = (
        f"{challenger.name} has {challenger.returns.mean():.1f}, {reference.name} {reference.returns.mean():.1f} "
        f"on the same {count} test episodes: {mean:+.1f} ± {margin}, p = {p:.2g} {sign} alpha = {alpha:g} "
        f"(one-sided paired sign-flip test).{few}"
    )
    return Verdict(p < alpha, reason, mean, error, p)


def _seeds(outcome: Outcome) -> str:
    seeds = outcome.seeds.tolist()
    told = f"seeds {seeds[0]} to {seeds[-1]}" if seeds == list(range(seeds[0], seeds[-1] + 1)) else f"seeds {seeds}"
    return f"{len(seeds)} with {told}"


def fetch_outcomes(version: ModelVersion) -> dict[str, Outcome]:
    """Return what a version (``real``) and the random policy (``random``) earned in its test episodes, from the registry.

    Raises:
        ArtifactError: its table cannot be had.
    """
    label = f"{version.name}/{version.version}"
    with tempfile.TemporaryDirectory() as place:
        try:
            path = mlflow.artifacts.download_artifacts(f"models:/{label}/{RETURNS}", dst_path=place)
            table = pd.read_parquet(path, columns=["world", "seed", "total"])
        except (MlflowException, OSError, ValueError, KeyError) as error:
            raise ArtifactError(
                f"the test episodes of {label} ({RETURNS}) cannot be read: {reason_of(error)}. If the store is up, its "
                "files are gone: `wm track sync` registers the agent again from the project's artifacts; then delete this "
                "version in MLflow."
            ) from None
    rules, backend, block = (version.tags.get(f"wm.{tag}", "") for tag in ("rules", "backend", "block"))
    names = {"real": f"version {version.version} ({version.tags.get('wm.key', '?')})", RANDOM: "the random policy"}
    found = {}
    for world, name in names.items():
        rows = table[table["world"] == world].sort_values("seed")
        if rows.empty:
            raise ArtifactError(f"{RETURNS} of {label} holds no `{world}` episodes: it cannot be judged.")
        found[world] = Outcome(name, rules, backend, block, rows["seed"].to_numpy(), rows["total"].to_numpy(np.float64))
    return found


def champion_of(client: MlflowClient, name: str) -> str | None:
    """Return the version that ``champion`` points at."""
    version = client.get_registered_model(name).aliases.get(CHAMPION)
    return None if version is None else str(version)


def judge_version(challenger: ModelVersion, reference: ModelVersion | None, alpha: float) -> Verdict:
    """Return what the gate says of a version against another, or against the random policy if it is None."""
    own = fetch_outcomes(challenger)
    return judge(own["real"], own[RANDOM] if reference is None else fetch_outcomes(reference)["real"], alpha)


def promote(client: MlflowClient, version: ModelVersion, alpha: float = ALPHA) -> str:
    """Make a version the champion if it passes the gate; write the reason on it in any case; return a sentence.

    Raises:
        RefusedError: it does not pass, for the reason in the message; the champion stays.
        ArtifactError: its test episodes, or the champion's, cannot be had.
    """
    name, number, champion = version.name, str(version.version), champion_of(client, version.name)
    if champion == number:
        return f"{name}/{number} is the champion already."
    stays = f"{name}/{champion} stays the champion" if champion else f"{name} stays without a champion"
    if bar := bar_of(version):
        raise RefusedError(f"{stays}: {name}/{number} {bar}")
    verdict = judge_version(version, client.get_model_version(name, champion) if champion else None, alpha)
    told = {
        "wm.gate.passed": str(verdict.passed).lower(),
        "wm.gate.against": champion or RANDOM,
        "wm.gate.p": "" if verdict.p is None else f"{verdict.p:.4g}",
        "wm.gate.alpha": f"{alpha:g}",
    }
    for key, text in told.items():
        client.set_model_version_tag(name, number, key, text)
    _tell(client, name, number, f"{'promoted' if verdict.passed else 'refused'} {_now()}: {verdict.reason}")
    if not verdict.passed:
        describe(client, name)
        raise RefusedError(f"{stays}: {verdict.reason}")
    client.set_registered_model_alias(name, CHAMPION, number)
    earlier = _reigns(client, name, champion) if champion else []
    _remember(client, name, [*earlier, number], "promoted", verdict.reason)
    if champion:
        _tell(
            client,
            name,
            champion,
            f"was champion until {_now()}: version {number} ({version.tags.get('wm.key', '?')}) is better.",
        )
    describe(client, name)
    return f"{name}/{number} is the champion: {verdict.reason}"


def rollback(client: MlflowClient, name: str, *, retire: bool = False) -> str:
    """Point ``champion`` at the champion before this one that is still there; return a sentence.

    A version that was rolled back from is no way back. ``retire`` leaves the model without a champion instead: the next must
    beat the random policy.

    Raises:
        RefusedError: there is nothing to go back to.
    """
    champion = champion_of(client, name)
    if champion is None:
        raise RefusedError(f"{name} has no champion. `wm registry promote` makes one.")
    there = {str(version.version) for version in client.search_model_versions(f"name='{name}'")} - {champion}
    earlier = [version for version in _reigns(client, name, champion) if version in there]
    if retire:
        client.delete_registered_model_alias(name, CHAMPION)
        said = f"{name} has no champion any more."
        _remember(client, name, [], "retired", f"version {champion}")
    elif earlier:
        client.set_registered_model_alias(name, CHAMPION, earlier[-1])
        said = f"{name}/{earlier[-1]} is the champion again."
        _remember(client, name, earlier, "rolled back", f"from version {champion}")
    else:
        raise RefusedError(
            f"{name}/{champion} has no champion before it to go back to. `--retire` leaves {name} without a champion."
        )
    _tell(client, name, champion, f"rolled back {_now()}: {said}")
    describe(client, name)
    return said


def describe(client: MlflowClient, name: str) -> None:
    """Write onto the iterations of a game what their agents got, which is the champion, and why."""
    registered, experiment = client.search_model_versions(f"name='{name}'"), client.get_experiment_by_name(name)
    if not registered or experiment is None:
        return
    champion, found = champion_of(client, name), RunStore(client, experiment.experiment_id).find(kind="iteration")
    agents: dict[str, dict[tuple[str, bool], ModelVersion]] = {run.info.run_id: {} for run in found}
    for version in sorted(registered, key=lambda each: int(each.version)):
        newest = version.tags.get("wm.key", "?"), str(version.version) == champion
        agents.get(version.run_id or "", {})[newest] = version
    for run in (run for run in found if agents[run.info.run_id]):
        rows, champions = [], []
        best, *_ = ranked = sorted(agents[run.info.run_id].items(), key=lambda each: _rank(each[1]), reverse=True)
        for (key, released), version in ranked:
            gate = bar_of(version) or version.tags.get("wm.gate", f"not asked: `wm registry promote {key}`")
            cells = [version.tags.get(told, "-") for told in ("score", "real.n", "dream", "blind", "paper")]
            rows.append([key, *cells, f"**champion**: {gate}" if released else gate])
            champions += [key] if released else []
        first = (best[1].description or "").partition("\n")[0]
        tags = {NOTE: f"{first}\n\n{markdown([HEADINGS, *rows])}", "champion": ", ".join(champions) or "-"}
        if not tags.items() <= run.data.tags.items():
            client.log_batch(run.info.run_id, tags=[RunTag(*tag) for tag in tags.items()])


def _rank(version: ModelVersion) -> tuple[bool, float]:
    return not bar_of(version), float(version.tags.get("real.mean", "-inf"))


def history(client: MlflowClient, name: str) -> list[Change]:
    """Return the changes of a model's champion, the first one first; tags that say no such thing are left out."""
    found = []
    for _, text in sorted(item for item in client.get_registered_model(name).tags.items() if item[0].startswith(CHANGE)):
        try:
            found.append(Change(**json.loads(text)))
        except (ValueError, TypeError):
            continue
    return found


def _reigns(client: MlflowClient, name: str, champion: str) -> list[str]:
    """Return the versions that were champion one after the other, up to this one; itself alone if it was set by hand."""
    changes = history(client, name)
    return changes[-1].reigns if changes and changes[-1].version == champion else [champion]


def _remember(client: MlflowClient, name: str, reigns: list[str], gate: str, reason: str) -> None:
    change = Change(reigns[-1] if reigns else None, _now(), gate, reason, reigns)
    client.set_registered_model_tag(name, f"{CHANGE}{datetime.now(UTC):%Y%m%d-%H%M%S-%f}", json.dumps(change._asdict()))


def _tell(client: MlflowClient, name: str, number: str, text: str) -> None:
    """Say on a version, and below the first sentence of its description, what was last decided of it."""
    client.set_model_version_tag(name, number, "wm.gate", text)
    first, _, rest = (client.get_model_version(name, number).description or "").partition("\n\n")
    told = re.sub(r"^> .*\n\n", "", rest)
    client.update_model_version(name, number, f"{first}\n\n> {text}\n\n{told}")


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
