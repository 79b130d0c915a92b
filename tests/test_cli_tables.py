"""evaluate, convert and info, driven as a user does; the points are planted, the numbers worked out by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from cetpick.config import ModelSettings, ParticleClass
from cetpick.io.imod import read_mod
from cetpick.io.model import to_metadata
from cetpick.io.mrc import write_mrc
from tests.conftest import Run

DATA = Path(__file__).parent / "data"
RELION5 = DATA / "relion5_particles"
SCORES_MOD = DATA / "imod" / "scattered_scores.mod"
VOLUME = DATA / "imod_volumes" / "volume.mrc"


PICKS = "x,y,z,score\n10,10,10,0.9\n30,10,10,0.8\n20,20,13,0.7\n"
"""The first hits, the second misses, the third is 3 voxels off, among TRUTH."""
TRUTH = "x,y,z\n10,10,10\n20,20,10\n50,40,20\n"


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def volume(path: Path, *, size: tuple[int, int, int] = (64, 48, 32), voxel_size: float = 10.0) -> Path:
    x, y, z = size
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mrc(path, np.zeros((z, y, x), dtype=np.int8), voxel_size=voxel_size)
    return path


def output_of_pick(folder: Path, **candidates: str) -> Path:
    """An output folder as `cetpick pick` leaves it: cut .75, particles of 80 A in voxels of 10 A."""
    for name, text in candidates.items():
        written(folder / "candidates" / f"{name}.csv", text)
    entries = {name: {"file": f"{name}.mrc", "voxel_size": 10.0} for name in candidates}
    record = {"threshold": 0.75, "model": {"classes": [{"name": "particle", "diameter": 80.0}]}, "tomograms": entries}
    written(folder / "run.json", json.dumps(record))
    return folder


class TestEvaluate:
    def test_numbers_of_one_tomogram(self, cetpick: Run, tmp_path: Path) -> None:
        picks, truth = written(tmp_path / "picks.csv", PICKS), written(tmp_path / "truth.csv", TRUTH)
        code, out, _ = cetpick("evaluate", picks, "--truth", truth, "--json")
        assert code == 0
        (result,) = json.loads(out)["results"]
        assert result["radius"] == 5
        assert result["average_precision"] == pytest.approx((1 + 2 / 3) / 3)
        assert result["best"] == {
            "threshold": 0.7, "picks": 3, "matched": 2, "truths": 3,
            "precision": pytest.approx(2 / 3), "recall": pytest.approx(2 / 3), "f1": pytest.approx(2 / 3),
            "localisation_error": pytest.approx(np.sqrt(9 / 2)),
        }  # fmt: skip
        assert result["localisation_error"] == pytest.approx(np.sqrt(9 / 2))
        assert result["at_threshold"] is None
        assert result["radius_angstrom"] is None

    def test_table(self, cetpick: Run, tmp_path: Path) -> None:
        picks, truth = written(tmp_path / "t_picks.csv", PICKS), written(tmp_path / "t.csv", TRUTH)
        code, out, _ = cetpick(
            "evaluate", picks, "--truth", truth, "--radius", 2, "--radius", 5, "--threshold", 0.8, "--voxel-size", 10
        )
        assert code == 0
        lines = out.splitlines()
        assert lines[0] == f"t: 3 in {picks}, 3 reference points in {truth}"
        assert "radius 2 voxels (20 A); AP 0.3333" in lines
        rows = [line.split() for line in lines if line.startswith("  ")]
        assert ["--threshold", "0.8", "2", "1", "3", "0.5000", "0.3333", "0.4000", "0", "voxels", "(0", "A)"] in rows
        rows = [row[: row.index("voxels") - 1] for row in rows if "voxels" in row]
        assert ["best", "F1", "0.7", "3", "2", "3", "0.6667", "0.6667", "0.6667"] in rows
        assert ["all", "-", "3", "1", "3", "0.3333", "0.3333", "0.3333"] in rows

    def test_output_folder_tells_cut_voxel_size_and_radius(self, cetpick: Run, tmp_path: Path) -> None:
        folder = output_of_pick(tmp_path / "out", t1=PICKS)
        written(folder / "candidates" / "of_an_earlier_run.csv", PICKS)
        truth = written(tmp_path / "reference.csv", TRUTH)
        code, out, _ = cetpick("evaluate", folder, "--truth", truth, "--json")
        assert code == 0
        summary = json.loads(out)
        assert [entry["name"] for entry in summary["tomograms"]] == ["t1"]
        assert summary["radius_is"] == "half the diameter of 80 angstrom"
        (result,) = summary["results"]
        assert (result["radius"], result["radius_angstrom"]) == (4, 40)
        assert (result["at_threshold"]["picks"], result["at_threshold"]["matched"]) == (2, 1)
        assert result["localisation_error_angstrom"] == pytest.approx(10 * np.sqrt(9 / 2))
        _, out, _ = cetpick("evaluate", folder, "--truth", truth)
        assert ["tool's", "cut", "0.75", "2", "1", "3"] in [line.split()[:6] for line in out.splitlines()]

    def test_output_folder_as_truth_is_its_picks(self, cetpick: Run, tmp_path: Path) -> None:
        folder = output_of_pick(tmp_path / "out", t=PICKS)
        code, _, err = cetpick("evaluate", folder, "--truth", folder)
        assert (code, "t.csv: is missing, though run.json" in err) == (2, True)
        written(folder / "t.csv", PICKS.rpartition("20,20")[0])
        code, out, _ = cetpick("evaluate", written(tmp_path / "t.csv", PICKS), "--truth", folder, "--json")
        assert code == 0
        assert json.loads(out)["tomograms"][0]["truth"] == {"file": str(folder / "t.csv"), "count": 2}
        code, _, err = cetpick("evaluate", folder, "--truth", folder)
        assert (code, "out: is compared with itself" in err) == (2, True)

    def test_voxel_size_against_that_of_the_output_folder(self, cetpick: Run, tmp_path: Path) -> None:
        folder, truth = output_of_pick(tmp_path / "out", t=PICKS), written(tmp_path / "t_truth.csv", TRUTH)
        code, _, err = cetpick("evaluate", folder, "--truth", truth, "--voxel-size", 20)
        assert (code, "its voxel size is another than that given" in err) == (2, True)
        assert cetpick("evaluate", folder, "--truth", truth, "--voxel-size", 10)[0] == 0

    def test_cut_of_a_single_tomogram(self, cetpick: Run, tmp_path: Path) -> None:
        """Such as `pick --top` makes: it counts more than that of the run."""
        folder = output_of_pick(tmp_path / "out", t1=PICKS)
        record = json.loads((folder / "run.json").read_text())
        record["tomograms"]["t1"]["threshold"] = 0.85
        written(folder / "run.json", json.dumps(record))
        _, out, _ = cetpick("evaluate", folder, "--truth", written(tmp_path / "truth.csv", TRUTH), "--json")
        assert json.loads(out)["results"][0]["at_threshold"]["picks"] == 1

    def test_no_candidates_in_a_tomogram(self, cetpick: Run, tmp_path: Path) -> None:
        folder = output_of_pick(tmp_path / "out", t1=PICKS, t2="x,y,z,score,class\n")
        for name in ("t1", "t2"):
            written(tmp_path / "truths" / f"{name}_truth.csv", TRUTH)
        _, out, _ = cetpick("evaluate", folder, "--truth", tmp_path / "truths", "--json")
        (result,) = json.loads(out)["results"]
        assert (result["all_picks"]["picks"], result["all_picks"]["truths"]) == (3, 6)

    def test_several_tomograms_are_paired_by_name_and_pooled(self, cetpick: Run, tmp_path: Path) -> None:
        first = written(tmp_path / "rec_TS_01.mrc_picks.csv", "x,y,z,score\n10,10,10,0.9\n")
        second = written(tmp_path / "TS_02.csv", "x,y,z,score\n40,40,20,0.8\n10,10,10,0.7\n")
        lone = written(tmp_path / "TS_03.csv", "x,y,z,score\n1,1,1,1\n")
        written(tmp_path / "truths" / "TS_02_truth.csv", "x,y,z\n10,10,10\n")
        written(tmp_path / "truths" / "TS_01_truth.csv", "x,y,z\n10,10,10\n")
        written(tmp_path / "truths" / "TS_04_truth.csv", "x,y,z\n10,10,10\n")
        code, out, err = cetpick("evaluate", first, second, lone, "--truth", tmp_path / "truths", "--json")
        assert code == 0
        summary = json.loads(out)
        assert [entry["name"] for entry in summary["tomograms"]] == ["TS_01", "TS_02"]
        assert summary["results"][0]["average_precision"] == pytest.approx(1 / 2 + 2 / 3 / 2)
        assert f"picks without truth, left out: TS_03 ({lone}, 1 points)" in err
        assert "truth without picks, left out: TS_04 (" in err

    def test_what_a_table_calls_its_tomogram_counts_only_where_it_is_one(self, cetpick: Run, tmp_path: Path) -> None:
        """Names of runs, say; and a table without rows is of the tomogram that its file is named after."""
        for name, rows in {"TS_01": "10,10,10,0.9\n", "TS_02": "20,20,20,0.8\n", "TS_03": ""}.items():
            written(tmp_path / f"picks/{name}.csv", f"x,y,z,score\n{rows}")
            points = [f"{line.rpartition(',')[0]},run{name[-1]}\n" for line in rows.splitlines()]
            written(tmp_path / f"truth/{name}_truth.csv", f"x,y,z,tomogram\n{''.join(points)}")
        written(tmp_path / "truth/TS_03_truth.csv", "x,y,z\n30,30,30\n")
        written(tmp_path / "picks/TS_03.csv", "x,y,z,score,tomogram\n")
        volumes = [volume(tmp_path / f"TS_0{number}.mrc") for number in (1, 2, 3)]
        grids = [word for path in volumes for word in ("--tomogram", path)]
        for more in ([], grids):
            code, out, _ = cetpick(
                "evaluate", tmp_path / "picks", "--truth", tmp_path / "truth", "--radius", 2, "--json", *more
            )
            assert code == 0
            assert json.loads(out)["results"][0]["all_picks"]["recall"] == pytest.approx(2 / 3)

    def test_a_tomogram_that_was_named_counts_without_a_particle_too(self, cetpick: Run, tmp_path: Path) -> None:
        for name in ("a", "b", "c"):
            volume(tmp_path / f"{name}.mrc", size=(60, 60, 60))
        rows = "data_\n\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n"
        picks = written(tmp_path / "p.star", f"{rows}a.mrc 10 10 10\n")
        for name in ("a", "b"):
            written(tmp_path / "truths" / f"{name}.csv", "x,y,z\n10,10,10\n")
        arguments = ("evaluate", picks, "--truth", tmp_path / "truths", "--json")
        named = [word for name in "abc" for word in ("--tomogram", tmp_path / f"{name}.mrc")]
        for more, truths in (((), 1), (named, 2)):
            code, out, err = cetpick(*arguments, *more)
            assert (code, json.loads(out)["results"][0]["all_picks"]["truths"]) == (0, truths)
            assert ("truth without picks, left out: b (" in err) is not more

    def test_the_error_is_that_of_the_picks_of_a_row(self, cetpick: Run, tmp_path: Path) -> None:
        picks = written(tmp_path / "p.csv", "x,y,z,score\n10,10,10,.9\n20,20,24,.1\n")
        truth = written(tmp_path / "t.csv", "x,y,z\n10,10,10\n20,20,20\n")
        _, out, _ = cetpick("evaluate", picks, "--truth", truth, "--radius", 5, "--threshold", 0.5, "--json")
        (result,) = json.loads(out)["results"]
        assert result["at_threshold"]["localisation_error"] == 0
        assert result["all_picks"]["localisation_error"] == pytest.approx(np.sqrt(8))

    def test_the_better_of_two_picks_of_one_place_is_judged(self, cetpick: Run, tmp_path: Path) -> None:
        truth = written(tmp_path / "t.csv", "x,y,z\n10,10,10\n")
        for scores in ((0.2, 0.9), (0.9, 0.2)):
            rows = "".join(f"10,10,10,{score}\n" for score in scores)
            picks = written(tmp_path / "p.csv", f"x,y,z,score\n{rows}40,40,40,0.5\n")
            _, out, _ = cetpick("evaluate", picks, "--truth", truth, "--radius", 3, "--json")
            assert json.loads(out)["results"][0]["average_precision"] == 1

    @pytest.mark.parametrize("how", ["shape", "tomogram", "run.json"])
    def test_margin(self, cetpick: Run, tmp_path: Path, how: str) -> None:
        picks = output_of_pick(tmp_path / "out", t1=PICKS)
        truth = written(tmp_path / "truth.csv", TRUTH)
        size: tuple[object, ...] = ()
        if how == "run.json":
            record = json.loads((picks / "run.json").read_text())
            record["tomograms"]["t1"]["size"] = [64, 48, 32]
            written(picks / "run.json", json.dumps(record))
        else:
            size = ("--shape", "64,48,32") if how == "shape" else ("--tomogram", volume(tmp_path / "t1.mrc"))
        code, out, _ = cetpick("evaluate", picks, "--truth", truth, "--margin", "15,0,0", *size, "--json")
        assert code == 0
        (result,) = json.loads(out)["results"]
        # x = 10 and x = 50 lie in the rim of 15, with the pick on the first; 2 picks and 1 truth are left.
        assert (result["ignored_picks"], result["ignored_truths"]) == (1, 2)
        assert result["average_precision"] == pytest.approx(1 / 2)

    def test_picks_without_scores(self, cetpick: Run, tmp_path: Path) -> None:
        picks, truth = written(tmp_path / "p.coords", "10 10 10\n5 5 5\n"), written(tmp_path / "t.csv", TRUTH)
        code, out, err = cetpick("evaluate", picks, "--truth", truth, "--json")
        (result,) = json.loads(out)["results"]
        assert code == 0
        assert result["average_precision"] is None
        assert result["best"] is None
        assert result["all_picks"]["f1"] == pytest.approx(2 / 5)
        assert f"{picks}: no scores" in err
        code, out, _ = cetpick("evaluate", picks, "--truth", truth)
        assert code == 0
        assert "AP" not in out

    def test_formats_of_other_programs(self, cetpick: Run, tmp_path: Path) -> None:
        """IMOD's picks on a RELION truth of the same points, in voxels."""
        rows = "volume 22 8 3\nvolume 5 2 9\nvolume 10.75 10.25 6.5\n"
        loop = "data_\n\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n"
        truth = written(tmp_path / "truth.star", loop + rows)
        code, out, _ = cetpick("evaluate", SCORES_MOD, "--truth", truth, "--tomogram", VOLUME, "--json")
        assert code == 0
        (result,) = json.loads(out)["results"]
        assert result["best"]["f1"] == 1
        assert result["localisation_error"] < 1e-6
        assert result["radius_angstrom"] == 50

    def test_voxel_sizes_that_disagree_are_told(self, cetpick: Run, tmp_path: Path) -> None:
        shutil.copy(SCORES_MOD, tmp_path / "t1.mod")  # says that its voxels are of 10 A
        folder = output_of_pick(tmp_path / "out", t1="x,y,z,score\n22,8,3,0.9\n")
        record = json.loads((folder / "run.json").read_text())
        record["tomograms"]["t1"]["voxel_size"] = 13.48
        written(folder / "run.json", json.dumps(record))
        code, _, err = cetpick("evaluate", folder, "--truth", tmp_path / "t1.mod")
        assert code == 0
        assert "10 angstrom a voxel, but 13.48" in err

    def test_truth_is_told_from_other_points_in_a_folder(self, cetpick: Run, tmp_path: Path) -> None:
        picks = [written(tmp_path / f"t{i}.csv", PICKS) for i in (1, 2, 3)]
        for i in (1, 2):
            written(tmp_path / "set" / f"t{i}_gold.csv", "x,y,z\n1,1,1\n")
            written(tmp_path / "set" / f"t{i}_truth.csv", TRUTH)
        third = written(tmp_path / "t3_truth.csv", TRUTH)
        code, out, _ = cetpick("evaluate", *picks, "--truth", tmp_path / "set", "--truth", third, "--json")
        assert code == 0
        read = [Path(entry["truth"]["file"]).name for entry in json.loads(out)["tomograms"]]
        assert read == ["t1_truth.csv", "t2_truth.csv", "t3_truth.csv"]

    def test_unusable_input(self, cetpick: Run, tmp_path: Path) -> None:
        picks, truth = written(tmp_path / "t.csv", PICKS), written(tmp_path / "t_truth.csv", TRUTH)
        bare = written(tmp_path / "bare" / "t2.coords", "1 2 3\n")
        two = written(tmp_path / "two" / "t_truth.csv", TRUTH).parent
        written(two / "t2_truth.csv", TRUTH)
        twice = written(tmp_path / "twice" / "t_picks.csv", PICKS)
        empty = tmp_path / "empty"
        empty.mkdir()
        broken = output_of_pick(tmp_path / "broken", t=PICKS)
        written(broken / "run.json", '{"tomograms": {"t": {}}}')
        other = written(tmp_path / "other" / "t9.csv", PICKS)
        cases = [
            ((picks, "--truth", truth, "--margin", "1,1,1"), "give --tomogram FILE or --shape X,Y,Z"),
            ((picks, "--truth", truth, "--margin", "1,1"), "unusable --margin"),
            ((picks, "--truth", truth, "--margin", "1,1,1", "--shape", "9.5,9,9"), "unusable --shape"),
            ((picks, "--truth", truth, "--shape", "9,9,9", "--tomogram", VOLUME), "either --tomogram or --shape"),
            ((picks, "--truth", truth, "--radius", "0"), "unusable radius of a match"),
            ((picks, "--truth", truth, "--radius", "inf"), "unusable radius of a match"),
            ((picks, "--truth", truth, "--threshold", "nan"), "unusable --threshold"),
            ((picks, "--truth", truth, "--report", "r.html", "--no-report"), "contradict each other"),
            ((picks, "--truth", picks), "t.csv: is compared with itself"),
            ((tmp_path / "none.csv", "--truth", truth), "none.csv: cannot be read"),
            ((picks, "--truth", written(tmp_path / "nil.csv", "x,y,z\n")), "no reference point"),
            ((picks, "--truth", empty), "holds no coordinate files"),
            ((broken, "--truth", truth), "not what `cetpick pick` writes"),
            ((picks, twice, "--truth", truth), "a second file with points in tomogram t"),
            ((picks, bare, "--truth", two), "have no scores"),
            ((bare, "--truth", truth, "--threshold", "0.5"), "have no scores"),
            ((picks, other, "--truth", empty.parent / "bare"), "no picks and truth belong to the same tomogram"),
            ((picks, "--truth", truth, "--tomogram", truth), "t_truth.csv: not an MRC file"),
        ]
        for arguments, message in cases:
            code, out, err = cetpick("evaluate", *arguments)
            assert (code, out) == (2, ""), arguments
            assert message in err, arguments
            assert "Traceback" not in err


