"""Several seeds of a preset as one run in a game's experiment: what they score together, and where each one is.

``wm.kind`` is ``seeds``; ``wm.preset``, ``wm.seeds`` and ``wm.commit`` say of what. ``wm.seed.0`` is the ``wm.artifact`` of the
run in which the last agent of seed 0 was evaluated; it is on the same server, or in the database in the seed's folder.
"""

import time
from pathlib import Path

from worldmodels.report.several import WORDS, Summary
from worldmodels.report.table import markdown
from worldmodels.storage.layout import AgentFiles
from worldmodels.tracking.dvclock import artifact_hash
from worldmodels.tracking.git import git
from worldmodels.tracking.runs import NOTE, RunStore
from worldmodels.tracking.store import game_experiment, lock, opened


def log_seeds(root: Path, game: str, preset: str, told: Summary, picture: Path) -> None:
    """Make sure that MLflow has one run of these seeds of a preset with these scores.

    Args:
        root: the project's folder.
        game: its environment.
        preset: its name.
        told: what the seeds score, and their folders.
        picture: the file of its figure.

    Raises:
        StoreError: MLflow cannot be used.
    """
    commits = {git(folder, "rev-parse", "--short", "HEAD") or "?" for folder in told.seeds.values()}
    about = {"preset": preset, "seeds": ", ".join(map(str, told.seeds)), "commit": ", ".join(sorted(commits))}
    with opened(root) as client, lock(root):
        runs = RunStore(client, game_experiment(client, root, game))
        tags, places = {"wm.kind": "seeds", "agent": told.agent, **{f"wm.{key}": text for key, text in about.items()}}, []
        for seed, folder in told.seeds.items():
            scores = artifact_hash(AgentFiles(told.agent, folder).scores)
            there = runs.find(kind="stage", stage="evaluate", artifact=scores)
            run = f"[its run](#/experiments/{runs.experiment}/runs/{there[0].info.run_id})" if there else ""
            places.append(f"Seed {seed}: {run or f'`{folder.relative_to(root.resolve())}`'}")
            tags[f"wm.seed.{seed}"] = scores
        known = [run for run in runs.find(kind="seeds") if tags.items() <= run.data.tags.items()]
        run_id = known[0].info.run_id if known else runs.create(f"{preset}: {len(told.seeds)} seeds", tags)
        before = known[0].data.metrics if known else {}
        figures = {f"Seeds/{name}": value for name, value in told.figures.items()}
        changed = {name: value for name, value in figures.items() if before.get(name) != value}
        note = "\n\n".join([told.sentence, markdown(told.table), told.note, f"{'. '.join(places)}.", WORDS])
        runs.tag(run_id, {NOTE: note})
        runs.log_params(run_id, about)
        runs.log_metrics(run_id, [(changed, 0, int(time.time() * 1000))])
        client.log_artifact(run_id, str(picture))
        client.set_terminated(run_id, "FINISHED")
