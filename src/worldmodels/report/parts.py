"""The folded parts of the page: all that is known of one agent, and of one world model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from worldmodels.report.figures import calibration_bars, loss_curve, return_strip, search_curve
from worldmodels.report.html import Part, Picture
from worldmodels.report.pictures import png_bytes
from worldmodels.report.run import GameRun, flat, hashes, keep, search_table, table
from worldmodels.report.table import score_text, with_error
from worldmodels.storage.files import read_json, read_table
from worldmodels.storage.layout import WorldModelFiles, require

_SEARCH_TEXT = (
    "Line: the mean return in every generation, with one standard deviation; dashed: the best of a generation, a noisy maximum "
    "that is not a score. A phase that is paid for something else than returns shows what it pays for a step. Diamonds: "
    "contestants on selection episodes, with their standard error."
)
_CALIBRATION_TEXT = (
    "Policies that do not look, in the game and in the dream, before any C learned there. If the dream is kinder than the "
    "game, C learns what does not hold."
)
_TEMPERATURES_TEXT = (
    "The agent acts in its dream from the same first frame at several temperatures: the higher, the less certain."
)
_TRAVERSAL_TEXT = (
    "What single numbers of z stand for: each row changes one of them, by up to three standard deviations of an episode; "
    "those that vary most."
)


def agent_part(run: GameRun, key: str, reports: Path, params: Mapping[str, Any]) -> Part:
    """Return the part of an agent; its figures are written into ``reports`` too."""
    files, score = run.agents[key], run.scores[key]
    returns, curve = read_table(files.returns), search_table(files)
    strip = keep(reports / f"returns-{key}.png", png_bytes(return_strip(returns)))
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
            _TEMPERATURES_TEXT,
            wide=True,
        ),
        Picture(strip, _strip_alt(key, returns), "Every dot is an episode. A mean without its spread says little."),
    ]
    if len(curve):
        png = keep(reports / f"controller-{key}.png", png_bytes(search_curve(curve)))
        pictures.append(Picture(png, f"Curve of the search for the C of {key}", _SEARCH_TEXT))
    entry, game = params["agents"][key], params[score["environment"]]
    controller = game["controllers"][score["controller"]]
    settings = {"game": game["game"], f"controllers.{score['controller']}": controller, "evaluate": game["evaluate"]}
    learns = _learns(controller, curve)
    about = f"real {score_text(score['real'])}, dream {score_text(score['dream'])}; on {score['world_model']}, {learns}"
    return Part(
        key,
        about,
        {"learns": learns, "begins at": entry["begin"]} | _agent_facts(score) | {"film": _shown(files.video)},
        pictures,
        _common(params) | flat(entry, f"agents.{key}.") | flat(settings, f"{score['environment']}."),
        hashes(files.folder, [*sorted(require(files.agent).iterdir()), files.returns]),
    )


def world_model_part(run: GameRun, key: str, reports: Path, params: Mapping[str, Any]) -> Part:
    """Return the part of a world model; its figures are written into ``reports`` too."""
    files, entry = run.world_models[key], params["world_models"][key]
    data = read_json(files.data)
    vision, memory = (table(path, "update", "split", "loss") for path in (files.vision_curve, files.memory_curve))
    pictures = []
    for stage, title, unit, curve in (
        ("vision", "V: loss of a frame", "squared error + KL", vision),
        ("memory", "M: loss of a step", "negative log-likelihood", memory),
    ):
        if len(curve) > 1:  # a V that stays has no curve, but its loss on new frames
            png = keep(reports / f"{stage}-{key}.png", png_bytes(loss_curve(title, unit, curve)))
            text = f"{title[0]}'s loss on what it trains on, and on episodes that are held out."
            pictures.append(Picture(png, f"Learning curve of the {stage} stage of {key}", text))
    pictures += _calibration(files, reports)
    pictures += _seen(run, key)
    episodes = f"{data['episodes']} episodes by {entry['player']}"
    settings = {name: params[entry["env"]][name] for name in ("game", "collect", "vision", "memory", "calibrate")}
    facts = {
        "goes on from": entry["after"],
        "collected": f"{episodes}, {data['frames']:,} frames",
        "their mean return": f"{data['mean_return']:.4g}",
        "learned on": f"{data['all_frames']:,} frames",
    }
    return Part(
        key,
        f"learned from {episodes}" + ("" if entry["after"].endswith("-0") else f" and all of {entry['after']}"),
        facts,
        pictures,
        _common(params) | flat(entry, f"world_models.{key}.") | flat(settings, f"{entry['env']}."),
        hashes(files.folder, [files.data, files.vision, files.memory]),
    )


def _calibration(files: WorldModelFiles, reports: Path) -> list[Picture]:
    """Return the picture of blind policies; none if none was dreamt."""
    played = table(files.calibration, "policy", "real", "real_stderr", "dream", "dream_stderr")
    if played.empty:
        return []
    png = keep(reports / f"calibration-{files.key}.png", png_bytes(calibration_bars(played)))
    named = "; ".join(f"{row.policy}: {row.real:.0f} and {row.dream:.0f}" for row in played.itertuples())
    return [
        Picture(
            png,
            f"Returns of policies that do not look, in the game and in the dream of {files.key}. {named}",
            _CALIBRATION_TEXT,
        )
    ]


def _seen(run: GameRun, key: str) -> list[Picture]:
    """Return what V makes of frames, from the film of the first agent that is based on this world model; none without one."""
    films = [agent for agent, score in run.scores.items() if score["world_model"] == key]
    if not films:
        return []
    files = run.agents[films[0]]
    grid, rows = require(files.reconstructions).read_bytes(), require(files.traversal).read_bytes()
    alt = f"Frames of the film of {files.key} and, below each, what V of {key} makes of it"
    text = f"What V keeps of a frame: above the frame, below what V draws from its z. Frames of the film of {files.key}."
    changes = f"What V of {key} draws as one number of z changes"
    return [Picture(grid, alt, text, wide=True), Picture(rows, changes, _TRAVERSAL_TEXT, wide=True)]


def _learns(controller: Mapping[str, Any], curve: pd.DataFrame) -> str:
    """Return the phases of a section of ``controllers`` in words; the curve says where each one learned.

    >>> curve = pd.DataFrame({"phase": ["a", "selection"], "world": ["game", ""]})
    >>> _learns({"order": ["a"], "phases": {"a": {"kind": "ppo"}}}, curve)
    'a (ppo in the game)'
    """
    worlds = dict(zip(curve["phase"], curve["world"], strict=True))
    kinds = {name: controller["phases"][name]["kind"] for name in controller["order"]}
    return ", then ".join(f"{name} ({kind} in the {worlds.get(name, '?')})" for name, kind in kinds.items())


def _agent_facts(score: Mapping[str, Any]) -> dict[str, str]:
    real, steps = score["real"], score["steps"]
    facts = {
        "weights of C": f"{score['parameters']:,}",
        "steps it learned from": f"{steps['dream']:,} in the dream, {steps['game']:,} in the game",
        "real return": f"{real['min']:.0f} to {real['max']:.0f}",
        "episodes": f"{real['n']}, {score['block']}",
        "preset": f"{score['preset']}, seed {score['seed']}",
        "back end": score["backend"],
    }
    if score["blind"]:
        blind = score["blind"]
        facts["best blind policy"] = f"{blind['policy']}: {with_error(blind['mean'], blind['stderr'])}"
    if score["dream"]:
        facts["temperature of the dream"] = f"{score['dream']['temperature']:g}"
    if score["gap"] is not None:
        facts["dream - real"] = f"{score['gap']:+.0f}"
    return facts


def _strip_alt(key: str, returns: pd.DataFrame) -> str:
    ranges = returns.groupby("world", sort=True)["total"].agg(["min", "max"])
    return f"Returns of single episodes of {key}. " + "; ".join(
        f"{world}: {low:.0f} to {high:.0f}" for world, low, high in ranges.itertuples()
    )


def _common(params: Mapping[str, Any]) -> dict[str, Any]:
    return flat({name: params[name] for name in ("preset", "seed", "compute") if name in params})


def _shown(path: Path) -> str:
    """Return a path of the project without what is above it."""
    return path.as_posix()[path.as_posix().index("artifacts/") :]
