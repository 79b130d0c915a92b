"""Between Scipion's objects and cetpick's files. Positions of both sides meet here and nowhere else.

cetpick counts voxels of the tomogram from the centre of the first one, and so does Scipion with the origin
BOTTOM_LEFT_CORNER; what Scipion stores is relative to the tomogram's origin, the voxel size/2 if not said otherwise.
"""

import csv
import hashlib
import json
import re
from pathlib import Path

from pyworkflow.utils import createLink, makeFilePath
from tomo.constants import BOTTOM_LEFT_CORNER, SCIPION
from tomo.objects import Coordinate3D, Tomogram


def tomogramFile(tomogram):
    """Path of a tomogram's file, without what other programs append to it (`:mrc`)."""
    return re.sub(r":mrcs?$", "", tomogram.getFileName())


def linkTomogram(path, folder, tsId):
    """Link a tomogram's file as `<folder>/<tsId>.<ending>`, for a name that is its own; returns the link."""
    link = str(Path(folder, tsId + Path(path).suffix))
    makeFilePath(link)
    createLink(path, link)
    return link


def coordinatesOf(coordinates, tomogram):
    """Positions of the coordinates of one tomogram: (x, y, z) in its voxels, 0 = centre of the first voxel.

    Those at another sampling rate are scaled about the origins of the tomograms, as Scipion's own protocol 'extract 3D
    coordinates' does.
    """
    factor = coordinates.getSamplingRate() / tomogram.getSamplingRate()
    for coordinate in coordinates.iterItems(where=f'{Coordinate3D.TOMO_ID_ATTR}="{tomogram.getTsId()}"'):
        position = [value * factor for value in coordinate.getPosition(SCIPION)]
        coordinate.setVolume(tomogram)
        coordinate.setPosition(*position, SCIPION)
        yield coordinate.getPosition(BOTTOM_LEFT_CORNER)


def writeLabels(path, positions):
    """Write positions as a table that cetpick reads; returns how many."""
    makeFilePath(path)
    count = 0
    with Path(path).open("w") as file:
        file.write("x,y,z\n")
        for x, y, z in positions:
            file.write(f"{x:.4f},{y:.4f},{z:.4f}\n")
            count += 1
    return count


def readRecord(path):
    """What cetpick tells of a run (run.json).

    Raises:
        OSError: there is none.
        ValueError: it is damaged.
    """
    return json.loads(Path(path).read_text())


def pickedWith(record, model):
    """Whether cetpick told, in a run.json, that it picked with this very model file."""
    try:
        told = readRecord(record)
        return told["inputs"][told["model_file"]]["sha256"] == hashlib.sha256(Path(model).read_bytes()).hexdigest()
    except (OSError, ValueError, LookupError, TypeError):
        return False


def readPicks(path, tomogram):
    """Yield the picks in a table of cetpick as coordinates of the tomogram, with their scores."""
    with Path(path).open(newline="") as file:
        for row in csv.DictReader(file):
            coordinate = Coordinate3D()
            coordinate.setVolume(tomogram)  # before the position, which depends on its origin
            coordinate.setPosition(float(row["x"]), float(row["y"]), float(row["z"]), BOTTOM_LEFT_CORNER)
            coordinate.setScore(float(row["score"]))
            yield coordinate


def byTsId(tomograms):
    """The tomograms of a set by their tsId: copies, as the set hands out one object again and again."""
    return {tomogram.getTsId(): tomogram.clone() for tomogram in tomograms.iterItems()}


def uniqueTsIds(tomograms):
    """Whether all tomograms of a set have a tsId, and each its own."""
    ids = tomograms.getUniqueValues(Tomogram.TS_ID_FIELD)
    return all(ids) and len(ids) == tomograms.getSize()