class TestConvert:
    def test_relion5_to_table_without_the_tomograms_themselves(self, cetpick: Run, tmp_path: Path) -> None:
        """RELION put these particles onto blobs at voxels (40, 72, 28) and (80, 36, 52)."""
        output = tmp_path / "points.csv"
        code, out, err = cetpick(
            "convert", RELION5 / "particles_centered.star", output, "--tomograms-star", RELION5 / "tomograms.star"
        )
        assert code == 0
        assert pd.read_csv(output)[["x", "y", "z"]].to_numpy().tolist() == [[40, 72, 28], [80, 36, 52]]
        assert "rec/tomograms/rec_TS_01.mrc" in err
        assert "x: 40, 80" in out
        assert f"wrote {output}: 2 points" in out

    def test_model_to_star_and_back(self, cetpick: Run, tmp_path: Path) -> None:
        star, back = tmp_path / "picks.star", tmp_path / "volume.mod"
        assert cetpick("convert", SCORES_MOD, star, "--tomogram", VOLUME)[0] == 0
        code, out, _ = cetpick("convert", star, back, "--tomogram", VOLUME, "--diameter", 100, "--json")
        assert code == 0
        summary = json.loads(out)
        assert summary["written"] == {str(back): 3}
        assert summary["read"]["ranges"]["score"] == [0.25, 0.9]
        (item,) = read_mod(back).objects
        (ours,), (theirs,) = item.contours, read_mod(SCORES_MOD).objects[0].contours
        np.testing.assert_allclose(ours.points, theirs.points, atol=1e-6)
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-6)
        assert item.radius == 5

    def test_radius_of_the_source_is_kept(self, cetpick: Run, tmp_path: Path) -> None:
        assert cetpick("convert", SCORES_MOD, tmp_path / "again.mod", "--tomogram", VOLUME)[0] == 0
        assert read_mod(tmp_path / "again.mod").objects[0].radius == read_mod(SCORES_MOD).objects[0].radius == 5

    def test_voxel_size_in_the_place_of_the_header(self, cetpick: Run, tmp_path: Path) -> None:
        tomogram = volume(tmp_path / "t.mrc", voxel_size=1.0)
        points = written(tmp_path / "points.csv", TRUTH)
        arguments = ("convert", points, tmp_path / "t.mod", "--tomogram", tomogram, "--diameter", 120)
        code, _, err = cetpick(*arguments)
        assert code == 2
        assert "give --voxel-size" in err
        assert not (tmp_path / "t.mod").exists()
        assert cetpick(*arguments, "--voxel-size", 12)[0] == 0
        assert read_mod(tmp_path / "t.mod").objects[0].radius == 5

    def test_several_tomograms_to_a_folder_and_back(self, cetpick: Run, tmp_path: Path) -> None:
        tomograms = [argument for name in "ab" for argument in ("--tomogram", volume(tmp_path / f"rec_TS_{name}.mrc"))]
        loop = "data_\n\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n"
        star = written(tmp_path / "both.star", f"{loop}TS_a.tomostar 1 2 3\nTS_b.tomostar 4 5 6\nTS_a.tomostar 7 8 9\n")
        code, out, err = cetpick("convert", star, tmp_path / "points.tsv", *tomograms)
        assert (code, out) == (2, "")
        assert "add --format tsv" in err
        assert cetpick("convert", star, tmp_path / "models", "--format", "mod", *tomograms)[0] == 0
        assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["TS_a.mod", "TS_b.mod"]
        assert cetpick("convert", tmp_path / "models", tmp_path / "again.star", *tomograms)[0] == 0
        code, out, _ = cetpick("convert", tmp_path / "again.star", tmp_path / "tables", "--format", "tsv")
        assert code == 0
        first = pd.read_csv(tmp_path / "tables" / "TS_a.tsv", sep="\t")
        assert first[["x", "y", "z"]].to_numpy().tolist() == [[1, 2, 3], [7, 8, 9]]

    def test_what_is_lost_is_told(self, cetpick: Run, tmp_path: Path) -> None:
        points = written(tmp_path / "points.csv", "x,y,z,score,class\n1,2,3,0.5,a\n4,5,6,0.4,b\n")
        code, _, err = cetpick("convert", points, tmp_path / "points.coords")
        assert code == 0
        assert "cannot hold: score, class (2 classes)" in err
        assert np.loadtxt(tmp_path / "points.coords").tolist() == [[1, 2, 3], [4, 5, 6]]

    def test_format_may_differ_from_the_ending(self, cetpick: Run, tmp_path: Path) -> None:
        points = written(tmp_path / "points.csv", "x,y,z\n22,8,3\n")
        assert cetpick("convert", points, tmp_path / "points.txt", "--format", "model2point")[0] == 0
        assert (tmp_path / "points.txt").read_text() == "       22.50        8.50        3.00\n"

    def test_flavours_of_star(self, cetpick: Run, tmp_path: Path) -> None:
        points = written(tmp_path / "points.csv", "x,y,z\n40,72,28\n")
        relion = ("--tomograms-star", RELION5 / "tomograms.star")
        for flavour, expected in (
            (None, ["-100.000000", "60.000000", "-60.000000"]),
            ("relion4", ["100.000000", "180.000000", "70.000000"]),
            ("warp", ["40.000000", "72.000000", "28.000000"]),
        ):
            output = tmp_path / f"{flavour}.star"
            chosen = ("--format", flavour) if flavour else ()
            assert cetpick("convert", points, output, *relion, *chosen)[0] == 0
            assert " ".join(expected) in " ".join(output.read_text().split())

    def test_nothing_is_overwritten_unasked(self, cetpick: Run, tmp_path: Path) -> None:
        points, output = written(tmp_path / "points.csv", TRUTH), written(tmp_path / "points.coords", "mine")
        code, _, err = cetpick("convert", points, output)
        assert code == 2
        assert f"{output}: already exists" in err
        assert output.read_text() == "mine"
        assert cetpick("convert", points, output, "--overwrite")[0] == 0
        assert len(np.loadtxt(output)) == 3

    def test_no_input_is_written_over(self, cetpick: Run, tmp_path: Path) -> None:
        points = written(tmp_path / "points.csv", TRUTH)
        volume = tmp_path / "volume.mrc"
        volume.write_bytes(VOLUME.read_bytes())
        (tmp_path / "folder").mkdir()
        label = written(tmp_path / "folder/volume.csv", TRUTH)
        for arguments in (
            (points, volume, "--tomogram", volume, "--format", "csv"),
            (points, volume, "--tomogram", VOLUME, "--to-tomogram", volume, "--format", "csv"),
            (points, points, "--bin", 2),
            (label.parent, label.parent, "--tomogram", volume, "--format", "csv"),
        ):
            before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
            code, _, err = cetpick("convert", *arguments, "--overwrite")
            assert (code, "an input would be overwritten" in err) == (2, True), err
            assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before

    def test_unusable_input(self, cetpick: Run, tmp_path: Path) -> None:
        points, output = written(tmp_path / "points.csv", TRUTH), tmp_path / "out"
        particles = RELION5 / "particles_centered.star"
        typical = DATA / "relion5" / "tomograms_typical.star"
        renamed = written(tmp_path / "renamed.star", typical.read_text().replace("TS_01", "TS_99"))
        cases = [
            ((points, tmp_path / "points.foo"), "the format to write is not known"),
            ((points, output), "the format to write is not known"),
            ((points, output, "--format", "star"), "relion5 or relion4 or relion31 or warp or stopgap"),
            ((points, output, "--format", "json"), "--format json may be several\n  expected: eman2 or copick"),
            ((points, tmp_path / "t.mod"), "give the tomogram (--tomogram)"),
            ((points, tmp_path / "t.star"), "give the tomogram (--tomogram)"),
            ((points, tmp_path / "t.star", "--format", "relion5", "--tomogram", VOLUME), "--tomograms-star"),
            ((particles, tmp_path / "t.csv"), "--tomograms-star"),
            ((particles, tmp_path / "t.csv", "--tomograms-star", renamed), "holds no points in TS_99"),
            ((particles, tmp_path / "t.csv", "--tomograms-star", particles), "not a tomograms.star"),
            ((tmp_path, tmp_path / "t.star"), "a folder of coordinates needs the tomograms"),
            ((tmp_path / "none.mod", tmp_path / "t.csv"), "none.mod: cannot be read"),
            ((written(tmp_path / "cut.mod", "IMODV1.2 cut"), tmp_path / "t.csv"), "cut off"),
            ((VOLUME, tmp_path / "t.csv"), "an MRC volume"),
        ]
        before = sorted(tmp_path.iterdir())
        for arguments, message in cases:
            code, out, err = cetpick("convert", *arguments)
            assert (code, out) == (2, ""), arguments
            assert message in err, arguments
            assert "Traceback" not in err
        assert sorted(tmp_path.iterdir()) == before

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [(("-o", ""), "an argument is empty, after -o"), (("--output=",), "given to --output=")],
    )
    def test_an_empty_argument_is_not_the_working_folder(
        self, cetpick: Run, arguments: tuple[str, ...], message: str
    ) -> None:
        code, out, err = cetpick("simulate", *arguments)
        assert (code, out) == (2, "")
        assert message in err
        assert "variable of the shell" in err


