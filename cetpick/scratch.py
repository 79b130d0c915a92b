"""Arrays that do not fit into memory, in files that nobody sees.

A file has no name in its folder, so that it is gone with the array, or with cetpick, however that ends. The folder is
the one that the environment variable CETPICK_SCRATCH names, else the one that a workflow uses (its output folder: it is
on a disk, which /tmp often is not), else that of temporary files.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cetpick.errors import InputError

LARGE = 1 << 27
"""Bytes from which an array gets a file."""
SLAB = 1 << 22
"""Voxels that are worked on at once, at least one slice."""
VARIABLE = "CETPICK_SCRATCH"

_folder: ContextVar[Path | None] = ContextVar("scratch folder", default=None)


@contextmanager
def using(folder: Path) -> Iterator[None]:
    """Make files in this folder, unless the user named another."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


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
    folder = os.environ.get(VARIABLE) or _existing(_folder.get())
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            yield file
    except OSError as error:
        raise InputError(
            "cannot keep working data",
            file=folder or tempfile.gettempdir(),
            expected="a folder that can be written to, with room for the tomogram on the working grid",
            found=error.strerror or error,
            cure=f"make room there, or let the environment variable {VARIABLE} name another folder on a disk",
        ) from error


def _existing(folder: Path | None) -> Path | None:
    """The folder, or the nearest one above it that is there: output folders are made when something is written."""
    return None if folder is None else next(path for path in (folder, *folder.absolute().parents) if path.is_dir())


def slabs(shape: tuple[int, int, int], *, multiple: int = 1) -> Iterator[slice]:
    """Cut a volume (z, y, x) along z into pieces of about SLAB voxels, each of a `multiple` of slices but the last."""
    thickness = max(1, SLAB // (shape[1] * shape[2]) // multiple) * multiple
    for start in range(0, shape[0], thickness):
        yield slice(start, min(start + thickness, shape[0]))
