"""What recordings hold, and whether the world models of params.yaml can learn from them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from worldmodels.errors import ArtifactError, ParamsError

if TYPE_CHECKING:
    from worldmodels.project import Project
    from worldmodels.recordings.episodes import Contents


def look(root: Path, project: "Project") -> "dict[str, Contents]":
    """Return what each recording of params.yaml holds.

    Raises:
        ArtifactError: one cannot be learned from; the message names every episode with a problem.
        ParamsError: a world model asks for what its recordings do not have.
    """
    from worldmodels.recordings.episodes import Recording

    found, wrong = dict[str, "Contents"](), list[str]()
    for key, entry in project.recordings.items():
        try:
            found[key] = Recording(root / entry.folder, project.sections[entry.env].game).contents
        except ArtifactError as error:
            wrong.append(f"`recordings.{key}`: {error}")
    if wrong:
        raise ArtifactError("\n".join(wrong))
    if problems := unserved(project, found):
        raise ParamsError("\n".join(problems))
    return found


def unserved(project: "Project", recorded: "Mapping[str, Contents]") -> list[str]:
    """Return what world models that learn from recordings alone ask for, and these do not have."""
    from worldmodels.project import too_little

    wrong = []
    for key, entry in project.world_models.items():
        behind, section = project.behind(key), project.sections[entry.env]
        if behind[-1] not in recorded or any(project.episodes_played(each) for each in behind[:-1]):
            continue
        name, found, memory = behind[-1], recorded[behind[-1]], section.memory.model
        if memory.reward != "none" and not found.rewards:
            wrong.append(
                f"`{entry.env}.memory.model.reward` is `{memory.reward}`, and {name} has no rewards: set it to `none`. Then C "
                "can be paid by M's hazard in dreams (pay: hazard), or by the game itself (world: game)."
            )
        if memory.done and not found.ends:
            wrong.append(
                f"`{entry.env}.memory.model.done` is true, and {name} does not say how its episodes ended: set it to false. "
                "Then C can be paid by rewards (pay: return), in dreams that go on to the limit, or in the game (world: game)."
            )
        wrong += too_little(project, key, frames=found.frames, steps=found.longest)
    return wrong


def summary(key: str, found: "Contents") -> str:
    """Return what a recording holds, as a line."""
    lacking = [name for name, known in (("rewards", found.rewards), ("ends", found.ends)) if not known]
    without = f", without {' and '.join(lacking)}" if lacking else ""
    return f"{key}: {found.episodes:,} episode{'s' * (found.episodes > 1)}, {found.frames:,} frames{without}."
