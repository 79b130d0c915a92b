"""Every format by hand, within its declared precision, composed with the others, and damaged."""

import contextlib
import itertools
import json
import struct
import time
import tracemalloc
import warnings
from pathlib import Path

import imodmodel
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cetpick.errors import CetpickWarning, InputError
from cetpick.geometry import angles_to_matrices, convert_angles
from cetpick.io.coordinates import read_coordinates, write_coordinates
from cetpick.io.formats import HANDLERS, cannot_hold, recognise
from cetpick.io.handler import Item
from cetpick.io.imod import read_mod
from cetpick.records import ANGLES, Grid, RelionTomogram, TomogramInfo

DATA = Path(__file__).parent / "data"
POINTS = [[22.0, 8.0, 3.0], [5.0, 2.0, 9.0], [10.75, 10.25, 6.5]]
WRITTEN = {handler.name: handler for handler in HANDLERS if handler.write}
ANGLED = [name for name, handler in WRITTEN.items() if handler.holds.angles]

quiet = pytest.mark.filterwarnings("ignore::cetpick.errors.CetpickWarning")
property_test = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def tomogram(name="volume", *, voxel_size=10.0, size=(30, 20, 12), binning=2.0):
    unbinned = tuple(binning * n for n in size)
    return TomogramInfo(
        name=name,
        path=Path(f"{name}.mrc"),
        grid=Grid(shape=size[::-1], voxel_size=voxel_size),
        header_voxel_size=voxel_size,
        relion=RelionTomogram(
            name=name, pixel_size=voxel_size / binning, binning=binning, size=unbinned, star=Path("t")
        ),
    )


def points_table(points=POINTS, **columns):
    return pd.DataFrame(np.array(points, dtype=float).reshape(-1, 3), columns=["x", "y", "z"]).assign(**columns)


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def one(path, *tomograms, **options):
    (record,) = read_coordinates(path, tomograms=tomograms or [tomogram()], **options)
    return record


def suffix(name):
    return next(iter(WRITTEN[name].suffixes), ".txt")


def matrices(table):
    return angles_to_matrices(table[ANGLES].to_numpy())


