"""The dream as a folder of static files: V's decoder, M and C as ONNX, and a page that runs them in the browser."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from worldmodels.agent.agent import Agent
from worldmodels.controller.model import act
from worldmodels.errors import WorldModelsError
from worldmodels.memory.features import select_features
from worldmodels.play.server import PAGE
from worldmodels.play.session import about
from worldmodels.storage.files import write_bytes

RUNTIME = "onnxruntime-web"
RUNTIME_VERSION = "1.30.0"
RUNTIME_SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
MOST_STARTS = 100
"""First frames that a page can begin with."""


class Decoder(nn.Module):
    """z (1, Z) -> the picture's values in 0..255, rows of pixels, (64, 64, 3)."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.vision = agent.vision

    def forward(self, z: Tensor) -> Tensor:
        return (self.vision.decode(z)[0].permute(1, 2, 0) * 255).round()


class DreamStep(nn.Module):
    """One step of ``Memory.dream``, with numbers only.

    Reads z, action, restart (1: an episode begins, else 0), state, uniform, normal and temperature, (1, n) each. Returns the
    next z (1, Z) and state (1, S), the reward and the hazard (1,), and the mean standard deviation (1,) of what M predicted.
    """

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.memory, self.worth = agent.memory, agent.game.worth

    def forward(
        self, z: Tensor, action: Tensor, restart: Tensor, state: Tensor, uniform: Tensor, normal: Tensor, tau: Tensor
    ) -> tuple[Tensor, ...]:
        z, state, told = self.memory.dream(z, action, restart[:, 0] > 0, state, uniform, normal, tau)
        spread = told.latent.mean_and_std()[1].mean(1)
        reward = torch.full_like(spread, self.worth) if told.reward is None else told.reward
        hazard = torch.zeros_like(spread) if told.done is None else self.memory.hazard(told.done)
        return z, state, reward, hazard, spread


class Act(nn.Module):
    """z, state -> the agent's action, (1, A)."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.kind, self.memory = agent.config.features, agent.memory
        self.layers = agent.controllers().alone

    def forward(self, z: Tensor, state: Tensor) -> Tensor:
        return act(select_features(self.kind, z, self.memory, state), self.layers)


def export_web(out: Path, agent: Agent, *, name: str, temperature: float, rate: float) -> int:
    """Write the folder; return its size in bytes.

    Args:
        out: made if it is not there; what is there is kept or replaced.
        agent: V, M and C.
        name: of the agent, for people.
        temperature: dreams begin at.
        rate: steps a second, at first.

    Raises:
        WorldModelsError: the packages of the extra ``web`` or the browser's runtime cannot be had.
    """
    runtime = browser_runtime()
    out.mkdir(parents=True, exist_ok=True)
    for file in ("index.html", "style.css", "app.js", "local.js"):
        shutil.copy(PAGE / file, out)
    (out / "source.js").write_text('export { connect } from "./local.js";\n')
    for file in RUNTIME_FILES:
        shutil.copy(runtime / file, out)
    write_graphs(out, agent)
    starts = {name: tensor[:MOST_STARTS].tolist() for name, tensor in agent.starts._asdict().items()}
    told = about(agent, name=name, temperature=temperature, rate=rate) | {"real": False, "starts": starts}
    told |= {"goal": agent.game.goal, "usual": agent.memory.usual_reward, "state": agent.memory.state_size}
    (out / "about.json").write_text(json.dumps(told))
    return sum(path.stat().st_size for path in out.iterdir() if path.is_file())


@torch.no_grad()
def write_graphs(out: Path, agent: Agent) -> None:
    """Write vision.onnx, memory.onnx and controller.onnx.

    Raises:
        WorldModelsError: the packages of the extra ``web`` are not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError:
        raise WorldModelsError("onnx is not installed: pip install --constraint requirements.lock -e '.[web]'") from None
    memory, latent = agent.memory, agent.memory.latent
    sizes = {"z": latent, "action": memory.action, "restart": 1, "state": memory.state_size}
    sizes |= {"uniform": latent, "normal": latent, "tau": 1}
    # A tensor of its own for each: torch takes two inputs that are the same tensor for one.
    step = {name: torch.full((1, size), 0.5) for name, size in sizes.items()}
    graphs: dict[str, tuple[nn.Module, list[str], list[str]]] = {
        "vision": (Decoder(agent), ["z"], ["frame"]),
        "memory": (DreamStep(agent), list(step), ["next", "state_next", "reward", "hazard", "spread"]),
        "controller": (Act(agent), ["z", "state"], ["action"]),
    }
    for name, (module, inputs, outputs) in graphs.items():
        given = tuple(step[each] for each in inputs)
        program = torch.onnx.export(module.eval(), given, input_names=inputs, output_names=outputs, dynamo=True, verbose=False)
        assert program is not None
        onnx.save_model(program.model_proto, out / f"{name}.onnx")


def browser_runtime() -> Path:
    """Return the folder with the files of onnxruntime-web, fetched once with npm and checked against its known hash.

    ``WM_ONNXRUNTIME_WEB`` names a folder that has them already.

    Raises:
        WorldModelsError: npm is missing, fails, or brings something else.
    """
    given = os.environ.get("WM_ONNXRUNTIME_WEB")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "worldmodels" / f"{RUNTIME}-{RUNTIME_VERSION}"
    folder = Path(given) if given else cache
    if all((folder / file).is_file() for file in RUNTIME_FILES):
        return folder
    wanted = f"{RUNTIME}@{RUNTIME_VERSION}"
    if given:
        raise WorldModelsError(f"WM_ONNXRUNTIME_WEB = {given} does not hold {', '.join(RUNTIME_FILES)} of {wanted}.")
    npm = shutil.which("npm")
    if npm is None:
        raise WorldModelsError(
            f"the page needs {wanted}, which npm fetches, and npm is not installed. Install it, or unpack that package "
            "and name its folder `dist` in WM_ONNXRUNTIME_WEB."
        )
    with tempfile.TemporaryDirectory(prefix="worldmodels-npm-") as place:
        command = [npm, "pack", wanted, "--silent", "--pack-destination", place]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        packed = next(Path(place).glob("*.tgz"), None)
        if done.returncode or packed is None:
            reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise WorldModelsError(f"npm could not fetch {wanted} ({reason}). WM_ONNXRUNTIME_WEB can name a copy.")
        if base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode() != RUNTIME_SHA512:
            raise WorldModelsError(f"what npm fetched as {wanted} is not that package: its SHA-512 differs.")
        with tarfile.open(packed) as archive:
            for file in RUNTIME_FILES:
                content = archive.extractfile(f"package/dist/{file}")
                assert content is not None
                write_bytes(folder / file, content.read())
    return folder
