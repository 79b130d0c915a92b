"""All formats through one door: recognising, tables, EMAN2, what is left out and said, and pairs by name."""

import contextlib
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cetpick.errors import CetpickWarning, InputError
from cetpick.io.coordinates import pair_files, pair_labels, read_coordinates, write_coordinates
from cetpick.io.formats import HANDLERS, recognise
from cetpick.records import Grid, RelionTomogram, TomogramInfo

DATA = Path(__file__).parent / "data"
POINTS = [[22.0, 8.0, 3.0], [5.0, 2.0, 9.0], [10.75, 10.25, 6.5]]
SCORES = [0.9, 0.25, 0.5]
KNOWN = ("IMOD model", "STAR", "EMAN2", "table")

quiet = pytest.mark.filterwarnings("ignore::cetpick.errors.CetpickWarning")


def tomogram(name="volume", *, voxel_size=10.0, size=(30, 20, 12), relion=False):
    row = RelionTomogram(
        name=name, pixel_size=voxel_size / 2, binning=2.0, size=tuple(2.0 * n for n in size), star=Path("t")
    )
    return TomogramInfo(
        name=name,
        path=Path(f"{name}.mrc"),
        grid=Grid(shape=size[::-1], voxel_size=voxel_size),
        header_voxel_size=voxel_size,
        relion=row if relion else None,
    )


def points_table(points=POINTS, **columns):
    return pd.DataFrame(np.array(points, dtype=float), columns=["x", "y", "z"]).assign(**columns)


def read_one(path, info=None, **kwargs):
    (record,) = read_coordinates(path, tomograms=[info or tomogram()], **kwargs)
    return record


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


