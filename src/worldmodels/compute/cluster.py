"""Work spread over the nodes of a Ray cluster. The packages must be installed there; this project's code is sent along."""

import atexit
import logging
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import worldmodels
from worldmodels.errors import WorldModelsError
from worldmodels.shapes import TaskTold

Result = TypeVar("Result")
RETRIES = 5
"""Times that a task is run again, on another worker, if the one that had it was lost."""
SECONDS = 10.0
"""Time to wait for a cluster's answer."""


class RayEngine:
    """An ``Engine`` on a Ray cluster.

    Args:
        address: as in ``ClusterConfig``.
        cores: of a new cluster.
        parts: see ``Engine``.

    Raises:
        WorldModelsError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(self, address: str, cores: int, parts: int) -> None:
        try:
            import ray
        except ImportError:
            raise WorldModelsError(
                "cluster.engine is `ray`, which is not installed: pip install --constraint requirements.lock -e '.[ray]'"
            ) from None
        self._ray, self.workers, self.parts = ray, parts, parts
        here: dict[str, Any] = {} if address else {"num_cpus": cores, "include_dashboard": False}
        try:
            if match := re.fullmatch(r"(?:ray://)?(.+):(\d+)", address):  # Ray itself would try for minutes
                socket.create_connection((match[1], int(match[2])), timeout=SECONDS).close()
            ray.init(
                address=address or "local",
                runtime_env={"py_modules": [str(Path(str(worldmodels.__file__)).parent)]},
                log_to_driver=False,
                logging_level=logging.ERROR,
                ignore_reinit_error=True,
                **here,
            )
        except (OSError, RuntimeError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise WorldModelsError(
                f"the Ray cluster at cluster.address = {address!r} cannot be reached ({reason}). "
                "`ray start --head` starts one; cluster.engine: local does without."
            ) from None
        atexit.register(ray.shutdown)

    def share(self, value: Any) -> Any:
        return self._ray.put(value)

    def run(
        self, task: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], told: TaskTold | None = None
    ) -> Iterator[tuple[int, Result]]:
        ray = self._ray  # its workers say nothing until they are done: nobody is told
        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(task)
        waiting = {remote.remote(*each): index for index, each in enumerate(arguments)}
        try:
            while waiting:
                (done,), _ = ray.wait(list(waiting))
                index = waiting.pop(done)
                try:
                    result = ray.get(done)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except ray.exceptions.RayError as error:
                    raise WorldModelsError(
                        f"the Ray cluster lost a task {RETRIES + 1} times ({type(error).__name__}). "
                        "`ray status` shows its nodes; run again: what is done is kept."
                    ) from None
                yield index, result
        finally:
            for left in waiting:
                ray.cancel(left)  # not by force: Ray 2.60 aborts this process if such a task is just ending
