"""torch's compiler, if it works: it makes few loops over memory out of many."""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def compiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Return a function of tensors that torch's compiler has fused, for batches of any size; if that fails, the same function.

    The compiler needs a C++ compiler and Python's headers. The results differ from the function's own in the last bits.
    """
    fast = torch.compile(function, dynamic=True)
    works = True

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        nonlocal works
        if works:
            try:
                return fast(*args, **kwargs)
            except Exception as error:  # whatever is the matter with it: what is wrong with the arguments, `function` says too
                works = False
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                print(f"warning: {function.__name__} is not compiled, so it is slower ({reason})", file=sys.stderr)
        return function(*args, **kwargs)

    return call