class TestTables:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("a.csv", "x,y,z\n22,8,3\n5,2,9\n10.75,10.25,6.5\n"),
            ("a.csv", "22,8,3\n5,2,9\n10.75,10.25,6.5\n"),
            ("a.csv", '\ufeff"Z";"Y";"X"\r\n3;8;22\r\n9;2;5\r\n6.5;10.25;10.75\r\n'),
            ("a.tsv", "x\ty\tz\n22\t8\t3\n5\t2\t9\n10.75\t10.25\t6.5\n"),
            ("a.coords", "22 8 3\n5 2 9\n10.75 10.25 6.5"),
            ("a.xyz", "# cetpick\n# z y x\n3 8 22\n9 2 5\n6.5 10.25 10.75\n"),
            ("a", "  22.0   8e0 3\n\n5\t2 9\n10.75 10.25 6.5\n"),
        ],
    )
    def test_three_columns_are_voxels(self, tmp_path, name, text):
        record = read_one(write_text(tmp_path / name, text))
        assert record.xyz.tolist() == POINTS
        assert set(record.table["class"]) == {"particle"}
        assert record.voxel_size == 10
        assert record.tomogram == "volume"

    def test_header_names_score_class_and_more(self, tmp_path):
        text = "score,class,z,y,x,rot,note\n.9,007,3,8,22,1.5,a b\n.25,nan,9,2,5,-2,\n"
        table = read_one(write_text(tmp_path / "a.csv", text)).table
        assert table["score"].tolist() == [0.9, 0.25]
        assert table["class"].tolist() == ["007", "nan"]
        assert table["rot"].tolist() == [1.5, -2]
        assert table["note"].tolist() == ["a b", ""]
        assert table[["x", "y", "z"]].to_numpy().tolist() == POINTS[:2]

    @pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.coords"])
    def test_fourth_column_is_a_score(self, tmp_path, name):
        record = read_one(write_text(tmp_path / name, "22 8 3 0.9\n5 2 9 0.25\n"))
        assert record.table["score"].tolist() == [0.9, 0.25]

    @pytest.mark.parametrize(
        ("name", "text"),
        [("a.txt", "1 10 11 2\n1 12 11 3\n"), ("a.xyz", "1 2 3 4\n"), ("a.csv", "1,1,10,11,2\n")],
    )
    def test_columns_that_cannot_be_told_are_refused(self, tmp_path, name, text):
        with pytest.raises(InputError, match="cannot be told"):
            read_one(write_text(tmp_path / name, text))

    def test_other_txt_is_voxels_and_said(self, tmp_path):
        path = write_text(tmp_path / "a.txt", "22 8 3\n5 2 9\n10.75 10.25 6.5\n")
        with pytest.warns(CetpickWarning, match="0 = centre of the first voxel"):
            assert read_one(path).xyz.tolist() == POINTS

    @pytest.mark.parametrize(
        ("numbers", "value", "columns"),
        [
            (0, "", []),
            (1, "", ["contour"]),
            (2, "", ["object", "contour"]),
            (0, f"{0.5:16.6g}", ["score"]),
            (2, f"{-1.25e-7:16.6e}", ["object", "contour", "score"]),
        ],
    )
    @pytest.mark.parametrize("ending", ["txt", "coords"])
    def test_model2point_is_told_by_its_fixed_columns(self, tmp_path, numbers, value, columns, ending):
        lines = [
            f"{7:6d}" * numbers + "".join(f"{v + s:12.2f}" for v, s in zip(p, (0.5, 0.5, 0), strict=True))
            for p in POINTS
        ]
        path = write_text(tmp_path / f"a.{ending}", "".join(f"{line}{value}\n" for line in lines))
        with pytest.warns(CetpickWarning, match="model2point"):
            record = read_one(path)
        assert record.xyz.tolist() == POINTS
        assert [name for name in record.table.columns if name not in ("x", "y", "z", "class")] == columns
        if value:
            assert record.table["score"].tolist() == [float(value)] * 3

    def test_rounded_model2point_is_told(self, tmp_path):
        path = write_text(tmp_path / "a.txt", "     22      8      3\n      5      2      9\n")
        with pytest.warns(CetpickWarning, match="rounded to whole voxels"):
            assert read_one(path).xyz.tolist() == [[21.5, 7.5, 3], [4.5, 1.5, 9]]

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("x,y,z\n1,2,a\n", "line 2: z is not a number"),
            ("x,y,z,score\n1,2,3,.5\n1,2,4,\n", "line 3: score is not a number\n.*\n.* or the column score"),
            ("x,y,z\n# more\n1,2,nan\n", "line 3: z is not a number"),
            ("x,y,z\n1,2,1_0\n", "line 2: z is not a number"),
            ("x,y,z\n1,2,3\n1,2\n", "line 3 does not fit"),
            ("x,y,z,x\n1,2,3,4\n", "same name"),
        ],
    )
    def test_problems_are_told_with_their_line(self, tmp_path, text, problem):
        with pytest.raises(InputError, match=problem):
            read_one(write_text(tmp_path / "a.csv", text))

    def test_a_name_that_is_not_the_tomograms_is_said(self, tmp_path):
        path = write_text(tmp_path / "a.csv", "tomogram,x,y,z\nTS_9,22,8,3\nTS_9,5,2,9\n")
        with pytest.warns(CetpickWarning, match="says that its points are of TS_9; they are taken for those of volume"):
            assert len(read_one(path)) == 2
        assert len(read_one(path, tomogram("TS_9"))) == 2  # without a word

    def test_a_layer_of_four_dimensions_is_refused(self, tmp_path):
        path = write_text(tmp_path / "a.csv", "index,axis-0,axis-1,axis-2,axis-3\n0,0.0,10,20,30\n")
        with pytest.raises(InputError, match="napari layer of four dimensions"):
            read_one(path)

    def test_only_a_header_is_no_points(self, tmp_path):
        assert len(read_one(write_text(tmp_path / "a.csv", "x,y,z,score\n"))) == 0

    def test_numbers_survive_in_full(self, tmp_path):
        table = points_table(np.array(POINTS) / 7, score=[1 / 3, 1e-9, 1e9], **{"class": ["a,b", "007", "nan"]})
        write_coordinates(tmp_path / "a.csv", [(None, table)])
        assert (tmp_path / "a.csv").read_text().startswith("x,y,z,score,class\n")
        (record,) = read_coordinates(tmp_path / "a.csv")
        pd.testing.assert_frame_equal(record.table, table[["x", "y", "z", "class", "score"]], check_dtype=False)


