"""What the commands of ``wm`` know about the project's folder: its params, chain, artifacts and locks."""

import difflib
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from worldmodels.errors import ArtifactError, ParamsError
from worldmodels.params import PARAMS_FILE, load_yaml
from worldmodels.storage.layout import ALONE, ARTIFACTS, PRIMARY, REPORTS, Iteration, Trial, command_for
from worldmodels.tracking.store import tracking_uri

STAGES = tuple(stage for stage in PRIMARY if stage not in ALONE)
"""Those that make an iteration's artifacts."""


def find_root() -> Path:
    """Return the project's folder: the nearest one from here up that holds params.yaml or dvc.yaml, else this one.

    The path is relative to the current folder, so that messages stay short.
    """
    here = Path.cwd()
    for depth, folder in enumerate((here, *here.parents)):
        if (folder / PARAMS_FILE).is_file() or (folder / "dvc.yaml").is_file():
            return Path(*[".."] * depth)
    return Path()


def chain(root: Path) -> dict[str, dict[str, Any]]:
    """Return the chain of params.yaml, ``{"doom-1": {"env": "doom", "after": "doom-0"}}``; empty without one."""
    if not (root / PARAMS_FILE).is_file():
        return {}
    entries = load_yaml(root / PARAMS_FILE).get("chain")
    if not isinstance(entries, dict):
        return {}
    return {str(key): entry for key, entry in entries.items() if isinstance(entry, dict)}


def known_keys(root: Path) -> list[str]:
    """Return the keys of the chain, then those of artifacts that it no longer names; random policies excepted."""
    made = sorted(path.parent.parent.name for path in (root / ARTIFACTS).glob("*/agent/agent.json"))
    return list(dict.fromkeys([*chain(root), *(key for key in made if not key.endswith("-0"))]))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a sentence that names what is known near ``name``, to be put behind a message."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return " Did you mean " + " or ".join(f"`{match}`" for match in near) + "?"
    return f" Known: {', '.join(known)}." if known else ""


def check_params(root: Path) -> str:
    """Validate the whole params file; return what it says in one line.

    Raises:
        ParamsError: naming every problem.
    """
    from worldmodels.cli.project import load_project

    load_project(root / PARAMS_FILE)
    data = load_yaml(root / PARAMS_FILE)
    keys = ", ".join(data["chain"])
    return f"{root / PARAMS_FILE} is valid: preset {data.get('preset')}, chain {keys}."


def use_preset(root: Path, name: str, *, force: bool) -> str:
    """Copy ``presets/<name>.yaml`` over params.yaml; return what was done.

    Raises:
        ParamsError: where there is no such preset, or params.yaml holds edits and ``force`` is not given.
    """
    presets = {path.stem: path for path in sorted((root / "presets").glob("*.yaml"))}
    if name not in presets:
        raise ParamsError(f"there is no preset `{name}`.{nearest(name, presets)}")
    target, text = root / PARAMS_FILE, presets[name].read_text()
    if target.is_file() and not force:
        edits = _edits(target, [load_yaml(path) for path in presets.values()])
        if edits:
            raise ParamsError(
                f"{target} holds edits that no preset has ({edits}). Commit or copy them, then `wm preset {name} --force`."
            )
    partial = target.with_name(target.name + ".partial")
    partial.write_text(text)
    partial.replace(target)
    return f"{target} is now the preset {name}. `make repro` runs it; `wm check` validates edits."


def sync_tracking(root: Path) -> str:
    """Rebuild MLflow from dvc.lock and DVC's experiments; return what was done."""
    from worldmodels.tracking.experiments import mirror_experiments
    from worldmodels.tracking.sync import sync

    said = f"MLflow holds what dvc.lock says: {sync(root)}"
    added = mirror_experiments(root)
    return said + (f"\n{added} experiments added." if added else "")


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an sqlite store; None for servers."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def serve_tracking(root: Path, port: int) -> None:
    """Become MLflow's server for this project's store.

    Raises:
        ParamsError: where the store is a server already.
    """
    store = tracking_uri(root)
    if store.startswith(("http://", "https://")):
        raise ParamsError(f"MLFLOW_TRACKING_URI is a server already: open {store} in a browser.")
    if sqlite_file(store) is not None and not (root / "dvc.lock").is_file():
        print("Nothing was run yet: the pages will be empty. `make repro` runs the pipeline.", file=sys.stderr)
    print(f"MLflow: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    # One worker and no job runner: 0.5 GB and 8 s to start, instead of 2.1 GB and 23 s.
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--workers", "1"]
    address = ["--host", "127.0.0.1", "--port", str(port)]
    os.execve(command[0], command + address, os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})


def overview(root: Path) -> dict[str, Any]:
    """Return what exists, as plain data.

    Keys: ``iterations`` (key, environment, iteration, stages: stage -> made, md5, made_by; scores or None), ``missing``
    (commands that make what params.yaml names and is not there), ``trials`` (rows of text, of those that are there),
    ``report`` (path or None).
    """
    locked, links = _locked_hashes(root), chain(root)
    iterations: list[dict[str, Any]] = []
    for environment in dict.fromkeys(_environment(key, links) for key in known_keys(root)):
        iterations.append(_iteration(root, f"{environment}-0", environment, ("initialise",), locked))
    for key in known_keys(root):
        stages = tuple(stage for stage in STAGES if stage != "initialise")
        iterations.append(_iteration(root, key, _environment(key, links), stages, locked))
    trials = [Trial(key) for key in load_yaml(root / PARAMS_FILE).get("trials") or {}] if links else []
    missing = [stage["made_by"] for entry in iterations for stage in entry["stages"].values() if not stage["made"]]
    missing += [f"dvc repro trial@{trial.key}" for trial in trials if not (root / trial.scores).is_file()]
    report = REPORTS / "index.html"
    rows = [_trial_row(Trial(trial.key, root)) for trial in trials if (root / trial.scores).is_file()]
    return {
        "iterations": iterations,
        "missing": missing,
        "trials": rows,
        "report": str(report) if (root / report).is_file() else None,
    }


