"""Work spread over the processes of this machine."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from worldmodels.errors import WorldModelsError

Result = TypeVar("Result")


def run_tasks(task: Callable[..., Result], arguments: Sequence[tuple], workers: int) -> Iterator[tuple[int, Result]]:
    """Run ``task(*arguments[i])`` for every i; yield (i, result) as each is done.

    Args:
        task: a function of a module, so that a worker can import it.
        arguments: one tuple a task; what a task gives may depend on nothing else.
        workers: processes; 1 runs in this process.

    Raises:
        WorldModelsError: where a worker died; the exception of the task where one was raised.
    """
    if workers == 1 or len(arguments) <= 1:
        for index, each in enumerate(arguments):
            yield index, task(*each)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(arguments)), mp_context=context) as pool:
        futures = {pool.submit(task, *each): index for index, each in enumerate(arguments)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise WorldModelsError(
                "a worker process died (out of memory, or killed). Lower `compute.threads` in params.yaml and run again."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
