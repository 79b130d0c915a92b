"""Labels on planted balls: right, broken in every known way, and at places without particles."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import matplotlib.image
import numpy as np
import pytest

from cetpick.contrast import (
    AS_GIVEN,
    READINGS,
    Judgement,
    Reading,
    Response,
    bin_by_averaging,
    clearer_diameter,
    judge_labels,
    measure_contrast,
    measure_response,
    readings_of,
)
from cetpick.errors import InputError
from cetpick.geometry import Axes, Points, rescale, turn_axes
from cetpick.io.mrc import write_mrc
from cetpick.io.tomograms import read_info
from cetpick.records import Coordinates, Grid, Tomogram
from cetpick.report.overlay import DPI, WIDTH, average_box, fullest_places
from cetpick.simulate import SimulationSettings, simulate
from cetpick.workflows.inputs import InputOptions, require_right_labels
from tests.conftest import Run

DIAMETER, VOXEL_SIZE = 120.0, 10.0
VOXELS = DIAMETER / VOXEL_SIZE


class Scene:
    """Dark balls in noise; `cubic` makes every axis order possible."""

    def __init__(self, *, shape: tuple[int, int, int] = (56, 112, 128), balls: int = 40, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.grid = Grid(shape=shape, voxel_size=VOXEL_SIZE)
        centres: list[Points] = []
        while len(centres) < balls:
            centre = rng.uniform(8, np.array(self.grid.size) - 9)
            if all(np.linalg.norm(centre - other) > VOXELS for other in centres):
                centres.append(centre)
        self.truth = np.array(centres)
        z, y, x = np.ogrid[tuple(map(slice, shape))]
        self.data = rng.normal(0, 1, shape).astype(np.float32)
        for cx, cy, cz in centres:
            self.data[(x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < (VOXELS / 2) ** 2] -= 1
        self.labels = self.truth[:20]

    def response(self, data: np.ndarray | None = None) -> Response:
        return measure_response(self.data if data is None else data, self.grid, diameter=DIAMETER)


@pytest.fixture(scope="module")
def flat() -> Scene:
    return Scene()


@pytest.fixture(scope="module")
def cubic() -> Scene:
    return Scene(shape=(88, 88, 88), seed=1)


@pytest.fixture(scope="module")
def flat_response(flat: Scene) -> Response:
    return flat.response()


@pytest.fixture(scope="module")
def cubic_response(cubic: Scene) -> Response:
    return cubic.response()


def undo(reading: Reading, xyz: Points, grid: Grid) -> Points:
    """Points that `reading` makes into `xyz`."""
    if reading.scale != 1:
        return (xyz + 0.5) / reading.scale - 0.5
    flipped = np.where(reading.flips, np.array(grid.size) - 1 - xyz, xyz)
    points = np.empty_like(flipped)
    points[:, list(reading.order)] = flipped
    return points


class TestReadings:
    def test_there_are_all_orders_flips_and_scales_once(self) -> None:
        assert READINGS[0] == AS_GIVEN
        assert len(set(READINGS)) == len({reading.name for reading in READINGS}) == 6 * 8 + 6

    def test_names_and_rules(self) -> None:
        rotx = Reading(order=(0, 2, 1), flips=(False, False, True))
        assert (AS_GIVEN.name, rotx.name) == ("as given", "xzy, z flipped")
        assert rotx.rule == "(x, z, NZ-1-y)"
        assert Reading(flips=(True, True, False)).name == "x and y flipped"
        assert Reading(scale=0.25).name == "scaled by 1/4"
        assert Reading(scale=2.0).rule == "((x+0.5)*2-0.5, (y+0.5)*2-0.5, (z+0.5)*2-0.5)"

    def test_meaning_of_an_order(self) -> None:
        assert Reading(order=(1, 0, 2), flips=(True, False, False)).meaning == "yxz: x and y exchanged"
        assert Reading(order=(2, 1, 0)).meaning == "zyx: x and z exchanged"
        assert Reading(order=(1, 2, 0)).meaning == "yzx: read in this order"
        assert AS_GIVEN.meaning is None

    def test_clip_rotx(self) -> None:
        """clip rotx moves (x, y, z) to (x, z, NY-1-y); its NY is the rotated volume's NZ."""
        rotx = Reading(order=(0, 2, 1), flips=(False, False, True))
        grid = Grid(shape=(30, 50, 40), voxel_size=10.0)
        np.testing.assert_allclose(rotx.apply([[3, 7, 20]], grid), [[3, 20, 30 - 1 - 7]])

    def test_scale_is_about_the_corner(self) -> None:
        grid = Grid(shape=(30, 50, 40), voxel_size=10.0)
        np.testing.assert_allclose(Reading(scale=2.0).apply([[0, 3, 7.5]], grid), [[0.5, 6.5, 15.5]])