class TestByHand:
    def test_dynamo(self, tmp_path):
        row = [0.0] * 35
        row[3:6], row[6:9], row[9] = [0.5, 0, -1], [-47.2730, 1.1777, -132.3], 0.25
        row[19], row[21], row[23:26] = 7, 3, [22, 8, 3]
        path = written(tmp_path / "a.tbl", " ".join(map(str, row)) + "\n")
        record = one(path)
        assert record.xyz.tolist() == [[22.5, 8, 2]]
        assert record.table["score"].tolist() == [0.25]
        assert record.table["class"].tolist() == ["3"]
        # The pair of equal reconstructions of eulerangles' tests.
        np.testing.assert_allclose(record.table[ANGLES], [[137.7, 1.1777, 42.727]], atol=1e-6)

    def test_dynamo_numbers_are_named_by_the_doc_file(self, tmp_path):
        rows = np.zeros((2, 35))
        rows[:, 19], rows[:, 23:26] = [2, 1], POINTS[:2]
        np.savetxt(tmp_path / "a.tbl", rows)
        written(tmp_path / "a.doc", "1 somewhere/TS_a.mrc\n2\tTS_b.mrc\n")
        assert {r.tomogram: r.xyz.tolist() for r in read_coordinates(tmp_path / "a.tbl")} == {
            "TS_a": [POINTS[1]],
            "TS_b": [POINTS[0]],
        }
        with pytest.warns(CetpickWarning, match=r"left out: 1 \(somewhere/TS_a.mrc\)"):
            assert one(tmp_path / "a.tbl", tomogram("TS_b"), tomogram("TS_c")).xyz.tolist() == [POINTS[0]]
        (tmp_path / "a.doc").unlink()
        assert [record.tomogram for record in read_coordinates(tmp_path / "a.tbl")] == ["2", "1"]
        with pytest.raises(InputError, match=r"(?s)not clear which is which.*a.doc"):
            read_coordinates(tmp_path / "a.tbl", tomograms=[tomogram("TS_b"), tomogram("TS_c")])
        with pytest.warns(CetpickWarning, match="number at the end of their names: 1 = TS_01, 2 = TS_02"):
            named = read_coordinates(tmp_path / "a.tbl", tomograms=[tomogram("TS_01"), tomogram("TS_02")])
        assert [record.tomogram for record in named] == ["TS_02", "TS_01"]

    def test_motive_list_of_the_bytes(self, tmp_path):
        values = np.zeros((2, 20), dtype="<f4")
        values[:, 0], values[:, 4], values[:, 19] = [0.5, 0.25], 1, 1
        values[:, 7:10], values[:, 10:13] = np.array(POINTS[:2]) + 1, [[0, 0, 0], [0.5, 0, 0]]
        values[:, 16:19] = [[10, 20, 30], [40, 50, 60]]  # phi, psi, theta
        header = bytes([6, 0, 0, 5]) + struct.pack("<3i", 20, 2, 1) + bytes(496)
        path = tmp_path / "motl.em"
        path.write_bytes(header + values.tobytes())
        record = one(path)
        assert record.xyz.tolist() == [[22, 8, 3], [5.5, 2, 9]]
        assert record.table["score"].tolist() == [0.5, 0.25]
        assert set(record.table["class"]) == {"particle"}
        expected = convert_angles([[10, 30, 20], [40, 60, 50]], source="tom", target="relion")
        np.testing.assert_allclose(record.table[ANGLES], expected, atol=1e-4)
        for size in (511, 512 + 159, 512 + 161):
            path.write_bytes((header + values.tobytes() + b"x")[:size])
            with pytest.raises(InputError, match=r"cut off or damaged|no coordinate file"):
                one(path)
        path.write_bytes(header[:8] + struct.pack("<i", 2**31 - 1) + header[12:])
        with pytest.raises(InputError, match="cut off or damaged"):
            one(path)

    def test_stopgap(self, tmp_path):
        labels = "motl_idx tomo_num object subtomo_num halfset orig_x orig_y orig_z score x_shift y_shift z_shift "
        labels += "phi psi the class"
        head = "\n".join(["", "data_stopgap_motivelist", "", "loop_", *(f"_{label}" for label in labels.split())])
        path = written(
            tmp_path / "a.star", f"{head}\n1 1 1 1 A 23 9 4 0.5 1 0 0 10 20 30 2\n2 1 1 2 B 6 3 10 0 0 0 0 0 0 0 1\n"
        )
        record = one(path)
        assert record.xyz.tolist() == [[23, 8, 3], POINTS[1]]
        assert record.table["class"].tolist() == ["2", "1"]
        expected = convert_angles([[10, 30, 20]], source="tom", target="relion")
        np.testing.assert_allclose(record.table[ANGLES].iloc[:1], expected)

    def test_pytom(self, tmp_path):
        particle = (
            '<Particle Filename="p"><Rotation Z1="10" Z2="20" X="30" Paradigm="ZXZ"/>'
            '<PickPosition X="22.0" Y="8" Z="3" Origin="{}" Binning="1"/><Wedge><Rotation Z1="99"/></Wedge>'
            '<Score Value="0.5"/><Class Name="{}"/></Particle>'
        )
        text = "".join(particle.format(*names) for names in (("TS_1.tomostar", "a"), ("TS_2.tomostar", "b")))
        path = written(tmp_path / "a.xml", f"<!-- PyTom -->\n<ParticleList>{text}</ParticleList>")
        first, second = read_coordinates(path)
        assert (first.tomogram, second.tomogram) == ("TS_1", "TS_2")
        assert first.xyz.tolist() == [POINTS[0]]
        assert first.table["score"].tolist() == [0.5]
        assert second.table["class"].tolist() == ["b"]
        expected = convert_angles([[10, 30, 20]], source="tom", target="relion")
        np.testing.assert_allclose(first.table[ANGLES], expected)
        with pytest.warns(CetpickWarning, match="left out: TS_1.tomostar"):
            assert one(path, tomogram("TS_2"), tomogram("TS_3")).tomogram == "TS_2"

    def test_copick(self, tmp_path):
        turned = [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
        point = {"location": {"x": 220.0, "y": 80, "z": 30}, "transformation_": turned, "score": 0.5}
        content = {
            "pickable_object_name": "ribosome", "user_id": "u", "session_id": "1", "run_name": "TS_1",
            "voxel_spacing": 5.0, "unit": "angstrom", "trust_orientation": True, "points": [point],
        }  # fmt: skip
        path = written(tmp_path / "u_1_ribosome.json", json.dumps(content))
        assert recognise(path).name == "copick"
        (record,) = read_coordinates(path)
        assert record.xyz.tolist() == [[44, 16, 6]]
        assert (record.tomogram, record.voxel_size) == ("TS_1", 5)
        assert record.table[["class", "score"]].to_numpy().tolist() == [["ribosome", 0.5]]
        # x of the reference points along y of the tomogram.
        np.testing.assert_allclose(matrices(record.table)[0] @ [1, 0, 0], [0, 1, 0], atol=1e-12)
        assert one(path, tomogram("TS_1"), tomogram("TS_2")).xyz.tolist() == [[22, 8, 3]]
        with pytest.warns(CetpickWarning, match="TS_1 is taken as tomogram volume"):
            one(path)
        content["trust_orientation"] = False
        (record,) = read_coordinates(written(path, json.dumps(content)))
        assert ANGLES[0] not in record.table

    def test_copick_of_several_classes_claims_none(self, tmp_path):
        table = points_table(POINTS[:2]).assign(**{"class": ["ribosome", "apoferritin"]})
        with pytest.warns(CetpickWarning, match=r"class \(2 classes\)"):
            write_coordinates(tmp_path / "a.json", [(tomogram(), table)], format="copick")
        assert json.loads((tmp_path / "a.json").read_text())["pickable_object_name"] == "particle"

    def test_portal(self, tmp_path):
        lines = [
            {"type": "orientedPoint", "location": {"x": 22, "y": 8, "z": 3}, "xyz_rotation_matrix": np.eye(3).tolist()},
            {
                "type": "orientedPoint",
                "location": {"x": 5, "y": 2, "z": 9},
                "xyz_rotation_matrix": [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
            },
        ]
        path = written(tmp_path / "a.ndjson", "\n".join(map(json.dumps, lines)))
        record = one(path)
        assert record.xyz.tolist() == POINTS[:2]
        np.testing.assert_allclose(matrices(record.table)[1] @ [1, 0, 0], [0, 1, 0], atol=1e-12)
        one_line = written(
            tmp_path / "b.ndjson", '{"type": "instancePoint", "location": {"x": 1, "y": 1, "z": 1}, "instance_id": 4}'
        )
        assert one(one_line).table["instance_id"].tolist() == [4]
        mirror = json.dumps(lines[1]).replace("-1", "1")
        with pytest.raises(InputError, match="rotation matrix"):
            one(written(path, mirror))

    def test_cbox(self, tmp_path):
        text = (
            "data_global\n\n_cbox_format_version 1.0\n\ndata_cryolo\n\nloop_\n_CoordinateX #1\n_CoordinateY #2\n"
            "_CoordinateZ #3\n_Width #4\n_Height #5\n_Depth #6\n_Confidence #7\n_NumBoxes\n10 3 3 24 10 8 0.5 <NA>\n"
        )
        record = one(written(tmp_path / "a.cbox", text))
        assert record.xyz.tolist() == [[22, 8, 3]]
        assert record.table["score"].tolist() == [0.5]
        unscored = one(written(tmp_path / "a.cbox", text.replace("0.5 <NA>", "nan <NA>")))
        assert "score" not in unscored.table
        with pytest.raises(InputError, match="no z"):
            one(written(tmp_path / "a.cbox", text.replace("10 3 3", "10 3 <NA>")))
        with pytest.raises(InputError, match=r"(?s)width of its boxes.*--voxel-size"):
            write_coordinates(tmp_path / "b.cbox", [(None, points_table())], radius=100.0)

    def test_boxes_of_images_need_a_section(self, tmp_path):
        path = written(tmp_path / "a.box", "6\t-8\t33\t32\t-3\n-11\t-14\t32\t32\n")
        with pytest.raises(InputError, match="--z"):
            one(path)
        assert one(path, z=4).xyz.tolist() == [[22, 8, 4], [5, 2, 4]]
        with pytest.raises(InputError, match="only read"):
            write_coordinates(tmp_path / "b.box", [(None, points_table())])

    def test_import_list_of_relion(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        written(tmp_path / "a.coords", "44 16 6\n10 4 18\n")
        written(tmp_path / "b.coords", "44 16 6 10 20 30\n")
        path = written(
            tmp_path / "list.star",
            "data_\nloop_\n_rlnTomoName\n_rlnTomoImportParticleFile\nTS_1 a.coords\nTS_2 b.coords\n",
        )
        first, second = read_coordinates(path, tomograms=[tomogram("TS_1"), tomogram("TS_2")])
        assert first.xyz.tolist() == POINTS[:2]
        assert second.xyz.tolist() == POINTS[:1]
        np.testing.assert_allclose(second.table[ANGLES], [[10, 20, 30]])
        (tmp_path / "b.coords").write_text("44 16\n")
        with pytest.raises(InputError, match="row 1 does not fit"):
            read_coordinates(path, tomograms=[tomogram("TS_1")])

    def test_annotation_of_relion_is_named_by_its_file(self, tmp_path):
        (tmp_path / "annotations").mkdir()
        loop = "data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n22 8 3\n"
        path = written(tmp_path / "annotations" / "TS_2_particles.star", loop)
        assert one(path, tomogram("TS_1"), tomogram("TS_2")).tomogram == "TS_2"
        assert one(path, tomogram("TS_1"), tomogram("TS_2")).xyz.tolist() == [POINTS[0]]

    def test_subtomogram_and_particle_angles_of_relion_are_composed(self, tmp_path):
        labels = ["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"]
        labels += [f"rln{kind}{angle}" for kind in ("TomoSubtomogram", "Angle") for angle in ("Rot", "Tilt", "Psi")]
        head = "data_\nloop_\n" + "".join(f"_{label}\n" for label in labels)
        record = one(written(tmp_path / "a.star", f"{head}volume.mrc 1 1 1 10 20 30 40 50 60\n"))
        outer, inner = angles_to_matrices([[10, 20, 30], [40, 50, 60]])
        np.testing.assert_allclose(matrices(record.table)[0], outer @ inner, atol=1e-12)


class TestFilesOfOtherPrograms:
    def test_dynamo(self):
        record = one(DATA / "dynamo" / "complex.tbl", tomogram("tomo_ts01.mrc_15.00Apx", size=(1200, 1000, 800)))
        assert len(record) == 40
        np.testing.assert_allclose(record.xyz[0], [1018.9 - 1.4197, 759.36 + 0.57826, 641.59 + 1.5785])
        records = read_coordinates(DATA / "dynamo" / "double.tbl")
        assert sum(map(len, records)) == 20
        assert records[0].tomogram == "1"

    @pytest.mark.parametrize("path", sorted((DATA / "imodmodel").glob("*.mod")), ids=lambda path: path.stem)
    def test_models_are_read_as_imodmodel_does(self, path, tmp_path):
        theirs = imodmodel.read(path)[["x", "y", "z"]].to_numpy()
        ours = np.concatenate([contour.points for item in read_mod(path).objects for contour in item.contours])
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
        data = path.read_bytes()
        for end in np.linspace(1, len(data) - 1, 20).astype(int):
            (tmp_path / "cut.mod").write_bytes(data[:end])
            start = time.process_time()
            with pytest.raises(InputError):
                read_coordinates(tmp_path / "cut.mod")
            assert time.process_time() - start < 0.5

    def test_imodmodel_reads_our_models(self, tmp_path):
        write_coordinates(tmp_path / "a.mod", [(tomogram(), points_table(score=[1.0, 2, 3]))])
        theirs = imodmodel.read(tmp_path / "a.mod")[["x", "y", "z"]].to_numpy()
        np.testing.assert_allclose(theirs - [0.5, 0.5, 0], POINTS)


class TestLosses:
    def test_named_in_full(self):
        table = points_table(score=1.0, note="n", rot=1.0, tilt=2.0, psi=3.0, **{"class": ["a", "b", "b"]})
        lost = {name: cannot_hold(handler, [Item(table=table)], voxel_size=10) for name, handler in WRITTEN.items()}
        assert lost["coords"] == ["score", "class (2 classes)", "angles", "voxel size (10 A)", "column note"]
        assert lost["dynamo"] == ["names of classes (a = 1, b = 2)", "voxel size (10 A)", "column note"]
        assert lost["table"] == ["voxel size (10 A)"]
        assert lost["copick"] == ["class (2 classes)", "column note"]
        assert lost["imod"] == ["angles", "column note"]

    def test_what_only_some_points_have(self):
        with_score = Item(table=points_table(score=[1.0, np.nan, 2.0]))
        assert cannot_hold(WRITTEN["relion31"], [with_score]) == ["score (2 of 3 points have one)"]
        angles = Item(table=points_table(rot=1.0, tilt=2.0, psi=3.0))
        lost = cannot_hold(WRITTEN["pytom"], [angles, Item(table=points_table())])
        assert lost == ["angles (3 of 6 points have them)"]
        assert cannot_hold(WRITTEN["relion31"], [Item(table=points_table(rot=1.0))]) == ["column rot"]

    def test_classes_of_numbers_may_be_negative(self, tmp_path):
        table = points_table(**{"class": ["-1", "2", "0"]})
        write_coordinates(tmp_path / "volume.em", [(tomogram(), table)])
        assert one(tmp_path / "volume.em").table["class"].tolist() == ["-1", "2", "0"]

    @quiet
    def test_a_default_class_among_others_keeps_its_name(self, tmp_path):
        table = points_table(**{"class": ["particle", "a", "a"]})
        write_coordinates(tmp_path / "volume.xml", [(tomogram(), table)])
        assert one(tmp_path / "volume.xml").table["class"].tolist() == ["particle", "a", "a"]
        with pytest.raises(InputError, match="XML cannot hold"):
            write_coordinates(tmp_path / "b.xml", [(tomogram(), points_table(**{"class": "a\x01"}))])

    def test_nothing_to_lose(self):
        table = points_table(object=1, contour=[1, 1, 1], **{"class": "particle"})
        assert not any(cannot_hold(handler, [Item(table=table)]) for handler in WRITTEN.values())
        contours = points_table(contour=[1, 1, 2])
        assert cannot_hold(WRITTEN["coords"], [Item(table=contours)]) == ["column contour"]

    def test_objects_that_are_the_classes(self):
        table = points_table(object=[1, 2, 2], **{"class": ["a", "b", "b"]})
        assert cannot_hold(WRITTEN["imod"], [Item(table=table)]) == []
        assert cannot_hold(WRITTEN["coords"], [Item(table=table)]) == ["class (2 classes)", "column object"]
        for objects in ([1, 2, 3], [1, 1, 2]):
            assert cannot_hold(WRITTEN["imod"], [Item(table=table.assign(object=objects))]) == ["column object"]

    def test_names_of_classes_that_imod_cuts(self):
        table = points_table(**{"class": ["n" * 63, "n" * 63 + "1", "n" * 63 + "2"]})
        lost = ["the ends of names of classes (more than 63 bytes)"]
        assert cannot_hold(WRITTEN["imod"], [Item(table=table)]) == lost
        assert cannot_hold(WRITTEN["imod"], [Item(table=table.head(1))]) == []
        assert cannot_hold(WRITTEN["pytom"], [Item(table=table)]) == []

    @quiet
    @pytest.mark.parametrize("name", WRITTEN)
    def test_what_a_format_holds_comes_back(self, tmp_path, name):
        holds = WRITTEN[name].holds
        table = points_table()
        if holds.score:
            table["score"] = [0.25, 0.5, 0.75]
        if holds.classes in ("numbers", "names"):
            table["class"] = ["2", "5", "2"] if holds.classes == "numbers" else ["nan", "007", "ø b"]
        elif holds.classes == "one":
            table["class"] = "ribosome"
        if holds.angles:
            table[ANGLES] = [[10.0, 20, 30], [40, 50, 60], [0, 0, 0]]
        for column in holds.columns or ():
            table[column] = [3, 4, 5]
        assert not cannot_hold(WRITTEN[name], [Item(table=table)])
        write_coordinates(tmp_path / f"volume{suffix(name)}", [(tomogram(), table)], format=name)
        back = one(tmp_path / f"volume{suffix(name)}").table
        assert set(table.columns) <= set(back.columns)
        if "class" in table:
            assert back["class"].tolist() == table["class"].tolist()
        if "score" in table:
            np.testing.assert_allclose(back["score"], table["score"])
        if holds.angles:
            np.testing.assert_allclose(matrices(back), matrices(table), atol=1e-6)
        for column in holds.columns or ():
            assert back[column].tolist() == [3, 4, 5]


names = st.one_of(
    st.sampled_from(["007", "nan", "TS_01.mrc", "TS_7", "rec_1", "Ångström", "断層1", "a__b", "1"]),
    st.text(st.characters(categories=["Ll", "Lu", "Nd"]), min_size=1, max_size=12),
)
fields = st.lists(
    st.lists(st.tuples(*[st.floats(0, 1, exclude_max=True)] * 3), min_size=1, max_size=3), min_size=1, max_size=4
)
grids = {"size": st.tuples(*[st.integers(1, 10_000)] * 3), "voxel_size": st.floats(0.5, 50), "binning": st.floats(1, 9)}
euler = st.tuples(st.floats(-180, 180), st.floats(0, 180), st.floats(-180, 180))


def test_a_table_of_several_tomograms_is_not_taken_for_one(tmp_path):
    file = written(tmp_path / "many.csv", "tomogram,x,y,z\nvolume,1,2,3\n007,4,5,6\n")
    with pytest.warns(CetpickWarning, match="left out: 007"):
        assert one(file).xyz.tolist() == [[1, 2, 3]]
    with pytest.warns(CetpickWarning, match="left out: volume, 007"):
        assert read_coordinates(file, tomograms=[tomogram("other")]) == []
    for tomograms in ([], [tomogram("007"), tomogram("volume")]):
        records = read_coordinates(file, tomograms=tomograms)
        found = {record.tomogram: record.xyz.tolist() for record in records}
        assert found == {"volume": [[1, 2, 3]], "007": [[4, 5, 6]]}
    items = [(info, record.table) for info, record in zip(map(tomogram, found), records, strict=True)]
    write_coordinates(tmp_path / "many.star", items)  # a STAR file holds the names, so that nothing is lost


def test_a_table_of_one_tomogram_among_several(tmp_path):
    tomograms = [tomogram("TS_01"), tomogram("TS_02")]
    file = written(tmp_path / "labels.csv", "x,y,z,tomogram\n1,2,3,rec_TS_02.mrc\n")
    assert one(file, *tomograms).tomogram == "TS_02"
    file = written(tmp_path / "TS_01.csv", "x,y,z,tomogram\n1,2,3,elsewhere\n")
    with pytest.warns(CetpickWarning, match="points are of elsewhere; they are taken for those of TS_01"):
        assert one(file, *tomograms).tomogram == "TS_01"


def test_tables_of_napari_and_copick(tmp_path):
    file = written(tmp_path / "napari.csv", "index,axis-0,axis-1,axis-2\n0.0,3.0,2.0,1.0\n")
    assert one(file).xyz.tolist() == [[1, 2, 3]]
    file = written(tmp_path / "copick.csv", "run_name,x,y,z,transform_00\nvolume,10,20,30,1\n")
    assert one(file).xyz.tolist() == [[1, 2, 3]]
    with pytest.raises(InputError, match="angstrom, and the voxel size is not known"):
        read_coordinates(file)
    write_coordinates(tmp_path / "voxels.csv", [(tomogram(), one(file).table)])
    assert one(tmp_path / "voxels.csv").xyz.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("name", ["dynamo", "motl"])
def test_the_list_of_tomograms_is_not_written_over_the_table(tmp_path, name):
    with pytest.raises(InputError, match=r"a.doc: .doc is the ending of the list"):
        write_coordinates(tmp_path / "a.doc", [(tomogram(), points_table())], format=name)
    assert list(tmp_path.iterdir()) == []


def test_a_tab_at_the_end_of_a_line_stands_beside_an_empty_value(tmp_path):
    file = written(tmp_path / "a.tsv", "x\ty\tz\tnote\n1\t2\t3\t\n4\t5\t6\tgood\n")
    assert one(file).xyz.tolist() == [[1, 2, 3], [4, 5, 6]]


def in_volume(where, size):
    """Points that stay apart when they are rounded to what the coarsest format holds."""
    inside = np.clip(np.round(np.array(where) * size, 1), 0, np.array(size) - 0.1)
    return np.unique(inside, axis=0) - 0.5


def named_apart(found):
    """Names that mean different tomograms."""
    return len({name.removeprefix("rec_").removesuffix(".mrc").casefold() for name in found}) == len(found)


@quiet
@pytest.mark.parametrize("name", WRITTEN)
@property_test
@given(labels=st.lists(names, min_size=4, max_size=4).filter(named_apart), fields=fields, **grids)
def test_any_tomograms_come_back_within_the_declared_precision(
    tmp_path, name, labels, fields, size, voxel_size, binning
):
    handler = WRITTEN[name]
    fields = fields if handler.holds.several else fields[:1]
    infos = [
        tomogram(label, size=size, voxel_size=voxel_size, binning=binning)
        for label, _ in zip(labels, fields, strict=False)
    ]
    items = [(info, points_table(in_volume(where, size))) for info, where in zip(infos, fields, strict=True)]
    path = tmp_path / (f"all{suffix(name)}" if handler.holds.tomogram else f"{labels[0]}{suffix(name)}")
    write_coordinates(path, items, format=name)
    records = {record.tomogram: record for record in read_coordinates(path, tomograms=infos)}
    assert set(records) == {info.name for info in infos}
    for info, table in items:
        assert records[info.name].voxel_size == voxel_size
        difference = np.abs(records[info.name].xyz - table.to_numpy())
        assert difference.max() <= handler.holds.precision


@quiet
@pytest.mark.parametrize(("first", "second"), list(itertools.pairwise([*WRITTEN, next(iter(WRITTEN))])))
@property_test
@given(where=st.lists(st.tuples(*[st.floats(0, 1, exclude_max=True)] * 3), min_size=1, max_size=3), **grids)
def test_conversions_compose(tmp_path, first, second, where, size, voxel_size, binning):
    info = tomogram(size=size, voxel_size=voxel_size, binning=binning)
    points = in_volume(where, size)
    table = points_table(points)
    for step, name in enumerate((first, second)):
        path = tmp_path / f"volume{step}" / f"volume{suffix(name)}"
        write_coordinates(path, [(info, table)], format=name)
        table = one(path, info).table
    allowed = sum(WRITTEN[name].holds.precision for name in (first, second))
    assert np.abs(table[["x", "y", "z"]].to_numpy() - points).max() <= allowed


@quiet
@pytest.mark.parametrize(("first", "second"), list(itertools.product(ANGLED, ANGLED)))
def test_orientations_are_the_same_in_all_formats(tmp_path, first, second):
    rng = np.random.default_rng(0)
    points = np.stack(np.meshgrid([1, 2, 3], [4, 5, 6], [7]), axis=-1).reshape(-1, 3)
    angles = [[0, 0, 0], [10, 0, 20], [10, 180, 20], *rng.uniform((-180, 0, -180), (180, 180, 180), (6, 3))]
    table = points_table(points)
    table[ANGLES] = np.array(angles, dtype=float)
    expected = matrices(table)
    for step, name in enumerate((first, second)):
        path = tmp_path / f"{step}" / f"volume{suffix(name)}"
        write_coordinates(path, [(tomogram(), table)], format=name)
        table = one(path).table
        turned = np.trace(expected.transpose(0, 2, 1) @ matrices(table), axis1=1, axis2=2)
        degrees = np.degrees(np.arccos(np.clip((turned - 1) / 2, -1, 1)))
        assert degrees.max() < 1e-3


def samples():
    """Bytes of a small file of each format, and of each reader's worst friends."""
    bomb = "".join(f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(9))
    deep = "[" * 100_000
    yield "bomb.xml", f'<!DOCTYPE p [<!ENTITY a0 "ha">{bomb}]><ParticleList>&a9;</ParticleList>'.encode()
    yield "late.xml", f"<!-- {'<ParticleList' * 3} --><!DOCTYPE p [{bomb}]><ParticleList/>".encode()
    yield "deep.xml", b"<ParticleList>" + b"<Particle>" * 100_000
    yield "deep.json", f'{{"pickable_object_name": "a", "points": {deep}'.encode()
    yield "deep.ndjson", f'{{"type": "point", "location": {deep}'.encode()
    yield "huge.em", bytes([6, 0, 0, 5]) + struct.pack("<3i", 20, 2**31 - 1, 1) + bytes(600)
    yield "digits.json", b'{"pickable_object_name": "a", "voxel_spacing": ' + b"9" * 10_000 + b"}"
    yield "flat.json", json.dumps({"pickable_object_name": "a", "voxel_spacing": 1, "points": [[]]}).encode()
    matrix = {"location": {"x": 1, "y": 1, "z": 1}, "transformation_": [[1e400]]}
    yield "matrix.json", json.dumps({"pickable_object_name": "a", "voxel_spacing": 1, "points": [matrix]}).encode()
    yield "signs.tbl", b"1 " * 25 + b"1+" * 30_000
    yield "wide.tbl", b"1 " * 200_000
    yield "number.tbl", b" ".join([b"1e999"] * 35)


@pytest.mark.parametrize(("file", "data"), list(samples()), ids=[file for file, _ in samples()])
def test_attacks_are_refused_at_once(tmp_path, file, data):
    (tmp_path / file).write_bytes(data)
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(InputError):
        read_coordinates(tmp_path / file)
    taken, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 2
    assert peak < 30 * len(data) + 3e6


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """A file of each format, with scores, classes and angles where it holds them."""
    folder = tmp_path_factory.mktemp("intact")
    table = points_table(score=[0.9, 0.25, 0.5], rot=[1.0, 2, 3], tilt=10.0, psi=[4.0, 5, 6], **{"class": "7"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CetpickWarning)
        for name in WRITTEN:
            write_coordinates(folder / name / f"volume{suffix(name)}", [(tomogram(), table)], format=name, radius=50.0)
    (folder / "eman1").mkdir()
    written(folder / "eman1" / "volume.box", "6 -8 33 32\n-11 -14 32 32\n")
    return {
        name: (folder / name / f"volume{suffix(name) if name in WRITTEN else '.box'}") for name in [*WRITTEN, "eman1"]
    }


@quiet
@pytest.mark.parametrize("name", [*WRITTEN, "eman1"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    flips=st.lists(st.floats(0, 1, exclude_max=True), max_size=5),
    end=st.floats(0, 1),
    insert=st.tuples(
        st.floats(0, 1), st.sampled_from([b"", b"\0", b"9" * 400, b"\xff", b"-", b"e", b"\n", b"[" * 2000])
    ),
)
def test_damaged_files_are_read_or_refused_at_once(tmp_path, intact, name, flips, end, insert):
    data = bytearray(intact[name].read_bytes())
    for flip in flips:
        bit = int(flip * 8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
    place = round(insert[0] * len(data))
    data[place:place] = insert[1]
    path = tmp_path / intact[name].name
    path.write_bytes(data[: round(end * len(data))])
    start = time.process_time()
    with contextlib.suppress(InputError):
        read_coordinates(path, tomograms=[tomogram()], z=1.0)
    assert time.process_time() - start < 2


@quiet
@pytest.mark.parametrize("name", sorted({*WRITTEN} - {"relion4", "relion31", "warp", "model2point"}))
def test_memory_stays_a_small_multiple_of_the_file(tmp_path, name):
    size = (400, 400, 400)
    points = np.random.default_rng(1).uniform(0, 399, (1500, 3)).round(3)
    path = tmp_path / f"volume{suffix(name)}"
    write_coordinates(path, [(tomogram(size=size), points_table(points))], format=name)
    tracemalloc.start()
    one(path, tomogram(size=size))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 * path.stat().st_size + 3e6
