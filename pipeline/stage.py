"""What all stage scripts share: arguments, threads, tracking, and errors as messages."""

import errno
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

import worldmodels
from pipeline.ending import Ended, ended_from_outside
from worldmodels.compute.allocator import keep_freed_memory
from worldmodels.compute.engine import ComputeConfig, Engine, open_engine
from worldmodels.errors import WorldModelsError
from worldmodels.compute.precision import products_in, training_in
from worldmodels.params import load_yaml, section
from worldmodels.storage.agents import code_fingerprint
from worldmodels.storage.checkpoint import Checkpoint
from worldmodels.storage.files import sha256
from worldmodels.storage.layout import PRIMARY, STATE, Iteration, Trial, command_for
from worldmodels.tracking.live import StageRun, stage_run

T = TypeVar("T")
PACKAGE = Path(str(worldmodels.__file__)).parent
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
COMPUTING = ("engine", "envs", "models", "storage", "training")


@dataclass
class Stage:
    """One stage of one iteration: what it is called with, and the params it reads.

    Attributes:
        name: of the stage.
        key: of the iteration.
        environment: name of its section in params.yaml.
        after: key of the iteration before.
        run: its MLflow run, set while the stage runs.
        kept: its checkpoint, where it has one.
    """

    name: str
    key: str
    environment: str = ""
    after: str = ""
    run: StageRun = field(init=False)
    kept: Checkpoint | None = field(init=False, default=None)
    _params: dict[str, Any] = field(default_factory=load_yaml, kw_only=True)

    def params(self, name: str, kind: Any) -> Any:
        """Return the section ``name`` of this stage's environment as a ``kind``."""
        return section(self._params, f"{self.environment}.{name}", kind)

    def value(self, key: str) -> Any:
        """Return a value at the top of params.yaml, by dotted key."""
        return section(self._params, key, Any)

    @property
    def files(self) -> Iteration:
        """Files of this iteration, or trial."""
        return Trial(self.key) if self.name == "trial" else Iteration(self.key)

    @property
    def before(self) -> Iteration:
        """Files of the iteration before."""
        return Iteration(self.after)

    @property
    def origin(self) -> Iteration:
        """Files of iteration 0, the random policy."""
        return Iteration(f"{self.environment}-0")

    @property
    def vision_stayed(self) -> bool:
        """Whether V is the one of the iteration before, to the byte."""
        earlier = self.before.agent / "vision.safetensors"
        return earlier.exists() and sha256(earlier) == sha256(self.files.vision)

    @property
    def seed(self) -> int:
        """Seed of the project."""
        return int(self.value("seed"))

    @property
    def threads(self) -> int:
        """Cores to use."""
        return int(self.value("compute.threads"))

    @property
    def device(self) -> torch.device:
        """Where models compute.

        Raises:
            WorldModelsError: where a GPU is wanted and there is none.
        """
        wanted, there = self.value("compute.device"), torch.cuda.is_available()
        if wanted == "cuda" and not there:
            raise WorldModelsError(
                "compute.device is `cuda`, and torch finds no GPU here. `auto` takes one where there is one."
            )
        return torch.device("cuda" if there and wanted != "cpu" else "cpu")

    @property
    def products(self) -> torch.dtype:
        """Type of matrix products in training, encoding and dreams."""
        return products_in(self.value("compute.precision"), self.device)

    def training(self) -> AbstractContextManager[object]:
        """Return the context in which this stage's models learn and encode."""
        return training_in(self.products, self.device)

    @cached_property
    def engine(self) -> Engine:
        """Where this stage's games and dreams are played. Not a param that DVC knows of: the results are the same in all."""
        return open_engine(section(self._params, "compute", ComputeConfig))

    def progress(self, steps: Iterable[T], unit: str, total: int | None = None) -> Iterable[T]:
        """Show how far a loop is."""
        return self.run.progress(steps, f"{self.name} {self.key}", unit=unit, total=total)

    @property
    def computation(self) -> str:
        """Names what is computed, by params and code: a stage that is run again after a kill has the same."""
        sources = [path for part in COMPUTING for path in sorted((PACKAGE / part).rglob("*.py"))]
        told = [
            self.name,
            self.key,
            self.seed,
            self.threads,
            self._params.get(self.environment),
            (self._params.get("trials") or {}).get(self.key),
            torch.__version__,
        ]
        return _digest([*told, code_fingerprint(sources)])

    def checkpoint(self, *inputs: Path, told: Sequence[Any] = ()) -> Checkpoint:
        """Return where this stage keeps how far it is, until it is done.

        Args:
            inputs: the artifacts that it reads.
            told: what else its bytes depend on.
        """
        identity = _digest([self.computation, str(self.device), str(self.products), *told, *map(sha256, inputs)])
        self.kept = Checkpoint(STATE / f"{self.name}-{self.key}.safetensors", identity)
        return self.kept

    @property
    def stream(self) -> str:
        """Names this iteration's episodes among all of their purpose."""
        return f"{self.seed}/{self.key}"


def run_stage(name: str, body: Callable[[Stage], None]) -> None:
    """Run a stage script: ``python -m pipeline.NAME KEY [ENVIRONMENT AFTER]``."""
    again = "make repro"
    try:
        stage = Stage(name, *sys.argv[1:])
        again = "dvc repro report" if name == "report" else command_for(stage.files.folder / PRIMARY[name])
        torch.set_num_threads(stage.threads)
        keep_freed_memory()
        params = flatten(stage._params.get(stage.environment, {}), stage.environment)
        with ended_from_outside(stage), stage_run(name, stage.key, params, computation=stage.computation) as stage.run:
            body(stage)
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


def flatten(node: Any, prefix: str) -> dict[str, Any]:
    """Return nested params as ``{"doom.vision.model.latent": 64, ...}``."""
    if not isinstance(node, dict):
        return {prefix: node}
    return {key: value for name, child in node.items() for key, value in flatten(child, f"{prefix}.{name}").items()}
