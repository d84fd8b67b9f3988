"""Where tasks run: processes of this machine, or a Ray cluster. What a task gives is the same in both."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol, TypeVar

from pydantic import Field

from worldmodels.compute.local import run_tasks
from worldmodels.compute.precision import Precision
from worldmodels.errors import ParamsError
from worldmodels.params import Config
from worldmodels.shapes import TaskTold

Result = TypeVar("Result")


class ComputeConfig(Config):
    """The ``compute`` section of params.yaml: what the bytes of a result depend on."""

    # cores that a stage uses on this machine. Other counts give weights that differ in the last bits
    threads: int = Field(default=2, ge=1, le=1024)
    # where V and M compute and dreams are dreamt: ``cpu``, ``cuda``, or ``auto``, CUDA if there is a GPU. Agents are tested
    # on the CPU in any case
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # of matrix products in training, encoding and dreams: ``float32``, ``bfloat16``, or ``auto``, bfloat16 if the device is
    # made for it. Agents are tested in float32 in any case
    precision: Precision = "auto"
    # let torch's compiler fuse the dreams that C is searched in (``compute.compiled``); if it does not work, they are dreamt
    # without
    compile: bool = True


class ClusterConfig(Config):
    """The ``cluster`` section of params.yaml: where games and dreams are played. The results are the same everywhere."""

    engine: Literal["local", "ray"] = "local"  # ``local``, or ``ray``, on a Ray cluster
    # of the cluster: ``HOST:PORT`` if this machine is one of its nodes, ``ray://HOST:PORT`` if it is not; empty starts a
    # cluster of ``compute.threads`` cores here
    address: str = ""
    workers: int = Field(default=8, ge=1, le=65536)  # parts that a generation is cut into on a cluster, one core each


class Engine(Protocol):
    """Runs independent tasks."""

    workers: int  # tasks that run at a time, about
    parts: int  # how many parts one large computation is best cut into; 1: it is best left whole

    def share(self, value: Any) -> Any:
        """Bring a large value to the workers once; the result stands for it among the arguments of tasks."""

    def run(
        self, task: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], told: TaskTold | None = None
    ) -> Iterator[tuple[int, Result]]:
        """Run ``task(*arguments[i])`` for every i; yield (i, result) as each is done.

        ``told`` hears how far tasks of play are, as far as that can be heard: they are called with ``told=`` then, a ``Told``.

        Raises:
            WorldModelsError: a task lost too many workers. An exception of a task is raised as it is.
        """


class LocalEngine:
    """Processes of this machine."""

    parts = 1

    def __init__(self, processes: int) -> None:
        self.workers = processes

    def share(self, value: Any) -> Any:
        return value

    def run(
        self, task: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], told: TaskTold | None = None
    ) -> Iterator[tuple[int, Result]]:
        return run_tasks(task, arguments, self.workers, told)


def check_cluster(cluster: ClusterConfig, compute: ComputeConfig) -> None:
    """Refuse a cluster beside a GPU: workers dream on the processor, so the results would be other ones.

    Raises:
        ParamsError: there are both; the message says what to set.
    """
    if cluster.engine == "ray" and compute.device != "cpu":
        raise ParamsError("cluster.engine: ray needs compute.device: cpu, because the workers dream on their processors.")


def open_engine(cluster: ClusterConfig, compute: ComputeConfig) -> Engine:
    """Return the engine of the sections ``cluster`` and ``compute``.

    Raises:
        WorldModelsError: Ray is not installed, or the cluster cannot be reached.
    """
    if cluster.engine == "local":
        return LocalEngine(compute.threads)
    check_cluster(cluster, compute)
    from worldmodels.compute.cluster import RayEngine

    return RayEngine(cluster.address, compute.threads, cluster.workers)
