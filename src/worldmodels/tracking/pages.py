"""What a person sees of a game's experiment in MLflow's pages: a description, two saved views, and their addresses."""

import json
import time

from mlflow import MlflowClient

from worldmodels.tracking.runs import NOTE
from worldmodels.tracking.store import PREFIX

VIEW = "mlflow.sharedViewState."
"""Tag of an experiment that holds a saved view of its runs, before the view's key: MLflow lists it below `Views`."""
ITERATIONS, CURVES = "iterations", "curves"
COLUMNS = {
    ITERATIONS: (
        *(f"metrics.`Agent/{name}`" for name in ("score", "error", "dream")),
        *(f"tags.`{name}`" for name in ("agent", "blind", "champion")),
    ),
    CURVES: ("metrics.`V/validation_loss`", "metrics.`M/validation_loss`", "metrics.`C/selection_return`"),
}
"""View -> its columns beside the name and the time."""
RUNS = {ITERATIONS: ("", "attributes.start_time"), CURVES: ("tags.learns != ''", "tags.`mlflow.runName`")}
"""View -> which runs it shows, and by what they are ordered: runs in order of time are shown below their parents."""


def furnish(client: MlflowClient, experiment: str, environment: str) -> None:
    """Give a new experiment its description and views; from then on they are the user's."""
    note = f"""\
Agents that learn to play **{environment}** in dreams. A row is an iteration: a world model and the agents that learned in it.
+ shows its stages. `{environment}-0` is random play.

- [Iterations]({fragment(experiment, ITERATIONS)}): `score` is the mean return of the last `agent` on test episodes in the game,
  `error` its standard error, `dream` what it gets in its dream. `blind` is the best policy that does not look.
- [Curves of V, M and C]({fragment(experiment, CURVES)}): choose runs to lay their curves over each other.
- An iteration has the films of its agents below *Artifacts*, `pictures`. *Models* lists the agents.
- If the menu at the left speaks of traces and judges, choose *Model training* above it."""
    client.set_experiment_tag(experiment, NOTE, note)
    for name, columns in COLUMNS.items():
        (chosen, order), now = RUNS[name], int(time.time() * 1000)
        state = {"selectedColumns": columns, "searchFilter": chosen, "orderByKey": order, "orderByAsc": name == CURVES}
        view = {"name": name.capitalize(), "createdAt": now, "updatedAt": now, "state": json.dumps(state)}
        client.set_experiment_tag(experiment, VIEW + name, json.dumps(view))


def fragment(experiment: str, view: str = ITERATIONS) -> str:
    """Return the address of an experiment's runs, from # on, in the view for training and with a saved view's columns."""
    mode = "&compareRunsMode=CHART" if view == CURVES else ""
    return f"#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={view}{mode}"


def game_pages(client: MlflowClient) -> dict[str, str]:
    """Return where to see the runs of every game: environment -> ``fragment``."""
    found = client.search_experiments(filter_string=f"name LIKE '{PREFIX}%'", order_by=["creation_time ASC"])
    return {game.name.removeprefix(PREFIX): fragment(game.experiment_id) for game in found}