class TestResponse:
    def test_binning_by_hand(self) -> None:
        data = np.arange(5 * 4 * 7, dtype=np.int16).reshape(5, 4, 7)
        binned = bin_by_averaging(data, 2)
        assert binned.shape == (2, 2, 3)
        assert binned[1, 0, 2] == data[2:4, 0:2, 4:6].mean()

    def test_is_highest_at_the_balls(self, flat: Scene, flat_response: Response) -> None:
        at = flat_response.at(flat.truth)
        assert np.isfinite(at).all()
        assert at.min() > np.quantile(flat_response.values, 0.9)

    def test_no_data_is_nan(self, flat: Scene) -> None:
        data = flat.data.copy()
        data[:, :20] = 0
        data[:, -20:] = np.nan
        response = flat.response(data)
        x, z = 60, 30
        assert np.isnan(response.at(np.array([[x, 5, z], [x, 105, z], [x, 56, -2], [x, 56, 57]], float))).all()
        assert np.isfinite(response.at(np.array([[x, 56, z], [x, 56, -1]], float))).all()
        assert judge_labels(response, flat.labels).given.outside > 0

    def test_contrast_of_constant_volume_is_nan(self, flat: Scene) -> None:
        contrast = measure_contrast(flat.response(np.zeros_like(flat.data)), flat.labels)
        assert np.isnan(contrast.z())
        assert contrast.outside == len(flat.labels)