class TestEman2:
    def info(self, tmp_path, **content):
        return write_text(tmp_path / "volume_info.json", json.dumps(content))

    def test_boxes_count_unbinned_pixels_from_the_centre(self, tmp_path):
        path = self.info(tmp_path, apix_unbin=2.5, boxes_3d=[[-32, 4, 8, "manual", 0.5, 0]])
        record = read_one(path, tomogram(size=(31, 20, 12)))
        assert record.xyz.tolist() == [[15 - 8, 10 + 1, 6 + 2]]
        assert record.table["score"].tolist() == [0.5]
        with pytest.raises(InputError, match="--tomogram"):
            read_coordinates(path)

    def test_boxes_without_apix_unbin_are_voxels_and_may_be_short(self, tmp_path):
        classes = {"0": {"name": "ribosome", "boxsize": 32}, "1": "old"}
        boxes = [[22, 8, 3], [5, 2, 9, "tm", 0.25, 1, "extra"], [10.75, 10.25, 6.5, "manual", 0.5]]
        (record,) = read_coordinates(self.info(tmp_path, boxes_3d=boxes, class_list=classes))
        assert record.xyz.tolist() == POINTS
        assert record.table["class"].tolist() == ["ribosome", "old", "ribosome"]
        assert record.table["score"].tolist() == [0, 0.25, 0.5]

    def test_writing_keeps_every_other_key(self, tmp_path):
        kept = {"apix_unbin": 5.0, "tlt_params": [[1, 2.5]], "ali_loss": "array([1])", "bad": None}
        listed = {"3": {"name": "old", "boxsize": 99}}
        path = self.info(tmp_path, **kept, boxes_3d=[[1, 1, 1]], class_list=listed)
        table = points_table(POINTS[:2], **{"class": ["new", "old"]})
        write_coordinates(path, [(tomogram(), table)], radius=100.0)
        content = json.loads(path.read_text())
        assert {key: content[key] for key in kept} == kept
        assert content["class_list"] == {**listed, "4": {"name": "new", "boxsize": 60}}
        assert content["boxes_3d"] == [[14, -4, -6, "cetpick", 0, 4], [-20, -16, 6, "cetpick", 0, 3]]
        assert read_one(path).table["class"].tolist() == ["new", "old"]

    @pytest.mark.parametrize(
        "text",
        [
            "{",
            '{"a": 1}',
            '{"boxes_3d": 3}',
            '{"boxes_3d": [[1, 2]]}',
            '{"boxes_3d": [[1, 2, "a"]]}',
            '{"boxes_3d": [[1, 2, [3]]]}',
            '{"boxes_3d": [[1, 2, NaN]]}',
            '{"boxes_3d": [[1, 2, 1' + "0" * 400 + "]]}",
            '{"boxes_3d": [[1, 2, 3]], "apix_unbin": 0}',
            '{"boxes_3d": [[1, 2, 3]], "apix_unbin": "x"}',
            '{"boxes_3d": [[1, 2, 3]], "class_list": [1]}',
            '{"a":' * 100000,
            '{"a":' + "[" * 100000,
        ],
    )
    def test_other_and_broken_json(self, tmp_path, text):
        with pytest.raises(InputError):
            read_one(write_text(tmp_path / "volume_info.json", text))

    def test_a_project_where_not_all_are_boxed(self, tmp_path):
        (tmp_path / "info").mkdir()
        write_text(tmp_path / "info" / "project.json", '{"global.apix": 2.6}')
        bare = write_text(tmp_path / "info" / "b_info.json", '{"apix_unbin": 2.5, "tlt_params": [[0, 1]]}')
        tomograms = [tomogram("a"), tomogram("b")]
        with pytest.warns(CetpickWarning), pytest.raises(InputError, match="no file of the folder has labels"):
            pair_labels(tomograms, [tmp_path / "info"])
        assert len(read_one(bare)) == 0
        write_text(tmp_path / "info" / "a_info.json", '{"boxes_3d": [[4, 1, 1]]}')
        with pytest.warns(CetpickWarning) as caught:
            pairs = pair_labels(tomograms, [tmp_path / "info"])
        assert [info.name for info, _ in pairs] == ["a"]
        assert any(str(warning.message) == "tomograms without labels: b" for warning in caught)

    @pytest.mark.parametrize("text", ["[1, 2]", '{"pickable_object_name": "a", "points": []}'])
    def test_what_is_no_info_file_is_not_overwritten(self, tmp_path, text):
        path = write_text(tmp_path / "a.json", text)
        with pytest.raises(InputError, match="none of EMAN2's info files"):
            write_coordinates(path, [(tomogram(), points_table())])
        assert path.read_text() == text


