"""Particle lists of PyTom (XML).

Read by expat, event by event: nothing nests, and a file that declares a document type, which could define entities
that expand without end, is refused before any of it is expanded.
"""

from __future__ import annotations

import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from cetpick.errors import CetpickWarning, InputError
from cetpick.geometry import convert_angles
from cetpick.io.atomic import replacing
from cetpick.io.handler import Item, known_scores, text_head
from cetpick.io.naming import find_tomograms, plain_name, warn_of_others
from cetpick.io.numbered import class_names
from cetpick.io.plain import finite_numbers
from cetpick.io.star import read_bytes
from cetpick.records import DEFAULT_CLASS, Coordinates, TomogramInfo

ROOT = "ParticleList"
DEEPEST = 16
"""Levels of a particle list; PyTom's own have six."""
PARTS = ("Rotation", "Shift", "PickPosition", "Score", "Class")

Attributes = dict[str, str]
Particle = dict[str, Attributes]


def is_particle_list(_: Path, head: bytes) -> bool:
    """Whether a text begins like XML and names a particle list."""
    text = (text_head(head) or "").lstrip()
    return text.startswith("<") and f"<{ROOT}" in text


def read_particle_list(path: Path, tomograms: Sequence[TomogramInfo]) -> list[Coordinates]:
    """Read a particle list.

    Args:
        path: the file.
        tomograms: those of interest, found by Origin of PickPosition; particles of others are left out. None given: all
            are read.

    Returns:
        One record for each tomogram. There are scores unless all are 0, angles unless all are 0.

    Raises:
        InputError: not such a list, a document type is declared, or a particle has no position.

    Warns:
        CetpickWarning: shifts (of the aligned particle, in a frame that the file does not tell) and particles of other
            tomograms are left out.
    """
    particles = _particles(path)
    positions = _numbers(path, particles, "PickPosition", "XYZ")
    angles = convert_angles(_numbers(path, particles, "Rotation", ("Z1", "X", "Z2"), 0), source="tom", target="relion")
    scores = _numbers(path, particles, "Score", ("Value",), 0)[:, 0]
    if _numbers(path, particles, "Shift", "XYZ", 0).any():
        warnings.warn(f"{path}: the shifts of its particles are left out", CetpickWarning, stacklevel=2)
    classes = np.array(class_names(particle.get("Class", {}).get("Name", "0") for particle in particles), dtype=object)
    origins = np.array([particle["PickPosition"].get("Origin", "") for particle in particles], dtype=object)
    records, others = [], []
    named = list(dict.fromkeys(origins.tolist()))
    for origin, info in zip(named, find_tomograms([o or None for o in named], tomograms, file=path), strict=True):
        if tomograms and info is None:
            others.append(origin or "(no name)")
            continue
        chosen = origins == origin
        records.append(
            Coordinates.from_points(
                positions[chosen],
                class_=classes[chosen],
                score=scores[chosen] if scores.any() else None,
                angles=angles[chosen] if angles.any() else None,
                tomogram=info.name if info else plain_name(origin) if origin else None,
                voxel_size=info.grid.voxel_size if info else None,
                source=path,
            )
        )
    warn_of_others(path, others)
    return records


def write_particle_list(path: Path, items: Sequence[Item]) -> None:
    """Write a particle list; Origin is the file of the tomogram, or its name."""
    root = ET.Element(ROOT)
    classified = {name for item in items for name in item.classes} != {DEFAULT_CLASS}
    scores = known_scores(path, items)
    for number, item in enumerate(items):
        angles = np.zeros((len(item), 3)) if item.angles is None else item.angles
        euler = convert_angles(angles, source="relion", target="tom")
        values = np.column_stack([item.points, euler, scores[number] if scores else np.zeros(len(item))]).tolist()
        for (x, y, z, phi, theta, psi, score), name in zip(values, item.classes, strict=True):
            particle = ET.SubElement(root, "Particle", Filename=f"./particle_{len(root)}.em")
            ET.SubElement(particle, "Rotation", Z1=repr(phi), Z2=repr(psi), X=repr(theta), Paradigm="ZXZ")
            ET.SubElement(particle, "Shift", X="0.0", Y="0.0", Z="0.0")
            position = {"X": repr(x), "Y": repr(y), "Z": repr(z), "Binning": "1"}
            ET.SubElement(particle, "PickPosition", position, Origin=_legal(path, item.tomogram or ""))
            ET.SubElement(particle, "Score", Type="FLCFScore", Value=repr(score))
            ET.SubElement(particle, "Class", Name=_legal(path, name) if classified else "0")
    ET.indent(root)
    with replacing(path) as temporary:
        ET.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=False)


def _legal(path: Path, text: str) -> str:
    if illegal := re.search(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text):
        raise InputError("XML cannot hold a name with this character", file=path, found=repr(illegal[0]))
    return text


def _particles(path: Path) -> list[Particle]:
    reader = _Reader(path=path)
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = reader.refuse_doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    try:
        parser.Parse(read_bytes(path), True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # not well-formed, or of an unknown encoding
        raise InputError("is not a complete XML file", file=path, found=str(error)) from None
    return reader.particles


@dataclass
class _Reader:
    """Collects the attributes of what stands directly in each Particle."""

    path: Path
    particles: list[Particle] = field(default_factory=list)
    depth: int = 0

    def refuse_doctype(self, name: str, *_: object) -> None:
        raise InputError(
            "declares a document type, which no particle list needs", file=self.path, found=f"<!DOCTYPE {name}"
        )

    def start(self, name: str, attributes: Attributes) -> None:
        if self.depth == DEEPEST:
            raise InputError("nests too deeply for a particle list", file=self.path, found=f"{DEEPEST} levels")
        expected = {0: ROOT, 1: "Particle"}.get(self.depth, name)
        if name != expected:
            raise InputError("no particle list of PyTom", file=self.path, expected=f"<{expected}>", found=f"<{name}>")
        if self.depth == 1:
            self.particles.append({})
        elif self.depth == 2 and name in PARTS:
            self.particles[-1][name] = attributes
        self.depth += 1

    def end(self, _: str) -> None:
        self.depth -= 1


def _numbers(
    path: Path, particles: Sequence[Particle], part: str, names: Sequence[str], default: float | None = None
) -> NDArray[np.float64]:
    """Attributes of a part of each particle, shape (n, len(names)); without a default each particle must have them."""
    rows = [[particle.get(part, {}).get(name, default) for name in names] for particle in particles]
    if missing := next((number for number, row in enumerate(rows, start=1) if None in row), None):
        raise InputError(f"particle {missing} has no {part}", file=path, expected=f"<{part}> with {', '.join(names)}")
    return finite_numbers(path, rows, width=len(names))
