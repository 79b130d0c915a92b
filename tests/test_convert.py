"""convert between grids: other binnings, other axes, what is lost, and where points end up."""

import json
import sys
import warnings
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cetpick.cli import main
from cetpick.errors import CetpickWarning, InputError
from cetpick.geometry import angles_to_matrices, rescale, turn_angles, turn_axes
from cetpick.io.coordinates import read_coordinates
from cetpick.io.imod import read_mod
from cetpick.io.mrc import write_mrc
from cetpick.io.tomograms import read_info
from cetpick.workflows.convert import open_grids, run_convert
from cetpick.workflows.inputs import InputOptions

DATA = Path(__file__).parent / "data"
VOLUMES = DATA / "imod_volumes"
RELION5 = DATA / "relion5_particles"
SCORES_MOD = DATA / "imod" / "scattered_scores.mod"

quiet = pytest.mark.filterwarnings("ignore::cetpick.errors.CetpickWarning")


def volume(path, *, size=(40, 30, 20), voxel_size=10.0):
    write_mrc(path, np.zeros(size[::-1], dtype=np.float32), voxel_size=voxel_size)
    return path


def written(path, text):
    path.write_text(text)
    return path


def points_of(path):
    return pd.read_csv(path)[["x", "y", "z"]].to_numpy()


class TestAxes:
    @pytest.mark.parametrize("axes", ["rotx", "flipyz"])
    @pytest.mark.filterwarnings("ignore:.*looks un-rotated")
    def test_bright_voxels_go_where_clip_puts_them(self, tmp_path, axes):
        with mrcfile.open(VOLUMES / "volume.mrc") as before, mrcfile.open(VOLUMES / f"volume_{axes}.mrc") as after:
            source, target = before.data, after.data
            bright = np.argwhere(source > np.sort(source, axis=None)[-9])[:, ::-1]
            turned = turn_axes(bright, axes, size=source.shape[::-1]).astype(int)
            x, y, z = bright.T
            assert (target[tuple(turned.T[::-1])] == source[z, y, x]).all()
        table = written(tmp_path / "a.csv", "x,y,z\n" + "".join(f"{x},{y},{z}\n" for x, y, z in bright))
        run_convert(table, tmp_path / "b.csv", tomograms=[VOLUMES / "volume.mrc"], axes=axes)
        assert points_of(tmp_path / "b.csv").tolist() == turned.tolist()
        back = {"rotx": "undo-rotx", "flipyz": "flipyz"}[axes]
        run_convert(
            tmp_path / "b.csv", tmp_path / "c.csv", tomograms=[VOLUMES / f"volume_{axes}.mrc"],
            to_tomograms=[VOLUMES / "volume.mrc"], axes=back,
        )  # fmt: skip
        assert points_of(tmp_path / "c.csv").tolist() == bright.tolist()

    @given(st.tuples(*[st.floats(-180, 180)] * 3), st.sampled_from(["rotx", "undo-rotx"]))
    def test_orientations_turn_with_the_volume(self, angles, axes):
        size = (30, 20, 12)
        place, ahead = np.array([10.0, 5.0, 4.0]), angles_to_matrices([angles])[0] @ [1, 2, 3]
        start, tip = turn_axes([place, place + ahead], axes, size=size)
        turned = angles_to_matrices(turn_angles([angles], axes))[0] @ [1, 2, 3]
        np.testing.assert_allclose(tip - start, turned, atol=1e-9)

    def test_a_mirror_has_no_orientations(self, tmp_path):
        table = written(tmp_path / "a.csv", "x,y,z,rot,tilt,psi\n1,2,3,10,20,30\n")
        with pytest.raises(InputError, match="mirrored"):
            run_convert(table, tmp_path / "b.csv", axes="flipyz", strict=True)
        assert not (tmp_path / "b.csv").exists()
        with pytest.warns(CetpickWarning, match="angles .a mirrored particle has none"):
            run_convert(table, tmp_path / "b.csv", axes="flipyz")
        assert list(pd.read_csv(tmp_path / "b.csv")) == ["x", "y", "z", "class"]

    def test_a_rotation_needs_the_size(self, tmp_path):
        table = written(tmp_path / "a.csv", "x,y,z\n1,2,3\n")
        with pytest.raises(InputError, match="--tomogram"):
            run_convert(table, tmp_path / "b.csv", axes="rotx")