class TestInfo:
    def described(self, cetpick: Run, *paths: object) -> list[dict[str, object]]:
        code, out, _ = cetpick("info", *paths, "--json")
        assert code == 0
        descriptions: list[dict[str, object]] = json.loads(out)
        return descriptions

    def test_tomogram(self, cetpick: Run) -> None:
        (told,) = self.described(cetpick, VOLUME)
        assert (told["kind"], told["name"], told["size"], told["mode"]) == ("tomogram", "volume", [30, 20, 12], 2)
        assert (told["voxel_size"], told["size_angstrom"]) == (10, [300, 200, 120])
        assert told["maximum"] == 50
        assert told["problems"] == []

    @pytest.mark.parametrize(("voxel_size", "problem"), [(0.0, "no usable voxel size"), (1.0, "is 1 A")])
    def test_bad_voxel_size_is_no_error(self, cetpick: Run, tmp_path: Path, voxel_size: float, problem: str) -> None:
        (told,) = self.described(cetpick, volume(tmp_path / "t.mrc", voxel_size=voxel_size))
        assert told["voxel_size"] is None
        assert told["size_angstrom"] is None
        assert problem in str(told["problems"])

    def test_coordinates(self, cetpick: Run) -> None:
        (told,) = self.described(cetpick, SCORES_MOD)
        assert (told["kind"], told["format"], told["points"]) == ("coordinates", "IMOD model (.mod)", 3)
        assert (told["voxel_size"], told["radius"]) == (10, 50)
        ranges = told["ranges"]
        assert isinstance(ranges, dict)
        assert (ranges["x"], ranges["y"], ranges["z"]) == ([5, 22], [2, 10.25], [3, 9])
        np.testing.assert_allclose(ranges["score"], [0.25, 0.9], rtol=1e-6)

    def test_particles_star_as_it_is(self, cetpick: Run) -> None:
        (told,) = self.described(cetpick, RELION5 / "particles_centered.star")
        assert (told["points"], told["tomograms"]) == (2, {"TS_01": 2})
        ranges = told["ranges"]
        assert isinstance(ranges, dict)
        assert ranges["rlnCenteredCoordinateYAngst"] == [-120, 60]

    def test_all_blocks_of_particles(self, cetpick: Run, tmp_path: Path) -> None:
        block = "loop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n"
        star = written(tmp_path / "p.star", f"data_TS_1\n{block}1 2 3\n4 5 6\n\ndata_TS_2\n{block}7 8 9\n")
        (told,) = self.described(cetpick, star)
        assert (told["points"], told["tomograms"]) == (3, {"TS_1": 2, "TS_2": 1})

    def test_optimisation_set(self, cetpick: Run, tmp_path: Path) -> None:
        text = (
            "data_optimisation_set\n\n_rlnTomoParticlesFile a/particles.star\n_rlnTomoTomogramsFile b/tomograms.star\n"
        )
        (told,) = self.described(cetpick, written(tmp_path / "optimisation_set.star", text))
        assert (told["particles"], told["tomograms"]) == ("a/particles.star", "b/tomograms.star")

    def test_tomograms_star(self, cetpick: Run) -> None:
        path = DATA / "relion5" / "tomograms.star"
        (told,) = self.described(cetpick, path)
        assert told["tomograms"] == [
            {
                "name": "TS_01", "size": [120, 120, 80], "voxel_size": 5, "pixel_size": 2, "binning": 2.5,
                "exists": False, "file": "rec/tomograms/rec_TS_01.mrc",
            }
        ]  # fmt: skip
        _, out, _ = cetpick("info", path)
        assert "TS_01  120, 120, 80" in out

    def test_boxes_that_need_the_tomogram(self, cetpick: Run, tmp_path: Path) -> None:
        content = {"apix_unbin": 5.0, "boxes_3d": [[0, 2, 4, "manual", 0.5, 0]]}
        boxes = written(tmp_path / "volume_info.json", json.dumps(content))
        assert cetpick("info", boxes)[0] == 2
        (told,) = self.described(cetpick, boxes, "--tomogram", VOLUME)
        assert told["tomograms"] == {"volume": 1}
        ranges = told["ranges"]
        assert isinstance(ranges, dict)
        assert (ranges["x"], ranges["y"], ranges["z"]) == ([15, 15], [11, 11], [8, 8])

    def test_model(self, cetpick: Run, tmp_path: Path) -> None:
        settings = ModelSettings(
            classes=(ParticleClass(name="ribosome", diameter=250.0),), voxel_size=(20.0, 16.0, 16.0), threshold=0.4,
            count=110, provenance={"labels": "tomo1.mod"},
        )  # fmt: skip
        path = tmp_path / "model.safetensors"
        save_file({"weight": np.zeros(1, dtype=np.float32)}, path, metadata=to_metadata(settings))
        (told,) = self.described(cetpick, path)
        assert (told["kind"], told["mode"], told["diameter"]) == ("model", "default", {"ribosome": 250})
        assert (told["working_voxel_size"], told["threshold"], told["count"]) == ([16, 16, 20], 0.4, 110)
        assert (told["format_version"], told["provenance"]) == (1, {"labels": "tomo1.mod"})

    def test_some_unusable(self, cetpick: Run, tmp_path: Path) -> None:
        junk = written(tmp_path / "junk.bin", "no such thing")
        code, out, err = cetpick("info", junk, VOLUME, tmp_path / "none.mrc")
        assert code == 1
        assert out.startswith(f"{VOLUME}\n")
        assert f"{junk}: is no file that cetpick knows" in err
        assert "none.mrc: no such file" in err

    @pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
    def test_text_of_powershell(self, cetpick: Run, tmp_path: Path, encoding: str) -> None:
        table = tmp_path / "labels.csv"
        table.write_text("\ufeffx,y,z\n1,2,3\n", encoding=encoding)
        for arguments in (("info", table), ("convert", table, tmp_path / "out.mod", "--tomogram", VOLUME)):
            code, _, err = cetpick(*arguments)
            assert code == 2
            assert "found: text in UTF-16" in err
            assert "cure: iconv" in err

    def test_unusable(self, cetpick: Run, tmp_path: Path) -> None:
        whole, model = (
            VOLUME.read_bytes(),
            to_metadata(ModelSettings(classes=(ParticleClass(diameter=90),), voxel_size=(9, 9, 9))),
        )
        (tmp_path / "cut.mrc").write_bytes(whole[:5000])
        (tmp_path / "head.rec").write_bytes(whole[:500])
        (tmp_path / "cut.mod").write_bytes(SCORES_MOD.read_bytes()[:300])
        (tmp_path / "random.mod").write_bytes(bytes(range(256)) * 8)
        save_file({"weight": np.zeros(9)}, tmp_path / "whole.safetensors", metadata=model)
        (tmp_path / "cut.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:-20])
        save_file({"weight": np.zeros(1)}, tmp_path / "foreign.safetensors")
        written(tmp_path / "empty.star", "")
        written(tmp_path / "other.star", "data_job\n\n_rlnJobType 99\n")
        cases = {
            "cut.mrc": "truncated", "head.rec": "ends within the header", "cut.mod": "cut off",
            "random.mod": "no file that cetpick knows", "cut.safetensors": "not a cetpick model",
            "foreign.safetensors": "not a cetpick model", "empty.star": "an empty file",
            "other.star": "not a tomograms.star", "": "a folder",
        }  # fmt: skip
        for name, message in cases.items():
            code, out, err = cetpick("info", tmp_path / name)
            assert (code, out) == (2, ""), name
            assert message in err, name
            assert "Traceback" not in err


def python(code: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


def test_tables_need_no_torch(tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from cetpick.cli import main; main()"
    truth = written(tmp_path / "volume_truth.csv", "x,y,z\n22,8,3\n5,2,9\n")
    for arguments, expected in (
        (("convert", SCORES_MOD, "volume.csv", "--tomogram", VOLUME), "3 points"),
        (("info", "volume.csv", VOLUME, SCORES_MOD), "30, 20, 12"),
        (("evaluate", "volume.csv", "--truth", truth, "--radius", 2), "AP 0.8333"),
        (("check", VOLUME, "--labels", "volume.csv", "--diameter", 60, "-o", "pictures"), "volume_labels.png"),
    ):
        done = python(code, *arguments, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (arguments[0] == "check", "")  # with a few points it cannot be told
        assert expected in done.stdout


def test_output_that_nobody_reads_ends_it_as_in_a_shell(tmp_path: Path) -> None:
    """Such as `cetpick info a.csv | head -0`."""
    table = tmp_path / "a.csv"
    table.write_text("x,y,z\n" + "1,2,3\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "cetpick", "info", table], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate()
    assert (process.returncode, err) == (141, b"")


@pytest.mark.parametrize("arguments", [("--help",), ("evaluate", "--help"), ("pick", "--help"), ("check", "--help")])
def test_help_loads_nothing_heavy(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code = """
import sys
from cetpick.cli import main
try:
    main()
except SystemExit as ended:
    assert not ended.code
print("loaded:", *sorted({"torch", "pandas", "numpy", "scipy", "mrcfile", "matplotlib"} & set(sys.modules)))
"""
    done = python(code, *arguments, cwd=tmp_path)
    assert done.returncode == 0
    assert "Usage:" in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded:"
