"""Which tomogram a file means: by name, by path, or by the name of the file itself."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from cetpick.errors import CetpickWarning
from cetpick.io.tomograms import tomogram_name
from cetpick.records import TomogramInfo

NAME_ENDINGS = ("_labels", "_picks", "_info", "_particles", "_coords", "_pick", "_manualpick", "_autopick")
"""What label files carry after the name of their tomogram."""


def find_tomogram(name: str | None, tomograms: Sequence[TomogramInfo]) -> TomogramInfo | None:
    """Return the tomogram that a file calls `name`: by its name, path, rlnTomoName, or file name, in this order.

    A file that names none (None) belongs to the only tomogram there is.
    """
    if name is None:
        return tomograms[0] if len(tomograms) == 1 else None
    plain, bare = plain_name(name), name.removesuffix(".tomostar")
    matches = [
        (
            info.name != name,
            info.path != Path(name),
            info.relion is None or info.relion.name != name,
            info.name != bare,
            info.name != plain,
            tomogram_name(info.path) != plain,
        )
        for info in tomograms
    ]
    best = min(range(len(tomograms)), key=matches.__getitem__, default=None)
    return None if best is None or all(matches[best]) else tomograms[best]


def plain_name(name: str) -> str:
    """Return the tomogram's name in an rlnMicrographName such as ``Tomograms/t1/t1.mrc`` or ``TS_01.tomostar``."""
    return tomogram_name(name.removesuffix(".tomostar"))


def named_after(path: Path, tomograms: Sequence[TomogramInfo]) -> TomogramInfo | None:
    """Return the tomogram that a label file is named after, such as TS_01 for TS_01.mod or rec_TS_01.mrc_labels.csv."""
    stem = path.stem
    for name in (stem, next((stem.removesuffix(ending) for ending in NAME_ENDINGS if stem.endswith(ending)), stem)):
        if info := find_tomogram(name, tomograms):
            return info
        # EMAN2 cuts the name of a tomogram at the first double underscore.
        if cut := [info for info in tomograms if info.name.split("__")[0] == tomogram_name(name)]:
            return cut[0] if len(cut) == 1 else None
    return None


def warn_of_others(path: str | PathLike[str], names: Sequence[str]) -> None:
    """Warn of particles whose tomograms were not given.

    Warns:
        CetpickWarning: there are such.
    """
    if names:
        warnings.warn(
            f"{path}: particles of tomograms that were not given are left out: {', '.join(names)}",
            CetpickWarning,
            stacklevel=2,
        )
