"""HDF5 tomograms of EMAN2, ``MDF/images/0/image``: the header and the voxels.

The HDF5 library itself loops forever, or crashes, on some damaged files. It is therefore run in a process of its own
(``python -m cetpick.io.hdf``), which is ended when it has computed for too long.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cetpick import scratch
from cetpick.errors import InputError
from cetpick.io.chunked import check_volume, decoding, missing_chunks
from cetpick.io.mrc import VolumeHeader, reading

EXTRA = "hdf"
ENDINGS = (".hdf", ".h5")
SIGNATURE = b"\x89HDF\r\n\x1a\n"
IMAGES = "MDF/images"

PATIENCE = 0.8
"""Seconds that HDF5 may compute to be loaded and find its way in a file; waiting for a slow disk does not count."""
SLOWEST = 10e6
"""Bytes of voxels that are unpacked in a second at least."""


def is_hdf(path: Path) -> bool:
    """Whether a file is called .hdf or .h5, or begins like an HDF5 file."""
    if path.suffix.lower() in ENDINGS:
        return True
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(SIGNATURE)) == SIGNATURE
    except OSError:
        return False


def read_header(path: Path) -> VolumeHeader:
    """Read the header of a tomogram that EMAN2 wrote; the voxel sizes are its apix_x, apix_y and apix_z.

    EMAN2 stores most tomograms as whole numbers of a few bits, and what they stand for in stored_rendermin and
    stored_rendermax. That is a line, which the normalisation undoes, so it is told but not applied.

    Raises:
        InputError: h5py is not installed, no such file, damaged, not EMAN2's, several images, no volume, or not whole.
    """
    told = json.loads(_ask(path))
    dtype = np.dtype(told["dtype"])
    x, y, z = told["voxel_sizes"]
    return VolumeHeader(
        shape=tuple(told["shape"]),
        dtype=dtype,
        offset=0,
        voxel_sizes=(x, y, z),
        details={"format": "EMAN2 HDF5", "dtype": dtype.name, **told["scaling"], "voxel_sizes": [x, y, z]},
        problems=tuple(told["problems"]),
    )


def read_voxels(path: Path, header: VolumeHeader) -> NDArray[Any]:
    """The (z, y, x) voxels that `header` tells of, read-only, as stored; large ones in a file (scratch.py).

    Raises:
        InputError: as read_header, or a chunk is damaged.
    """
    if header.data_bytes < scratch.LARGE:
        return np.frombuffer(_ask(path, header.data_bytes), header.dtype).reshape(header.shape)
    with scratch.open_file() as file:
        os.posix_fallocate(file.fileno(), 0, header.data_bytes)
        _ask(path, header.data_bytes, file)
        return np.memmap(file, header.dtype, "r", shape=header.shape)


def _ask(path: Path, size: int | None = None, into: IO[bytes] | None = None) -> bytes:
    """What a process of its own finds in a file: what the header says, in JSON; or its `size` bytes of voxels.

    These are written `into` an empty file of that size, if one is given.
    """
    with reading(path), decoding(path, EXTRA):
        if find_spec("h5py") is None:
            raise ModuleNotFoundError(name="h5py")
        done = subprocess.run(
            [sys.executable, "-P", "-m", "cetpick.io.hdf", str(path), *([str(size)] if size else [])],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            stdout=into or subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
        )
        answered = len(done.stdout) if into is None else into.seek(0, os.SEEK_CUR)
    if done.returncode == InputError.exit_code:
        raise InputError(**json.loads(done.stderr), file=path)
    if done.returncode or (size and answered != size):
        looped = done.returncode == -signal.SIGVTALRM
        raise InputError(
            "cannot be read",
            file=path,
            found=f"a damaged file in which HDF5 {'finds no end' if looped else 'breaks down'}",
            cure="copy it again",
        )
    return done.stdout or b""


def _answer(path: Path, size: int | None) -> None:
    """Print what `_ask` asks for; an InputError goes to stderr, without the file, which the asking process knows."""
    signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE + (size or 0) / SLOWEST)  # at its end the process is killed
    try:
        with _image(path) as (attributes, voxels):
            if size is None:
                sys.stdout.write(json.dumps(_describe(path, attributes, voxels)))
            else:
                for slab in scratch.slabs(voxels.shape):
                    sys.stdout.buffer.write(voxels[slab].data)
    except InputError as error:
        told = {"problem": error.problem, "expected": error.expected, "found": error.found, "cure": error.cure}
        sys.stderr.write(json.dumps(told, default=str))
        sys.exit(InputError.exit_code)


def _describe(path: Path, attributes: Any, voxels: Any) -> dict[str, Any]:
    shape = check_volume(path, voxels.shape, voxels.dtype)
    gaps = _gaps(path, voxels)
    return {
        "shape": shape,
        "dtype": voxels.dtype.str,
        "voxel_sizes": [_number(attributes, f"apix_{axis}") or 0.0 for axis in "xyz"],
        "scaling": {name: _number(attributes, f"stored_{name}") for name in ("renderbits", "rendermin", "rendermax")},
        "problems": [gaps] if gaps else [],
    }


@contextmanager
def _image(path: Path) -> Iterator[tuple[Any, Any]]:
    """The attributes and the dataset of the only image in a file of EMAN2."""
    with reading(path), decoding(path, EXTRA):
        import h5py

        # Locks are refused by many network file systems; a file that is only read does not need one.
        with h5py.File(path, "r", locking="best-effort") as file:
            images = file.get(IMAGES)
            if images is None or "0/image" not in images:
                raise InputError(
                    "is no tomogram of EMAN2",
                    file=path,
                    expected=f"a dataset {IMAGES}/0/image",
                    found=", ".join(file) or "an empty HDF5 file",
                )
            if len(images) > 1:
                raise InputError(
                    "holds a stack of images, of particles or a tilt series, and no tomogram",
                    file=path,
                    expected="one volume",
                    found=f"{len(images)} images",
                )
            yield images["0"].attrs, images["0/image"]


def _gaps(path: Path, voxels: Any) -> str | None:
    """What is to be said of chunks that are not stored; data in one piece are all there, or HDF5 refuses the file."""
    stored = voxels.id.get_storage_size()
    if voxels.chunks is None:
        return missing_chunks(path, int(stored >= voxels.nbytes), 1, 0.0)
    total = math.prod(-(-side // step) for side, step in zip(voxels.shape, voxels.chunks, strict=True))
    return missing_chunks(path, voxels.id.get_num_chunks(), total, float(voxels.fillvalue))


def _number(attributes: Any, name: str) -> float | None:
    """An attribute of EMAN2, None where it is missing or no number."""
    value = np.asarray(attributes.get(f"EMAN.{name}"))
    return float(value.item()) if value.size == 1 and value.dtype.kind in "iuf" else None


if __name__ == "__main__":
    _answer(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
