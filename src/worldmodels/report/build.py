"""From the artifacts of all iterations to ``reports/``: the page, the scores as a table, the figures."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from worldmodels.report.comparisons import collected_lines, open_loop_lines, score_bars, search_rounds, study_bars
from worldmodels.report.figures import learning_curves, return_strip
from worldmodels.report.html import EnvironmentPage, Film, IterationPage, Picture, StudyPage, write_report
from worldmodels.report.pictures import png_bytes
from worldmodels.report.studies import HEADINGS as STUDY_HEADINGS
from worldmodels.report.studies import read_trial, study_cells, trial_table, variants
from worldmodels.report.table import HEADINGS, cells, read_scores, score_table, with_error
from worldmodels.report.video import picture_of
from worldmodels.storage.files import read_json
from worldmodels.storage.layout import PRIMARY, REPORTS, Iteration, Trial, damaged, require

T = TypeVar("T")
STAGES = tuple(PRIMARY)
HASHED = ("vision.safetensors", "memory.safetensors", "controller.safetensors", "scores.json", "returns.parquet")

_CURVE_TEXT = {
    "vision": "V's loss on frames it trains on and on frames held out.",
    "memory": "M's loss on sequences it trains on and on sequences held out.",
    "controller": "Mean return of the population in every generation, with one standard deviation; dashed: the best "
    "of a generation, a noisy maximum that is not a score. Where PPO pays for risk and no episode ends: what it pays for a "
    "step. Diamonds: contestants on selection episodes, with their standard error.",
}


_FILM_TEXT = (
    "the agent in the real game, the same through V, and the dream that starts from the first frame and gets the same "
    "actions: it soon goes its own way. The iteration with the best real score; an episode of its own, no test episode."
)


_COLLECTED_TEXT = (
    "over the episodes that each iteration learns from: random play, then the agent of the iteration before, with more or less "
    "noise on its actions."
)
_ALIKE = 0.02  # rates that differ by less say nothing: a step pays the same, as in games of survival
_SEARCH_TEXT = (
    "The C that each search began with, that of the iteration before, and the C that was kept, on selection episodes with "
    "their standard error. Each iteration has selection episodes of its own, and the best of several contestants is a little "
    "lucky on them. Dots: the mean of the population in the dream at the end of the search."
)
_HORIZON_TEXT = (
    "Held-out play: M sees some steps, then only the actions of the game, and dreams on. 1 (dashed) is no better than the mean "
    "of all frames."
)


def build_report(root: Path, keys: Sequence[str], params: Mapping[str, Any], trials: Sequence[str] = ()) -> None:
    """Read ``artifacts/<key>/`` of every key and write ``reports/``.

    Writes index.html, scores.csv, scores-<environment>.png, and for every key returns-<key>.png and
    <stage>-<key>.png; where there are trials, trials.csv and study-<name>.png. The same artifacts and params give the same
    bytes.

    Args:
        root: the project's folder.
        keys: chain keys, ``doom-1``...; random policies (iteration 0) are no keys here.
        params: the params file as a mapping; an iteration's page shows the section of its environment.
        trials: keys of the trials.

    Raises:
        ArtifactError: where a file is missing or cannot be read, with the command that makes it.
    """
    scores = [read_scores(Iteration(key, root)) for key in keys]
    reports = root / REPORTS
    reports.mkdir(parents=True, exist_ok=True)
    score_table(scores).to_csv(reports / "scores.csv", index=False, float_format="%.6g", lineterminator="\n")
    pages = []
    for name in dict.fromkeys(score["environment"] for score in scores):
        own = sorted((score for score in scores if score["environment"] == name), key=lambda score: score["iteration"])
        bars = _keep(reports / f"scores-{name}.png", png_bytes(score_bars(own)))
        picture = Picture(bars, _bars_alt(name, own), "Bars: mean return; lines on top: standard error of the mean.")
        rounds = _rounds([Iteration(score["key"], root) for score in own], reports, name)
        iterations = [_iteration_page(Iteration(score["key"], root), reports, score, params) for score in own]
        best = max(own, key=lambda score: score["real"]["mean"])
        path = require(Iteration(best["key"], root).film)
        film = Film(path.read_bytes(), png_bytes(_readable(picture_of, path)), f"{best['key']}: {_FILM_TEXT}")
        pages.append(EnvironmentPage(name, picture, film, rounds, iterations))
    write_report(reports / "index.html", STAGES, HEADINGS, cells(scores), pages, _studies(root, reports, trials))


def _rounds(iterations: Sequence[Iteration], reports: Path, environment: str) -> list[Picture]:
    """Return what is drawn over the iterations of an environment."""
    drawn = (_collected(iterations, reports, environment), _searches(iterations, reports, environment))
    return [*drawn, *_horizon(iterations, reports, environment)]


def _collected(iterations: Sequence[Iteration], reports: Path, environment: str) -> Picture:
    """Return the picture of what was collected for each iteration: reward per step, or returns where every step pays alike."""
    played = {files.key: read_json(require(files.data))["policies"] for files in iterations}
    rates = [each["reward_per_step"] for ways in played.values() for each in ways.values()]
    field, measure = "reward_per_step", "reward per step"
    if max(rates) - min(rates) < _ALIKE * abs(max(rates)):
        field, measure = "mean_return", "mean return of an episode"
    found = {key: {_way(name): each[field] for name, each in ways.items()} for key, ways in played.items()}
    png = _keep(reports / f"collected-{environment}.png", png_bytes(collected_lines(measure, found)))
    alt = "; ".join(f"{key}: " + ", ".join(f"{way} {each:.4g}" for way, each in ways.items()) for key, ways in found.items())
    measure = measure.capitalize()
    return Picture(png, f"{measure} of what was collected. {alt}", f"{measure}, {_COLLECTED_TEXT}")


def _searches(iterations: Sequence[Iteration], reports: Path, environment: str) -> Picture:
    """Return the picture of what the search of each iteration found."""
    curves = {files.key: _readable(pd.read_csv, files.controller_curve) for files in iterations}
    png = _keep(reports / f"search-{environment}.png", png_bytes(search_rounds(curves)))
    means = {key: curve.groupby("phase")["mean"] for key, curve in curves.items()}
    alt = "; ".join(f"{key}: {phases.max()['selection']:.0f}" for key, phases in means.items() if "selection" in phases.groups)
    return Picture(png, f"What the search of each iteration found, on selection episodes: {alt or 'not played'}", _SEARCH_TEXT)


def _horizon(iterations: Sequence[Iteration], reports: Path, environment: str) -> list[Picture]:
    """Return the picture of how far dreams stay real; none where held-out episodes are too short to say."""
    errors = {}
    for files in iterations:
        judged = _readable(pd.read_csv, files.memory_curve).query("split == 'validation'").tail(1)
        found = judged.filter(regex=r"^open_loop_\d+$").dropna(axis=1)
        if len(found.columns):
            errors[files.key] = {int(str(name).rpartition("_")[2]): float(column.iloc[0]) for name, column in found.items()}
    if not errors:
        return []
    png = _keep(reports / f"horizon-{environment}.png", png_bytes(open_loop_lines(errors)))
    alt = "; ".join(
        f"{key}: " + ", ".join(f"{error:.2f} at {ahead}" for ahead, error in found.items()) for key, found in errors.items()
    )
    return [Picture(png, f"Error of M's open-loop predictions over the variance of z. {alt}", _HORIZON_TEXT)]


def _way(policy: str) -> str:
    """Return a way of playing without the name of the agent.

    >>> _way("random, walk 0.9"), _way("doom-1, strength 0.2"), _way("doom-1 rejected, strength 0")
    ('random, walk 0.9', 'agent, strength 0.2', 'rejected, strength 0')
    """
    who, _, how = policy.partition(", ")
    if who == "random":
        return policy
    return f"{'rejected' if who.endswith(' rejected') else 'agent'}, {how}"


def _studies(root: Path, reports: Path, keys: Sequence[str]) -> list[StudyPage]:
    trials = [read_trial(Trial(key, root)) for key in keys]
    if trials:
        trial_table(trials).to_csv(reports / "trials.csv", index=False, float_format="%.6g", lineterminator="\n")
    pages = []
    for name in dict.fromkeys(trial["study"] for trial in trials):
        own = [trial for trial in trials if trial["study"] == name]
        table = variants(own)
        png = _keep(reports / f"study-{name}.png", png_bytes(study_bars(name, table)))
        alt = "Mean returns in the game. " + "; ".join(f"{row.name}: {row.mean:.0f}" for row in table)
        caption = f"Searches for C on V and M of {', '.join(dict.fromkeys(trial['of'] for trial in own))}."
        pages.append(StudyPage(name, Picture(png, alt, caption), STUDY_HEADINGS, study_cells(own)))
    return pages


def _iteration_page(files: Iteration, reports: Path, score: Mapping[str, Any], params: Mapping[str, Any]) -> IterationPage:
    key, environment = files.key, score["environment"]
    returns = _readable(pd.read_parquet, files.returns)
    strip = _keep(reports / f"returns-{key}.png", png_bytes(return_strip(returns)))
    pictures = [
        Picture(
            require(files.filmstrip).read_bytes(),
            f"A dream of {key} beside reality, step by step",
            "M dreams on from a real first frame, with C acting in the dream; beside it C acts in the game.",
            wide=True,
        ),
        Picture(
            require(files.temperatures).read_bytes(),
            f"Dreams of {key} at several temperatures, step by step",
            "The agent acts in its dream from the same first frame at several temperatures: the higher, the less certain.",
            wide=True,
        ),
        Picture(strip, _strip_alt(key, returns), "Every dot is an episode. A mean without its spread says little."),
    ]
    for stage, image in learning_curves(_curves(files)).items():
        png = _keep(reports / f"{stage}-{key}.png", png_bytes(image))
        pictures.append(Picture(png, f"Learning curve of the {stage} stage of {key}", _CURVE_TEXT[stage]))
    pictures += [
        Picture(
            require(files.calibration_figure).read_bytes(),
            f"Returns of policies that do not look, in the game and in the dream of {key}",
            "Policies that do not look, in the game and in the dream, before C evolved: where the dream is kinder than the "
            "game, C learns what does not hold.",
        ),
        Picture(
            require(files.reconstructions).read_bytes(),
            f"Frames of {environment} and, below each, what V reconstructs from its latent vector",
            "What V keeps of a frame: above the frame, below its reconstruction.",
            wide=True,
        ),
        Picture(
            require(files.traversal).read_bytes(),
            f"What V of {key} draws as one dimension of its latent vector changes",
            "What single dimensions of z stand for: each row changes one, by up to three standard deviations of an episode; "
            "the dimensions that vary most.",
            wide=True,
        ),
    ]
    return IterationPage(key, score["iteration"], _facts(score), pictures, _params(score, params), _hashes(files))


def _curves(files: Iteration) -> dict[str, pd.DataFrame]:
    paths = {"vision": files.vision_curve, "memory": files.memory_curve, "controller": files.controller_curve}
    return {stage: _readable(pd.read_csv, path) for stage, path in paths.items()}


def _readable(read: Callable[[Path], T], path: Path) -> T:
    try:
        return read(require(path))
    except (ValueError, OSError) as error:
        raise damaged(path, error) from None


def _facts(score: Mapping[str, Any]) -> dict[str, str]:
    real = score["real"]
    facts = {
        "rules": score["rules"],
        "backend": score["backend"],
        "preset": score["preset"],
        "temperature": f"{score['temperature']:g}",
        "test episodes": str(real["n"]),
        "real return": f"{real['min']:.0f} to {real['max']:.0f}",
    }
    if score["blind"]:
        blind = score["blind"]
        facts["best blind policy"] = f"{blind['policy']}: {with_error(blind['mean'], blind['stderr'])}"
    if score["gap"] is not None:
        facts["gap (dream - real)"] = f"{score['gap']:+.0f}"
    return facts


def _params(score: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: params[name] for name in ("preset", "seed", "compute") if name in params}
    return _flat(shown | {score["environment"]: params.get(score["environment"], {})})


def _flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in node.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + str(name)] = value
    return flat


def _hashes(files: Iteration) -> dict[str, str]:
    paths = [require(files.folder / name) for name in HASHED]
    return {path.name: hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() for path in paths}


def _bars_alt(name: str, scores: Sequence[Mapping[str, Any]]) -> str:
    parts = [
        f"iteration {score['iteration']}: real {score['real']['mean']:.0f}, random {score['baseline']['mean']:.0f}"
        + (f", dream {score['dream']['mean']:.0f}" if score["dream"] else "")
        for score in scores
    ]
    return f"Mean returns in {name}. " + "; ".join(parts)


def _strip_alt(key: str, returns: pd.DataFrame) -> str:
    ranges = returns.groupby("world", sort=True)["total"].agg(["min", "max"])
    return f"Returns of single episodes of {key}. " + "; ".join(
        f"{world}: {low:.0f} to {high:.0f}" for world, low, high in ranges.itertuples()
    )


def _keep(path: Path, data: bytes) -> bytes:
    path.write_bytes(data)
    return data
