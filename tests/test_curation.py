"""Rejected places, `curate` and `suggest`: what people say of picks comes back into the next round."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, logit

from cetpick import scouting
from cetpick.calibration import Count, count_from_answers, within
from cetpick.config import TrainSettings
from cetpick.dataset import Example
from cetpick.errors import CetpickWarning, InputError
from cetpick.io.coordinates import read_coordinates, write_coordinates
from cetpick.io.imod import coordinates_to_mod
from cetpick.io.relion import read_particles, write_annotations, write_particles
from cetpick.io.star import write_star
from cetpick.io.table import write_table
from cetpick.io.tomograms import open_inputs, read_info, read_tomogram
from cetpick.modes.default import DefaultRecipe
from cetpick.preprocess import prepare
from cetpick.records import Grid, TomogramInfo
from cetpick.scouting import scout
from cetpick.training import model_settings, train
from cetpick.workflows.curate import CurateSummary, _drawn, compare, run_curate, separated
from cetpick.workflows.inputs import InputOptions, foreign_files, open_labelled, open_training, read_places
from cetpick.workflows.pick import _warn_of_untrained
from cetpick.workflows.suggest import choose, enough, run_suggest
from tests.conftest import Run, TinySet, noise_and_models

DIAMETER = 60.0
NAMES = ("a", "b", "c")
quiet = pytest.mark.filterwarnings("ignore::cetpick.errors.CetpickWarning")


def xyz_of(path: Path) -> np.ndarray:
    return pd.read_csv(path)[["x", "y", "z"]].to_numpy()


def table(points: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(np.reshape(points, (-1, 3)), columns=["x", "y", "z"], dtype=float)


def mod(path: Path, tomogram: Path, points: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coordinates_to_mod(path, read_info(tomogram), table(points), radius=DIAMETER / 2)
    return path


# --- training -----------------------------------------------------------------------------------------------------


def labelled(
    tiny: TinySet, labels: list[Path], reject: list[Path], added: Sequence[Path] = (), **more_settings: object
) -> list:
    options = InputOptions()
    infos = open_training([tiny.path("one"), tiny.path("two")], options)
    rejected = read_places(reject, infos, options, what="rejected places")
    more = read_places(added, infos, options, what="added labels")
    settings = TrainSettings(diameter=tiny.diameter, **more_settings)
    return open_labelled(infos, labels, settings, options, rejected=rejected, added=more)


def test_labels_and_rejected_places_of_several_files_come_together(tiny: TinySet, tmp_path: Path) -> None:
    truth = tiny.truth["one"]
    first = mod(tmp_path / "one.mod", tiny.path("one"), truth[:5])
    added = tmp_path / "added.star"
    nudged = truth[[4, 5]] + [3.0, 0, 0]  # one of them is labelled before
    items = [(read_info(tiny.path("one")), table(nudged)), (read_info(tiny.path("two")), table([50, 50, 5]))]
    write_coordinates(added, items)
    write_coordinates(tmp_path / "r.star", [(read_info(tiny.path("two")), table([20, 20, 5]))])
    write_table(tmp_path / "two.csv", table([[80, 80, 20], [80, 20, 20]]))
    with pytest.warns(CetpickWarning, match=r"added.star: 1 of 2 labels are on particles that other label files have"):
        one, two = labelled(tiny, [first], [tmp_path / "r.star", tmp_path / "two.csv"], [added])
    assert one.chosen.tolist() == [False] * 5 + [True]
    assert two.chosen.tolist() == [True]
    np.testing.assert_allclose(one.labels.xyz, np.vstack([truth[:5], nudged[1:]]), atol=1e-3)
    assert len(one.rejected) == 0
    assert two.labels.xyz.tolist() == [[50, 50, 5]]
    assert two.rejected.tolist() == [[20, 20, 5], [80, 80, 20], [80, 20, 20]]


def test_clicks_on_one_particle_in_several_slices_are_one_label(tiny: TinySet, tmp_path: Path) -> None:
    truth = tiny.truth["one"][:4]
    slices = np.array([[0, 0, z] for z in (-1, 0, 1)])
    clicks = np.vstack([*(truth[:2] + step for step in slices), truth[2:]])
    files = [mod(tmp_path / "one.mod", tiny.path("one"), clicks)]
    files += [mod(tmp_path / "two.mod", tiny.path("two"), tiny.truth["two"][:2])]
    with pytest.warns(CetpickWarning, match=r"one.mod: 4 of 8 labels lie within half a diameter of another"):
        one, _ = labelled(tiny, files, [])
    np.testing.assert_allclose(one.labels.xyz, truth, atol=1e-3)


def test_what_is_said_of_tomograms_that_are_only_picked_is_not_lost_in_silence() -> None:
    names = ("trained", "rejected", "added")
    jobs = [
        SimpleNamespace(
            info=SimpleNamespace(name=name, path=Path(f"/{name}.mrc")), rejected=np.zeros((int(name != "added"), 3))
        )
        for name in names
    ]
    with pytest.warns(CetpickWarning) as told:
        _warn_of_untrained(jobs, {Path("/trained.mrc")}, {Path("/trained.mrc"), Path("/added.mrc")})
    assert [str(warning.message) for warning in told] == [
        "rejected places in rejected are kept out of the picks but not learned from; add --train with these tomograms "
        "for that",
        "added labels in added are not learned from; add --train with these tomograms for that",
    ]


@quiet
def test_files_of_another_name_are_told(tiny: TinySet, tmp_path: Path, cetpick: Run) -> None:
    clicks, own = mod(tmp_path / "clicks.mod", tiny.path("one"), tiny.truth["one"][:4]), tmp_path / "two_labels.csv"
    write_table(own, table(tiny.truth["two"][:4]))
    write_table(tmp_path / "no.csv", table(tiny.truth["one"][9:11]))
    write_table(tmp_path / "two.csv", table(tiny.truth["two"][9:12]))
    of = labelled(tiny, [clicks, own], [tmp_path / "no.csv", tmp_path / "two.csv"])
    assert list(foreign_files(of)) == [
        f"{clicks}: 4 labels for one",
        f"{tmp_path / 'no.csv'}: 2 rejected places for one",
    ]
    (tmp_path / "model.safetensors").touch()  # which is in the way: nothing is trained
    given = ["--labels", clicks, "-d", tiny.diameter, "-o"]
    for command in (
        ["train", tiny.path("one"), *given, tmp_path / "model.safetensors"],
        ["pick", tiny.path("two"), "--train", tiny.path("one"), *given, tmp_path],
    ):
        code, _, err = cetpick(*command)
        assert (code, err.splitlines().count(f"{clicks}: 4 labels for one")) == (2, 1)


@quiet
def test_a_tomogram_with_rejected_places_alone_is_trained_on(tiny: TinySet, tmp_path: Path) -> None:
    write_table(tmp_path / "two.csv", table([80, 80, 20]))
    one, two = labelled(tiny, [tiny.labels], [tmp_path / "two.csv"])
    assert (len(one.labels), len(one.rejected), len(two.labels), len(two.rejected)) == (8, 0, 0, 1)


@quiet
def test_what_is_labelled_and_rejected_is_an_error_that_names_both(tiny: TinySet, tmp_path: Path) -> None:
    label = tiny.truth["one"][2]
    radius = tiny.diameter / 2 / tiny.voxel_size
    file = tmp_path / "one.csv"
    write_table(file, table(label + np.array([radius - 0.1, 0, 0])))
    with pytest.raises(InputError, match=r"both labelled and rejected") as caught:
        labelled(tiny, [tiny.labels], [file])
    assert all(str(path) in str(caught.value) for path in (file, tiny.labels))
    assert f"label ({label[0]:.1f}, {label[1]:.1f}, {label[2]:.1f})" in str(caught.value)
    write_table(file, table(label + np.array([0, 0, radius + 0.1])))
    assert len(labelled(tiny, [tiny.labels], [file])[0].rejected) == 1
    for settings in ({"mode": "paper"}, {"hidden": "nnpu"}):
        with pytest.raises(InputError, match="rejected places are no part of this way to train"):
            labelled(tiny, [tiny.labels], [file], **settings)


def example(tiny: TinySet, labels: np.ndarray, rejected: np.ndarray, **settings: object) -> tuple:
    given = TrainSettings(diameter=tiny.diameter, crops=4, crop=(6, 32, 32), **settings)
    tomogram = read_tomogram(tiny.path("one"))
    model = model_settings(given, [tomogram])
    return (
        given,
        model,
        [Example(tomogram=tomogram, prepared=prepare(tomogram, model), labels=labels, rejected=rejected)],
    )


def test_rejected_places_are_no_candidates_of_the_scouts(tiny: TinySet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scouts find all particles; those that are rejected are not counted, not left out, and move no label."""
    truth = tiny.truth["one"]
    beside = truth[:9].copy()
    beside[:, 0] += 2.0
    monkeypatch.setattr(scouting, "optimise", lambda *_, **__: (None, []))
    monkeypatch.setattr(scouting, "candidates", lambda *_: (truth, np.linspace(0.5, 0.9, len(truth))))
    counts = []
    for rejected in (truth[:0], truth[9:]):
        settings, model, examples = example(tiny, beside, rejected, steps=1)
        with pytest.warns(CetpickWarning, match="were moved"):
            found = scout(settings, model, examples, torch.device("cpu"))
        counts.append(found.count.expected)
        assert len(found.doubtful(1000)[0]) == len(found.unlabelled[0]) == (0 if len(rejected) else len(truth) - 9)
    assert counts[1] < counts[0]
    # a rejected candidate beside a label does not pull it there
    settings, model, examples = example(tiny, beside, truth[:9], steps=1)
    with pytest.warns(CetpickWarning, match="not found again"):
        found = scout(settings, model, examples, torch.device("cpu"))
    assert np.array_equal(found.labels[0], beside)


