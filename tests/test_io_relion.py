"""STAR files of particles: RELION 5.0.1's own, the numbers that its programs were seen to use, and every flavour."""

import contextlib
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cetpick.errors import CetpickWarning, InputError
from cetpick.io.naming import find_tomogram
from cetpick.io.relion import read_particles, write_optimisation_set, write_particles
from cetpick.io.star import read_star, star_numbers, write_star
from cetpick.records import Grid, RelionTomogram, TomogramInfo

DATA = Path(__file__).parent / "data" / "relion5_particles"
VOXELS = [[40.0, 72.0, 28.0], [80.0, 36.0, 52.0]]
UNBINNED = [[100.0, 180.0, 70.0], [200.0, 90.0, 130.0]]
CENTRED = [[-100.0, 60.0, -60.0], [100.0, -120.0, 60.0]]


def tomogram(name="TS_01", *, relion=True, pixel_size=2.0, binning=2.5, size=(300.0, 300.0, 200.0)):
    nx, ny, nz = (max(1, round(n / binning)) for n in size)
    return TomogramInfo(
        name=name,
        path=Path(f"rec/tomograms/rec_{name}.mrc"),
        grid=Grid(shape=(nz, ny, nx), voxel_size=pixel_size * binning),
        relion=RelionTomogram(name=name, pixel_size=pixel_size, binning=binning, size=size, star=Path("tomograms.star"))
        if relion
        else None,
    )


def points_table(points, **columns):
    return pd.DataFrame(np.array(points, dtype=float), columns=["x", "y", "z"]).assign(**columns)


def write_loop(path, name, points, labels="rlnCoordinate{}", column="rlnTomoName", **extra):
    path.parent.mkdir(exist_ok=True)
    frame = pd.DataFrame(points, columns=[labels.format(axis) for axis in "XYZ"], dtype=float)
    frame.insert(0, column, name)
    write_star(path, {"particles": frame.assign(**extra)})
    return path


class TestStar:
    def test_names_stay_text(self, tmp_path):
        names = ["007", "nan", "TS_01.mrc", "NA", "1e5", "data_01", "None", "it-s"]
        frame = pd.DataFrame({"rlnTomoName": names, "rlnCoordinateX": np.arange(8) / 7})
        write_star(tmp_path / "a.star", {"optics": {"rlnTomoName": "nan", "n": 3}, "particles": frame}, version="50001")
        blocks = read_star(tmp_path / "a.star")
        assert list(blocks) == ["optics", "particles"]
        assert blocks["optics"].to_dict("list") == {"rlnTomoName": ["nan"], "n": ["3"]}
        assert blocks["particles"]["rlnTomoName"].tolist() == names
        assert blocks["particles"]["rlnCoordinateX"].tolist()[1] == "0.142857"
        assert (tmp_path / "a.star").read_text().startswith("\n# version 50001\n\ndata_optics\n\n_rlnTomoName\tnan\n")

    def test_comments_quotes_blank_lines_and_line_ends(self, tmp_path):
        text = "# made by\r\n\r\ndata_\r\n\r\nloop_ \r\n_a #1\r\n_b\r\n\r\n'x y' \"it's\" # end\r\n\r\n 1#2\tit's \r\n"
        (tmp_path / "a.star").write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert read_star(tmp_path / "a.star")[""].to_numpy().tolist() == [["x y", "it's"], ["1#2", "it's"]]

    def test_empty_loop(self, tmp_path):
        (tmp_path / "a.star").write_text("data_particles\nloop_\n_a #1\n_b #2\n")
        table = read_star(tmp_path / "a.star")["particles"]
        assert list(table.columns) == ["a", "b"]
        assert len(table) == 0
        assert star_numbers(table, ["b"], file="a.star").shape == (0, 1)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("hello\n", "line 1: not a STAR file"),
            ("# only this\n", "not a STAR file"),
            ("data_\nloop_\n_a\n_b\n1 2\n3\n", "line 6: expected 2 values"),
            ("data_\nloop_\n_a\n_a\n", "line 4: label _a stands twice"),
            ("data_x\n_a 1\ndata_x\n", "line 3: a second block data_x"),
            ("data_\n_a 1 2\n", "line 2: label _a has 2 values"),
            ("data_\nloop_\n_a\n1\n_b\n", "line 5: label _b follows the rows"),
            ("data_\n1 2\n", "line 2: expected a label or loop_"),
            ("data_\n_a 1\nloop_\n", "line 3: a block holds one loop or one list"),
            ("data_\n\0\n", "not a text file"),
        ],
    )
    def test_problems_are_told_with_their_line(self, tmp_path, text, problem):
        (tmp_path / "a.star").write_text(text)
        with pytest.raises(InputError, match=problem):
            read_star(tmp_path / "a.star")

    @pytest.mark.parametrize("name", ["a b", "", "#a", "_a", "a'b", 'a"b', "a\nb"])
    def test_what_relion_cannot_read_is_not_written(self, tmp_path, name):
        with pytest.raises(InputError, match="RELION cannot read"):
            write_star(tmp_path / "a.star", {"": pd.DataFrame({"rlnTomoName": [name]})})
        assert not (tmp_path / "a.star").exists()

    def test_numbers(self, tmp_path):
        table = pd.DataFrame({"a": ["1", "2.5"], "b": ["nan", "x"]}, dtype=object)
        assert star_numbers(table, ["a"], file="f.star").tolist() == [[1], [2.5]]
        with pytest.raises(InputError, match="row 1 of column b"):
            star_numbers(table, ["a", "b"], file="f.star")
        with pytest.raises(InputError, match="column c is missing"):
            star_numbers(table, ["a", "c"], file="f.star")


