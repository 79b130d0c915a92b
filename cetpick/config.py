"""Settings: frozen, self-checking, each default written once, stored with every model and run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, Self, get_args

import numpy as np

from cetpick.errors import InputError

Mode = Literal["default", "paper"]
Hidden = Literal["peaks", "leave-out", "nnpu", "none"]
Start = Literal["pretrained", "random"]
MODES: tuple[str, ...] = get_args(Mode)

SMALLEST_DIAMETER, LARGEST_DIAMETER = 20.0, 5000.0
"""Angstrom; outside of it a diameter is a mistake of units."""


def _require(good: bool, name: str, value: object, expected: str) -> None:
    if not good:
        raise InputError(f"unusable setting {name}", expected=expected, found=value, cure="give a value in that range")


@dataclass(frozen=True, kw_only=True)
class ParticleClass:
    """A particle species.

    Attributes:
        name: of the class, as in the `class` column of tables.
        diameter: angstrom, of the sphere that encloses the particle.
    """

    name: str = "particle"
    diameter: float

    def __post_init__(self) -> None:
        _require(
            SMALLEST_DIAMETER <= self.diameter <= LARGEST_DIAMETER,
            "diameter",
            f"{self.diameter:g}",
            f"{SMALLEST_DIAMETER:g} to {LARGEST_DIAMETER:g} angstrom",
        )


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """All that picking needs to know besides the weights; stored in the model file.

    Attributes:
        mode: which network, preprocessing and peak rule.
        classes: the species, one heatmap channel each.
        voxel_size: (z, y, x) angstrom of the grid the network works on.
        clip: normalised grey values are clipped to +-clip standard deviations.
        background: what varies over more than a Gaussian of so many diameters is taken away, as are ramps of grey
            values; None to leave it.
        width: channels of the first level of the network.
        fused: channels of the 3D part.
        separation: centres nearer than this fraction of the diameter are one particle.
        floor: local maxima at which the score of the network itself is below this are no candidates; their scores, as
            calibrated, may be.
        calibration: pairs of a logit of the network and that of the probability it stands for, which is the score;
            see mixture.calibrate. Without any, as in `paper` mode, the score is the network's own.
        threshold: the score from which a candidate is a pick, as chosen in training.
        count: particles in a training tomogram, estimated.
        count_limits: they enclose the count with a probability of 80 %.
        sensitivity: for its lower limit, itself and its upper limit the count, and how many picks a training tomogram
            would give if it were known to be that.
        gold: from where on a coarse voxel is gold, see contamination.least_of_gold; None when it is not looked for.
        carbon: the same of carbon, see contamination.least_of_carbon.
        skewness: of the normalised training tomograms at the working scale; its sign tells dark from bright protein.
        stored_voxel_size: angstrom a voxel of the training tomograms; of several the geometric mean of the extremes.
        provenance: how the model was made: version, seed, steps, labels by tomogram.
    """

    mode: Mode = "default"
    classes: tuple[ParticleClass, ...]
    voxel_size: tuple[float, float, float]
    clip: float = 4.0
    background: float | None = None
    width: int = 16
    fused: int = 32
    separation: float = 0.6
    floor: float = 1e-3
    calibration: tuple[tuple[float, float], ...] = ()
    threshold: float = 0.5
    count: float = 0.0
    count_limits: tuple[float, float] = (0.0, 0.0)
    sensitivity: tuple[tuple[float, float], ...] = ()
    gold: float | None = None
    carbon: float | None = None
    skewness: float = 0.0
    stored_voxel_size: float = 0.0
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require(self.mode in MODES, "mode", self.mode, " or ".join(MODES))
        _require(len(self.classes) == 1, "classes", len(self.classes), "1 class (this version)")
        sizes = self.voxel_size
        _require(
            len(sizes) == 3 and all(0 < n < 1e4 for n in sizes), "voxel_size", sizes, "three sizes above 0 angstrom"
        )
        _require(self.clip > 0, "clip", self.clip, "above 0")
        _require(
            self.background is None or self.background > 0, "background", self.background, "diameters above 0, or none"
        )
        for name, channels in (("width", self.width), ("fused", self.fused)):
            _require(isinstance(channels, int) and 1 <= channels <= 1024, name, channels, "1 to 1024 channels")
        _require(0 <= self.separation <= 2, "separation", self.separation, "0 to 2 diameters")
        _require(0 < self.floor < 1, "floor", self.floor, "above 0 and below 1")
        rising = all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(self.calibration))
        _require(rising, "calibration", self.calibration, "pairs of rising logits")
        _require(0 <= self.threshold <= 1, "threshold", self.threshold, "0 to 1")
        for name, level in (("gold", self.gold), ("carbon", self.carbon)):
            _require(level is None or level > 0, name, level, "above 0 standard deviations")
        _require(self.stored_voxel_size >= 0, "stored_voxel_size", self.stored_voxel_size, "angstrom")

    @property
    def diameter(self) -> float:
        """Angstrom, of the only class."""
        return self.classes[0].diameter

    @property
    def told(self) -> str:
        """What a user wants to know of a trained model, in a few words."""
        low, high = self.count_limits
        parts = []
        if self.count:
            parts.append(f"about {self.count:.0f} particles ({low:.0f} to {high:.0f}) in each training tomogram")
        if self.sensitivity:
            (_, fewer), (_, picks), (_, more) = self.sensitivity
            alike = f"still pick {picks:.0f}"
            other = f"pick {fewer:.0f} or {more:.0f} instead of {picks:.0f}" if more - fewer >= 1 else alike
            parts.append(f"at these limits it would {other}")
        return "; ".join([*parts, f"threshold {self.threshold:.3f}"])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of to_dict.

        Raises:
            TypeError: unknown or missing settings.
        """
        values = dict(values)
        values["classes"] = tuple(ParticleClass(**c) for c in values["classes"])
        values["voxel_size"] = tuple(values["voxel_size"])
        values["count_limits"] = tuple(values["count_limits"])
        values["sensitivity"] = tuple((float(count), float(picks)) for count, picks in values.get("sensitivity", ()))
        values["calibration"] = tuple((float(before), float(after)) for before, after in values.get("calibration", ()))
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How to train.

    Attributes:
        mode: `default`, or `paper` for the published method.
        diameter: angstrom.
        steps: of the final training's first round, None for the mode's own number.
        crops: crops a step.
        crop: (z, y, x) voxels of the working grid.
        learning_rate: peak of the cosine schedule of AdamW.
        hidden: how unlabelled particles are kept from being learned as background: `peaks` leaves out the places that
            two scouts agree on (scouting.py), `leave-out` the expected number of highest-scoring cells of each batch,
            `nnpu` is soft-label non-negative PU risk, `none` learns everything unlabelled as background.
        start: the weights that training starts with, pretrained on simulated proteins or random.
        count_hint: expected particles a tomogram, which the estimate then takes into account.
        voxels_per_diameter: working voxels along a diameter, in x and y.
        seed: of everything random.
    """

    mode: Mode = "default"
    diameter: float
    steps: int | None = None
    crops: int = 8
    crop: tuple[int, int, int] = (12, 64, 64)
    learning_rate: float = 2e-3
    hidden: Hidden = "peaks"
    start: Start = "pretrained"
    count_hint: float | None = None
    voxels_per_diameter: float = 16.0
    seed: int = 0

    def __post_init__(self) -> None:
        ParticleClass(diameter=self.diameter)
        _require(self.mode in MODES, "mode", self.mode, " or ".join(MODES))
        _require(self.hidden in get_args(Hidden), "hidden", self.hidden, " or ".join(get_args(Hidden)))
        _require(self.start in get_args(Start), "start", self.start, " or ".join(get_args(Start)))
        _require(self.steps is None or self.steps >= 1, "steps", self.steps, "at least 1")
        _require(
            self.count_hint is None or 1 <= self.count_hint < 1e7, "count-hint", self.count_hint, "1 to 10 million"
        )
        _require(0 <= self.seed < 2**63, "seed", self.seed, "0 or a positive integer")

    def of_part(self, part: int) -> TrainSettings:
        """The same for a part of the training, with random numbers of its own, lest it draw the crops of another."""
        seed = int(np.random.SeedSequence([self.seed, part]).generate_state(1, np.uint64)[0])
        return replace(self, seed=seed >> 1)  # as many bits as a seed may have


@dataclass(frozen=True, kw_only=True)
class PickSettings:
    """Which candidates become picks.

    Attributes:
        threshold: score cut, None for the one chosen by the tool.
        precision: cut each tomogram where this precision is expected, instead of by a threshold.
        top: at most this many picks a tomogram, the best ones, None for all.
    """

    threshold: float | None = None
    precision: float | None = None
    top: int | None = None

    def __post_init__(self) -> None:
        _require(self.threshold is None or 0 <= self.threshold <= 1, "threshold", self.threshold, "0 to 1")
        good = self.precision is None or 0 < self.precision < 1
        _require(good, "target-precision", self.precision, "a fraction between 0 and 1")
        if self.threshold is not None and self.precision is not None:
            raise InputError("--threshold and --target-precision are two ways to cut", cure="give one of them")
        _require(self.top is None or self.top >= 1, "top", self.top, "at least 1")
