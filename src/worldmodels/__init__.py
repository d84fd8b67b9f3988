"""World Models (Ha & Schmidhuber 2018), from games to agents that dream."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worldmodels.agent.agent import Agent


def load(name: str) -> "Agent":
    """Return an agent: by the folder that holds its agent.json, by its key in the project here, or as ``models:/...``.

    Raises:
        ParamsError: nothing is called so, or it is the random policy.
        ArtifactError: it is known and not made, or damaged.
    """
    from worldmodels.cli.agents import load as find  # here: `import worldmodels` does not wait for torch

    return find(Path.cwd(), name).agent
