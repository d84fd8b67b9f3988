"""The gate before ``champion``: a version is released if its real score is better, with statistical evidence.

The test: both have played the same test episodes, so that each episode gives a difference of returns. If the challenger were no
better, each difference could as well have had the other sign; p is the share of sign flips whose mean is at least the observed
one (a one-sided paired permutation test, Fisher 1935). It assumes no distribution of returns. At level alpha, a challenger
that is as good as the champion passes with probability alpha at most, each time that one is tried.

What was last decided is written on the version: ``wm.gate`` (a sentence), ``wm.gate.passed``, ``.against`` (the champion's
version, or ``random``), ``.p``, ``.alpha``. Each change of the champion is written on the model (``tracking/champions.py``).
"""

import os
import tempfile
from dataclasses import dataclass

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from worldmodels.errors import ArtifactError, WorldModelsError
from worldmodels.tracking.champions import before, now, remember
from worldmodels.tracking.registry import CHAMPION, RETURNS
from worldmodels.tracking.store import reason_of

ALPHA = 0.05
RANDOM = "random"
"""Names the random policy, which the first champion must beat."""
NO_STUDY = "none"
"""`study` of an agent that is no part of a comparison."""
FLIPS = 20_000
"""Sign flips to draw, from a fixed seed; if there are fewer, all of them are taken."""
BATCH = 1_000
"""Flips held in memory at once."""


@dataclass(frozen=True)
class Outcome:
    """What a policy earned in test episodes.

    Attributes:
        name: as sentences call it.
        rules: of the game.
        backend: that ran it.
        seeds: of the episodes, ascending.
        returns: of the episodes, (E,).
    """

    name: str
    rules: str
    backend: str
    seeds: np.ndarray
    returns: np.ndarray


@dataclass(frozen=True)
class Verdict:
    """What the gate says.

    Attributes:
        passed: whether the challenger is better.
        reason: a sentence.
        difference: mean of challenger minus reference over episodes; None if the two cannot be compared.
        stderr: its standard error.
        p: of the one-sided test.
    """

    passed: bool
    reason: str
    difference: float | None = None
    stderr: float | None = None
    p: float | None = None


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
    test = permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        alternative="greater",
        n_resamples=FLIPS - 1,
        batch=BATCH,
        vectorized=True,
        rng=0,
    )
    return float(test.pvalue)


def judge(challenger: Outcome, reference: Outcome, alpha: float = ALPHA) -> Verdict:
    """Return whether ``challenger`` is better than ``reference`` at level ``alpha``; not without the same test episodes."""
    for what, own, other in (
        ("by other rules", challenger.rules, reference.rules),
        ("on another back end", challenger.backend, reference.backend),
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
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
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
    rules, backend = (version.tags.get(f"wm.{tag}", "") for tag in ("rules", "backend"))
    names = {"real": f"version {version.version} ({version.tags.get('wm.key', '?')})", RANDOM: "the random policy"}
    found = {}
    for world, name in names.items():
        rows = table[table["world"] == world].sort_values("seed")
        if rows.empty:
            raise ArtifactError(f"{RETURNS} of {label} holds no `{world}` episodes: it cannot be judged.")
        found[world] = Outcome(name, rules, backend, rows["seed"].to_numpy(), rows["total"].to_numpy(np.float64))
    return found


def champion_of(client: MlflowClient, name: str) -> str | None:
    """Return the version that ``champion`` points at."""
    version = client.get_registered_model(name).aliases.get(CHAMPION)
    return None if version is None else str(version)


def judge_against_champion(client: MlflowClient, version: ModelVersion, alpha: float = ALPHA) -> tuple[Verdict, str]:
    """Return what the gate says of a version, and against what: a version, or ``random`` if there is no champion."""
    own, champion = fetch_outcomes(version), champion_of(client, version.name)
    if champion is None:
        return judge(own["real"], own[RANDOM], alpha), RANDOM
    return judge(own["real"], fetch_outcomes(client.get_model_version(version.name, champion))["real"], alpha), champion


def promote(client: MlflowClient, version: ModelVersion, alpha: float = ALPHA) -> str:
    """Make a version the champion if it passes the gate; write the reason on it in any case; return a sentence.

    Raises:
        RefusedError: with the reason; the champion stays.
        ArtifactError: its test episodes, or the champion's, cannot be had.
    """
    name, number, champion = version.name, str(version.version), champion_of(client, version.name)
    if champion == number:
        return f"{name}/{number} is the champion already."
    stays = f"{name}/{champion} stays the champion" if champion else f"{name} stays without a champion"
    study = version.tags.get("wm.study", NO_STUDY)
    if study != NO_STUDY:
        raise RefusedError(
            f"{stays}: {name}/{number} belongs to the study `{study}`, which only compares. Name its recipe by an agent "
            "with `study: none` to release it."
        )
    verdict, against = judge_against_champion(client, version, alpha)
    told = {
        "wm.gate": f"{'promoted' if verdict.passed else 'refused'} {now()}: {verdict.reason}",
        "wm.gate.passed": str(verdict.passed).lower(),
        "wm.gate.against": against,
        "wm.gate.p": "" if verdict.p is None else f"{verdict.p:.4g}",
        "wm.gate.alpha": f"{alpha:g}",
    }
    for key, text in told.items():
        client.set_model_version_tag(name, number, key, text)
    if not verdict.passed:
        raise RefusedError(f"{stays}: {verdict.reason}")
    client.set_registered_model_alias(name, CHAMPION, number)
    remember(client, name, number, "promoted", verdict.reason)
    return f"{name}/{number} is the champion: {verdict.reason}"


def rollback(client: MlflowClient, name: str, *, retire: bool = False) -> str:
    """Point ``champion`` at the champion before this one; return a sentence.

    Args:
        client: of the registry.
        name: of the model.
        retire: leave the model without a champion instead; the next must beat the random policy.

    Raises:
        RefusedError: there is nothing to go back to.
    """
    champion = champion_of(client, name)
    if champion is None:
        raise RefusedError(f"{name} has no champion. `wm registry promote` makes one.")
    earlier = None if retire else before(client, name, champion)
    if earlier is not None:
        client.set_registered_model_alias(name, CHAMPION, earlier)
        said = f"{name}/{earlier} is the champion again."
        remember(client, name, earlier, "rolled back", f"from version {champion}")
    elif retire:
        client.delete_registered_model_alias(name, CHAMPION)
        said = f"{name} has no champion any more."
        remember(client, name, None, "retired", f"version {champion}")
    else:
        raise RefusedError(
            f"{name}/{champion} has no champion before it to go back to. `--retire` leaves {name} without a champion."
        )
    client.set_model_version_tag(name, champion, "wm.gate", f"rolled back {now()}: {said}")
    return said