class TestGrids:
    def test_to_another_binning_by_the_corner_rule(self, tmp_path):
        fine = volume(tmp_path / "fine.mrc", size=(80, 60, 40), voxel_size=5.0)
        coarse = volume(tmp_path / "coarse.mrc", size=(40, 30, 20), voxel_size=10.0)
        table = written(tmp_path / "a.csv", "x,y,z\n0.5,2.5,39\n79,59,0\n")
        summary = run_convert(table, tmp_path / "b.mod", tomograms=[fine], to_tomograms=[coarse])
        (item,) = read_mod(tmp_path / "b.mod").objects
        expected = np.array([[0, 1, 19.25], [39.25, 29.25, -0.25]])
        np.testing.assert_allclose(item.contours[0].points - [0.5, 0.5, 0], expected, atol=1e-6)
        x, y, z = summary.placed
        assert (x["axis"], x["lowest"], x["highest"], x["voxels"], x["outside"]) == ("x", 0, 39.25, 40, 0)
        assert x["to_border"] == 0.25
        assert (y["to_border"], z["to_border"]) == (0.25, 0.25)

    @pytest.mark.parametrize("how", [{"to_voxel_size": 20.0}, {"binning": 4.0}])
    def test_to_a_grid_without_a_tomogram(self, tmp_path, how):
        table = written(tmp_path / "a.csv", "x,y,z\n1.5,5.5,9.5\n")
        run_convert(table, tmp_path / "b.csv", options=InputOptions(voxel_size=5.0), **how)
        assert points_of(tmp_path / "b.csv").tolist() == [[0, 1, 2]]
        with pytest.raises(InputError, match="--to-tomogram"):
            run_convert(table, tmp_path / "b.mod", options=InputOptions(voxel_size=5.0), **how)

    def test_binning_needs_no_voxel_size_and_a_voxel_size_does(self, tmp_path):
        table = written(tmp_path / "a.csv", "x,y,z\n0.5,2.5,4.5\n")
        run_convert(table, tmp_path / "b.csv", binning=2)
        assert points_of(tmp_path / "b.csv").tolist() == [[0, 1, 2]]
        with pytest.raises(InputError, match="--voxel-size"):
            run_convert(table, tmp_path / "c.csv", to_voxel_size=10)
        for wrong in ({"binning": 0.0}, {"to_voxel_size": float("nan")}, {"binning": 2, "to_voxel_size": 2}):
            with pytest.raises(InputError):
                run_convert(table, tmp_path / "c.csv", **wrong)

    def test_relion_reconstructions_share_the_centre_of_the_first_voxel(self, tmp_path):
        text = (RELION5 / "tomograms.star").read_text()
        assert "2.5" in text
        other = written(tmp_path / "other.star", text.replace("2.500000", "5.000000"))
        table = written(tmp_path / "a.csv", "x,y,z\n40,72,28\n")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CetpickWarning)  # the volumes are not there
            run_convert(table, tmp_path / "b.csv", tomograms=[RELION5 / "tomograms.star"], to_tomograms=[other])
            run_convert(table, tmp_path / "b.star", tomograms=[RELION5 / "tomograms.star"], to_tomograms=[other])
        assert points_of(tmp_path / "b.csv").tolist() == [[20, 36, 14]]
        # The same place in the tilt series.
        assert "-100.000000\t60.000000\t-60.000000" in (tmp_path / "b.star").read_text()

    def test_volumes_that_are_not_there_are_named_as_others(self, tmp_path, monkeypatch):
        star = written(tmp_path / "t.star", (RELION5 / "tomograms.star").read_text())
        monkeypatch.chdir(tmp_path)
        with pytest.warns(CetpickWarning, match="are not there"):
            (info,) = open_grids([star], InputOptions(names="parent"))
        assert info.name == "tomograms_TS_01"

    def test_points_are_shifted_before_all_else(self, tmp_path):
        """By voxels of the source, as `check` tells them."""
        source = volume(tmp_path / "a.mrc")
        table = written(tmp_path / "t.csv", "x,y,z\n10,12,14\n")
        run_convert(table, tmp_path / "u.csv", tomograms=[source], shift=(1, -2, 0.5))
        assert points_of(tmp_path / "u.csv").tolist() == [[11, 10, 14.5]]
        run_convert(table, tmp_path / "v.csv", tomograms=[source], shift=(1, -2, 0.5), binning=2)
        assert points_of(tmp_path / "v.csv").tolist() == [[5.25, 4.75, 7]]
        with pytest.raises(InputError, match="unusable --shift"):
            run_convert(table, tmp_path / "w.csv", shift=(1, 2, np.nan))

    def test_another_field_and_points_outside_are_told(self, tmp_path):
        source = volume(tmp_path / "a.mrc")
        target = volume(tmp_path / "b.mrc", size=(20, 30, 20))
        table = written(tmp_path / "t.csv", "x,y,z\n30,2,3\n1,2,3\n")
        with pytest.warns(CetpickWarning) as told:
            summary = run_convert(table, tmp_path / "u.csv", tomograms=[source], to_tomograms=[target])
        messages = [str(warning.message) for warning in told]
        assert any("do both show the same field?" in message for message in messages)
        assert any("1 of 2 points lie outside of the target volume" in message for message in messages)
        assert [row["outside"] for row in summary.placed] == [1, 0, 0]
        assert summary.placed[0]["to_border"] == -10.5
        assert len(points_of(tmp_path / "u.csv")) == 2

    @pytest.mark.parametrize(("size", "origin", "told"), [(38, -20.0, True), (40, -20.0, False), (38, -23.0, False)])
    def test_a_trimmed_target_is_told(self, tmp_path, size, origin, told):
        source, target = volume(tmp_path / "a.mrc"), tmp_path / "b.mrc"
        write_mrc(target, np.zeros((20, 30, size), np.float32), voxel_size=10.0, origin=(origin, 0, 0))
        table = written(tmp_path / "t.csv", "x,y,z\n3,2,3\n")
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always", CetpickWarning)
            run_convert(table, tmp_path / "u.csv", tomograms=[source], to_tomograms=[target])
        assert any("begins at voxel 2, 0, 0 of the source" in str(warning.message) for warning in seen) == told

    def test_several_tomograms_find_their_targets_by_name(self, tmp_path):
        for folder, voxel_size in (("bin4", 10.0), ("bin2", 5.0)):
            (tmp_path / folder).mkdir()
            for name in ("TS_1", "TS_2"):
                volume(
                    tmp_path / folder / f"{name}.mrc",
                    voxel_size=voxel_size,
                    size=tuple(int(400 / voxel_size) for _ in "xyz"),
                )
        loop = "data_\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n"
        star = written(tmp_path / "p.star", f"{loop}TS_2.mrc 1 2 3\nTS_1.mrc 4 5 6\n")
        bin4, bin2 = sorted((tmp_path / "bin4").iterdir()), sorted((tmp_path / "bin2").iterdir())
        run_convert(star, tmp_path / "out", format="csv", tomograms=bin4, to_tomograms=bin2)
        expected = rescale([[4, 5, 6]], from_voxel_size=10, to_voxel_size=5)
        assert points_of(tmp_path / "out" / "TS_1.csv").tolist() == expected.tolist()
        with pytest.raises(InputError, match="no target for the points of tomogram TS_2"):
            run_convert(star, tmp_path / "more", format="csv", tomograms=bin4, to_tomograms=bin2[:1])

    def test_a_voxel_size_against_that_of_the_file(self, tmp_path):
        content = {"pickable_object_name": "a", "run_name": "t", "voxel_spacing": 10, "points": []}
        picks = written(tmp_path / "a.json", json.dumps(content))
        with pytest.raises(InputError, match="--to-voxel-size"):
            run_convert(picks, tmp_path / "b.csv", options=InputOptions(voxel_size=5.0))

    def test_a_voxel_size_is_told_to_what_reads_the_file(self, tmp_path):
        table = written(tmp_path / "copick.csv", "run_name,x,y,z,transform_00\nt,10,20,30,1\n")
        run_convert(table, tmp_path / "a.csv", options=InputOptions(voxel_size=10.0))
        assert points_of(tmp_path / "a.csv").tolist() == [[1, 2, 3]]
        loop = "loop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n_rlnOriginXAngst\n"
        star = written(tmp_path / "p.star", f"data_\n{loop}t.mrc 1 2 3 5\n")
        run_convert(star, tmp_path / "b.csv", options=InputOptions(voxel_size=10.0))
        assert points_of(tmp_path / "b.csv").tolist() == [[0.5, 2, 3]]


