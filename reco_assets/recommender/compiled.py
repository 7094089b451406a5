"""How the loops that take the time are compiled, and what they are given."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
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
        machine_code: Any = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no writable place for the cache, as in a read-only container
        machine_code = numba.njit(**options)(function)
    else:
        # numba looks at the age of the function's own file, yet what it calls from others is compiled
        # into it: without this, code changed in another file would go on running as it was. In the version,
        # because that is compared before the rest is unpickled, which fails where a class has gone.
        kept = machine_code._cache._cache_file
        kept._version = f"{kept._version} {_all_sources()}"
    result: F = machine_code
    return result


@functools.cache
def _all_sources() -> str:
    """A digest of the files beside this one, whose loops call each other."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


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
