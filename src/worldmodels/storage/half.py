"""An agent's folder in half precision: half the size, for a repository or a download."""

from pathlib import Path

from worldmodels.storage.agents import read_card, write_card
from worldmodels.storage.weights import load_tensors, save_tensors


def halve_agent(folder: Path, out: Path) -> int:
    """Write an agent's folder again with float16 weights; return its size in bytes.

    ``load_agent`` computes with them in single precision: the agent differs from the original by their rounding.

    Raises:
        ArtifactError: the folder is no agent's, or damaged.
    """
    card = read_card(folder)
    read = {path.name: load_tensors(path) for path in sorted(folder.glob("*.safetensors"))}
    write_card(out, card)
    for name, (tensors, description) in read.items():
        save_tensors(out / name, {key: t.half() if t.is_floating_point() else t for key, t in tensors.items()}, description)
    return sum(path.stat().st_size for path in out.iterdir())
