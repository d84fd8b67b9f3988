"""From the artifacts and scores of a run to ``reports/``: the page, the scores as a table, the figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldmodels.report.comparisons import is_wide, standing_bars, study_bars
from worldmodels.report.html import Film, GamePage, Picture, write_report
from worldmodels.report.overview import rounds
from worldmodels.report.parts import agent_part, world_model_part
from worldmodels.report.pictures import png_bytes
from worldmodels.report.run import GameRun, keep, read_run, readable
from worldmodels.report.studies import variants
from worldmodels.report.table import HEADINGS, NO_STUDY, cells, score_table, with_error
from worldmodels.report.verdict import best_agent, details, headline, pays_nothing, rivals
from worldmodels.report.video import picture_of
from worldmodels.storage.layout import REPORTS, STAGES


def build_report(root: Path, params: Mapping[str, Any]) -> None:
    """Read ``metrics/`` and ``artifacts/`` of all agents and world models of the params, and write ``reports/``.

    Writes index.html, scores.csv (columns of ``table.score_table``) and every figure of the page as a PNG file. The same
    artifacts and params give the same bytes.

    Args:
        root: the project's folder.
        params: the params file as a mapping; agents and world models that it does not name are left out.

    Raises:
        ArtifactError: a file is missing or cannot be read, with the command that makes it.
        ParamsError: a section of a game is missing or wrong.
    """
    runs = read_run(root, params)
    reports = root / REPORTS
    reports.mkdir(parents=True, exist_ok=True)
    scores = [score for run in runs for score in run.scores.values()]
    score_table(scores).to_csv(reports / "scores.csv", index=False, float_format="%.6g", lineterminator="\n")
    write_report(reports / "index.html", list(STAGES), [_game_page(run, reports, params) for run in runs])


def _game_page(run: GameRun, reports: Path, params: Mapping[str, Any]) -> GamePage:
    scores = list(run.scores.values())
    best = best_agent(scores)
    backends = ", ".join(dict.fromkeys(score["backend"] for score in scores))
    return GamePage(
        name=", ".join(run.environments),
        rules=f"{run.rules}, scored on {backends}",
        headline=headline(best),
        details=details(best),
        standing=None if pays_nothing(best) else _standing(best, reports),
        film=_film(run, best),
        headings=HEADINGS,
        rows=cells(scores),
        best=best["key"],
        rounds=rounds(run, reports),
        studies=_studies(run, reports),
        agents=[agent_part(run, key, reports, params) for key in run.agents],
        world_models=[world_model_part(run, key, reports, params) for key in run.world_models],
    )


def _standing(best: Mapping[str, Any], reports: Path) -> Picture:
    """Return the picture of the best agent beside random play, blind play and the paper's agent."""
    found = rivals(best)
    png = keep(reports / f"standing-{best['environment']}.png", png_bytes(standing_bars(found)))
    named = (f"{rival.name}: {with_error(rival.mean, rival.stderr)}".replace("\n", " ") for rival in found)
    return Picture(png, f"Mean returns in {best['environment']}. {'; '.join(named)}", "")


def _film(run: GameRun, best: Mapping[str, Any]) -> Film:
    path = run.agents[best["key"]].video
    poster = png_bytes(readable(picture_of, path))
    caption = (
        f"{best['key']} plays an episode of its own. Left: the game. Middle: what V sees of it. Right: M's dream from the same "
        "first frame with the same actions; it soon goes its own way."
    )
    return Film(path.read_bytes(), poster, caption)


def _studies(run: GameRun, reports: Path) -> list[Picture]:
    """Return a picture for every study of the game."""
    found = []
    for study in dict.fromkeys(score["study"] for score in run.scores.values() if score["study"] != NO_STUDY):
        own = [score for score in run.scores.values() if score["study"] == study]
        table = variants(own)
        png = keep(reports / f"study-{run.environments[0]}-{study}.png", png_bytes(study_bars(study, table)))
        alt = "Mean returns in the game. " + "; ".join(f"{row.name}: {row.mean:.0f}" for row in table)
        models = ", ".join(dict.fromkeys(score["world_model"] for score in own))
        caption = f"Study {study}: agents on {models}, a bar for each section of controllers, a dot for each seed."
        found.append(Picture(png, alt, caption, is_wide(len(table))))
    return found