class TestVerdict:
    def test_fine(self, flat: Scene, flat_response: Response) -> None:
        judged = judge_labels(flat_response, flat.labels)
        assert (judged.verdict, judged.contrast, judged.better, judged.notes) == ("fine", "dark", None, ())
        assert judged.given.z > 10
        assert judged.ranking[0] is judged.given
        assert judged.message.startswith("fine: the labels sit on dark blobs (")

    def test_bright(self, flat: Scene) -> None:
        judged = judge_labels(flat.response(-flat.data), flat.labels)
        assert (judged.verdict, judged.contrast) == ("fine", "bright")
        assert judged.given.z < -10
        assert judged.notes == ("particles are bright in this tomogram; usual is dark",)

    @pytest.mark.parametrize("reading", [*READINGS[1:5], *READINGS[8:-6:7], *READINGS[-6:]], ids=lambda item: item.name)
    def test_other_readings_are_found(self, cubic: Scene, cubic_response: Response, reading: Reading) -> None:
        broken = undo(reading, cubic.labels, cubic.grid)
        judged = judge_labels(cubic_response, broken)
        assert judged.better == reading
        assert judged.verdict == ("scaled" if reading.scale != 1 else "swapped")
        assert judged.notes[0].startswith(f"{reading.name}: x, y, z are to become {reading.rule}")
        assert ("`cetpick convert` does that" in judged.notes[0]) == (reading.cure is not None)
        mended = judged.mended(broken, cubic.grid)
        assert mended
        np.testing.assert_allclose(mended[1], cubic.labels)

    @pytest.mark.parametrize(
        ("unit", "size", "voxel_size"), [("angstrom", 1.0, 10.0), ("nanometres", 10.0, 13.0), ("nanometres", 10.0, 6.7)]
    )
    def test_other_units_are_found(
        self, cubic: Scene, cubic_response: Response, unit: str, size: float, voxel_size: float
    ) -> None:
        response = replace(cubic_response, grid=replace(cubic.grid, voxel_size=voxel_size))
        judged = judge_labels(response, cubic.labels * voxel_size / size)
        assert judged.message.startswith(f"these look like {unit}, not voxels: in {unit} fits better (")
        assert judged.better == Reading(scale=size / voxel_size, unit=unit)
        assert judged.better.cure == f"--bin {voxel_size / size:g}"

    @pytest.mark.parametrize(
        ("voxel_size", "more"),
        [
            (10.0, ["in angstrom"]),
            (8.1, ["in nanometres"]),
            (2.0, ["in nanometres"]),
            (7.0, ["in angstrom", "in nanometres"]),
        ],
    )
    def test_units_that_other_readings_stand_for_are_not_read_twice(self, voxel_size: float, more: list[str]) -> None:
        assert [reading.name for reading in readings_of(voxel_size)[len(READINGS) :]] == more

    def test_the_cure_does_what_the_reading_says(self, cubic: Scene) -> None:
        picked_in = np.array(cubic.grid.size)[[0, 2, 1]]  # the volume before its axes were turned
        cures = {reading.cure: reading for reading in READINGS if reading.cure}
        for axes in get_args(Axes):
            (reading,) = (reading for cure, reading in cures.items() if cure.startswith(f"--axes {axes} "))
            turned = turn_axes(cubic.labels, axes, size=picked_in)
            np.testing.assert_allclose(reading.apply(cubic.labels, cubic.grid), turned)
        binnings = [float(cure.removeprefix("--bin ")) for cure in cures if cure.startswith("--bin")]
        assert binnings == [8, 4, 2, 1 / 2, 1 / 4, 1 / 8]
        for number in binnings:
            reading = cures[f"--bin {number:g}"]
            binned = rescale(cubic.labels, from_voxel_size=1, to_voxel_size=number)
            np.testing.assert_allclose(reading.apply(cubic.labels, cubic.grid), binned)

    def test_in_a_flat_volume_with_labels_outside(self, flat: Scene, flat_response: Response) -> None:
        judged = judge_labels(flat_response, flat.labels[:, [0, 2, 1]])
        assert judged.message.startswith("these look swapped: xzy fits better (")
        assert judged.given.outside > 0
        assert judged.impossible > 24
        assert f"{judged.given.outside} of 20 labels lie outside of the data" in judged.notes

    @pytest.mark.parametrize("shift", [(0, 0, 0.5), (0.4, 0, 0), (0, -0.5, 0.3)])
    def test_shift(self, flat: Scene, flat_response: Response, shift: tuple[float, float, float]) -> None:
        off = np.array(shift) * VOXELS
        judged = judge_labels(flat_response, flat.labels + off)
        assert judged.verdict == "shifted"
        assert judged.shift
        np.testing.assert_allclose(judged.shift.xyz, -off, atol=1.5)
        mended = judged.mended(flat.labels + off, flat.grid)
        assert mended
        assert np.linalg.norm(mended[1] - flat.labels, axis=1).max() < 2
        (option,) = (note.partition("--shift ")[2] for note in judged.notes if "`cetpick convert` does that" in note)
        np.testing.assert_allclose([float(word) for word in option.split()], -off, atol=1.5)

    def test_small_shift_is_a_note(self, flat: Scene, flat_response: Response) -> None:
        judged = judge_labels(flat_response, flat.labels + np.array([0, 0, 2]))
        assert judged.verdict == "fine"
        (note,) = judged.notes
        assert "a little off: the particles are -" in note
        assert note.endswith("voxels along z from the labels")

    def test_few_labels(self, flat: Scene, flat_response: Response) -> None:
        judged = judge_labels(flat_response, flat.labels[[0, 0, 1, 2, 2]])
        assert (judged.verdict, judged.labels) == ("undecidable", 3)
        assert "at least 4" in judged.message

    def test_random_places_are_neither_fine_nor_swapped(self, flat: Scene, flat_response: Response) -> None:
        rng = np.random.default_rng(0)
        for _ in range(8):
            places = rng.uniform(0, np.array(flat.grid.size) - 1, (20, 3))
            assert judge_labels(flat_response, places).verdict == "undecidable"

    def test_draws_of_the_truth_are_fine(self, flat: Scene, flat_response: Response) -> None:
        rng = np.random.default_rng(0)
        for _ in range(8):
            labels = flat.truth[rng.choice(len(flat.truth), 20, replace=False)]
            assert judge_labels(flat_response, labels).verdict == "fine"

    def test_outside_and_nothing_fits(self, flat: Scene, flat_response: Response) -> None:
        judged = judge_labels(flat_response, flat.labels + np.array([0, 0, 40]))
        assert judged.verdict == "outside"
        assert judged.message.startswith("wrong: ")

    def test_symmetric_labels_do_not_tell_a_flip(self, flat: Scene) -> None:
        """Balls in the middle plane alone: flipping z changes nothing."""
        scene = Scene(balls=1)
        rng = np.random.default_rng(3)
        x, y = (axis.ravel() for axis in np.meshgrid([20, 44, 68, 104], [16, 50, 88]))
        labels = np.stack([x + rng.uniform(-4, 4, 12), y + rng.uniform(-4, 4, 12), np.full(12, 27.0)], axis=1)
        zz, yy, xx = np.ogrid[tuple(map(slice, scene.grid.shape))]
        data = rng.normal(0, 1, scene.grid.shape).astype(np.float32)
        for cx, cy, cz in labels:
            data[(xx - cx) ** 2 + (yy - cy) ** 2 + (zz - cz) ** 2 < (VOXELS / 2) ** 2] -= 1
        judged = judge_labels(scene.response(data), labels)
        assert judged.verdict == "fine"
        assert "z flipped cannot be told apart from as given: it moves 0 labels by half a diameter" in judged.notes

    def test_some_labels_beside_particles(self, flat: Scene, flat_response: Response) -> None:
        rng = np.random.default_rng(5)
        places = rng.uniform(8, np.array(flat.grid.size) - 9, (2000, 3))
        away = np.linalg.norm(places[:, None] - flat.truth, axis=2).min(axis=1) > 0.8 * VOXELS
        judged = judge_labels(flat_response, np.concatenate([flat.labels, places[away][:16]]))
        assert judged.verdict == "fine"
        assert any(note.endswith("have no more contrast than their surroundings") for note in judged.notes)

    def test_realistic_scene(self) -> None:
        """With CTF, missing wedge, noise and other proteins."""
        size = (112, 96, 40)
        settings = SimulationSettings(
            size=tuple(13.0 * n for n in size), voxel_size=13.0, seed=4, vesicles=0,  # type: ignore[arg-type]
            counts={"target": 14, "sphere": 10, "small": 40, "gold": 1},
        )  # fmt: skip
        made = simulate(settings)
        grid = Grid(shape=settings.shape, voxel_size=13.0)
        truth = made.truth.query("species == 'target'")[["x", "y", "z"]].to_numpy()
        response = measure_response(made.data, grid, diameter=settings.diameter)
        assert judge_labels(response, truth).message.startswith("fine: the labels sit on dark blobs")
        for reading in (Reading(order=(0, 2, 1)), Reading(flips=(False, True, False))):
            assert judge_labels(response, undo(reading, truth, grid)).better == reading