class TestRecognising:
    @pytest.mark.parametrize(
        ("file", "name"),
        [
            ("imod/scattered.mod", "imod"),
            ("relion5_particles/particles_centered.star", "relion5"),
        ],
    )
    def test_by_content_not_by_name(self, tmp_path, file, name):
        (tmp_path / "a.txt").write_bytes((DATA / file).read_bytes())
        assert recognise(tmp_path / "a.txt").name == name

    @pytest.mark.parametrize(
        "content",
        [
            b"\n\n",
            b"hello world\n",
            b"1,2\n3,4\n",
            b"\x00\x01\x02" * 99,
            b"\x89PNG\r\n\x1a\n",
            "Å Å Å".encode("latin-1"),
        ],
    )
    def test_unknown_files_are_errors_that_list_the_formats(self, tmp_path, content):
        (tmp_path / "a.mod").write_bytes(content)
        with pytest.raises(InputError) as caught:
            read_coordinates(tmp_path / "a.mod")
        assert all(name in str(caught.value) for name in KNOWN)

    def test_an_empty_file(self, tmp_path):
        (tmp_path / "a.mod").write_bytes(b"")
        with pytest.raises(InputError, match="the file is empty"):
            read_coordinates(tmp_path / "a.mod")

    def test_a_tomogram_among_the_labels(self, tmp_path):
        (tmp_path / "a.mod").write_bytes(bytes(208) + b"MAP " + bytes(900))
        with pytest.raises(InputError, match="an MRC volume"):
            read_coordinates(tmp_path / "a.mod")

    def test_no_file_and_a_folder(self, tmp_path):
        for path in (tmp_path, tmp_path / "none.csv"):
            with pytest.raises(InputError, match="cannot be read"):
                read_coordinates(path)

    def test_long_files_may_be_cut_within_a_letter_or_line(self, tmp_path):
        rows = "".join(f"{x % 30},{x // 30 % 20},{x // 600},é{'é' * (x % 3)}\n" for x in range(8000))
        (tmp_path / "a.csv").write_text("x,y,z,note\n" + rows, encoding="utf-8")
        assert len(read_one(tmp_path / "a.csv", tomogram(size=(30, 20, 14)))) == 8000


class TestChecks:
    def test_duplicates_are_counted_and_left_out(self, tmp_path):
        path = write_text(tmp_path / "a.csv", "1,1,1,.9\n2,2,2,.8\n1,1,1,.7\n1.0001,1,1,.6\n")
        with pytest.warns(CetpickWarning, match=r"a.csv: 2 of 4 points are duplicates"):
            assert read_one(path).table["score"].tolist() == [0.9, 0.8]

    def test_particles_of_two_kinds_at_one_place_are_no_duplicates(self, tmp_path):
        path = write_text(tmp_path / "a.csv", "x,y,z,class\n1,1,1,ribosome\n1,1,1,membrane\n")
        assert len(read_one(path)) == 2

    def test_points_outside_are_counted_and_left_out(self, tmp_path):
        path = write_text(tmp_path / "a.csv", "1,1,1\n29.6,1,1\n1,1,40\n-0.5,19.4,11.49\n")
        with pytest.warns(CetpickWarning, match=r"2 of 4 points lie outside .* the farthest at \(1, 1, 40\)"):
            assert read_one(path).xyz.tolist() == [[1, 1, 1], [-0.5, 19.4, 11.49]]

    def test_all_outside_is_an_error_with_both_ranges(self, tmp_path):
        path = write_text(tmp_path / "a.csv", "1,1,100\n2,2,200\n")
        with pytest.raises(InputError) as caught:
            read_one(path)
        assert "(29.5, 19.5, 11.5)" in str(caught.value)
        assert "(1, 1, 100) to (2, 2, 200)" in str(caught.value)

    def test_rounding_at_the_edge_is_inside(self, tmp_path):
        record = read_one(write_text(tmp_path / "a.csv", "-0.5004,29.5,11.5\n"), tomogram(size=(30, 30, 12)))
        assert tomogram(size=(30, 30, 12)).grid.contains(record.xyz).all()