def test_reads_the_blobs_where_relion_cuts_them_out():
    (read,) = read_particles(DATA / "particles_centered.star", [tomogram()])
    np.testing.assert_allclose(read.xyz, VOXELS)
    assert read.tomogram == "TS_01"
    assert read.voxel_size == 5
    with pytest.warns(CetpickWarning, match="--binned and --unbinned change nothing"):
        (asked,) = read_particles(DATA / "particles_centered.star", [tomogram()], binned=True)
    np.testing.assert_allclose(asked.xyz, VOXELS)


def test_optimisation_set_names_particles_and_tomograms(tmp_path):
    (tmp_path / "job").mkdir()
    for name in ("particles_centered.star", "tomograms.star"):
        (tmp_path / name).write_bytes((DATA / name).read_bytes())
    write_optimisation_set(
        tmp_path / "job" / "optimisation_set.star", particles="particles_centered.star", tomograms="tomograms.star"
    )
    for tomograms in ([], [tomogram(relion=False)]):
        (read,) = read_particles(tmp_path / "job" / "optimisation_set.star", tomograms)
        np.testing.assert_allclose(read.xyz, VOXELS)
        assert read.voxel_size == 5
    (tmp_path / "particles_centered.star").unlink()
    with pytest.raises(InputError, match="not there"):
        read_particles(tmp_path / "job" / "optimisation_set.star")


@pytest.mark.parametrize(
    ("flavour", "block", "labels", "numbers", "name"),
    [
        ("relion5", "particles", "rlnCenteredCoordinate{}Angst", CENTRED, "TS_01"),
        ("relion4", "particles", "rlnCoordinate{}", UNBINNED, "TS_01"),
        ("relion31", "", "rlnCoordinate{}", VOXELS, "rec/tomograms/rec_TS_01.mrc"),
        ("warp", "", "rlnCoordinate{}", VOXELS, "TS_01.tomostar"),
    ],
)
def test_writes_the_numbers_of_each_flavour(tmp_path, flavour, block, labels, numbers, name):
    write_particles(tmp_path / "p.star", flavour, [(tomogram(), points_table(VOXELS, score=[0.9, 0.5]))])
    table = read_star(tmp_path / "p.star")[block]
    stored = star_numbers(table, [labels.format(axis) for axis in "XYZ"], file="p.star")
    np.testing.assert_allclose(stored, numbers)
    assert set(table.iloc[:, 0]) == {name}
    assert table["rlnAutopickFigureOfMerit"].tolist() == ["0.900000", "0.500000"]
    (read,) = read_particles(tmp_path / "p.star", [tomogram()])
    np.testing.assert_allclose(read.xyz, VOXELS)
    assert read.table["score"].tolist() == [0.9, 0.5]


