"""Which tomogram a file means: by name, by path, or by the name of the file itself."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from cetpick.errors import CetpickWarning, InputError
from cetpick.io.tomograms import tomogram_name
from cetpick.records import TomogramInfo

NAME_ENDINGS = ("_labels", "_picks", "_info", "_particles", "_coords", "_pick", "_manualpick", "_autopick")
"""What label files carry after the name of their tomogram."""
FULL, EXACT = 1000, 2000
"""How well a tomogram agrees with a path that is its own to the last folder, and with its own name or path."""


def find_tomogram(name: str | None, tomograms: Sequence[TomogramInfo]) -> TomogramInfo | None:
    """Return the tomogram that a file calls `name`: by its name, path, rlnTomoName, or file name, in this order.

    Of tomograms with the same file name it is the one whose folders agree the most; None where that does not tell. A
    file that names none (None) belongs to the only tomogram there is.
    """
    if name is None:
        return tomograms[0] if len(tomograms) == 1 else None
    likeness = [_likeness(name, info) for info in tomograms]
    best = max(likeness, default=0)
    return tomograms[likeness.index(best)] if best and (best >= EXACT or likeness.count(best) == 1) else None


def find_tomograms(
    names: Sequence[str | None], tomograms: Sequence[TomogramInfo], *, file: str | PathLike[str]
) -> list[TomogramInfo | None]:
    """Like find_tomogram for all names in a file, where particles of several tomograms never come to be in one.

    Of names that could mean the same tomogram only those stand for it that agree with it the best.

    Raises:
        InputError: several such names agree with it equally well, and none in full.
    """
    found = [find_tomogram(name, tomograms) for name in names]
    for info in tomograms:
        claims = {n: _likeness(name, info) for n, name in enumerate(names) if name is not None and found[n] is info}
        best = max(claims.values(), default=0)
        meant = [n for n, likeness in claims.items() if likeness >= min(best, FULL)]
        if best < FULL and len(meant) > 1:
            raise InputError(
                f"more than one of its tomograms could be {info.path}",
                file=file,
                found=", ".join(str(names[n]) for n in meant[:5]),
                cure="name the tomograms by the same paths as the file does",
            )
        for n in claims.keys() - set(meant):
            found[n] = None
    return found


def plain_name(name: str) -> str:
    """Return the tomogram's name in an rlnMicrographName such as ``Tomograms/t1/t1.mrc`` or ``TS_01.tomostar``."""
    return tomogram_name(_as_path(name).removesuffix(".tomostar"))


def warp_name(tomogram: str) -> str:
    """The name of the tilt series from which Warp reconstructed TS_01_10.00Apx.mrc: TS_01."""
    return re.sub(r"_\d+(\.\d+)?Apx$", "", tomogram)


def _likeness(name: str, info: TomogramInfo) -> int:
    """How well a tomogram agrees with a name: 0 not at all, the folders in common and one, FULL, EXACT or above."""
    bare = name.removesuffix(".tomostar")
    exact = (
        info.name == name,
        info.path == Path(name),
        info.relion is not None and info.relion.name == name,
        info.name == bare,
        bare != name and warp_name(info.name) == bare,
    )
    if any(exact):
        return EXACT + len(exact) - exact.index(True)
    plain = plain_name(name)
    own, said = info.path.absolute().parts[:-1], Path(_as_path(name)).parts[:-1]
    if tomogram_name(info.path) == plain:
        alike = [a == b for a, b in zip(own[::-1], said[::-1], strict=False)]
        shared = alike.index(False) if False in alike else len(alike)
        return FULL if shared == len(said) else 1 + shared
    return int(info.name == plain)


def _as_path(name: str) -> str:
    """A name without RELION's number of an image in a stack, and with the slashes of this system."""
    return re.sub(r"^\d+@", "", name).replace("\\", "/")


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