class TestWriting:
    def test_ending_chooses_the_format(self, tmp_path):
        names = {"a.mod": "imod", "a.json": "eman2", "a.csv": "table", "a.tsv": "table"}
        for file, name in names.items():
            write_coordinates(tmp_path / file, [(tomogram(), points_table(score=SCORES))])
            assert recognise(tmp_path / file).name == name
        for relion, label in ((True, "rlnCenteredCoordinateXAngst"), (False, "rlnMicrographName")):
            write_coordinates(tmp_path / "a.star", [(tomogram(relion=relion), points_table())])
            assert label in (tmp_path / "a.star").read_text()

    def test_what_a_format_cannot_hold_is_said(self, tmp_path):
        with pytest.warns(CetpickWarning, match=r"format coords cannot hold: score, class \(2 classes\); not"):
            write_coordinates(tmp_path / "a.coords", [(None, points_table(score=SCORES, **{"class": ["a", "b", "b"]}))])
        assert (tmp_path / "a.coords").read_text().splitlines()[2] == "10.750000 10.250000 6.500000"

    def test_what_a_format_needs_is_asked_for(self, tmp_path):
        for name in ("a.mod", "a.json", "a.star"):
            with pytest.raises(InputError, match="--tomogram"):
                write_coordinates(tmp_path / name, [(None, points_table())])
        with pytest.raises(InputError, match="holds one tomogram"):
            write_coordinates(tmp_path / "a.csv", [(None, points_table())] * 2)
        with pytest.raises(InputError, match="unknown coordinate format"):
            write_coordinates(tmp_path / "a.what", [(None, points_table())])
        with pytest.raises(InputError, match="unknown coordinate format spider"):
            write_coordinates(tmp_path / "a.csv", [(None, points_table())], format="spider")
        assert not list(tmp_path.iterdir())

    def test_our_model_is_that_of_point2model(self, tmp_path):
        write_coordinates(tmp_path / "a.mod", [(tomogram(), points_table(score=SCORES))], radius=50.0)
        ours, theirs = ((tmp_path / "a.mod").read_bytes(), (DATA / "imod" / "scattered_scores.mod").read_bytes())
        assert ours[:8] + ours[136:152] + ours[156:] == theirs[:8] + theirs[136:152] + theirs[156:]


@quiet
@pytest.mark.parametrize(
    "handler", [handler for handler in HANDLERS if handler.write], ids=lambda handler: handler.name
)
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.tuples(*[st.integers(1, 4096)] * 3),
    voxel_size=st.floats(0.1, 100),
    where=st.lists(st.tuples(*[st.floats(0, 1, exclude_max=True)] * 3), max_size=4, unique=True),
)
def test_write_read_within_the_declared_precision(tmp_path, handler, size, voxel_size, where):
    info = tomogram(voxel_size=voxel_size, size=size, relion=True)
    points = np.unique(np.round(np.reshape(where, (-1, 3)) * size, 2), axis=0) - 0.5
    path = tmp_path / f"volume{next(iter(handler.suffixes), '.txt')}"
    path.unlink(missing_ok=True)
    scores = np.arange(len(points)) / 4 + 0.25
    write_coordinates(path, [(info, points_table(points, score=scores))], format=handler.name)
    if not len(points) and handler.name in ("coords", "model2point", "portal", "dynamo"):
        assert not path.read_bytes()
        return
    records = read_coordinates(path, tomograms=[info])
    assert len(records) == (1 if len(points) or not handler.holds.several else 0)
    for record in records:
        np.testing.assert_allclose(record.xyz, points, atol=handler.holds.precision, rtol=0)
        if handler.holds.score and len(points):
            np.testing.assert_allclose(record.table["score"], scores)


