"""How far a stage is, on disk: one that was killed goes on from there and gives the same bytes."""

import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from worldmodels.errors import ArtifactError
from worldmodels.storage.weights import load_tensors, save_tensors

SECONDS = 30.0
"""Time between two checkpoints; ``WM_CHECKPOINT_SECONDS`` overrides it."""


class Checkpoint:
    """The state of one stage's computation.

    Args:
        path: where it is kept.
        identity: of the computation: params, inputs and code. A checkpoint of another one is not used.

    Attributes:
        end: set from outside to end the stage as soon as its state is saved: ``save`` raises it.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self.identity = path, identity
        self.end: BaseException | None = None
        self._seconds = float(os.environ.get("WM_CHECKPOINT_SECONDS", SECONDS))
        self._saved = time.monotonic()

    @property
    def folder(self) -> Path:
        """Place for what grows and is not to be saved again each time; cleared with the rest."""
        return self.path.with_suffix("")

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors and values last saved; two empty dicts if there are none of this computation."""
        if not self.path.exists():
            return {}, {}
        try:
            tensors, kept = load_tensors(self.path)
            identity, values = kept["identity"], kept["values"]
        except (ArtifactError, KeyError):
            print(f"warning: {self.path} is damaged: this stage begins anew.", file=sys.stderr)
            return {}, {}
        if identity != self.identity:
            return {}, {}
        print(f"going on from {self.path}", file=sys.stderr)
        return tensors, values

    def due(self) -> bool:
        """Return whether it is time to save."""
        return self.end is not None or time.monotonic() - self._saved >= self._seconds

    def save(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Save, atomically; if the disk has no room for it, warn and go on with what is there already."""
        try:
            save_tensors(self.path, tensors, {"identity": self.identity, "values": dict(values)})
        except OSError as error:
            print(f"warning: no checkpoint ({error}): a stage that is killed now loses more.", file=sys.stderr)
        self._saved = time.monotonic()
        if self.end is not None:
            raise self.end

    def clear(self) -> None:
        """Forget it: the stage is done."""
        self.path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