class TestLosses:
    def test_strict_refuses_before_anything_is_written(self, tmp_path):
        table = written(tmp_path / "a.csv", "x,y,z,score,class,rot,tilt,psi\n1,2,3,.5,a,1,2,3\n4,5,6,.4,b,1,2,3\n")
        with pytest.raises(InputError, match=r"format coords cannot hold: score, class \(2 classes\), angles"):
            run_convert(table, tmp_path / "b.coords", strict=True)
        assert not (tmp_path / "b.coords").exists()
        summary = run_convert(table, tmp_path / "b.xml", strict=True)
        assert (summary.lost, summary.format) == ([], "pytom")

    def test_strict_refuses_to_leave_points_out(self, tmp_path):
        table = written(tmp_path / "a.csv", "x,y,z\n1,2,3\n1,2,3\n1,2,99\n")
        tomogram = volume(tmp_path / "t.mrc")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CetpickWarning)
            with pytest.raises(InputError, match="2 of its points"):
                run_convert(table, tmp_path / "b.csv", tomograms=[tomogram], strict=True)
        assert not (tmp_path / "b.csv").exists()

    def test_the_voxel_size_when_the_file_alone_has_it(self, tmp_path):
        with pytest.warns(CetpickWarning, match=r"cannot hold: voxel size \(10 A\)"):
            run_convert(SCORES_MOD, tmp_path / "a.csv")
        run_convert(SCORES_MOD, tmp_path / "b.csv", tomograms=[VOLUMES / "volume.mrc"], strict=True)

    def test_the_second_file_is_not_overwritten_either(self, tmp_path):
        table = written(tmp_path / "a.csv", "x,y,z\n1,2,3\n")
        mine = written(tmp_path / "b.doc", "1 mine.mrc\n")
        with pytest.raises(InputError, match=r"b.doc: already exists"):
            run_convert(table, tmp_path / "b.tbl")
        assert mine.read_text() == "1 mine.mrc\n"
        run_convert(table, tmp_path / "b.tbl", overwrite=True)
        assert (tmp_path / "b.tbl").is_file()
        assert mine.read_text() == "1 b\n"


