"""Where tasks run: processes of this machine, or a Ray cluster. What a task gives is the same in both."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol, TypeVar

from pydantic import Field

from worldmodels.compute.local import run_tasks
from worldmodels.compute.precision import Precision
from worldmodels.params import Config

Result = TypeVar("Result")


class ComputeConfig(Config):
    """The ``compute`` section of params.yaml.

    Attributes:
        threads: cores that a stage uses on this machine. Other counts give weights that differ in the last bits.
        device: where V and M compute and dreams are dreamt: ``cpu``, ``cuda``, or ``auto``, CUDA where there is a GPU. Agents
            are tested on the CPU in any case.
        precision: of matrix products in training, encoding and dreams: ``float32``, ``bfloat16``, or ``auto``, bfloat16 where
            the device is made for it. Agents are tested in float32 in any case.
        compile: let torch's compiler fuse the dreams that C is searched in (``models.compiled``); where it does not work, they
            are dreamt without.
        engine: where games and dreams are played: ``local``, or ``ray``, on a Ray cluster.
        address: of the cluster: ``HOST:PORT`` where this machine is one of its nodes, ``ray://HOST:PORT`` where it is not;
            empty starts a cluster of ``threads`` cores here.
        workers: parts that a generation is cut into on a cluster, one core each.
    """

    threads: int = Field(ge=1, le=1024)
    device: Literal["auto", "cpu", "cuda"]
    precision: Precision
    compile: bool
    engine: Literal["local", "ray"]
    address: str
    workers: int = Field(ge=1, le=65536)


class Engine(Protocol):
    """Runs independent tasks.

    Attributes:
        workers: tasks that run at a time, about.
        parts: how many parts one large computation is best cut into; 1: it is best left whole.
    """

    workers: int
    parts: int

    def share(self, value: Any) -> Any:
        """Bring a large value to the workers once; the result stands for it among the arguments of tasks."""
        ...

    def run(self, task: Callable[..., Result], arguments: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Result]]:
        """Run ``task(*arguments[i])`` for every i; yield (i, result) as each is done.

        Raises:
            WorldModelsError: where a worker died; the exception of the task where one was raised.
        """
        ...


class LocalEngine:
    """Processes of this machine."""

    parts = 1

    def __init__(self, processes: int) -> None:
        self.workers = processes

    def share(self, value: Any) -> Any:
        return value

    def run(self, task: Callable[..., Result], arguments: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Result]]:
        return run_tasks(task, arguments, self.workers)


def open_engine(config: ComputeConfig) -> Engine:
    """Return the engine of the ``compute`` section.

    Raises:
        WorldModelsError: where Ray is not installed, or the cluster cannot be reached.
    """
    if config.engine == "local":
        return LocalEngine(config.threads)
    from worldmodels.compute.cluster import RayEngine

    return RayEngine(config.address, config.threads, config.workers)