def overview_text(found: Mapping[str, Any]) -> str:
    """Return ``overview`` as text: scores, hashes of every stage, what is missing."""
    from worldmodels.report.table import align, render

    if not found["iterations"]:
        return "Nothing here: no chain in params.yaml, no artifacts. `wm preset quick` writes params, `make repro` runs."
    parts = []
    scores = [entry["scores"] for entry in found["iterations"] if entry["scores"]]
    if scores:
        parts.append(render(scores))
    lines = [("artifacts", *STAGES)]
    for entry in found["iterations"]:
        lines.append((entry["key"], *(_cell(entry["stages"].get(stage)) for stage in STAGES)))
    if found["trials"]:
        parts.append(align([("trial", "study", "variant", "seed", "real", "n", "played on"), *found["trials"]]))
    parts.append(align(lines) + "\n(md5 in dvc.lock; -: not made)")
    if found["missing"]:
        shown = "\n".join(f"  {command}" for command in found["missing"][:8])
        more = len(found["missing"]) - 8
        parts.append(f"missing (`make repro` makes all):\n{shown}" + (f"\n  and {more} more" if more > 0 else ""))
    else:
        parts.append("Nothing is missing.")
    return "\n\n".join(parts)


def _trial_row(files: Trial) -> tuple[str, ...]:
    from worldmodels.report.studies import read_trial
    from worldmodels.report.table import with_error

    trial = read_trial(files)
    real = trial["real"]
    score = with_error(real["mean"], real["stderr"])
    return trial["key"], trial["study"], trial["variant"], str(trial["seed"]), score, str(real["n"]), trial["backend"]


def next_steps_text(found: Mapping[str, Any]) -> str:
    """Return where to look after a run."""
    done = [entry["key"] for entry in found["iterations"] if entry["scores"]]
    if not done:
        return "Next: `make repro` runs the pipeline; `wm doctor` checks this machine."
    best = done[-1] if "doom-2" not in done else "doom-2"
    page = "figures, dreams and scores on one page"
    steps = [
        (found["report"], page) if found["report"] else ("dvc repro report", f"makes {REPORTS / 'index.html'}: {page}"),
        (f"wm evaluate {best} --episodes 10 --video {best}.mp4", "watch the agent play the real game"),
        (f"wm dream {best} --out dream.mp4", "watch what it dreams"),
        ("make ui", "MLflow: runs, curves, registered agents"),
    ]
    width = max(len(command) for command, _ in steps)
    return "Where to look next:\n" + "\n".join(f"  {command.ljust(width)}  {why}" for command, why in steps)


def _iteration(root: Path, key: str, environment: str, stages: tuple[str, ...], locked: Mapping[str, str]) -> dict[str, Any]:
    number = key.rpartition("-")[2]
    return {
        "key": key,
        "environment": environment,
        "iteration": int(number) if number.isdigit() else None,
        "stages": {stage: _stage(root, key, stage, locked) for stage in stages},
        "scores": _scores(root, key),
    }


def _stage(root: Path, key: str, stage: str, locked: Mapping[str, str]) -> dict[str, Any]:
    path = Iteration(key).folder / PRIMARY[stage]
    return {
        "made": (root / path).is_file(),
        "path": str(path),
        "md5": locked.get(path.as_posix()),
        "made_by": command_for(path),
    }


def _cell(stage: Mapping[str, Any] | None) -> str:
    if stage is None:
        return ""  # the random policy has no V; later iterations are not initialised
    if not stage["made"]:
        return "-"
    return str(stage["md5"])[:7] if stage["md5"] else "no lock"


def _environment(key: str, links: Mapping[str, Mapping[str, Any]]) -> str:
    return str(links.get(key, {}).get("env") or key.rpartition("-")[0])


def _scores(root: Path, key: str) -> dict[str, Any] | None:
    files = Iteration(key, root)
    if not files.scores.is_file():
        return None
    from worldmodels.report.table import read_scores

    return read_scores(files)


def _locked_hashes(root: Path) -> dict[str, str]:
    """Return path -> md5 of every output in dvc.lock."""
    path = root / "dvc.lock"
    if not path.is_file():
        return {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the lock is long: the C parser is ten times as fast
    try:
        stages = yaml.load(path.read_text(), Loader=loader)["stages"]
        outs = [out for stage in stages.values() for out in stage.get("outs", [])]
        return {out["path"]: out["md5"] for out in outs if "md5" in out}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}). `git checkout dvc.lock` restores it.") from None


def _edits(target: Path, presets: list[dict[str, Any]]) -> str:
    """Return up to three dotted keys by which a params file differs from the nearest preset; empty if from none."""
    try:
        mine = _flat(load_yaml(target))
    except ParamsError:
        return "it is not valid YAML"
    differences = []
    for preset in presets:
        theirs = _flat(preset)
        differences.append(sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)))
    keys = min(differences, key=len)
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in node.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