class TestDiameter:
    def test_clearer_at_half_or_twice(self, flat: Scene) -> None:
        for given, right in ((240.0, 120.0), (60.0, 120.0), (120.0, None)):
            response = measure_response(flat.data, flat.grid, diameter=given)
            found = clearer_diameter(flat.data, response, flat.labels)
            assert (found and found[0]) == right
            assert found is None or found[1] > measure_contrast(response, flat.labels).z()

    def test_nothing_is_clearer_at_random_places(self, flat: Scene, flat_response: Response) -> None:
        rng = np.random.default_rng(7)
        for _ in range(5):
            places = rng.uniform(8, np.array(flat.grid.size) - 9, (20, 3))
            assert clearer_diameter(flat.data, flat_response, places) is None


class TestPictures:
    def test_fullest_places(self) -> None:
        positions = np.array([10.0, 11.0, 12.0, 40.0, 41.0, 70.0, 200.0])
        assert fullest_places(positions, 100, 6.0, 2) == [11.0, 40.5]
        assert fullest_places(np.array([3.0]), 100, 6.0, 3) == sorted([3.0, 100 / 6, 50.0])

    def test_average_box(self) -> None:
        data = np.zeros((9, 9, 9), np.float32)
        data[4, 5, 6], data[0, 0, 0], data[2, 2, 2] = 3, 6, np.nan
        box, count = average_box(data, np.array([[6, 5, 4], [0, 0, 0], [50.0, 0, 0]]), 2)
        assert count == 2
        assert box[2, 2, 2] == (3 + 6) / 2
        assert (box[0, 0, 0], box[4, 4, 4]) == (0, 0)  # only one of the two has data there


