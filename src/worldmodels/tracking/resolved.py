"""The settings with which an iteration was made, those that are defaults of the config classes among them."""

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError


def resolved_config(sections: Mapping[str, Any]) -> str:
    """Return params as YAML, with all defaults. A section of another version of the code stays as it was written.

    Args:
        sections: dotted key of params.yaml -> what stood there, as dvc.lock has it.
    """
    whole: dict[str, Any] = {}
    for key, written in sections.items():
        *path, last = key.split(".")
        node = whole
        for part in path:
            node = node.setdefault(part, {})
        node[last] = _with_defaults(path[1] if path[1:] == ["controllers"] else last, written)
    return yaml.safe_dump(whole, sort_keys=True, allow_unicode=True)


def _with_defaults(name: str, written: Any) -> Any:
    kind = _classes().get(name)
    if kind is None:
        return written
    adapter = TypeAdapter(kind)
    try:
        return adapter.dump_python(adapter.validate_python(written), mode="json")
    except ValidationError:
        return written


def _classes() -> dict[str, Any]:
    """Return the class of every section of an environment."""
    # Here: they bring torch along, which a command that changes nothing does not wait for.
    from worldmodels.compute.engine import ComputeConfig
    from worldmodels.controller.config import ControllerSection
    from worldmodels.games.make import Game
    from worldmodels.memory.training import MemoryTraining
    from worldmodels.rollout.collection import CollectConfig
    from worldmodels.rollout.evaluation import EvaluationConfig
    from worldmodels.vision.training import VisionTraining
    from worldmodels.worlds.calibration import CalibrationConfig

    return {
        "compute": ComputeConfig,
        "game": Game,
        "collect": CollectConfig,
        "vision": VisionTraining,
        "memory": MemoryTraining,
        "calibrate": CalibrationConfig,
        "controllers": ControllerSection,
        "evaluate": EvaluationConfig,
    }
