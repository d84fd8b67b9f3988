"""Trials side by side, study by study."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from worldmodels.report.table import read_scores, with_error
from worldmodels.storage.layout import Trial

HEADINGS = (
    "variant",
    "seeds",
    "real ± std. error",
    "each seed",
    "n",
    "steps: dream",
    "steps: game",
    "parameters of C",
    "played on",
)
_NEEDED = ("key", "study", "variant", "seed", "of", "steps", "parameters", "rules", "backend", "preset", "real")


def read_trial(files: Trial) -> dict[str, Any]:
    """Return the ``trial.json`` of a trial.

    Raises:
        ArtifactError: where it is missing or damaged, with the command that makes it.
    """
    return read_scores(files, _NEEDED)


class Variant(NamedTuple):
    """What the trials of one variant of a study got.

    Attributes:
        name: of the variant.
        mean: over seeds, of the means over episodes.
        stderr: of that mean, from the spread of the seeds; where there is one seed, over its episodes.
        seeds: their means.
        first: the ``trial.json`` of the first: what they have in common.
    """

    name: str
    mean: float
    stderr: float
    seeds: list[float]
    first: Mapping[str, Any]


def trial_table(trials: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return one row a trial.

    Columns: key, study, variant, seed, of, real, real_std, real_stderr, n, dream_steps, real_steps, parameters, rules, backend,
    preset.
    """
    rows = [
        {
            **{name: trial[name] for name in ("key", "study", "variant", "seed", "of")},
            "real": trial["real"]["mean"],
            "real_std": trial["real"]["std"],
            "real_stderr": trial["real"]["stderr"],
            "n": trial["real"]["n"],
            "dream_steps": trial["steps"]["dream"],
            "real_steps": trial["steps"]["real"],
            **{name: trial[name] for name in ("parameters", "rules", "backend", "preset")},
        }
        for trial in trials
    ]
    return pd.DataFrame(rows)


def variants(trials: Sequence[Mapping[str, Any]]) -> list[Variant]:
    """Return the variants of one study, in the order in which they first appear."""
    found = []
    for name in dict.fromkeys(trial["variant"] for trial in trials):
        own = [trial for trial in trials if trial["variant"] == name]
        means = [float(trial["real"]["mean"]) for trial in own]
        stderr = float(np.std(means, ddof=1)) / len(own) ** 0.5 if len(own) > 1 else float(own[0]["real"]["stderr"])
        found.append(Variant(name, float(np.mean(means)), stderr, means, own[0]))
    return found


def study_cells(trials: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return a study's table as text cells under ``HEADINGS``, one row a variant."""
    return [
        (
            variant.name,
            str(len(variant.seeds)),
            with_error(variant.mean, variant.stderr),
            ", ".join(f"{mean:.0f}" for mean in variant.seeds),
            str(variant.first["real"]["n"]),
            f"{variant.first['steps']['dream']:,}",
            f"{variant.first['steps']['real']:,}",
            f"{variant.first['parameters']:,}",
            variant.first["backend"],
        )
        for variant in variants(trials)
    ]
