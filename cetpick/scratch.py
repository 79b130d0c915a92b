"""Arrays that do not fit into memory, in files that nobody sees.

A file has no name in its folder, so that it is gone with the array, or with cetpick, however that ends. The folder is
that of temporary files (TMPDIR); it should be on a disk, as what lies in memory-backed folders counts as memory.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cetpick.errors import InputError

LARGE = 1 << 27
"""Bytes from which an array gets a file."""
SLAB = 1 << 24
"""Voxels that are worked on at once, at least one slice."""


def zeros(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array of zeros, in memory if it is small, else in a file.

    Raises:
        InputError: there is no room for the file.
    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    if size < LARGE:
        return np.zeros(shape, kind)
    with open_file() as file:
        # reserved here, as a disk that is full later kills the program
        os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, kind, "r+", shape=shape)


@contextmanager
def open_file() -> Iterator[IO[bytes]]:
    """A file without a name, to be written and then mapped into memory.

    Raises:
        InputError: there is no room for what was written.
    """
    try:
        with tempfile.TemporaryFile() as file:
            yield file
    except OSError as error:
        raise InputError(
            "no room for working data",
            file=tempfile.gettempdir(),
            found=error.strerror,
            cure="make room there, or let the environment variable TMPDIR name another folder on a disk",
        ) from error


def slabs(shape: tuple[int, int, int], *, multiple: int = 1) -> Iterator[slice]:
    """Cut a volume (z, y, x) along z into pieces of about SLAB voxels, each of a `multiple` of slices but the last."""
    thickness = max(1, SLAB // (shape[1] * shape[2]) // multiple) * multiple
    for start in range(0, shape[0], thickness):
        yield slice(start, min(start + thickness, shape[0]))
