"""Imported first in every process of the pool, before any numeric library: its import does the work. No Twisted here.

The pool spreads work over processes, so each numeric library is to use one thread: BLAS threads that spin beside
each other nearly double the CPU time of an analysis. Large arrays come and go all the time: malloc is told to keep
their pages instead of giving them back and faulting them in again. A variable that is set already is left alone.
"""

import ctypes
import os

ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

# malloc.h of the GNU C library, mallopt(3): the parameter, its environment variable, what we want.
_MALLOC = (
    (-3, "MALLOC_MMAP_THRESHOLD_", 1 << 30),
    (-1, "MALLOC_TRIM_THRESHOLD_", 1 << 30),
    (-2, "MALLOC_TOP_PAD_", 64 << 20),
)


def _libc() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(None)
    except OSError:
        return None


def trim_memory() -> None:
    """Give free memory back to the system, where the C library can: malloc_trim(3)."""
    trim = getattr(_libc(), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _prepare() -> None:
    for name in ONE_THREAD:
        os.environ.setdefault(name, "1")
    mallopt = getattr(_libc(), "mallopt", None)
    for parameter, variable, value in _MALLOC:
        if mallopt is not None and variable not in os.environ:
            mallopt(parameter, value)


_prepare()
