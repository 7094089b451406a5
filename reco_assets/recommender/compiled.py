"""How the loops that take the time are compiled, and what they are given."""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile without the interpreter lock; keep the machine code where the file system allows.

    Division by zero gives infinity or NaN as in numpy, which spares a test per division.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        machine_code: F = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no writable place for the cache, as in a read-only container
        machine_code = numba.njit(**options)(function)
    return machine_code


def frozen(array: Array, dtype: Any) -> Array:
    """A contiguous read-only view, without a copy where the type allows.

    numba compiles once more for each mix of writable and memory-mapped arrays; this leaves one.
    """
    array = np.ascontiguousarray(array)
    if array.dtype == np.int32 and dtype is np.uint32:
        array = array.view(np.uint32)  # indices are never negative
    result = np.asarray(array, dtype=dtype).view(np.ndarray)
    result.flags.writeable = False
    return result