class TestPairs:
    def test_in_order_when_files_name_no_tomogram(self, tmp_path):
        first = write_text(tmp_path / "one.csv", "1,1,1\n")
        second = write_text(tmp_path / "two.csv", "2,2,2\n")
        pairs = pair_labels([tomogram("a"), tomogram("b")], [first, second])
        assert [(info.name, labels.xyz.tolist()) for info, labels in pairs] == [("a", [[1, 1, 1]]), ("b", [[2, 2, 2]])]

    def test_in_order_when_tables_name_what_is_none_of_the_tomograms(self, tmp_path):
        files = [write_text(tmp_path / f"clicks{n}.csv", f"x,y,z,tomogram\n{n},2,3,run{n}\n") for n in (1, 2)]
        tomograms = [tomogram("TS_01"), tomogram("TS_02")]
        with pytest.warns(CetpickWarning, match="says that its points are of run"):
            pairs = pair_files(tomograms, files)
        assert [(info.name, record.xyz[0, 0]) for info, record in pairs] == [("TS_01", 1), ("TS_02", 2)]

    def test_order_against_names_is_said(self, tmp_path):
        files = [write_text(tmp_path / f"{name}.csv", "1,1,1\n") for name in "xa"]
        with pytest.warns(CetpickWarning, match="a.csv: taken as labels of tomogram b, .* named after a") as caught:
            pair_labels([tomogram("a"), tomogram("b")], files)
        assert len(caught) == 1

    def test_names_win_where_all_files_are_named_after_tomograms_of_their_own(self, tmp_path):
        tomograms = [tomogram("TS_9"), tomogram("TS_10")]
        files = [write_text(tmp_path / f"{info.name}.csv", f"{n},1,1\n") for n, info in enumerate(tomograms)]
        pairs = pair_labels(tomograms, files[::-1])
        assert [(info.name, labels.xyz[0, 0]) for info, labels in pairs] == [("TS_9", 0), ("TS_10", 1)]

    def test_folder_by_name(self, tmp_path):
        tomograms = [tomogram(name) for name in ("TS_01", "007", "nan", "t__bin4", "x_picks")]
        files = ("rec_TS_01_labels.csv", "007.mrc_particles.coords", "nan.tsv", "x_picks.csv")
        for number, name in enumerate(files):
            write_text(tmp_path / "labels" / name, f"{number} 1 1\n")
        write_text(tmp_path / "labels" / "t_info.json", '{"boxes_3d": [[4, 1, 1]]}')
        write_text(tmp_path / "labels" / "notes.md", "not labels")
        pairs = pair_labels(tomograms, [tmp_path / "labels"])
        assert [info.name for info, _ in pairs] == [info.name for info in tomograms]
        assert [labels.xyz[0, 0] for _, labels in pairs] == [0, 1, 2, 4, 3]

    def test_one_star_for_many(self, tmp_path):
        tomograms = [tomogram(name, relion=True) for name in ("TS_01", "TS_02")]
        write_coordinates(tmp_path / "p.star", [(info, points_table()) for info in tomograms])
        pairs = pair_labels(tomograms[::-1], [tmp_path / "p.star"])
        assert [info.name for info, _ in pairs] == ["TS_02", "TS_01"]
        np.testing.assert_allclose(pairs[0][1].xyz, POINTS)

    def test_what_has_no_partner_is_named(self, tmp_path):
        for name in ("a", "c"):
            write_text(tmp_path / "labels" / f"{name}.csv", "1,1,1\n")
        write_text(tmp_path / "labels" / "README.txt", "See the paper.\n")
        write_text(tmp_path / "labels" / "notes.json", '{"who": "me"}')
        with pytest.warns(CetpickWarning) as caught:
            pairs = pair_labels([tomogram("a"), tomogram("b")], [tmp_path / "labels"])
        assert [info.name for info, _ in pairs] == ["a"]
        messages = [str(warning.message) for warning in caught]
        assert any(message.startswith("labels without tomogram") and "c.csv" in message for message in messages)
        assert any("README.txt: left out" in message for message in messages)
        assert any("notes.json: left out" in message for message in messages)
        assert any(message == "tomograms without labels: b" for message in messages)

    def test_nothing_pairs(self, tmp_path):
        write_text(tmp_path / "labels" / "c.csv", "1,1,1\n")
        with pytest.raises(InputError, match="no labels belong") as caught:
            pair_labels([tomogram("a"), tomogram("b")], [tmp_path / "labels"])
        assert "c.csv" in str(caught.value)
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match="holds no coordinate files"):
            pair_labels([tomogram("a")], [tmp_path / "empty"])

    def test_named_file_without_partner_is_no_small_matter(self, tmp_path):
        """Unlike one in a folder: its labels would be missed in the training."""
        tomograms = [tomogram(f"TS_04{number}") for number in (0, 1, 2)]
        clicks = write_text(tmp_path / "clicks_041.csv", "1,1,1\n")
        (tmp_path / "more").mkdir()
        first = write_text(tmp_path / "more" / "TS_040.csv", "1,1,1\n")
        with pytest.raises(InputError) as caught:
            pair_labels(tomograms, [clicks, first], several=True)
        error = caught.value
        assert (error.problem, error.file) == ("these labels belong to none of the tomograms", clicks)
        assert error.expected == "a file named after one of TS_040, TS_041, TS_042"
        assert error.cure == f"rename it after its tomogram (`cp {clicks} {tmp_path / 'TS_041.csv'}`)"
        with pytest.raises(InputError, match=r"cure: rename it .*, or give as many files as tomograms, in the same"):
            pair_labels(tomograms, [clicks, write_text(tmp_path / "x.csv", "2,2,2\n")])
        with pytest.warns(CetpickWarning, match="labels without tomogram, left out: .*clicks_041.csv"):
            pairs = pair_files(tomograms, [clicks, first], needed=False)
        assert [info.name for info, _ in pairs] == ["TS_040"]

    def test_cure_for_the_labels_of_one_tomogram(self, tmp_path):
        tomograms = [tomogram(f"TS_04{number}") for number in (0, 1, 2)]
        for name, meant in (("clicks_041.csv", "TS_041"), ("clicks.csv", "TOMOGRAM")):
            clicks = write_text(tmp_path / name, "1,1,1\n")
            with pytest.raises(InputError, match="no labels belong") as caught:
                pair_labels(tomograms, [clicks], option="--train")
            path = next((info.path for info in tomograms if info.name == meant), meant)
            copy = f"`cp {clicks} {tmp_path / meant}.csv`"
            assert caught.value.cure == (
                f"name its tomogram alone: `--train {path}`; or rename it after its tomogram ({copy})"
            )

    @quiet
    def test_named_star_without_points_here(self, tmp_path):
        write_coordinates(tmp_path / "p.star", [(tomogram("other"), points_table())])
        mine = write_text(tmp_path / "a.csv", "1,1,1\n")
        with pytest.raises(
            InputError, match=r"p.star: these labels belong to none[\s\S]*cure: name its tomograms, too"
        ):
            pair_labels([tomogram("a"), tomogram("b")], [mine, tmp_path / "p.star"])

    @quiet
    def test_star_of_other_tomograms(self, tmp_path):
        write_coordinates(tmp_path / "p.star", [(tomogram("other"), points_table())])
        with pytest.raises(InputError, match=r"no labels belong .*\n.*a\n.*p.star"):
            pair_labels([tomogram("a")], [tmp_path / "p.star"])

    def test_two_files_for_one_tomogram(self, tmp_path):
        for name in ("a.csv", "a_picks.csv"):
            write_text(tmp_path / "labels" / name, "1,1,1\n")
        with pytest.raises(InputError, match="second file with labels of tomogram a"):
            pair_labels([tomogram("a"), tomogram("b")], [tmp_path / "labels"])


