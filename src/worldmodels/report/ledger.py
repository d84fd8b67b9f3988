"""The ledger of scores, ``results/ledger.csv``: read, check, add rows.

The ledger is the one source of every score that a page shows. A row is one agent on test episodes. ``wm ledger`` adds the rows
of a run; no stage reads or writes the ledger. ``report/results_page.py`` makes the pages.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from worldmodels.errors import ArtifactError
from worldmodels.storage.files import read_json, write_bytes

LEDGER = Path("results/ledger.csv")
"""Where the ledger is, from the project's folder."""
COLUMNS = (
    "run", "preset", "game", "agent", "chain_seed", "controller_seed", "n", "mean", "std", "stderr", "dream", "minutes",
    "hardware", "commit",
)  # fmt: skip
_WHOLE = ("chain_seed", "controller_seed", "n")
_REAL = ("mean", "std", "stderr", "dream", "minutes")
_IDENTITY = ["run", "game", "agent", "chain_seed", "controller_seed"]
_GAMES = {"takecover": "take_cover"}
"""How a game's rules begin -> its name in the ledger, if the two differ."""


def read_ledger(path: Path) -> pd.DataFrame:
    """Read and check a ledger.

    Returns:
        One row an agent and seed, columns ``COLUMNS``. An unknown text is empty, an unknown number is NA. ``mean``
        and ``dream`` are sums of rewards over an episode. ``minutes`` is the wall-clock time from nothing to that agent.

    Raises:
        ArtifactError: the file is missing, or a column, a number or a row is not as it must be.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from None
    if tuple(table.columns) != COLUMNS:
        raise ArtifactError(
            f"{path} has the columns {', '.join(table.columns)}; they must be {', '.join(COLUMNS)}, in this order."
        )
    for name in (*_WHOLE, *_REAL):
        try:
            table[name] = pd.to_numeric(table[name].replace("", None)).astype("Int64" if name in _WHOLE else "Float64")
        except (TypeError, ValueError) as error:
            raise ArtifactError(f"{path}, column {name}: {error}") from None
    _check(table, path)
    return table


def _check(table: pd.DataFrame, path: Path) -> None:
    for line, (_, row) in enumerate(table.iterrows(), start=2):
        missing = [name for name in ("run", "game", "agent", "mean") if pd.isna(row[name]) or row[name] == ""]
        if missing:
            raise ArtifactError(f"{path}, line {line}: {', '.join(missing)} must be given.")
        if any(pd.isna(row[name]) for name in ("n", "std", "stderr")):
            continue
        expected = row["std"] / math.sqrt(row["n"])
        if abs(row["stderr"] - expected) > 0.02 * expected + 0.6:  # published errors are rounded to whole numbers
            raise ArtifactError(f"{path}, line {line}: stderr is {row['stderr']}; std / sqrt(n) is {expected:.2f}.")
    twice = table[table.duplicated(_IDENTITY)]
    if len(twice):
        row = twice.iloc[0]
        raise ArtifactError(f"{path} has two rows of {row['agent']} in {row['run']} with the same seeds.")


def add_rows(
    root: Path, run: str, *, hardware: str = "", commit: str = "", minutes: Mapping[str, float] | None = None
) -> list[str]:
    """Append a row to the ledger for every ``metrics/<key>.json`` of a project; a row with the same run, agent and seeds
    is replaced.

    Random play and other policies that do not look come from ``artifacts/agents/<environment>-0/blind.csv``, if it exists.

    Args:
        root: the project's folder.
        run: name of the run, one word.
        hardware: for example ``AMD EPYC, 2 cores, bf16``.
        commit: the code that made the scores.
        minutes: key of an agent -> wall-clock minutes from nothing to it. For other agents ``minutes`` of their metrics is
            taken, if there is one.

    Returns:
        The agents whose rows were written, in order.

    Raises:
        ArtifactError: there are no metrics, or a file lacks what a row needs.
    """
    files = sorted((root / "metrics").glob("*.json"))
    if not files:
        raise ArtifactError(f"{root / 'metrics'} has no scores. `dvc repro evaluate` makes them.")
    common = {"run": run, "hardware": hardware, "commit": commit}
    rows: list[dict[str, Any]] = []
    baselines: dict[str, tuple[str, str]] = {}
    for file in files:
        row, environment = _row_of(file, read_json(file))
        baselines.setdefault(environment, (row["preset"].partition("+")[0], row["game"]))
        if row["agent"] == f"{environment}-0":  # random play; `blind.csv` has it too
            continue
        known = (minutes or {}).get(row["agent"])
        rows.append(common | row | ({} if known is None else {"minutes": known}))
    for environment, (preset, game) in baselines.items():
        played = root / "artifacts" / "agents" / f"{environment}-0" / "blind.csv"
        rows += [common | {"preset": preset, "game": game} | row for row in _blind_rows(played)]
    added = pd.DataFrame([{name: _cell(row.get(name)) for name in COLUMNS} for row in rows], columns=list(COLUMNS))
    path = root / LEDGER
    before = pd.read_csv(path, dtype=str, keep_default_na=False) if path.exists() else added.iloc[:0]
    rows_now = pd.concat([before, added]).drop_duplicates(_IDENTITY, keep="last")
    write_bytes(path, rows_now.to_csv(index=False, lineterminator="\n").encode())
    read_ledger(path)
    return [str(row["agent"]) for row in rows]


def _row_of(file: Path, score: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    try:
        game = score["rules"].partition("-")[0]
        study = score.get("study") or "none"
        return {
            "preset": score["preset"].partition("+")[0] + ("" if study == "none" else f"+{study}"),
            "game": _GAMES.get(game, game),
            "agent": score["key"],
            "chain_seed": score.get("seed"),
            "controller_seed": score.get("controller_seed"),
            **{name: score["real"].get(name) for name in ("n", "mean", "std", "stderr")},
            "dream": (score.get("dream") or {}).get("mean"),
            "minutes": score.get("minutes"),
        }, score["environment"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{file} is no score of an agent ({error!r}). `dvc repro evaluate@{file.stem}` makes it again."
        ) from None


def _blind_rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    policies = pd.read_csv(path).to_dict("records")
    return [
        {
            "agent": row["policy"] if row["policy"] == "random" else f"blind: {row['policy']}",
            **{name: row[name] for name in ("n", "mean", "std", "stderr")},
        }
        for row in policies
    ]


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