def test_no_points_are_said(tmp_path):
    with pytest.warns(CetpickWarning, match="a.csv: holds no points"):
        run_convert(written(tmp_path / "a.csv", "x,y,z\n"), tmp_path / "b.tbl")
    star = written(tmp_path / "a.star", "data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n")
    star.write_text(star.read_text() + "_rlnMicrographName\n")
    with pytest.raises(InputError, match=r"holds no points\n  cure: `cetpick info .*a.star` tells"):
        run_convert(star, tmp_path / "c.tbl")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"diameter": 250.0}, "format table holds no radius, so that --diameter changes nothing"),
        ({"z": 3.0}, "its points have z, so that --z changes nothing"),
    ],
)
def test_options_that_change_nothing_are_said(tmp_path, given, told):
    table = written(tmp_path / "a.csv", "x,y,z\n1,2,3\n")
    with pytest.warns(CetpickWarning, match=told):
        run_convert(table, tmp_path / "b.csv", **given)
    assert points_of(tmp_path / "b.csv").tolist() == [[1, 2, 3]]


class TestFolders:
    loop = "data_\nloop_\n_rlnTomoName\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n"

    @pytest.mark.parametrize("name", ["../evil", "a/b", "/evil", "n" * 300])
    def test_names_in_files_lead_nowhere_else(self, tmp_path, name):
        star = written(tmp_path / "p.star", f"{self.loop}{name} 1 2 3\n")
        with pytest.raises(InputError, match="name cannot be that of a file"):
            run_convert(star, tmp_path / "in" / "out", format="csv", options=InputOptions(binned=True))
        assert list(tmp_path.iterdir()) == [star]

    @pytest.mark.parametrize("name", ["relion31", "dynamo", "stopgap"])
    def test_classes_have_one_number_in_all_files(self, tmp_path, name):
        folder = tmp_path / "labels"
        folder.mkdir()
        written(folder / "TS_01.csv", "x,y,z,class\n1,1,1,ribo\n2,2,2,ferri\n")
        written(folder / "TS_02.csv", "x,y,z,class\n3,3,1,ferri\n4,4,2,ribo\n")
        tomograms = [volume(tmp_path / f"TS_0{number}.mrc") for number in (1, 2)]
        with pytest.warns(CetpickWarning, match=r"names of classes \(ribo = 1, ferri = 2\)"):
            summary = run_convert(folder, tmp_path / "out", format=name, tomograms=tomograms)
        classes = [
            read_coordinates(file, tomograms=[of])[0].table["class"].tolist()
            for file, of in zip(summary.written, map(read_info, tomograms), strict=True)
        ]
        assert classes == [["1", "2"], ["2", "1"]]

    def test_names_that_clash_are_told(self, tmp_path):
        star = written(tmp_path / "p.star", f"{self.loop}a/t.mrc 1 2 3\nb/t.mrc 1 2 3\nu.mrc 1 2 3\n")
        star.write_text(star.read_text().replace("rlnTomoName", "rlnMicrographName"))
        with pytest.raises(InputError, match=r"two tomograms have the same name\n  found: t.csv\n.*--names parent"):
            run_convert(star, tmp_path / "out", format="csv")

    def test_files_of_eman2_have_the_names_that_it_looks_for(self, tmp_path):
        tomogram = volume(tmp_path / "TS_01__bin4.mrc")
        table = written(tmp_path / "a.csv", "x,y,z\n1,2,3\n")
        run_convert(table, tmp_path / "info", format="eman2", tomograms=[tomogram])
        assert [path.name for path in (tmp_path / "info").iterdir()] == ["TS_01_info.json"]

    def test_all_files_are_written_or_none(self, tmp_path):
        tomograms = [volume(tmp_path / f"{name}.mrc") for name in ("TS_1", "TS_2", "TS_3")]
        star = written(tmp_path / "p.star", f"{self.loop}TS_1 1 2 3\nTS_2 1 2 3\nTS_3 1 2 3\n")
        info = tmp_path / "info"
        info.mkdir()
        before = {"TS_1_info.json": '{"tlt_params": [1]}', "TS_3_info.json": "[]"}
        for name, text in before.items():
            written(info / name, text)
        options = InputOptions(binned=True)
        with pytest.raises(InputError, match=r"TS_3_info.json: is none of EMAN2's"):
            run_convert(star, info, format="eman2", tomograms=tomograms, options=options, overwrite=True)
        assert {path.name: path.read_text() for path in info.iterdir()} == before

    @quiet
    @pytest.mark.parametrize("output", ["a.tbl", "a.xml", "out"])
    def test_names_that_break_lines_are_refused(self, tmp_path, output):
        points = [{"location": {"x": 1, "y": 2, "z": 3}}]
        content = {"pickable_object_name": "a", "run_name": "t\x01\n2 u", "voxel_spacing": 10, "points": points}
        picks = written(tmp_path / "a.json", json.dumps(content))
        with pytest.raises(InputError):
            run_convert(picks, tmp_path / output, format=None if "." in output else "csv")
        assert list(tmp_path.iterdir()) == [picks]

    def test_warp_knows_tomograms_by_name_alone(self, tmp_path):
        star = written(tmp_path / "p.star", f"{self.loop}TS_1 1 2 3\n")
        run_convert(star, tmp_path / "w.star", format="warp", options=InputOptions(binned=True))
        assert "TS_1.tomostar\t1.000000\t2.000000\t3.000000" in (tmp_path / "w.star").read_text()
        star = written(tmp_path / "q.star", f"{self.loop}TS_1_10.00Apx 1 2 3\n")
        run_convert(star, tmp_path / "v.star", format="warp", options=InputOptions(binned=True))
        assert "TS_1.tomostar\t" in (tmp_path / "v.star").read_text()


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"to_voxel_size": 0.0}, "unusable --to-voxel-size"),
        ({"diameter": float("nan")}, "unusable setting diameter"),
        ({"diameter": -300.0}, "unusable setting diameter"),
    ],
)
def test_sizes_that_nothing_has_are_refused(tmp_path, given, what):
    table = written(tmp_path / "a.csv", "x,y,z\n1,2,3\n")
    with pytest.raises(InputError, match=what):
        run_convert(table, tmp_path / "b.csv", **given)