def test_each_rejected_place_is_seen_as_often_as_a_label_and_all_together_in_a_quarter_of_the_crops(
    tiny: TinySet,
) -> None:
    truth = tiny.truth["one"]
    for number, share in ((0, 0.0), (1, 0.125), (9, 0.25)):
        settings, model, examples = example(tiny, truth[:4], truth[4 : 4 + number], steps=1)
        recipe = DefaultRecipe(examples, settings=settings, model=model, count=0.0, device=torch.device("cpu"))
        batch = recipe._sampler.draw(400)
        assert batch.uniform.float().mean() == pytest.approx(0.5 - share, abs=0.08)


@quiet
def test_training_with_rejected_places_leaves_them_out_of_what_is_unknown(
    tiny: TinySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cetpick import training

    truth = tiny.truth["one"]
    seen = []
    monkeypatch.setattr(training, "fit", lambda scores, *_: seen.append(len(scores)))
    monkeypatch.setattr(training, "candidates", lambda *_: (truth, np.full(len(truth), 0.9)))
    pairs = [(read_tomogram(tiny.path("one")), read_coordinates(tiny.labels)[0])]
    settings = TrainSettings(diameter=tiny.diameter, steps=1, crops=1, crop=(6, 32, 32), count_hint=20)
    for rejected in ([], [truth[10:]]):
        train(pairs, settings, rejected=rejected, device=torch.device("cpu"))
    assert seen == [len(truth) - 8] * 2 + [2] * 2  # after the first round, and for the calibration


@quiet
def test_the_model_tells_of_rejected_places_and_they_make_another_training(
    tiny: TinySet, tmp_path: Path, cetpick: Run
) -> None:
    write_table(tmp_path / "one.csv", table(tiny.truth["one"][10:12]))
    model = tmp_path / "m.safetensors"
    command = ["train", tiny.path("one"), "--labels", tiny.labels, "-d", tiny.diameter, "--steps", 1, "-q", "-o", model]
    code, out, _ = cetpick(*command, "--reject", tmp_path / "one.csv")
    assert code == 0
    assert "trained on 8 labels and 2 rejected places" in out
    record = json.loads((tmp_path / "m.run.json").read_text())
    assert record["training"]["rejected"] == record["model"]["provenance"]["rejected"] == {"one": 2}
    assert str(tmp_path / "one.csv") in record["inputs"]
    code, out, _ = cetpick(*command, "--reject", tmp_path / "one.csv")
    assert "trained before" in out
    write_table(tmp_path / "one.csv", table(tiny.truth["one"][10:11]))
    assert cetpick(*command, "--reject", tmp_path / "one.csv")[0] == 2
    assert cetpick(*command)[0] == 2


# --- picking ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tomograms of noise and a network that was not trained."""
    return noise_and_models(tmp_path_factory.mktemp("source"), NAMES, diameter=DIAMETER, models=("m",))


PICK = (
    "pick",
    *(f"{n}.mrc" for n in NAMES),
    "--model",
    "m.safetensors",
    "-o",
    "out",
    "--threshold",
    0,
    "--top",
    15,
    "-q",
)


@pytest.fixture(scope="module")
def picked(source: Path) -> Path:
    """The tomograms and the model, and in `out` the 15 best candidates of each."""
    main = [sys.executable, "-c", "from cetpick.cli import main; main()"]
    subprocess.run([*main, *map(str, PICK)], cwd=source, check=True)
    return source


@pytest.fixture
def data(picked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the current folder."""
    shutil.copytree(picked, tmp_path / "data")
    monkeypatch.chdir(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def probabilities(data: Path) -> None:
    """The same results as if their scores were probabilities."""
    run = data / "out" / "run.json"
    for file in (run, *(data / "out" / "records").iterdir()):
        record = json.loads(file.read_text())
        (record["plan"] if file == run else record)["maker"]["calibrated"] = True
        file.write_text(json.dumps(record))


def test_what_was_rejected_does_not_come_back_as_a_pick(data: Path, cetpick: Run) -> None:
    before, candidates = xyz_of(data / "out" / "b.csv"), len(xyz_of(data / "out" / "candidates" / "b.csv"))
    write_table(data / "rejected" / "b.csv", table(before[:4] + 0.5))
    code, out, _ = cetpick(*PICK, "--reject", "rejected")
    assert code == 0
    assert f"b: 15 picks of {candidates - 4} candidates, 4 at rejected places left out" in out
    assert "2 done before, 1 picked" in out
    record = json.loads((data / "out" / "run.json").read_text())
    assert (record["tomograms"]["b"]["rejected"], record["tomograms"]["b"]["rejected_candidates"]) == (4, 4)
    assert "rejected" not in record["tomograms"]["a"]
    assert "rejected/b.csv" in record["inputs"]
    for again in (("repick", "out", "--top", 16, "--threshold", 0), (*PICK, "--reject", "rejected", "--top", 16)):
        code, out, err = cetpick(*again)
        assert code == 0, err
        picked = xyz_of(data / "out" / "b.csv")
        assert len(picked) == 16
        assert not within(picked, before[:4], DIAMETER / 20).any()
    code, out, _ = cetpick(*PICK)  # without them all is as it was
    assert np.array_equal(xyz_of(data / "out" / "b.csv"), before)


def test_rejected_places_of_no_tomogram_are_an_error_unless_of_another_shard(data: Path, cetpick: Run) -> None:
    write_table(data / "rejected" / "b.csv", table([5, 5, 5]))
    only = ("pick", "a.mrc", "c.mrc", "--model", "m.safetensors", "--reject", "rejected", "-q", "-o")
    code, _, err = cetpick(*only, "other")
    assert code == 2
    assert "no rejected places belong to any of the tomograms" in err
    code, _, err = cetpick(*only, "sharded", "--shard", "1/2")
    assert code == 0, err


# --- curate -------------------------------------------------------------------------------------------------------


def info(name: str = "t", voxel_size: float = 10.0) -> TomogramInfo:
    return TomogramInfo(name=name, path=Path(f"{name}.mrc"), grid=Grid(shape=(50, 100, 100), voxel_size=voxel_size))


def test_what_was_kept_deleted_added_and_moved_is_told_apart() -> None:
    picks = table([[10, 10, 10], [30, 10, 10], [50, 10, 10], [70, 10, 10], [74, 10, 10]]).assign(
        score=[0.9, 0.8, 0.7, 0.6, 0.5]
    )
    points = np.array([[11.0, 10, 10], [54, 10, 10], [70.4, 10, 10], [90, 90, 10]])
    found = compare(info(), picks, points, tolerance=2, radius=5)
    assert found.kept["score"].tolist() == [0.9, 0.6]
    assert found.rejected["score"].tolist() == [0.8]
    assert found.added.to_numpy().tolist() == [[54, 10, 10], [90, 90, 10]]
    assert found.counts == {"kept": 2, "rejected": 1, "added": 2, "moved": 2}
    # the third was moved to a new point, the last one a second pick of a particle
    drawn = compare(info(), picks.assign(asked=picks["score"]), points, tolerance=2, radius=5)
    assert drawn.asked.tolist() == [0.9, 0.8, 0.7, 0.6, 0.5]
    assert drawn.particles.tolist() == [True, False, True, True, False]
    # a point belongs to one pick
    close = compare(info(), table([[10, 10, 10], [11, 10, 10]]), np.array([[10.4, 10, 10]]), tolerance=2, radius=0.1)
    assert close.kept.to_numpy().tolist() == [[10, 10, 10]]


def test_models_curated_in_3dmod_come_back_and_picking_again_takes_them(data: Path, cetpick: Run) -> None:
    picks = {name: xyz_of(data / "out" / f"{name}.csv") for name in NAMES}
    new = np.array([[1.0, 1, 1]])
    assert not within(new, picks["a"], 5).any()
    mod(data / "curated" / "a.mod", data / "a.mrc", np.vstack([picks["a"][3:], new]))
    mod(data / "curated" / "b.mod", data / "b.mrc", picks["b"][:0])
    code, out, err = cetpick("curate", "out", "curated", "-o", "round2", "--kept")
    assert code == 0, err
    assert "left alone: c" in out
    assert "--labels LABELS --reject round2/rejected.star --added round2/added.star --added round2/kept.star" in out
    infos = [read_info(data / f"{name}.mrc") for name in NAMES]
    rejected = {of.tomogram: of.xyz for of in read_coordinates("round2/rejected.star", tomograms=infos)}
    np.testing.assert_allclose(rejected["a"], picks["a"][:3], atol=1e-3)
    np.testing.assert_allclose(rejected["b"], picks["b"], atol=1e-3)
    (added,) = read_coordinates("round2/added.star", tomograms=infos)
    assert (added.tomogram, added.xyz.round(3).tolist()) == ("a", new.tolist())
    (kept,) = read_coordinates("round2/kept.star", tomograms=infos)
    assert len(kept) == 12
    told = json.loads((data / "round2" / "curate.json").read_text())
    assert told["tomograms"]["a"] == {"kept": 12, "rejected": 3, "added": 1, "moved": 0}
    assert told["skipped"] == ["c"]
    assert cetpick("curate", "out", "curated", "-o", "round2")[0] == 2  # nothing is overwritten unasked
    assert cetpick("curate", "out", "curated", "-o", "round2", "--overwrite")[0] == 0
    assert not (data / "round2" / "kept.star").exists()
    assert cetpick(*PICK, "--reject", "round2/rejected.star")[0] == 0
    assert not within(xyz_of(data / "out" / "a.csv"), picks["a"][:3], DIAMETER / 20).any()


def test_one_file_for_a_tomogram_or_a_list_without_an_output_folder(data: Path, cetpick: Run) -> None:
    points = xyz_of(data / "out" / "c.csv")
    write_table(data / "napari.csv", table(points[1:]))
    for picks, more in (
        ("out/c.csv", ()),
        ("out/particles.star", ()),
        ("c.csv", ("--tomogram", "c.mrc", "-d", DIAMETER)),
    ):
        write_table(data / "c.csv", table(points))
        curated = data / "c_curated" / "c.csv"
        write_table(curated, table(points[1:]))
        code, out, err = cetpick("curate", picks, curated, "-o", "r", "--overwrite", "--json", *more)
        assert code == 0, (picks, err)
        assert json.loads(out)["tomograms"]["c"] == {"kept": 14, "rejected": 1, "added": 0, "moved": 0}
    code, out, _ = cetpick("curate", "out", curated, "-o", "r", "--overwrite", "--emptied", "--json")
    assert [json.loads(out)["tomograms"][name]["rejected"] for name in NAMES] == [15, 15, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("out", "other"), "no pick is among the curated points of a, though there are such"),
        (("out", "a.mrc"), "a.mrc"),
        (("m.safetensors", "other"), "the tomograms of the picks must be known"),
        (("other/a.csv", "other", "--tomogram", "a.mrc"), "the particle's diameter must be known"),
        (("other", "other"), "holds no results of cetpick pick"),
        (("out", "other", "--tolerance", 0), "unusable --tolerance"),
        (("out", "other", "-d", -300), "unusable setting diameter"),
        (("out", "other", "-d", 1), "unusable setting diameter"),
        (("out", "none.mod"), "none.mod"),
    ],
)
def test_unusable_curation_writes_nothing(data: Path, cetpick: Run, arguments: tuple, message: str) -> None:
    far = np.array([[x, y, z] for x in (1, 46) for y in (1, 46) for z in (1, 18)])
    far = far[~within(far, xyz_of(data / "out" / "a.csv"), 4)]
    write_table(data / "other" / "a.csv", table(far))
    code, out, err = cetpick("curate", *arguments, "-o", "round2")
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert not (data / "round2").exists()


def test_what_only_another_cut_explains_is_said(data: Path, cetpick: Run) -> None:
    for name in NAMES:
        write_table(data / "copy" / f"{name}.csv", table(xyz_of(data / "out" / f"{name}.csv")))
    curate = ("curate", "out", "copy", "-o", "round2", "--overwrite")
    assert cetpick(*curate)[2] == ""
    assert cetpick("repick", "out", "--top", 10, "-q")[0] == 0
    code, _, err = cetpick(*curate)
    assert (code, err.count("added points are candidates that are no picks. If out was cut again after")) == (0, 3)
    assert cetpick("repick", "out", "--top", 60, "-q")[0] == 0
    code, _, err = cetpick(*curate)
    assert (code, err.count("rejected picks score lower than all that are left. If out was cut again after")) == (0, 3)


def test_objects_that_hold_no_pick_are_said(data: Path, cetpick: Run) -> None:
    points = xyz_of(data / "out" / "a.csv")
    both = pd.concat(
        [table(points).assign(**{"class": "particle"}), table([[5, 5, 5]]).assign(**{"class": "membrane"})]
    )
    write_table(data / "curated" / "a.csv", both)
    code, _, err = cetpick("curate", "out", "curated", "-o", "round2")
    assert code == 0
    assert "none of the 1 points of membrane was a pick; they are taken for particles that were missed" in err


def test_changed_tables_are_not_taken_for_what_was_picked(data: Path, cetpick: Run) -> None:
    write_table(data / "out" / "a.csv", table(xyz_of(data / "out" / "a.csv")[1:]))
    code, _, err = cetpick("curate", "out", "out/a.mod", "-o", "round2")
    assert code == 2
    assert "a.csv: is not as `cetpick pick` wrote it" in err


def test_relion_annotations_that_are_a_pixel_off(source: Path, tmp_path: Path) -> None:
    """RELION 5's picker moves all coordinates by an unbinned pixel when it makes annotations of particles."""
    rows = [[name, 2.0, 5.0, 260, 240, 100, str(source / f"{name}.mrc")] for name in NAMES]
    columns = ["Name", "TiltSeriesPixelSize", "TomogramBinning", "SizeX", "SizeY", "SizeZ", "ReconstructedTomogram"]
    star = tmp_path / "tomograms.star"
    write_star(star, {"global": pd.DataFrame(rows, columns=[f"rlnTomo{c}" for c in columns])}, version="50001")
    infos, _ = open_inputs([star])
    picks = np.array([[10.0, 10, 10], [30, 10, 10], [10, 30, 10]])
    write_particles(tmp_path / "particles.star", "relion5", [(of, table(picks).assign(score=0.5)) for of in infos[:2]])
    points = np.vstack([picks[1:], [[40, 40, 5]]]) + 1 / 5
    write_annotations(tmp_path, infos[0], table(points).assign(score=0.0))
    summary = run_curate(
        tmp_path / "particles.star",
        [tmp_path / "annotations"],
        tomograms=[star],
        diameter=DIAMETER,
        output=tmp_path / "round2",
    )
    assert summary.tomograms == {"a": {"kept": 2, "rejected": 1, "added": 1, "moved": 0}}
    assert summary.skipped == ["b"]
    (rejected,) = read_particles(summary.files["rejected"], infos)
    np.testing.assert_allclose(rejected.xyz, picks[:1], atol=1e-3)
    assert "rlnCenteredCoordinateXAngst" in summary.files["added"].read_text()


# --- suggest ------------------------------------------------------------------------------------------------------


def scored(name: str, scores: Sequence[float]) -> pd.DataFrame:
    """Candidates in a row, 10 voxels apart."""
    x = np.arange(len(scores)) * 10.0
    return pd.DataFrame({"tomogram": name, "x": x, "y": 5.0, "z": 5.0, "score": scores, "labels": 2})


def chosen(tables: list[pd.DataFrame], number: int, tomograms: int | None = None, seed: int = 0) -> pd.DataFrame:
    return choose(pd.concat(tables, ignore_index=True), number=number, tomograms=tomograms, seed=seed)


def test_places_are_drawn_in_proportion_to_their_scores() -> None:
    scores = [0.9] * 40 + [0.3] * 60 + [0.01] * 900
    drawn = [chosen([scored("t", scores)], 20, seed=seed) for seed in range(100)]
    assert {len(found) for found in drawn} == {20}
    found = pd.concat(drawn)
    expected = {0.9: 40 * 0.9, 0.3: 60 * 0.3, 0.01: 900 * 0.01}
    for score, mass in expected.items():
        assert (found["score"] == score).sum() == pytest.approx(2000 * mass / sum(expected.values()), rel=0.05, abs=5)
    # all there are, when more are asked for; and what would be drawn more than once is drawn for certain
    assert len(chosen([scored("t", scores)], 5000)) == len(scores)
    few = chosen([scored("t", [0.99] * 5 + [0.001] * 100)], 10)
    assert (few["score"] == 0.99).sum() == 5
    assert len(few) == 10


def test_answers_to_drawn_places_tell_the_number_where_scores_promise_too_many() -> None:
    """Of 100 candidates of score .8 about 31 are particles, and 5 of 200 of score .2: 36 in all, 120 by the scores."""
    rng = np.random.default_rng(3)
    scores = np.array([0.8] * 100 + [0.2] * 200)
    probable = expit(logit(scores) - 2.2)
    table = scored("t", scores)
    told, inside, most = [], 0, 0.0
    for seed in range(200):
        particle = rng.random(300) < probable
        found = chosen([table], 20, seed=seed)
        low, expected, high = count_from_answers(scores, found["score"], particle[(found["x"] / 10).astype(int)])
        assert low < expected < high
        told.append(expected)
        inside += low <= particle.sum() <= high
        most = max(most, expected)
    assert np.median(told) == pytest.approx(probable.sum(), rel=0.15)
    assert 0.65 < inside / 200 < 0.97
    assert most < 120
    # scores that are right stay as they are
    assert count_from_answers([0.9] * 100, [0.9] * 20, [True] * 18 + [False] * 2).expected == pytest.approx(90, abs=1)


def test_as_many_places_are_drawn_as_hold_so_many_particles() -> None:
    scores = [0.9] * 40 + [0.3] * 60 + [0.0] * 900
    share = (40 * 0.9**2 + 60 * 0.3**2) / (40 * 0.9 + 60 * 0.3)  # particles among places, by these scores
    assert enough(scores, 30) == pytest.approx(30 / share, abs=1)
    found = np.mean([chosen([scored("t", scores)], enough(scores, 30), seed=seed)["score"].sum() for seed in range(50)])
    assert found == pytest.approx(30, rel=0.05)
    assert enough(scores, 60) == len(scores)  # 54 are all there are
    assert enough([1.0] * 10, 3) == 3
    # in the tomograms that are opened, whatever the others hold
    tables = [scored("clean", [0.9] * 40), *(scored(f"t{i}", [0.3] * 40) for i in range(9))]
    drawn = [choose(pd.concat(tables), number=1, particles=9, tomograms=2, seed=seed) for seed in range(20)]
    assert {found["tomogram"].nunique() for found in drawn} == {2}
    assert all(found["score"].sum() == pytest.approx(9, abs=1.5) for found in drawn)
    assert len(choose(pd.concat(tables[1:]), number=1, particles=20, tomograms=1, seed=0)) == 40  # they hold 12


def test_suggestions_are_spread_over_tomograms_but_not_over_all() -> None:
    tables = [scored(f"t{i}", [0.5 + 0.01 * i + 0.001 * j for j in range(30)]) for i in range(9)]
    found = chosen(tables, 20)["tomogram"].value_counts()
    assert len(found) == 4
    assert found.between(2, 8).all()
    assert chosen(tables, 20, tomograms=2)["tomogram"].nunique() == 2
    # those with little to show are opened less often
    few = [scored("t0", [0.01]), scored("t1", [0.6] * 30), scored("t2", [0.6] * 30)]
    first = [set(chosen(few, 10, seed=seed)["tomogram"]) for seed in range(50)]
    assert sum("t0" in names for names in first) < 3


@pytest.mark.usefixtures("probabilities")
def test_suggested_places_make_the_round_without_torch(data: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from cetpick.cli import main; main()"

    def run(*arguments: object) -> str:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    out = run("suggest", "out", "--number", 10)
    places = pd.read_csv("out/suggest/suggested.csv")
    assert len(places) == 10
    (name, *_) = names = list(places["tomogram"].unique())
    assert len(names) == 2
    assert re.search(rf"^3dmod (/\S+/)?{name}\.mrc out/suggest/models/{name}\.mod$", out, re.MULTILINE)
    assert f"by their scores about {places['score'].sum():.0f} of these 10 are particles\n" in out
    chosen = json.loads((data / "out" / "suggest" / "suggest.json").read_text())
    assert chosen["settings"] == {"number": 10, "particles": None, "tomograms": None, "seed": 0}
    assert set(chosen["inputs"]) == {str(of) for of in Path("out/candidates").iterdir()}
    assert set(chosen["outputs"]) == {str(of) for of in Path("out/suggest").rglob("*.*") if of.name != "suggest.json"}
    model = data / "out" / "suggest" / "models" / f"{name}.mod"
    info = read_info(f"{name}.mrc")
    (shown,) = read_coordinates(model, tomograms=[info])
    expected = places[places["tomogram"] == name]
    np.testing.assert_allclose(shown.xyz, expected[["x", "y", "z"]], atol=1e-3)
    np.testing.assert_allclose(shown.table["score"], expected["score"], atol=1e-5)
    mod(model, data / f"{name}.mrc", shown.xyz[1:])  # 3dmod saves it where it was
    last = out.splitlines()[-1].split()
    assert last[:2] == ["cetpick", "curate"]
    out = run(*last[1:])
    kept = places.drop(places.index[places["tomogram"] == name][0])
    labels = kept.groupby("tomogram")["labels"].first().sum()
    considered = pd.read_csv("out/suggest/candidates.csv", dtype={"tomogram": str})
    hidden = count_from_answers(considered["score"], places["score"], places.index.isin(kept.index))
    told = (hidden.expected + labels) / 2
    assert f"from your answers: about {told:.0f} particles (" in out
    assert ") a tomogram looked at\n" in out
    assert f"--reject round2/rejected.star --added round2/kept.star --count-hint {told:.0f} --diameter 60" in out
    record = json.loads((data / "round2" / "curate.json").read_text())
    files = ["suggested.star", "suggested.csv", "candidates.csv", *(f"models/{of}.mod" for of in names)]
    assert set(record["inputs"]) == {f"out/suggest/{file}" for file in files}
    told = record["tomograms"]
    assert told[name] == {"kept": len(expected) - 1, "rejected": 1, "added": 0, "moved": 0}
    assert sum(counts["kept"] for counts in told.values()) == 9


def test_tomograms_whose_candidates_are_gone_are_said(data: Path, cetpick: Run) -> None:
    (data / "out" / "candidates" / f"{NAMES[0]}.csv").unlink()
    code, _, err = cetpick("suggest", "out")
    told = f"left out, as candidates were changed or removed since they were written: out/candidates/{NAMES[0]}.csv;"
    assert (code, told in err) == (0, True)
    assert NAMES[0] not in set(pd.read_csv("out/suggest/suggested.csv", dtype=str)["tomogram"])


def test_known_places_are_not_suggested(data: Path, cetpick: Run) -> None:
    code, *_ = cetpick("suggest", "out", "--number", 6, "--tomograms", 1)
    assert code == 0
    first = pd.read_csv("out/suggest/suggested.csv")
    name = first["tomogram"].iloc[0]
    write_table(data / "labels" / f"{name}.csv", first[["x", "y", "z"]])
    code, _, err = cetpick("suggest", "out", "--number", 6, "--tomograms", 1, "--labels", "labels")
    assert code == 2
    assert "--overwrite" in err
    summary = run_suggest(data / "out", number=30, tomograms=3, labels=[data / "labels"], overwrite=True)
    rows = summary.places[summary.places["tomogram"] == name]
    assert len(rows)
    assert not within(rows[["x", "y", "z"]].to_numpy(), first[["x", "y", "z"]].to_numpy(), DIAMETER / 20).any()
    with pytest.raises(InputError, match="holds no results"):
        run_suggest(data / "labels")
    # what is given twice, or nearly so, counts once
    write_table(data / "again" / f"{name}.csv", first[["x", "y", "z"]] + 0.5)
    twice = run_suggest(
        data / "out", number=30, tomograms=3, labels=[data / "labels", data / "again"], overwrite=True
    ).places
    assert set(twice["labels"][twice["tomogram"] == name]) == {len(first)}


@pytest.mark.usefixtures("probabilities")
def test_places_are_asked_for_by_their_particles(data: Path, cetpick: Run) -> None:
    code, out, _ = cetpick("suggest", "out", "--particles", 4, "--tomograms", 3)
    places = pd.read_csv(data / "out/suggest/suggested.csv")
    assert code == 0
    assert places["score"].sum() == pytest.approx(4, abs=1.5)
    assert f"of these {len(places)} are particles" in out
    code, _, err = cetpick("suggest", "out", "--particles", 4, "--number", 10, "--overwrite")
    assert code == 2
    assert "--number 10 and --particles 4" in err
    before = {path: path.read_bytes() for path in (data / "out/suggest").rglob("*.*")}
    code, _, err = cetpick("suggest", "out", "--particles", 10**6, "--tomograms", 1, "--overwrite")
    assert code == 2
    assert "allow more --tomograms" in err
    assert "in 1 of 3 tomograms" in err
    assert {path: path.read_bytes() for path in (data / "out/suggest").rglob("*.*")} == before
    code, _, err = cetpick("suggest", "out", "--tomograms", 0, "--overwrite")
    assert code == 2
    assert "unusable --tomograms" in err


def test_particles_are_not_told_by_scores_that_are_no_probabilities(data: Path, cetpick: Run) -> None:
    code, _, err = cetpick("suggest", "out", "--particles", 4)
    assert code == 2
    assert "no probabilities" in err
    assert not (data / "out/suggest").exists()


@pytest.mark.usefixtures("probabilities")
def test_answers_are_counted_with_the_scores_of_these_very_places_or_not_at_all(data: Path) -> None:
    places = run_suggest(data / "out", number=12, tomograms=3).places
    star, file = data / "out" / "suggest" / "suggested.star", data / "out" / "suggest" / "suggested.csv"

    def count() -> object:
        return run_curate(star, [star.parent / "models"], output=data / "round2", overwrite=True).count

    told = count()
    scores = pd.read_csv(file.with_name("candidates.csv"))["score"]
    in_all = np.array(count_from_answers(scores, places["score"], np.ones(len(places))))
    assert told == pytest.approx(in_all / places["tomogram"].nunique())
    places.iloc[::-1].to_csv(file, index=False)  # in another order
    assert count() == pytest.approx(told)
    for column, value in (("score", "2"), ("score", "much"), ("score", ""), ("score", "-1"), ("labels", "")):
        places.astype(str).assign(**{column: [value, *places[column][1:].astype(str)]}).to_csv(file, index=False)
        with pytest.warns(CetpickWarning, match="the answers tell no number"):
            assert count() is None
    for text in (None, b"", b'x,"\n', b"\xf9\x00", places[1:].to_csv(index=False).encode()):
        file.unlink()
        if text is not None:
            file.write_bytes(text)
        with pytest.warns(CetpickWarning, match="the answers tell no number"):
            assert count() is None
        file.touch()
    places.to_csv(file, index=False)
    assert count() == pytest.approx(told)
    file.with_name("candidates.csv").unlink()
    assert count() is None


def test_scores_that_are_no_probabilities_tell_no_number(data: Path) -> None:
    star = run_suggest(data / "out", number=12).star
    assert run_curate(star, [star.parent / "models"], output=data / "round2").count is None


def test_models_that_were_emptied_in_a_folder_are_answers(data: Path, cetpick: Run) -> None:
    assert cetpick("suggest", "out", "--number", 10, "--tomograms", 2)[0] == 0
    models = sorted((data / "out" / "suggest" / "models").glob("*.mod"))
    for path in models:
        mod(path, data / f"{path.stem}.mrc", np.empty((0, 3)))
    code, out, _ = cetpick("curate", "out/suggest/suggested.star", models[0].parent, "--kept", "-o", "round2", "--json")
    assert code == 0
    assert sum(of["rejected"] for of in json.loads(out)["tomograms"].values()) == 10


def test_a_tomogram_may_be_called_anything(tmp_path: Path) -> None:
    drawn = pd.DataFrame({"tomogram": ["001", "NA"], "x": 5.0, "y": 5.0, "z": 5.0, "score": [0.5, 0.25], "labels": 2})
    drawn.to_csv(tmp_path / "suggested.csv", index=False)
    given = [(info(name), table([5, 5, 5])) for name in ("001", "NA")]
    assert _drawn(tmp_path / "suggested.star", given) == {"001": 2, "NA": 2}
    assert [float(places["asked"].iloc[0]) for _, places in given] == [0.5, 0.25]


def test_a_tomogram_whose_places_are_all_wrong_may_have_particles_beside_them(data: Path) -> None:
    summary = run_suggest(data / "out", number=6, tomograms=2)
    name = next(iter(summary.tomograms))
    shown = summary.places[summary.places["tomogram"] == name]
    far = np.array([[x, y, 10] for x in range(3, 48, 4) for y in range(3, 48, 4)], float)
    far = far[~within(far, xyz_of(summary.output / "suggested.csv"), DIAMETER / 20 + 1)][:1]
    mod(summary.models[name], data / f"{name}.mrc", far)
    with pytest.warns(CetpickWarning, match=f"all places in {name} are taken for rejected"):
        curated = run_curate(summary.star, [summary.star.parent / "models"], output=data / "round2", keep=True)
    assert curated.tomograms[name] == {"kept": 0, "rejected": len(shown), "added": 1, "moved": 0}
    assert curated.untouched == [other for other in summary.tomograms if other != name]


def test_answers_are_not_written_over(data: Path) -> None:
    summary = run_suggest(data / "out", number=6, tomograms=2)
    name = next(iter(summary.tomograms))
    mine = summary.models[name]
    mod(mine, data / f"{name}.mrc", np.full((1, 3), 20.0))
    answer = mine.read_bytes()
    with pytest.warns(CetpickWarning, match=f"changed since it was written; .* kept as .*edited/{name}.edited.mod"):
        again = run_suggest(data / "out", number=4, tomograms=1, seed=1, overwrite=True)
    folder = summary.output / "edited"
    assert [path.name for path in folder.iterdir()] == [f"{name}.edited.mod"]
    assert (folder / f"{name}.edited.mod").read_bytes() == answer
    assert {path.stem for path in (summary.output / "models").iterdir()} == set(again.models)
    run_suggest(data / "out", number=6, tomograms=2, overwrite=True)  # nothing was edited, nothing is said


def test_places_that_were_not_edited_are_told_and_the_list_itself_is_no_answer(data: Path, cetpick: Run) -> None:
    names = list(run_suggest(data / "out", number=6, tomograms=2).tomograms)
    _, out, _ = cetpick("curate", "out/suggest/suggested.star", "out/suggest/models", "--kept", "-o", "round2")
    assert f"every pick counts as a particle: {', '.join(names)} (take files that you did not look at" in out
    code, _, err = cetpick("curate", "out/suggest/suggested.star", "out/suggest", "--kept", "-o", "other")
    assert code == 2
    assert "out/suggest/suggested.star: is compared with itself" in err
    assert "such as out/suggest/models" in err


@pytest.mark.usefixtures("probabilities")
def test_no_particle_among_the_places_tells_no_number(data: Path, cetpick: Run) -> None:
    for name in run_suggest(data / "out", number=6, tomograms=2).tomograms:
        mod(data / "out" / "suggest" / "models" / f"{name}.mod", data / f"{name}.mrc", np.empty((0, 3)))
    arguments = ("curate", "out/suggest/suggested.star", "out/suggest/models", "--kept", "-o", "round2")
    code, out, err = cetpick(*arguments)
    assert (code, err) == (0, "")
    assert "6 rejected" in out
    assert "tell" not in out
    assert "--count-hint" not in out
    assert json.loads(cetpick(*arguments, "--overwrite", "--json")[1])["count"] is None


@pytest.mark.usefixtures("probabilities")
def test_places_are_suggested_from_any_folder(
    data: Path, cetpick: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = Path.cwd().resolve()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    out = cetpick("suggest", here / "out", "--tomograms", 1)[1]
    (line,) = (line for line in out.splitlines() if line.startswith("3dmod "))
    assert all(Path(word).is_file() for word in line.split()[1:])


@pytest.mark.usefixtures("probabilities")
def test_what_is_said_of_numbers_that_cannot_be(data: Path, cetpick: Run) -> None:
    assert "found: 0" in cetpick("suggest", "out", "--tomograms", 0)[2]
    code, out, err = cetpick("suggest", "out", "--tomograms", 1, "--number", 10**6)
    assert (code, err) == (0, "")
    places = pd.read_csv("out/suggest/suggested.csv")
    assert f"{len(places)} places: these tomograms have no more candidates off the labels" in out
    assert len(places) == len(pd.read_csv("out/suggest/candidates.csv"))


def test_the_next_command_is_the_last_one_and_what_was_said() -> None:
    def summary(*command: str, paths: tuple[str, ...] = ("t2.mrc",)) -> CurateSummary:
        files = {"rejected": Path("r/rejected.star"), "added": Path("r/my added.star")}
        return CurateSummary(
            output=Path("r"), diameter=90.0, command=list(command), files=files, paths=[Path(path) for path in paths]
        )

    said = "--reject r/rejected.star --added 'r/my added.star'"
    words = ("pick", "t1.mrc", "t2.mrc", "--labels", "t1.mod", "-d", "90", "--seed", "3", "-o", "picks", "--overwrite")
    assert summary(*words).next_command == (f"cetpick pick t1.mrc t2.mrc --labels t1.mod -d 90 --seed 3 {said} -o NEW")
    # where tomograms to train on are named, those that were corrected are, too, once
    words = ("pick", "t1.mrc", "--train", "t1.mrc", "--labels", "t1.mod", "-d", "90", "--output", "picks")
    assert summary(*words, paths=("t1.mrc", "t2.mrc")).next_command == (
        f"cetpick pick t1.mrc --train t1.mrc --labels t1.mod -d 90 {said} --train t2.mrc -o NEW"
    )
    # an earlier hint gives way, however it was given, to one that is a number of particles
    words = separated(["pick", "t1.mrc", "--train=t1.mrc", "-lt1.mod", "--count-hint=80", "-opicks", "--mask=a=b"])
    assert words == [
        "pick", "t1.mrc", "--train", "t1.mrc", "-l", "t1.mod", "--count-hint", "80", "-o", "picks", "--mask", "a=b"
    ]  # fmt: skip
    told = summary(*words)
    told.count = Count(0.2, 0.3, 0.5)
    assert told.next_command == (
        f"cetpick pick t1.mrc --train t1.mrc -l t1.mod --mask a=b {said} --count-hint 1 --train t2.mrc -o NEW"
    )
    # from another folder than that of the command all paths lead to the files
    told = summary(*words, paths=("t1.mrc", "t2.mrc"))
    told.folder = Path("/some where")
    here = Path.cwd()
    assert told.next_command == (
        "cd '/some where' && cetpick pick t1.mrc --train t1.mrc -l t1.mod --count-hint 80 --mask a=b "
        f"--reject {here}/r/rejected.star --added '{here}/r/my added.star' "
        f"--train {here}/t1.mrc --train {here}/t2.mrc -o NEW"
    )
    # the published method knows no rejected places (and its scores tell no number)
    told = summary("pick", "t1.mrc", "--labels", "t1.mod", "--mode", "paper", "-o", "picks")
    assert told.next_command == ("cetpick pick t1.mrc --labels t1.mod --mode paper --added 'r/my added.star' -o NEW")
    assert summary().next_command == f"cetpick pick TOMOGRAMS --labels LABELS {said} --diameter 90 -o NEW"
