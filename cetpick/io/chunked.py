"""What the optional formats of tomograms, OME-Zarr and EMAN2's HDF5, have in common: voxels in compressed chunks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cetpick.errors import CetpickError, InputError
from cetpick.io.mrc import LARGEST_SIDE

FEWEST_CHUNKS = 0.01
"""Share of the chunks that must be stored. No tomogram is that empty, but a damaged size makes it look so."""


@contextmanager
def decoding(path: Path, extra: str) -> Iterator[None]:
    """Turn what the package of an optional format raises into InputError, and keep its own warnings quiet.

    Args:
        path: what is read.
        extra: the extra of cetpick that installs the package.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they speak to those who write such files
        try:
            yield
        except CetpickError:
            raise
        except ModuleNotFoundError as error:
            raise InputError(
                f"this kind of tomogram needs a package that is not installed: {error.name}",
                file=path,
                cure=f"pip install 'cetpick[{extra}]'",
            ) from None
        except Exception as error:  # neither zarr nor h5py says which exceptions damaged data raise
            raise InputError(
                "cannot be read",
                file=path,
                found=f"{type(error).__name__}: {error}".splitlines()[0],
                cure="check the permissions and the copy",
            ) from error


def check_volume(path: Path, shape: Sequence[int], dtype: np.dtype[Any]) -> tuple[int, int, int]:
    """Return `shape` as that of a volume, voxels along (z, y, x).

    Raises:
        InputError: it has other than three axes or impossible sizes, or its voxels are no real numbers.
    """
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(
            f"voxels of type {dtype} cannot be used", file=path, expected="integers or floating-point numbers"
        )
    if len(shape) != 3 or not all(2 <= side <= LARGEST_SIDE for side in shape):
        raise InputError(
            "not a volume",
            file=path,
            expected=f"three axes of 2 to {LARGEST_SIDE} voxels",
            found=" x ".join(map(str, reversed(shape))) or "a single number",
        )
    z, y, x = shape
    return z, y, x


def missing_chunks(path: Path, stored: int, total: int, fill: float) -> str | None:
    """What is to be said of chunks that are not stored and so count as `fill`; None when all are there.

    Raises:
        InputError: hardly any is.
    """
    if stored < total * FEWEST_CHUNKS:
        raise InputError(
            "holds hardly any voxels", file=path, expected=f"{total} chunks", found=stored, cure="copy it again"
        )
    if stored >= total:
        return None
    return f"{total - stored} of {total} chunks are not stored, their voxels count as {fill:g}; was it copied whole?"
