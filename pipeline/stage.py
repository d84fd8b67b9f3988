"""What all stage scripts share: arguments, threads, tracking, and errors as messages."""

import errno
import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

import worldmodels
from pipeline.ending import Ended, ended_from_outside
from worldmodels.compute.allocator import keep_freed_memory
from worldmodels.compute.engine import ClusterConfig, ComputeConfig, Engine, open_engine
from worldmodels.compute.precision import device_of, products_in, training_in
from worldmodels.errors import ParamsError, WorldModelsError
from worldmodels.params import flat, load_yaml, section
from worldmodels.shapes import Told
from worldmodels.storage.agents import code_fingerprint
from worldmodels.storage.checkpoint import Checkpoint
from worldmodels.storage.files import sha256
from worldmodels.storage.layout import STAGES, AgentFiles, WorldModelFiles, command_for, primary_out, state_of
from worldmodels.tracking.live import StageRun, stage_run

T = TypeVar("T")
PACKAGE = Path(str(worldmodels.__file__)).parent
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
WATCHING = ("tracking", "report", "play", "cli")
"""Rooms whose code changes nothing that a stage computes."""


@dataclass
class Stage:
    """One stage of one world model or agent: what it is called with, and the params it reads."""

    name: str  # of the stage
    key: str  # of the world model or the agent
    env: str = ""  # name of its section in params.yaml
    after: str = ""  # key of the world model that this one goes on from
    player: str = ""  # key of the agent that collects
    folder: str = ""  # of a recording
    explorer: str = ""  # key of the agent that collects beside it
    world_model: str = ""  # key of the world model that the agent is based on
    begin: str = ""  # key of the agent at whose C the search begins
    controller: str = ""  # name of the section of ``controllers``
    seed: str = "0"  # of the agent's search
    run: StageRun = field(init=False)  # its MLflow run, set while the stage runs
    kept: Checkpoint | None = field(init=False, default=None)  # its checkpoint, if it has one
    _params: dict[str, Any] = field(default_factory=load_yaml, kw_only=True)

    def params(self, name: str, kind: Any) -> Any:
        """Return the section ``name`` of this stage's environment as a ``kind``."""
        return section(self._params, f"{self.env}.{name}", kind)

    def value(self, key: str, kind: Any = Any) -> Any:
        """Return what stands at a dotted key of params.yaml as a ``kind``."""
        return section(self._params, key, kind)

    @property
    def model(self) -> WorldModelFiles:
        """Files of the world model: of this one, or of the one that the agent is based on."""
        return WorldModelFiles(self.world_model or self.key)

    @property
    def before(self) -> WorldModelFiles:
        """Files of the world model that this one goes on from."""
        return WorldModelFiles(self.after)

    @property
    def agent(self) -> AgentFiles:
        """Files of the agent."""
        return AgentFiles(self.key)

    @property
    def random(self) -> AgentFiles:
        """Files of the random policy."""
        return AgentFiles(f"{self.env}-0")

    @property
    def project_seed(self) -> int:
        """Seed of everything random in training."""
        return int(self.value("seed", int))

    @property
    def stream(self) -> str:
        """Names the episodes of this world model or agent among all of their purpose."""
        return f"{self.project_seed}/{self.key}"

    @cached_property
    def compute(self) -> ComputeConfig:
        """The section ``compute``."""
        config: ComputeConfig = self.value("compute", ComputeConfig)
        return config

    @property
    def threads(self) -> int:
        """Cores to use."""
        return self.compute.threads

    @property
    def device(self) -> torch.device:
        """Where models compute.

        Raises:
            WorldModelsError: a GPU is wanted and there is none.
        """
        return device_of(self.compute.device)

    @property
    def products(self) -> torch.dtype:
        """Type of matrix products in training, encoding and dreams."""
        return products_in(self.compute.precision, self.device)

    def training(self) -> AbstractContextManager[object]:
        """Return the context in which this stage's models learn and encode."""
        return training_in(self.products, self.device)

    @cached_property
    def engine(self) -> Engine:
        """Where games and dreams are played. It is no dependency of a stage: the results are the same everywhere."""
        return open_engine(self.value("cluster", ClusterConfig), self.compute)

    def progress(self, steps: Iterable[T], unit: str, total: int | None = None) -> Iterable[T]:
        """Show how far a loop is."""
        return self.run.progress(steps, f"{self.name} {self.key}", unit=unit, total=total)

    def play(self, episodes: int, limit: int, what: str = "") -> Told:
        """Show how far the play of so many episodes, of at most ``limit`` steps, is. ``what``: which, if there are others."""
        return self.run.play(f"{self.name} {self.key}" + (f", {what}" if what else ""), episodes, limit)

    @property
    def settings(self) -> dict[str, Any]:
        """The environment's section, with this stage's section of ``controllers`` alone."""
        own = dict(self._params.get(self.env) or {})
        controllers = own.pop("controllers", None) or {}
        return own | ({"controllers": {self.controller: controllers.get(self.controller)}} if self.controller else {})

    def check_params(self) -> None:
        """Refuse what was made if params.yaml says something else by now: DVC would note the new params beside the old results.

        Raises:
            ParamsError: it does; the message names what was changed.
        """
        changed = sorted(_differences(self._read(self._params), self._read(load_yaml())))
        if changed:
            raise ParamsError(
                f"params.yaml was changed while this stage ran ({', '.join(changed[:3])}), so its results do not fit "
                "params.yaml. They are thrown away: run the command again."
            )

    def _read(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return of all params, flattened, those that a stage of this environment may read."""
        named = {name: params.get(name) for name in ("preset", "seed", "compute")}
        own = {"agents": {self.key: (params.get("agents") or {}).get(self.key)}} if STAGES[self.name] == "agents" else {}
        return flat(named | own | ({self.env: params.get(self.env)} if self.env else {}))

    @property
    def computation(self) -> str:
        """Names what is computed, by params and code: a stage that is run again after a kill has the same."""
        rooms = [folder for folder in sorted(PACKAGE.iterdir()) if folder.is_dir() and folder.name not in WATCHING]
        sources = [path for room in rooms for path in sorted(room.rglob("*.py"))]
        called = [self.name, self.key, self.env, self.after, self.player, self.explorer, self.world_model, self.begin]
        told = [*called, self.seed, self.project_seed, self.compute.model_dump(), self.settings, torch.__version__]
        return _digest([*told, code_fingerprint(sources)])

    def checkpoint(self, *inputs: Path) -> Checkpoint:
        """Return where this stage keeps how far it is, until it is done; ``inputs``: the artifacts that it reads."""
        identity = _digest([self.computation, str(self.device), str(self.products), *map(sha256, inputs)])
        self.kept = Checkpoint(state_of(self.name, self.key), identity)
        return self.kept


def run_stage(name: str, body: Callable[[Stage], None]) -> None:
    """Run a stage script: ``python -m pipeline.NAME key=KEY env=ENVIRONMENT ...``."""
    again = "make repro"
    try:
        called: dict[str, Any] = dict(argument.split("=", 1) for argument in sys.argv[1:])
        stage = Stage(name, **called)
        again = command_for(primary_out(name, stage.key)) if STAGES[name] else f"dvc repro {name}"
        torch.set_num_threads(stage.threads)
        keep_freed_memory()
        told = flat(stage.settings, stage.env) if stage.env else {}
        with (
            ended_from_outside(stage),
            stage_run(
                name,
                stage.key,
                stage.env,
                told,
                seed=stage.project_seed,
                world_model=stage.world_model,
                computation=stage.computation,
            ) as stage.run,
        ):
            body(stage)
            stage.check_params()
        if stage.kept is not None:
            stage.kept.clear()
    except Ended as end:
        print(f"{name}: ended by {end}. `{again}` goes on where it was.", file=sys.stderr)
        raise
    except WorldModelsError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        print(f"{name}: {error}. Make room on the disk; then `{again}` goes on where it was.", file=sys.stderr)
        sys.exit(1)


def _digest(told: list[Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _differences(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name, ...) != other.get(name, ...)}
