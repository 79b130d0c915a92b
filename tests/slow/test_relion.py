"""RELION 3.1.3 of Debian reads what cetpick writes: a bright voxel is where the coordinate says."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cetpick.io.coordinates import write_coordinates
from cetpick.io.mrc import write_mrc
from cetpick.io.tomograms import read_info
from cetpick.records import Coordinates, RelionTomogram
from tests.slow.conftest import Run

pytestmark = pytest.mark.slow

BOX = 16
TOMOGRAM = Path("Tomograms/t1/t1.mrc")
PICKS = Path("Picks/Tomograms/t1/t1_pick.star")
VOXELS = np.array([[30, 20, 10], [41, 33, 25], [12, 38, 28]])
"""x, y, z of the bright voxels; 12 and more from every edge."""
FRACTIONS = np.array([[0.0, 0.0, 0.0], [0.9, 0.9, 0.9], [0.4, 0.5, 0.6]])
"""What the coordinates have behind the point, which RELION's extraction cuts off."""
SCORES = np.array([0.9, 0.8, 0.7])

MICROGRAPHS = f"""
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographPixelSize #3
_rlnMicrographOriginalPixelSize #4
_rlnVoltage #5
_rlnSphericalAberration #6
_rlnAmplitudeContrast #7
opticsGroup1 1 10.0 10.0 300 2.7 0.1

# version 30001

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
{TOMOGRAM} 1
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A RELION project with a tomogram of noise in which single voxels are bright, the later the dimmer."""
    monkeypatch.chdir(tmp_path)
    data = np.random.default_rng(0).normal(0, 1, (40, 50, 60)).astype(np.float32)
    for (x, y, z), value in zip(VOXELS, (100, 80, 60), strict=True):
        data[z, y, x] = value
    write_mrc(TOMOGRAM, data, voxel_size=10.0)
    (tmp_path / "mics.star").write_text(MICROGRAPHS)
    rows = [",".join(map(str, [*point, score])) for point, score in zip(VOXELS + FRACTIONS, SCORES, strict=True)]
    (tmp_path / "t1.csv").write_text("\n".join(["x,y,z,score", *rows]) + "\n")
    return tmp_path


def test_extraction_finds_the_bright_voxels_in_the_middle_of_the_boxes(
    relion: Run, cetpick: Run, project: Path
) -> None:
    cetpick("convert", "t1.csv", PICKS, "--tomogram", TOMOGRAM, "--format", "relion31")
    relion(
        "relion_preprocess", "--i", "mics.star", "--coord_dir", "Picks/", "--coord_suffix", "_pick.star",
        "--part_dir", "Extract/", "--part_star", "Extract/particles.star", "--extract", "--extract_size", BOX,
        "--bg_radius", 6, "--norm",
    )  # fmt: skip
    boxes = sorted((project / "Extract").rglob("*.mrc"))
    assert len(boxes) == len(VOXELS)
    for path in boxes:
        box = mrcfile.read(path)
        assert box.shape == (BOX, BOX, BOX)
        assert np.unravel_index(box.argmax(), box.shape) == (BOX // 2,) * 3
        with mrcfile.open(path) as file:
            assert file.voxel_size.x == 10.0
    # RELION carries our columns on, and selects by the scores.
    relion(
        "relion_star_handler", "--i", "Extract/particles.star", "--o", "best.star",
        "--select", "rlnAutopickFigureOfMerit", "--minval", 0.75,
    )  # fmt: skip
    best = relion("relion_star_printtable", "best.star", "data_particles", "rlnAutopickFigureOfMerit")
    np.testing.assert_allclose(np.array(best.split(), dtype=float), SCORES[:2])


@pytest.mark.parametrize(
    ("flavour", "block", "name", "scale"),
    [
        ("relion31", "data_", ("rlnMicrographName", str(TOMOGRAM)), 1),
        ("warp", "data_", ("rlnMicrographName", "t1.tomostar"), 1),
        ("relion4", "data_particles", ("rlnTomoName", "t1"), 4),
    ],
)
def test_star_files_print_what_was_written(
    relion: Run, project: Path, flavour: str, block: str, name: tuple[str, str], scale: int
) -> None:
    row = RelionTomogram(name="t1", pixel_size=2.5, binning=4.0, size=(240, 200, 160), star=Path("tomograms.star"))
    points = Coordinates.from_points(VOXELS + FRACTIONS, score=SCORES)
    write_coordinates("t1.star", [(replace(read_info(TOMOGRAM), relion=row), points.table)], format=flavour)
    labels = ["rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ", "rlnAutopickFigureOfMerit", name[0]]
    lines = [line.split() for line in relion("relion_star_printtable", "t1.star", block, *labels).splitlines()]
    numbers = np.array([line[:4] for line in lines], dtype=float)
    np.testing.assert_allclose(numbers, np.column_stack([points.xyz * scale, SCORES]), atol=1e-5)
    assert {line[4] for line in lines} == {name[1]}


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_volumes_have_the_statistics_that_were_written(relion: Run, tmp_path: Path, dtype: str) -> None:
    data = np.zeros((4, 5, 6), dtype)
    data[1, 2, 3], data[2, 2, 2] = -50, 100
    write_mrc(tmp_path / "a.mrc", data, voxel_size=13.48)
    last = relion("relion_image_handler", "--i", "a.mrc", "--stats").splitlines()[-1]
    assert "(x,y,z,n)= 6 x 5 x 4 x 1" in last
    told = {name: float(value) for name, value in re.findall(r"(\w+) ?= (-?[\d.]+)", last)}
    expected = {"avg": data.mean(), "stddev": data.std(), "minval": -50, "maxval": 100, "angpix": 13.48}
    assert told == pytest.approx(expected, rel=1e-5)