@pytest.mark.parametrize("size", [float("nan"), -5.0, 0.0, 1000.0])
def test_a_voxel_size_that_nothing_has_is_refused_before_anything_is_read(size):
    with pytest.raises(InputError, match="unusable --voxel-size"):
        InputOptions(voxel_size=size)


def test_command_line(tmp_path, capsys, monkeypatch):
    def cetpick(*arguments):
        monkeypatch.setattr(sys, "argv", ["cetpick", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    source = volume(tmp_path / "full.mrc", size=(40, 20, 30))
    table = written(tmp_path / "a.csv", "x,y,z,score\n1,2,3,.5\n")
    code, out, _ = cetpick("convert", table, tmp_path / "b.csv", "--tomogram", source, "--axes", "rotx")
    assert code == 0
    assert points_of(tmp_path / "b.csv").tolist() == [[1, 3, 17]]
    assert "to_border" in out
    code, _, err = cetpick("convert", table, tmp_path / "b.coords", "--strict")
    assert (code, (tmp_path / "b.coords").exists()) == (2, False)
    assert "cannot hold: score" in err
    code, _, err = cetpick("convert", table, tmp_path / f"{'n' * 300}.csv")
    assert (code, err.startswith("error: ")) == (1, True)
    boxes = written(tmp_path / "c.box", "6 -8 33 32\n")
    assert cetpick("convert", boxes, tmp_path / "c.csv")[0] == 2
    code, out, _ = cetpick(
        "convert", boxes, tmp_path / "c.csv", "--z", 5, "--voxel-size", 10, "--to-voxel-size", 20, "--json"
    )
    assert (code, json.loads(out)["written"]) == (0, {str(tmp_path / "c.csv"): 1})
    assert points_of(tmp_path / "c.csv").tolist() == [[10.75, 3.75, 2.25]]
    assert "boxes of EMAN1" in cetpick("info", boxes)[1]
