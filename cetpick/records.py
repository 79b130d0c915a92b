"""What flows between the layers: tomograms, coordinates, picks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cetpick.geometry import Points, as_points

DEFAULT_CLASS = "particle"
"""The class of labels and picks that were given none."""


ANGLES = ["rot", "tilt", "psi"]
"""Columns of a particle's orientation, degrees, RELION's convention (see geometry)."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The voxel grid of a stored tomogram.

    Attributes:
        shape: voxels along (z, y, x).
        voxel_size: angstrom.
        origin: x, y, z image origin in angstrom, with the sign that IMOD shows.
    """

    shape: tuple[int, int, int]
    voxel_size: float
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels along x, y, z."""
        z, y, x = self.shape
        return x, y, z

    def contains(self, xyz: ArrayLike) -> NDArray[np.bool_]:
        """Which of the points (n, 3), in voxels, lie inside the volume; shape (n,)."""
        points = as_points(xyz)
        inside = (points >= -0.5) & (points < np.array(self.size) - 0.5)
        return inside[:, 0] & inside[:, 1] & inside[:, 2]


@dataclass(frozen=True, kw_only=True)
class RelionTomogram:
    """What a RELION 5 tomograms.star says of one tomogram.

    Attributes:
        name: rlnTomoName.
        pixel_size: rlnTomoTiltSeriesPixelSize, angstrom.
        binning: rlnTomoTomogramBinning of the reconstruction.
        size: rlnTomoSizeX, Y, Z in unbinned pixels.
        star: the tomograms.star itself.
        project: the project folder, where paths in RELION's files start; by default the current one.
    """

    name: str
    pixel_size: float
    binning: float
    size: tuple[float, float, float]
    star: Path
    project: Path = Path()

    @property
    def voxel_size(self) -> float:
        """Angstrom a voxel of the reconstruction."""
        return self.pixel_size * self.binning


Unwanted = Literal["padding", "empty", "gold", "carbon"]
"""What is found and left out of a tomogram by itself: padding, empty slices, gold, edges of carbon."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """Where in a tomogram particles are learned and looked for: everywhere, unless something limits it.

    Attributes:
        mask: a volume of the same extent, on any grid; where it is above 0.
        mask_version: bytes of that file, and when it was last written to, nanoseconds since 1970.
        slab: from and to along z, angstrom from the first face of the tomogram.
        keep: what is not looked for, so that particles may lie in it.
    """

    mask: Path | None = None
    mask_version: tuple[int, int] | None = None
    slab: tuple[float, float] | None = None
    keep: tuple[Unwanted, ...] = ()


EVERYWHERE = Region()


@dataclass(frozen=True, kw_only=True)
class TomogramInfo:
    """All that is known of a tomogram without its voxels.

    Attributes:
        name: rlnTomoName, else the file name without endings and a leading ``rec_`` (see tomogram_name).
        path: the file, or the folder of a Zarr store or of a level in it.
        grid: its voxel grid.
        header_voxel_size: angstrom, as the file's header says, None when that is unusable.
        relion: its row of a tomograms.star, if it came from one.
        region: where in it particles are looked for.
        header: what `info` shows: mode, labels and the like.
    """

    name: str
    path: Path
    grid: Grid
    header_voxel_size: float | None = None
    relion: RelionTomogram | None = None
    region: Region = EVERYWHERE
    header: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Tomogram:
    """A tomogram with its voxels.

    Attributes:
        info: name, file and grid.
        data: (z, y, x) array of the stored numbers, often memory-mapped, any real dtype; may hold NaN.
        mask: (z, y, x) voxels of the region's mask, on a grid of its own; None without one.
    """

    info: TomogramInfo
    data: NDArray[Any]
    mask: NDArray[Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """Particle centres in one tomogram, from one file.

    Attributes:
        table: columns x, y, z (float64, voxels of `voxel_size`, internal convention) and class (str); score, rot, tilt,
            psi and others may follow.
        tomogram: name of the tomogram as the file has it, None when the file names none.
        voxel_size: angstrom a voxel, None when neither the file nor a tomogram told.
        radius: of the particles, angstrom, when the file says it.
        source: the file.
        left_out: points of the file that were duplicates or lay outside of the tomogram.
    """

    table: pd.DataFrame
    tomogram: str | None = None
    voxel_size: float | None = None
    radius: float | None = None
    source: Path | None = None
    left_out: int = 0

    @classmethod
    def from_points(cls, xyz: ArrayLike, **columns: Any) -> Coordinates:
        """Make a record of points (n, 3); arrays among `columns` named like table columns join the table.

        `columns` may hold ``score`` and ``class_`` (one value a point; None: not known) and ``angles`` (n, 3; None: not
        known) besides the attributes of the record.
        """
        points = as_points(xyz)
        table = pd.DataFrame(points, columns=["x", "y", "z"])
        classes = columns.pop("class_", None)
        table["class"] = DEFAULT_CLASS if classes is None else pd.Series(list(classes), dtype=object)
        if (score := columns.pop("score", None)) is not None:
            table["score"] = np.asarray(score, dtype=np.float64)
        if (angles := columns.pop("angles", None)) is not None:
            table[ANGLES] = as_points(angles)
        return cls(table=table, **columns)

    @property
    def xyz(self) -> Points:
        """Points (n, 3), in voxels."""
        return as_points(self.table[["x", "y", "z"]].to_numpy())

    def __len__(self) -> int:
        return len(self.table)


@dataclass(frozen=True, kw_only=True)
class Picks:
    """What the picker found in one tomogram.

    Attributes:
        info: the tomogram.
        candidates: every peak that passed the distance suppression, columns x, y, z, score, class, by falling score.
        threshold: the score from which a candidate is a pick.
        top: at most this many of them are, the best ones; None for all.
    """

    info: TomogramInfo
    candidates: pd.DataFrame
    threshold: float
    top: int | None = None

    @property
    def accepted(self) -> pd.DataFrame:
        """The candidates that are picks, by falling score."""
        above = self.candidates[self.candidates["score"] >= self.threshold]
        return (above if self.top is None else above.head(self.top)).reset_index(drop=True)

    @property
    def cut(self) -> float:
        """The lowest score that is a pick when `top` decides, else the threshold."""
        accepted = self.accepted
        return float(accepted["score"].min()) if self.top is not None and len(accepted) == self.top else self.threshold
