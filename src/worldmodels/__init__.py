"""World Models (Ha & Schmidhuber 2018), from games to agents that dream."""

from importlib import import_module
from pathlib import Path
from typing import Any


def load(name: str) -> Any:
    """Return a ``worldmodels.agent.agent.Agent``: by its folder, by its key in the project here, or as ``models:/...``.

    Raises:
        ParamsError: nothing is called so, or it is the random policy.
        ArtifactError: it is known and not made, or damaged.
    """
    # By name: a stage that imports this package does not depend on all of it.
    return import_module("worldmodels.cli.agents").load(Path.cwd(), name).agent