@pytest.fixture(scope="module")
def tomogram(flat: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "t1.mrc"
    write_mrc(path, flat.data, voxel_size=VOXEL_SIZE)
    return path


def table(path: Path, xyz: Points) -> Path:
    np.savetxt(path, xyz, fmt="%.3f", delimiter=",", header="x,y,z", comments="")
    return path


class TestCommand:
    def test_fine(self, cetpick: Run, tomogram: Path, flat: Scene, tmp_path: Path) -> None:
        labels = table(tmp_path / "labels.csv", flat.labels)
        code, out, err = cetpick("check", tomogram, "--labels", labels, "--diameter", DIAMETER)
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert lines[0].startswith("t1: fine: the labels sit on dark blobs (")
        assert lines[1] == f"  20 labels of {labels}, 120 A"
        assert lines[2].split() == ["reading", "contrast", "outside"]
        assert lines[3].startswith("  as given ")
        assert "  contrast: 5 or more is clear, + for dark particles, - for bright ones" in lines
        assert lines[-1] == "no pictures were drawn: -o DIR draws the labels on slices"
        assert re.search(r"^  of 55 ways to read the labels the clearest are shown; \d+ put labels outside", out, re.M)
        assert [path.name for path in tmp_path.iterdir()] == ["labels.csv"]

    def test_swapped_with_pictures(self, cetpick: Run, tomogram: Path, flat: Scene, tmp_path: Path) -> None:
        labels, out_dir = table(tmp_path / "labels.csv", flat.labels[:, [0, 2, 1]]), tmp_path / "out"
        code, out, err = cetpick("check", tomogram, "-l", labels, "-d", DIAMETER, "-o", out_dir)
        assert (code, err) == (1, "")
        assert out.startswith("t1: these look swapped: xzy fits better (")
        assert any(line.startswith("  as given ") for line in out.splitlines())
        assert "\n  xzy: y and z exchanged\n" in out
        assert "no pictures" not in out
        names = ["run.json", "t1_average.png", "t1_labels.png", "t1_mended.png"]
        assert sorted(path.name for path in out_dir.iterdir()) == names
        for name in names[1:]:
            height, width, channels = matplotlib.image.imread(out_dir / name).shape
            assert (width, channels) == (WIDTH * DPI, 4)
            assert 500 < height < 2000
            assert f"  picture: {out_dir / name}" in out
        record = json.loads((out_dir / "run.json").read_text())
        assert record["tomograms"][0]["verdict"] == "swapped"
        assert len(record["inputs"]) == 2
        code, out, err = cetpick("check", tomogram, "-l", labels, "-d", DIAMETER, "-o", out_dir)
        assert code == 2
        assert "already holds" in err
        _, _, err = cetpick("check", tomogram, "-l", labels, "-d", DIAMETER, "--overwrite")
        assert "--overwrite changes nothing without --output" in err

    def test_overwriting_leaves_no_stale_picture(
        self, cetpick: Run, tomogram: Path, flat: Scene, tmp_path: Path
    ) -> None:
        labels, out_dir = table(tmp_path / "labels.csv", flat.labels), tmp_path / "out"
        out_dir.mkdir()
        (out_dir / "t1_mended.png").touch()
        code, _, _ = cetpick("check", tomogram, "-l", labels, "-d", DIAMETER, "-o", out_dir, "--overwrite")
        assert code == 0
        assert sorted(path.name for path in out_dir.iterdir()) == ["run.json", "t1_average.png", "t1_labels.png"]

    def test_wrong_diameter(self, cetpick: Run, tomogram: Path, flat: Scene, tmp_path: Path) -> None:
        labels = table(tmp_path / "labels.csv", flat.labels)
        code, out, _ = cetpick("check", tomogram, "-l", labels, "-d", 2 * DIAMETER)
        assert (code, out.startswith("t1: fine: ")) == (0, True)
        assert "  note: is --diameter right? 120 A gives a clearer contrast (" in out
        for diameter, problem in ((24, "too small for this tomogram"), (2400, "larger than the tomogram")):
            code, out, err = cetpick("check", tomogram, "-l", labels, "-d", diameter)
            assert (code, out) == (2, "")
            assert f"{tomogram}: the particle is {problem}\n" in err
            assert f"found: {diameter} angstrom" in err
        assert cetpick("check", tomogram, "-l", labels, "-d", DIAMETER)[1].count("diameter right") == 0

    def test_labels_of_another_tomogram(self, cetpick: Run, tomogram: Path, flat: Scene, tmp_path: Path) -> None:
        labels = table(tmp_path / "labels.csv", Scene(seed=2).labels)
        code, out, _ = cetpick("check", tomogram, "-l", labels, "-d", DIAMETER)
        assert code == 1
        assert re.match(
            r"t1: cannot be told: no clear contrast at the labels \(\d\.\d; 5 is clear[^)]*\): labels of", out
        )

    def test_all_labels_outside(self, cetpick: Run, tomogram: Path, flat: Scene, tmp_path: Path) -> None:
        """Such as unbinned pixels: the way out is told, not that they cannot be read."""
        labels = table(tmp_path / "labels.csv", 8 * flat.labels + 3.5)
        code, out, _ = cetpick("check", tomogram, "-l", labels, "-d", DIAMETER, "-o", tmp_path / "out")
        assert code == 1
        assert out.startswith("t1: these look unbinned: scaled by 1/8 fits better (")

    def test_json(self, cetpick: Run, tomogram: Path, flat: Scene, tmp_path: Path) -> None:
        labels = table(tmp_path / "labels.csv", undo(READINGS[1], flat.labels, flat.grid))
        code, out, _ = cetpick("check", tomogram, "-l", labels, "-d", DIAMETER, "--json")
        assert code == 1
        (told,) = json.loads(out)["tomograms"]
        assert (told["verdict"], told["fine"], told["better"]) == ("swapped", False, READINGS[1].name)
        assert told["ranking"][0]["z"] > 10 > told["z"]
        assert told["labels"] == {"file": str(labels), "count": 20, "outside": 0}

    def test_several_tomograms(self, cetpick: Run, tomogram: Path, flat: Scene, tmp_path: Path) -> None:
        for name, xyz in (("t1", flat.labels), ("t2", flat.labels[:3])):
            (tmp_path / f"{name}.mrc").symlink_to(tomogram)
            table(tmp_path / f"{name}.csv", xyz)
        broken = tmp_path / "t3.mrc"
        broken.write_bytes(tomogram.read_bytes()[:5000])
        files = [tmp_path / "t1.mrc", tmp_path / "t2.mrc"]
        code, out, err = cetpick("check", *files, broken, "-l", tmp_path, "-d", DIAMETER)
        assert code == 1
        assert [line.split(":")[:2] for line in out.splitlines() if line[0] == "t"] == [
            ["t1", " fine"],
            ["t2", " cannot be told"],
        ]
        assert f"failed: {broken}: " in err

    def test_a_star_for_several(self, cetpick: Run, tomogram: Path, flat: Scene, tmp_path: Path) -> None:
        rows = []
        for name, xyz in (("t1", flat.labels), ("t2", flat.labels[:, [0, 2, 1]])):
            (tmp_path / f"{name}.mrc").symlink_to(tomogram)
            rows += [f"{name} {x:.3f} {y:.3f} {z:.3f}\n" for x, y, z in xyz]
        labels = ["rlnMicrographName", *(f"rlnCoordinate{axis}" for axis in "XYZ")]
        star = tmp_path / "particles.star"
        star.write_text("data_\n\nloop_\n" + "".join(f"_{label}\n" for label in labels) + "".join(rows))
        code, out, err = cetpick("check", tmp_path / "t1.mrc", tmp_path / "t2.mrc", "-l", star, "-d", DIAMETER)
        assert code == 1
        assert "t1: fine: " in out
        assert "t2: these look swapped: xzy fits better (" in out
        (warning,) = err.splitlines()
        assert "points lie outside of tomogram t2" in warning

    def test_voxel_sizes(self, cetpick: Run, tomogram: Path, flat: Scene, tmp_path: Path) -> None:
        """Said when more than 0.5 % apart; what the user overrules is no fault."""
        labels = table(tmp_path / "labels.csv", flat.labels)
        for voxel_size, said in ((10.04, False), (10.06, True)):
            code, out, _ = cetpick("check", tomogram, "-l", labels, "-d", 120, "--voxel-size", voxel_size)
            assert code == 0
            assert (f"the voxel size is 10 A in the header, but {voxel_size} A by --voxel-size" in out) == said

    def test_voxel_size_of_tomograms_star(
        self, cetpick: Run, tomogram: Path, flat: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        titles = []
        monkeypatch.setattr("cetpick.workflows.check.draw_labels", lambda *_, title, **__: titles.append(title))
        star = tmp_path / "tomograms.star"
        labels = ["rlnTomoName", "rlnTomoTiltSeriesPixelSize", "rlnTomoTomogramBinning", "rlnTomoReconstructedTomogram"]
        sizes = [f"rlnTomoSize{axis}" for axis in "XYZ"]
        loop = "".join(f"_{label}\n" for label in [*labels, *sizes])
        x, y, z = (4 * n for n in flat.grid.size)
        star.write_text(f"data_global\n\nloop_\n{loop}t1 2.6 4 {tomogram} {x} {y} {z}\n")
        labels = table(tmp_path / "t1.csv", flat.labels)
        code, out, err = cetpick("check", star, "-l", labels, "-d", DIAMETER, "-o", tmp_path / "pictures")
        assert code == 1
        assert "\nwrong voxel size" in titles[0]
        assert out.startswith("t1: wrong voxel size in the header or in tomograms.star; the labels sit on dark blobs (")
        assert f"note: the voxel size is 10 A in the header, but 10.4 A by {star}, which counts" in out
        assert "voxel size 10 A in the header" in err

    def test_unusable_input(self, cetpick: Run, tomogram: Path, flat: Scene, tmp_path: Path) -> None:
        labels = table(tmp_path / "labels.csv", flat.labels)
        write_mrc(tmp_path / "empty.mrc", np.zeros((40, 40, 40), np.float32), voxel_size=VOXEL_SIZE)
        cases = [
            ((tomogram, "-l", tmp_path / "none.csv", "-d", 120), "none.csv: cannot be read"),
            ((tmp_path / "none.mrc", "-l", labels, "-d", 120), "none.mrc: no such file"),
            ((tomogram, "-l", labels, "-d", 12), "unusable setting diameter"),
            ((tmp_path / "empty.mrc", "-l", labels, "-d", 120), "empty.mrc: holds no contrast"),
            ((tomogram, "-l", labels, "-d", 120, "-o", labels), "a file is where the output folder should be"),
        ]
        for arguments, message in cases:
            code, out, err = cetpick("check", *arguments)
            assert (code, out) == (2, ""), arguments
            assert message in err, arguments
            assert "Traceback" not in err


class TestBeforeTraining:
    """What `train` and `pick` do with labels before they use them."""

    def test_swapped(self, tomogram: Path, flat: Scene, tmp_path: Path) -> None:
        info = read_info(tomogram)
        volume = Tomogram(info=info, data=flat.data)
        labels = table(tmp_path / "labels.csv", flat.labels[:, [0, 2, 1]])
        inside = Coordinates.from_points(flat.labels[:1], source=labels)  # reading leaves out what lies outside
        with pytest.raises(InputError, match=r"labels.csv: labels that are not on particles as they are\n") as caught:
            require_right_labels(volume, [inside], DIAMETER)
        told = str(caught.value)
        assert "found: these look swapped: xzy fits better" in told
        assert "cure: xzy: x, y, z are to become (x, z, y); `cetpick convert` does that: --axes " in told
        assert f"check {tomogram} --labels {labels} -d 120 -o DIR` draws them" in told
        assert told.endswith("If they are right as they are, add --trust-labels")
        with pytest.warns(UserWarning, match=r"labels.csv on .*t1.mrc: these look swapped: xzy fits better"):
            require_right_labels(volume, [inside], DIAMETER, InputOptions(trust_labels=True))

    def test_two_readings_on_particles(self, flat: Scene, tmp_path: Path) -> None:
        """Labels on one kind of particles that would be on a denser one if they were read otherwise are used."""
        data = flat.data.copy()
        z, y, x = np.ogrid[tuple(map(slice, data.shape))]
        mirrored = flat.labels * [-1, 1, 1] + [flat.grid.size[0] - 1, 0, 0]
        for cx, cy, cz in mirrored:
            data[(x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < (VOXELS / 2) ** 2] -= 4
        path = tmp_path / "t2.mrc"
        write_mrc(path, data, voxel_size=VOXEL_SIZE)
        labels = Coordinates.from_points(flat.labels, source=table(tmp_path / "labels.csv", flat.labels))
        judged = judge_labels(measure_response(data, flat.grid, diameter=DIAMETER), flat.labels)
        assert judged.verdict == "swapped"
        with pytest.warns(UserWarning, match="these look swapped: x flipped fits better"):
            require_right_labels(Tomogram(info=read_info(path), data=data), [labels], DIAMETER)

    @pytest.mark.parametrize("more", [(), ("--overwrite",)])
    def test_command(self, cetpick: Run, tomogram: Path, flat: Scene, tmp_path: Path, more: tuple[str, ...]) -> None:
        """Nothing is trained, and nothing that was there is lost."""
        model = tmp_path / "model.safetensors"
        checkpoint = tmp_path / "model.checkpoint"
        if more:
            model.write_bytes(b"earlier")
            checkpoint.write_bytes(b"earlier, too")
        before = sorted(tmp_path.iterdir())
        labels = table(tmp_path / "labels.csv", flat.labels[:, [1, 0, 2]])
        code, out, err = cetpick("train", tomogram, "-l", labels, "-d", DIAMETER, "-o", model, *more)
        assert (code, out) == (2, "")
        assert "error: " in err
        assert "these look swapped: yxz fits better" in err
        assert "Traceback" not in err
        assert sorted(tmp_path.iterdir()) == sorted([*before, labels])
        code, _, err = cetpick("pick", tomogram, "-l", labels, "-d", DIAMETER, "-o", tmp_path / "picks")
        assert code == 2
        assert "these look swapped: yxz fits better" in err

    def test_no_contrast(self, tomogram: Path, flat: Scene, tmp_path: Path) -> None:
        """Such as labels of another tomogram; with few of them nothing is said."""
        volume = Tomogram(info=read_info(tomogram), data=flat.data)
        labels = table(tmp_path / "labels.csv", Scene(seed=2).labels)
        said = (
            rf"labels.csv on .*t1.mrc: no clear contrast .*another tomogram.*check {tomogram} --labels {labels} -d 120"
        )
        with pytest.warns(UserWarning, match=said):
            require_right_labels(volume, [Coordinates.from_points(Scene(seed=2).labels, source=labels)], DIAMETER)
        require_right_labels(volume, [Coordinates.from_points(Scene(seed=2).labels[:9])], DIAMETER)

    def test_right_or_undecidable_labels_pass(self, tomogram: Path, flat: Scene) -> None:
        volume = Tomogram(info=read_info(tomogram), data=flat.data)
        for xyz in (flat.labels, flat.labels[:2]):
            require_right_labels(volume, [Coordinates.from_points(xyz)], DIAMETER)


def test_judgement_is_reproducible(flat: Scene, flat_response: Response) -> None:
    first, second = (judge_labels(flat_response, flat.labels) for _ in range(2))
    assert isinstance(first, Judgement)
    assert (first.given.z, first.message) == (second.given.z, second.message)
