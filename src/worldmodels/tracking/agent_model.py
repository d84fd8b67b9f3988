"""The agent as an MLflow model. MLflow runs this file when it loads one (models from code): nothing is unpickled.

Stateful by value: what a stream of frames needs to be remembered travels with the request. Input, B streams at once:
``frame`` (B, 64, 64, 3) uint8, and ``memory`` (B, 2 H) float32 as the last answer gave it, zeros at the start of an episode.
Output: ``action`` (B, A) float32 in [-1, 1], and ``memory``.
"""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.pyfunc.model import PythonModel

from worldmodels.engine.agent import Agent, load_agent
from worldmodels.models.memory import MemoryState


class AgentModel(PythonModel):
    """V, M and C behind ``predict``."""

    def load_context(self, context: Any) -> None:
        self.agent: Agent = load_agent(Path(context.artifacts["agent"]))

    # No annotations: MLflow would take them for a schema. The signature is given where the model is logged.
    def predict(self, context, model_input, params=None):
        """Answer one step of B streams: see the top of this file."""
        memory = torch.from_numpy(np.ascontiguousarray(model_input["memory"], np.float32))
        frames = np.ascontiguousarray(model_input["frame"], np.uint8)
        action, state = self.agent.act(frames, MemoryState(*memory.chunk(2, 1)))
        return {"action": action, "memory": torch.cat(state, 1).numpy()}


mlflow.models.set_model(AgentModel())
