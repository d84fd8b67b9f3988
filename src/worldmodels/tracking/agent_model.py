"""The agent as an MLflow model. MLflow runs this file when it loads one (models from code): nothing is unpickled.

Stateful by value: what a stream of frames needs to be remembered travels with the request. Input, B streams at once:
``frame`` (B, 64, 64, 3) uint8, and ``memory`` (B, S) float32 as the last answer gave it, zeros at the start of an episode.
Output: ``action`` (B, A) float32 in [-1, 1], and ``memory``. The protocol over HTTP: docs/serving.md.
"""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel

from worldmodels.agent.agent import Agent, load_agent

MOST_STREAMS = 256  # in a request


class AgentModel(PythonModel):
    """V, M and C behind ``predict``."""

    def load_context(self, context: Any) -> None:
        self.agent: Agent = load_agent(Path(context.artifacts["agent"]))

    # No annotations: MLflow would take them for a schema. The signature is given when the model is logged.
    def predict(self, context, model_input, params=None):
        """Answer one step of B streams: see the top of this file.

        Raises:
            MlflowException: INVALID_PARAMETER_VALUE, over HTTP status 400, if the signature is met and the values are not.
        """
        frames = np.ascontiguousarray(model_input["frame"], np.uint8)
        memory = np.ascontiguousarray(model_input["memory"], np.float32)
        if len(frames) != len(memory):
            raise MlflowException.invalid_parameter_value(
                f"`frame` holds {len(frames)} streams, `memory` {len(memory)}: give one row of each for every stream."
            )
        if len(frames) > MOST_STREAMS:
            raise MlflowException.invalid_parameter_value(
                f"{len(frames)} streams are too many: send at most {MOST_STREAMS} in a request."
            )
        if not np.isfinite(memory).all():
            raise MlflowException.invalid_parameter_value(
                "`memory` is not finite. Give zeros at the start of an episode, then the `memory` of the last answer."
            )
        action, state = self.agent.act(frames, torch.from_numpy(memory))
        return {"action": action, "memory": state.numpy()}


mlflow.models.set_model(AgentModel())
