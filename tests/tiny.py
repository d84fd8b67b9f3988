"""The smallest params with which every stage really runs."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent

PPO = {"kind": "ppo", "updates": 2, "critic_updates": 1, "num_envs": 2, "num_steps": 20, "epochs": 1, "batch_size": 8}
GRADIENT = {"kind": "value_gradient", "updates": 2, "critic_updates": 1, "num_envs": 2, "num_steps": 20, "gradient_steps": 2}
SEARCH = {"kind": "cmaes", "generations": 2, "population": 4, "rollouts": 2, "num_steps": 20, "components": 6}
CHOICE = {"episodes": 2, "every": 1}


def agent(env: str, world_model: str, begin: str, controller: str, study: str = "none", seed: int = 0) -> dict[str, Any]:
    """Return a line of ``agents``."""
    return {"env": env, "world_model": world_model, "begin": begin, "controller": controller, "seed": seed, "study": study}


def tiny_params() -> dict[str, Any]:
    """Return the quick preset, made so small that the whole chain runs in about two minutes."""
    params: dict[str, Any] = yaml.safe_load((ROOT / "presets" / "quick.yaml").read_text())
    params["preset"] = "tiny"
    params["compute"] = {"threads": 1, "compile": False}
    for name in params["environments"]:
        section = params[name]
        section["collect"].update(first_episodes=4, first_limit=60, episodes=4, rejected_share=0.5, explorer_share=0.25)
        section["vision"]["optimiser"].update(updates=3, warm_updates=2, batch=8)
        section["memory"]["model"].update(hidden=16)
        section["memory"]["optimiser"].update(updates=3, warm_updates=2, batch=4)
        section["memory"]["sequence"] = 8
        section["calibrate"].update(dreams=2)
        section["evaluate"].update(episodes=2, dreams=2)
    doom, racing = params["doom"], params["carracing"]
    doom["game"]["limit"] = 320
    racing["game"].update(limit=80, patience=15)
    racing["collect"]["scoring_share"] = 0.5
    racing["vision"]["optimiser"] = {"passes": 1, "batch": 64, "warm_updates": 2}
    racing["memory"]["optimiser"] = {"passes": 1, "batch": 8, "warm_updates": 2, "decay": 0.9}
    doom["controllers"] = {
        "dream": {
            "model": {"features": "zch", "hidden": 64},
            "order": ["search", "learn"],
            "phases": {"search": dict(SEARCH), "learn": {**PPO, "pay": "hazard", "moments": {"share": 0.9}}},
            "selection": dict(CHOICE),
        },
        "game": {
            "model": {"features": "zch", "hidden": 64},
            "order": ["improve"],
            "phases": {"improve": {**PPO, "world": "game", "pay": "hazard"}},
            "selection": dict(CHOICE),
        },
    }
    racing["controllers"] = {
        "dream": {
            "model": {"features": "zh"},
            "order": ["search"],
            "phases": {"search": {**SEARCH, "pay": "survival"}},
            "selection": dict(CHOICE),
        },
        "untrained": {
            "model": {"features": "zh"},
            "memory": "untrained",
            "order": ["search"],
            "phases": {"search": {**SEARCH, "world": "game", "components": 0}},
        },
        "game": {
            "model": {"features": "zh", "hidden": 5},
            "order": ["improve"],
            "phases": {"improve": dict(GRADIENT)},
        },
    }
    params["agents"] = {
        "doom-1": agent("doom", "doom-1", "doom-0", "dream"),
        "doom-2": agent("doom", "doom-2", "doom-1", "dream"),
        "doom-2-game": agent("doom", "doom-2", "doom-2", "game"),
        "carracing-1": agent("carracing", "carracing-1", "carracing-0", "dream"),
        "carracing-1-game": agent("carracing", "carracing-1", "carracing-1", "game"),
        "carracing-untrained": agent("carracing", "carracing-1", "carracing-0", "untrained", study="ablation"),
    }
    return params


if __name__ == "__main__":
    print(yaml.safe_dump(tiny_params(), sort_keys=False))
