"""The smallest params with which every stage really runs."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent


def tiny_params() -> dict[str, Any]:
    """Return the quick preset, made so small that the whole chain runs in about two minutes."""
    params: dict[str, Any] = yaml.safe_load((ROOT / "presets" / "quick.yaml").read_text())
    params["preset"] = "tiny"
    params["compute"].update(threads=1, compile=False)
    for name in params["environments"]:
        section = params[name]
        section["collect"].update(first_episodes=4, first_limit=60, episodes=4, limit=60, lanes=2, rejected_share=0.5)
        section["collect"]["scoring_share"] = 0.5 if name == "carracing" else 0.0
        section["collect"]["patience"] = min(15, section["collect"]["patience"])
        section["vision"]["optimiser"].update(updates=3, warm_updates=2, batch=8)
        section["memory"]["model"].update(hidden=16)
        section["memory"]["optimiser"].update(updates=3, warm_updates=2, batch=4)
        section["memory"]["sequence"] = 8
        section["controller"]["evolution"].update(population=4, components=6, warm_components=3)
        for phase in (section["controller"]["dream"], section["controller"]["real"]):
            phase.update(rollouts=2, limit=20)
        section["controller"]["dream"].update(generations=2)
        section["controller"]["ppo"].update(
            world="dream" if name == "doom" else "real",
            generations=1,
            critic_generations=0,
            lanes=2,
            limit=20,
            epochs=1,
            batch=8,
        )
        section["controller"]["gradient"].update(lanes=2, limit=20, updates=2, horizon=2, epochs=1, batch=8, patience=15)
        section["controller"]["selection"].update(episodes=2, every=1, limit=20)
        section["environment"]["limit"] = 80
        section["calibrate"].update(dreams=2, limit=50)
        section["evaluate"]["real"]["blind"] = section["evaluate"]["real"]["blind"][-2:]
        section["evaluate"]["real"].update(episodes=2, lanes=1)
        section["evaluate"]["dream"].update(episodes=2, limit=50)
    plain = params["trials"]["full-0"]
    search = plain["controller"] | {"real": {"generations": 1}}
    changes = {"variant": "untrained M", "memory": "untrained", "ending": "threshold", "episodes": 2, "controller": search}
    untrained = plain | changes
    wide = {
        "games": "scoring",
        "dream": {"generations": 0},
        "real": {"generations": 0},
        "ppo": {"generations": 0},
        "gradient": {"generations": 2, "critic_generations": 1},
    }
    wide["selection"] = {"episodes": 0}
    wide["model"] = plain["controller"]["model"] | {"hidden": 5}
    onward = untrained | {"agent": "trials/untrained-0", "variant": "from there on", "memory": "trained", "begin": "agent"}
    onward["controller"] = wide
    params["trials"] = {"untrained-0": untrained, "onward-0": onward}
    return params


if __name__ == "__main__":
    print(yaml.safe_dump(tiny_params(), sort_keys=False))