def test_file_without_a_name_among_several_tomograms(tmp_path):
    path = write_text(tmp_path / "b.csv", "1,1,1\n")
    (record,) = read_coordinates(path, tomograms=[tomogram("a"), tomogram("b")])
    assert record.tomogram == "b"
    with pytest.raises(InputError, match="not clear"):
        read_coordinates(path, tomograms=[tomogram("a"), tomogram("c")])


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """A file of each format, by its ending."""
    folder = tmp_path_factory.mktemp("samples")
    info = tomogram(relion=True)
    for ending in (".mod", ".star", ".json", ".csv"):
        write_coordinates(folder / f"volume{ending}", [(info, points_table(score=SCORES))], radius=50.0)
    return {file.suffix: file.read_bytes() for file in folder.iterdir()}


@quiet
@pytest.mark.parametrize("ending", [".mod", ".star", ".json", ".csv"])
@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.floats(0, 1, exclude_max=True), max_size=5), end=st.floats(0, 1))
def test_damaged_files_are_read_or_refused_at_once(tmp_path, samples, ending, flips, end):
    data = bytearray(samples[ending])
    for flip in flips:
        bit = int(flip * 8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
    path = tmp_path / f"volume{ending}"
    path.write_bytes(data[: round(end * len(data))])
    start = time.perf_counter()
    with contextlib.suppress(InputError):
        read_coordinates(path, tomograms=[tomogram(relion=True)])
    assert time.perf_counter() - start < 2


@quiet
@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.one_of(st.binary(max_size=300), st.text(max_size=100).map(str.encode)),
    start=st.sampled_from([b"", b"IMODV1.2", b"data_\nloop_\n", b"{", b"x,y,z\n", b"1 2 3\n"]),
)
def test_random_files_are_read_or_refused(tmp_path, data, start):
    path = tmp_path / "volume.csv"
    path.write_bytes(start + data)
    with contextlib.suppress(InputError):
        read_coordinates(path, tomograms=[tomogram(relion=True)])