def test_relion4_names_particles_and_optics_groups(tmp_path):
    picks = [
        (tomogram("a"), points_table(VOXELS)),
        (tomogram("b", pixel_size=3.0), points_table(VOXELS[:1])),
        (tomogram("c"), points_table(VOXELS[:1])),
    ]
    write_particles(tmp_path / "p.star", "relion4", picks)
    blocks = read_star(tmp_path / "p.star")
    assert blocks["particles"]["rlnTomoParticleName"].tolist() == ["a/1", "a/2", "b/1", "c/1"]
    assert blocks["particles"]["rlnOpticsGroup"].tolist() == ["1", "1", "2", "1"]
    assert blocks["optics"]["rlnTomoTiltSeriesPixelSize"].tolist() == ["2.000000", "3.000000"]


@pytest.mark.parametrize("pixel", [10.0, 2.5, 5.0])
def test_pixels_of_warps_own_export_are_scaled_and_said(tmp_path, pixel):
    info = tomogram(relion=False)  # 5 A a voxel
    points = np.array(VOXELS) * 5 / pixel
    path = write_loop(tmp_path / "a.star", "TS_01.tomostar", points, column="rlnMicrographName", rlnPixelSize=pixel)
    expected = [] if pixel == 5 else [f"coordinates of TS_01 are pixels of {pixel:g} A (rlnPixelSize)"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (record,) = read_particles(path, [info])
    assert np.allclose(record.xyz, VOXELS)
    assert [str(warning.message).partition(": ")[2] for warning in caught] == expected
    (as_asked,) = read_particles(path, [info], binned=True)
    assert np.allclose(as_asked.xyz, points)


@pytest.mark.parametrize("flavour", ["relion5", "relion4"])
def test_flavours_that_need_the_tilt_series_ask_for_it(tmp_path, flavour):
    with pytest.raises(InputError, match="--tomograms-star"):
        write_particles(tmp_path / "p.star", flavour, [(tomogram(relion=False), points_table(VOXELS))])
    assert not (tmp_path / "p.star").exists()


def test_scores_that_only_some_have_are_not_written(tmp_path):
    picks = [(tomogram("a"), points_table(VOXELS, score=0.5)), (tomogram("b"), points_table(VOXELS))]
    with pytest.warns(CetpickWarning, match="no score"):
        write_particles(tmp_path / "p.star", "warp", picks)
    assert "rlnAutopickFigureOfMerit" not in read_star(tmp_path / "p.star")[""]


def test_centred_coordinates_need_a_tomograms_star():
    for tomograms in ([], [tomogram(relion=False)]):
        with pytest.raises(InputError, match="--tomograms-star"):
            read_particles(DATA / "particles_centered.star", tomograms)


class TestReadings:
    """rlnCoordinateX/Y/Z: voxels of the reconstruction, or unbinned pixels?"""

    def test_particles_are_unbinned_and_annotations_are_not(self, tmp_path):
        (read,) = read_particles(write_loop(tmp_path / "p.star", "TS_01", UNBINNED), [tomogram()])
        np.testing.assert_allclose(read.xyz, VOXELS)
        (read,) = read_particles(write_loop(tmp_path / "annotations" / "p.star", "TS_01", VOXELS), [tomogram()])
        np.testing.assert_allclose(read.xyz, VOXELS)

    def test_the_user_decides(self, tmp_path):
        path = write_loop(tmp_path / "annotations" / "p.star", "TS_01", UNBINNED)
        (read,) = read_particles(path, [tomogram()], binned=False)
        np.testing.assert_allclose(read.xyz, VOXELS)
        (read,) = read_particles(path, [tomogram()], binned=True)
        np.testing.assert_allclose(read.xyz, UNBINNED)
        (read,) = read_particles(path, binned=True)
        np.testing.assert_allclose(read.xyz, UNBINNED)

    def test_where_only_the_other_reading_fits_it_is_taken_and_said(self, tmp_path):
        path = write_loop(tmp_path / "annotations" / "p.star", "TS_01", [[250, 250, 150], [200, 280, 190]])
        with pytest.warns(CetpickWarning, match="taken as pixels of the unbinned tilt series"):
            (read,) = read_particles(path, [tomogram()])
        np.testing.assert_allclose(read.xyz, [[100, 100, 60], [80, 112, 76]])

    def test_where_neither_fits_both_ranges_are_told(self, tmp_path):
        path = write_loop(tmp_path / "p.star", "TS_01", [[5000, 10, 10], [6000, 20, 20]])
        with pytest.raises(InputError, match="outside") as caught:
            read_particles(path, [tomogram()])
        assert "5000" in str(caught.value)
        assert "2000" in str(caught.value)

    def test_binning_from_the_optics_table(self, tmp_path):
        write_particles(tmp_path / "p.star", "relion4", [(tomogram(), points_table(VOXELS))])
        (read,) = read_particles(tmp_path / "p.star", [tomogram(relion=False)])
        np.testing.assert_allclose(read.xyz, VOXELS)

    def test_unknown_binning_is_asked_for(self, tmp_path):
        path = write_loop(tmp_path / "p.star", "TS_01", UNBINNED)
        for tomograms in ([], [tomogram(relion=False)]):
            with pytest.raises(InputError, match="--binned"):
                read_particles(path, tomograms)

    def test_micrograph_names_mean_voxels(self, tmp_path):
        path = write_loop(tmp_path / "p.star", "Tomograms/TS_01/TS_01.mrc", VOXELS, column="rlnMicrographName")
        for tomograms in ([], [tomogram(relion=False)], [tomogram()]):
            (read,) = read_particles(path, tomograms)
            np.testing.assert_allclose(read.xyz, VOXELS)
            assert read.tomogram == "TS_01"


class TestOrigins:
    def test_are_subtracted_in_voxels(self, tmp_path):
        shifts = {"rlnOriginXAngst": 5.0, "rlnOriginYAngst": -10.0, "rlnOriginZAngst": 0.0}
        path = write_loop(tmp_path / "p.star", "TS_01", UNBINNED[:1], **shifts)
        (read,) = read_particles(path, [tomogram()])
        np.testing.assert_allclose(read.xyz, [[39, 74, 28]])
        (read,) = read_particles(write_loop(tmp_path / "q.star", "TS_01", UNBINNED, rlnOriginZAngst=5.0), [tomogram()])
        np.testing.assert_allclose(read.xyz, [[40, 72, 27], [80, 36, 51]])

    def test_of_relion_3_0_are_voxels(self, tmp_path):
        path = write_loop(tmp_path / "p.star", "t.mrc", VOXELS[:1], column="rlnMicrographName", rlnOriginX=1.5)
        (read,) = read_particles(path)
        np.testing.assert_allclose(read.xyz, [[38.5, 72, 28]])

    def test_turn_with_the_subtomogram(self, tmp_path):
        """A_subtomogram of rot 90: x of the tomogram is y of the subtomogram, y is -x."""
        shifts = {"rlnOriginXAngst": 5.0, "rlnOriginYAngst": 10.0, "rlnOriginZAngst": 15.0}
        angles = {"rlnTomoSubtomogramRot": 90.0, "rlnTomoSubtomogramTilt": 0.0, "rlnTomoSubtomogramPsi": 0.0}
        path = write_loop(tmp_path / "p.star", "TS_01", UNBINNED[:1], **shifts, **angles)
        (read,) = read_particles(path, [tomogram()])
        np.testing.assert_allclose(read.xyz, [[40 - 2, 72 + 1, 28 - 3]])

    def test_without_a_voxel_size_are_left_out_and_said(self, tmp_path):
        shifts = {"rlnOriginXAngst": 5.0, "rlnOriginYAngst": 0.0, "rlnOriginZAngst": 0.0}
        path = write_loop(tmp_path / "p.star", "t.mrc", VOXELS, column="rlnMicrographName", **shifts)
        with pytest.warns(CetpickWarning, match="origins"):
            (read,) = read_particles(path)
        np.testing.assert_allclose(read.xyz, VOXELS)
        (read,) = read_particles(path, voxel_size=10.0)
        np.testing.assert_allclose(read.xyz, np.array(VOXELS) - [0.5, 0, 0])


def test_all_blocks_of_particles_are_read(tmp_path):
    path, labels = tmp_path / "p.star", "loop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n"
    path.write_text(f"data_TS_01\n{labels}1 2 3\n4 5 6\n\ndata_TS_02\n{labels}7 8 9\n")
    found = {record.tomogram: record.xyz.tolist() for record in read_particles(path)}
    assert found == {"TS_01": [[1, 2, 3], [4, 5, 6]], "TS_02": [[7, 8, 9]]}
    named = f"{labels}_rlnMicrographName\n"
    path.write_text(f"data_a\n{named}1 2 3 t.mrc\n\ndata_b\n{named}4 5 6 t.mrc\n")
    (record,) = read_particles(path)
    assert (record.tomogram, record.xyz.tolist()) == ("t", [[1, 2, 3], [4, 5, 6]])


def test_picks_of_a_micrograph_are_refused(tmp_path):
    path = tmp_path / "p.star"
    path.write_text("data_\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\nm.mrc 1 2\n")
    with pytest.raises(InputError, match=r"(?s)no z.*not of a micrograph"):
        read_particles(path)


def test_blocks_of_particles_that_are_not_alike_are_refused(tmp_path):
    path, labels = tmp_path / "p.star", "loop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n"
    path.write_text(f"data_a\n{labels}1 2 3\n\ndata_b\n{labels}_rlnTomoName\n4 5 6 TS_01\n")
    with pytest.raises(InputError, match=r"(?s)not the same labels.*data_a: .*; data_b: .*rlnTomoName"):
        read_particles(path)


def test_tomograms_that_were_not_given_are_named(tmp_path):
    picks = [(tomogram(name), points_table(VOXELS)) for name in ("007", "nan", "TS_01.mrc")]
    write_particles(tmp_path / "p.star", "relion5", picks)
    reads = read_particles(tmp_path / "p.star", [info for info, _ in picks])
    assert [read.tomogram for read in reads] == ["007", "nan", "TS_01.mrc"]
    with pytest.warns(CetpickWarning, match="left out: nan, TS_01.mrc"):
        reads = read_particles(tmp_path / "p.star", [picks[0][0]])
    assert [read.tomogram for read in reads] == ["007"]


def test_find_tomogram_prefers_the_exact_name():
    tomograms = [tomogram("TS_01"), tomogram("TS_01.mrc"), tomogram("nan")]
    assert find_tomogram("TS_01.mrc", tomograms).name == "TS_01.mrc"
    assert find_tomogram("a/rec_TS_01.mrc", tomograms).name == "TS_01"
    assert find_tomogram("rec/tomograms/rec_TS_01.mrc", tomograms).name == "TS_01"
    assert find_tomogram("TS_01.tomostar", tomograms).name == "TS_01"
    assert find_tomogram("TS_02", tomograms) is None
    assert find_tomogram(None, tomograms) is None
    assert find_tomogram(None, tomograms[:1]).name == "TS_01"


def in_folder(path):
    return replace(tomogram(Path(path).parent.name, relion=False), path=Path(path))


def particles_of(*names):
    rows = "".join(f"{name} {n}.0 2.0 3.0\n" for n, name in enumerate(names))
    return f"data_\n\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n{rows}"


def test_tomograms_of_one_file_name_are_told_by_their_folders(tmp_path):
    names = ["Tomograms/t1/rec.mrc", "Tomograms/t2/rec.mrc"]
    star = tmp_path / "p.star"
    star.write_text(particles_of(*names))
    infos = [in_folder(tmp_path / name) for name in names]
    assert {read.tomogram: read.xyz[0, 0] for read in read_particles(star, infos)} == {"t1": 0, "t2": 1}
    with pytest.warns(CetpickWarning, match="left out: Tomograms/t1/rec.mrc"):
        assert [read.xyz[0, 0] for read in read_particles(star, infos[1:])] == [1]
    moved = in_folder("elsewhere/rec.mrc")
    with pytest.raises(InputError, match="more than one of its tomograms could be elsewhere"):
        read_particles(star, [moved])
    star.write_text(particles_of(names[1]))
    assert [read.tomogram for read in read_particles(star, [moved])] == ["elsewhere"]
    star.write_text(particles_of("rec.mrc"))
    with pytest.warns(CetpickWarning, match="left out: rec.mrc"):
        assert not read_particles(star, infos)


@pytest.mark.parametrize("name", ["C:\\data\\rec_TS_01.mrc", "000001@Tomograms/TS_01.mrc"])
def test_names_of_other_systems_and_of_images_in_stacks(name):
    assert find_tomogram(name, [tomogram("TS_01"), tomogram("TS_02")]).name == "TS_01"


def test_warp_calls_a_tomogram_by_its_tilt_series(tmp_path):
    infos = [tomogram(f"TS_0{n}_10.00Apx", relion=False) for n in (1, 2)]
    write_particles(tmp_path / "p.star", "warp", [(info, points_table(VOXELS)) for info in infos])
    assert set(read_star(tmp_path / "p.star")[""]["rlnMicrographName"]) == {"TS_01.tomostar", "TS_02.tomostar"}
    assert [read.tomogram for read in read_particles(tmp_path / "p.star", infos)] == [info.name for info in infos]
    other = tomogram("TS_01_20.00Apx", relion=False)
    with pytest.raises(InputError, match="several of TS_01"):
        write_particles(tmp_path / "q.star", "warp", [(info, points_table(VOXELS)) for info in (infos[0], other)])


def test_shares_of_the_sides_are_no_voxels(tmp_path):
    info = tomogram(relion=False)
    write_particles(
        tmp_path / "p.star", "warp", [(info, points_table([[0.1, 0.3, 0.5], [0.9, 1, 0], [0.2, 0.2, 0.7]]))]
    )
    with pytest.raises(InputError, match="shares of the tomogram's sides"):
        read_particles(tmp_path / "p.star", [info])


def test_scores_that_some_particles_lack_are_left_out(tmp_path):
    labels = ["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ", "rlnAutopickFigureOfMerit"]
    table = pd.DataFrame([["a.mrc", "1", "2", "3", "0.5"], ["a.mrc", "4", "5", "6", "None"]], columns=labels)
    write_star(tmp_path / "p.star", {"": table})
    with pytest.warns(CetpickWarning, match="1 of 2 particles have no rlnAutopickFigureOfMerit"):
        (read,) = read_particles(tmp_path / "p.star")
    assert len(read) == 2
    assert "score" not in read.table


def test_a_tomograms_star_holds_no_particles():
    with pytest.raises(InputError, match="holds no particles"):
        read_particles(DATA / "tomograms.star")


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flavour=st.sampled_from(["relion5", "relion4", "relion31", "warp"]),
    pixel_size=st.floats(0.3, 20),
    binning=st.floats(1, 16),
    size=st.tuples(*[st.floats(16, 8000)] * 3),
    where=st.lists(st.tuples(*[st.floats(0, 1, exclude_max=True)] * 3), min_size=1, max_size=4),
    names=st.lists(st.from_regex(r"[A-Za-z0-9][\w.-]{0,8}", fullmatch=True), min_size=1, max_size=3, unique=True),
)
def test_write_read(tmp_path, flavour, pixel_size, binning, size, where, names):
    infos = [tomogram(name, pixel_size=pixel_size, binning=binning, size=size) for name in names]
    points = np.array(where) * infos[0].grid.size - 0.5
    write_particles(tmp_path / "p.star", flavour, [(info, points_table(points)) for info in infos])
    reads = read_particles(tmp_path / "p.star", infos, binned=None if flavour != "relion4" else False)
    assert [read.tomogram for read in reads] == names
    for read in reads:
        np.testing.assert_allclose(read.xyz, points, atol=1e-3, rtol=0)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flips=st.lists(st.integers(0, 8 * 212 - 1), max_size=6),
    length=st.integers(0, 212),
)
@pytest.mark.filterwarnings("ignore::cetpick.errors.CetpickWarning")
def test_damaged_files_are_errors_or_particles(tmp_path, flips, length):
    data = bytearray((DATA / "particles_centered.star").read_bytes())
    for flip in flips:
        data[flip // 8] ^= 1 << flip % 8
    (tmp_path / "p.star").write_bytes(data[:length])
    with contextlib.suppress(InputError):
        read_particles(tmp_path / "p.star", [tomogram()])
