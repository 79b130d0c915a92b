"""cetpick-relion with a stand-in for the command line, which leaves the candidates that picking would."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cetpick.checkpoint import save_model
from cetpick.cli.relion import main
from cetpick.config import ModelSettings, ParticleClass
from cetpick.errors import InputError
from cetpick.io.mrc import write_mrc
from cetpick.io.relion_job import coordinate_file
from cetpick.io.star import read_star
from cetpick.io.tomograms import read_info
from cetpick.networks.build import build_network
from cetpick.workflows.record import Stamp
from cetpick.workflows.results import Cut, Maker, TomogramRecord, save_record

JOB = Path("External/job001")
FAKE = """
import hashlib, json, sys, time
from pathlib import Path
out = Path(sys.argv[sys.argv.index("-o") + 1])
with open("calls.jsonl", "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
deadline = time.monotonic() + 60
while Path("hold").exists() and time.monotonic() < deadline:
    time.sleep(0.05)
if "--model" not in sys.argv:
    (out if sys.argv[1] == "train" else out / "model.safetensors").write_bytes(Path("made.safetensors").read_bytes())
if sys.argv[1] == "pick":
    threshold = float(sys.argv[sys.argv.index("--threshold") + 1]) if "--threshold" in sys.argv else 0.5
    run = out / "run.json"
    before = json.loads(run.read_text())["tomograms"] if run.exists() else {}
    names = sorted({*before, *Path("picks").read_text().split()})
    candidates = {0.9: "3,4,5,0.9,particle", 0.4: "6,7,2,0.4,particle"}
    picks = [text for score, text in candidates.items() if score >= threshold]
    (out / "records").mkdir(exist_ok=True)
    for name in names:
        table = out / f"{name}.csv"
        table.write_text("\\n".join(["x,y,z,score,class", *picks, ""]))
        stamp = {"bytes": table.stat().st_size, "modified": table.stat().st_mtime_ns}
        stamp["sha256"] = hashlib.sha256(table.read_bytes()).hexdigest()
        record = json.loads(Path("record.json").read_text()) | {"outputs": {table.name: stamp}}
        (out / f"records/{name}.json").write_text(json.dumps(record))
    values = {"threshold": threshold, "tomograms": {name: {} for name in names}}
    run.write_text(json.dumps({"cetpick": "1", "command": "pick", "started": "now", **values}))
sys.exit(int(Path("code").read_text()) if Path("code").exists() else 0)
"""
MICROGRAPHS = """
data_optics

loop_
_rlnOpticsGroup #1
_rlnMicrographPixelSize #2
1 10.0

data_micrographs

loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
Import/job001/Tomograms/t1.mrc 1
Import/job001/Tomograms/t2.mrc 1
"""
TOMOGRAMS = """
data_global

loop_
_rlnTomoName #1
_rlnTomoTiltSeriesPixelSize #2
_rlnTomoTomogramBinning #3
_rlnTomoSizeX #4
_rlnTomoSizeY #5
_rlnTomoSizeZ #6
_rlnTomoReconstructedTomogram #7
t1 2.5 4.0 48 40 32 Import/job001/Tomograms/t1.mrc
t2 2.5 4.0 48 40 32 Import/job001/Tomograms/t2.mrc
"""


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    settings = ModelSettings(classes=(ParticleClass(diameter=60),), voxel_size=(10, 10, 10), threshold=0.5)
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_model(path, build_network(settings), settings)
    return path


def _record(tomogram):
    return TomogramRecord(
        maker=Maker(model="0", calibrated=False),
        file=tomogram,
        input=Stamp.of(tomogram),
        info=read_info(tomogram),
        device="cpu",
        picked="now",
        seconds=1.0,
        candidates=2,
        best_score=0.9,
        excluded_voxels={},
        warnings=(),
        cut=Cut(threshold=0.5),
    )


@pytest.fixture
def project(tmp_path, monkeypatch, model_file):
    monkeypatch.chdir(tmp_path)
    for name in ("t1", "t2"):
        write_mrc(tmp_path / f"Import/job001/Tomograms/{name}.mrc", np.zeros((8, 10, 12), np.float32), voxel_size=10.0)
    for name, text in {
        "mics.star": MICROGRAPHS,
        "tomograms.star": TOMOGRAMS,
        "fake.py": FAKE,
        "picks": "t1 t2",
    }.items():
        (tmp_path / name).write_text(text)
    for name in ("m.safetensors", "made.safetensors"):
        (tmp_path / name).write_bytes(model_file.read_bytes())
    (tmp_path / "t1.csv").write_text("x,y,z\n3,4,5\n")
    save_record(tmp_path, _record(tmp_path / "Import/job001/Tomograms/t1.mrc"))
    (tmp_path / "records/t1.json").rename("record.json")
    JOB.mkdir(parents=True)
    return tmp_path


@pytest.fixture(autouse=True)
def restore_signals():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def relion(*arguments):
    """Run the job; returns its exit code."""
    try:
        main(["--o", f"{JOB}/", *map(str, arguments), "--exe", f"{sys.executable} fake.py", "--j", "2"])
    except SystemExit as ended:
        return ended.code
    return 0


def calls():
    return [json.loads(line) for line in Path("calls.jsonl").read_text().splitlines()]


def markers():
    return {path.name.removeprefix("RELION_JOB_EXIT_") for path in JOB.glob("RELION_JOB_EXIT_*")}


def nodes():
    table = read_star(JOB / "RELION_OUTPUT_NODES.star")["output_nodes"]
    assert all(Path(name).exists() for name in table["rlnPipeLineNodeName"])
    return list(
        zip(table["rlnPipeLineNodeName"], table["rlnPipeLineNodeType"], table["rlnPipeLineNodeTypeLabel"], strict=True)
    )


def test_relion_31_finds_picks_beside_the_suffix_file(project):
    (JOB / "job.star").write_text("data_job\n_rlnJobType 99\n")
    arguments = ("--in_mics", "mics.star", "--model", "m.safetensors", "--pipeline_control", f"{JOB}/")
    assert relion(*arguments) == 0
    assert markers() == {"SUCCESS"}
    assert [node[:2] for node in nodes()] == [(f"{JOB}/particles.star", "3"), (f"{JOB}/coords_suffix_pick.star", "2")]
    # what RELION's extraction makes of the suffix file and of the name of the micrograph
    table = read_star(JOB / "Tomograms/t1_pick.star")[""]
    assert table[["rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"]].astype(float).to_numpy().tolist() == [
        [3, 4, 5]
    ]
    (call,) = calls()
    assert call[:3] == ["pick", "Import/job001/Tomograms/t1.mrc", "Import/job001/Tomograms/t2.mrc"]
    assert call[call.index("--threads") + 1] == "2"
    assert call[call.index("--voxel-size") + 1] == "10.0"


def test_relion_5_gets_particles_set_and_annotations(project):
    labels = ("--labels", "t1.csv", "--train", "Import/job001/Tomograms/t1.mrc", "--diameter", "60")
    for name in ("gold.mod", "bad.star"):
        (project / name).touch()
    more = ("--seed", "3", "--max_foo", "1", "--in_3dref", "x", "--reject", "gold.mod", "bad.star")
    assert relion("--in_mics", "tomograms.star", *labels, *more) == 0
    particles = read_star(JOB / "particles.star")["particles"]
    assert list(particles["rlnTomoName"]) == ["t1", "t2"]
    # (v * 4 - size / 2) * 2.5
    centred = [float(particles[f"rlnCenteredCoordinate{axis}Angst"][0]) for axis in "XYZ"]
    assert centred == [(12 - 24) * 2.5, (16 - 20) * 2.5, (20 - 16) * 2.5]
    chosen = read_star(JOB / "optimisation_set.star")["optimisation_set"].iloc[0]
    assert chosen.to_dict() == {
        "rlnTomoParticlesFile": f"{JOB}/particles.star",
        "rlnTomoTomogramsFile": "tomograms.star",
    }
    assert [node[2] for node in nodes()] == [
        "ParticleGroupMetadata.star.relion",
        "TomoOptimisationSet.star.relion.tomo",
    ]
    clicked = read_star(JOB / "annotations/t2_particles.star")[""]
    assert clicked.iloc[0].to_dict() | {"rlnAutopickFigureOfMerit": ""} == {
        "rlnTomoName": "t2", "rlnCoordinateX": "3.000000", "rlnCoordinateY": "4.000000",
        "rlnCoordinateZ": "5.000000", "rlnAutopickFigureOfMerit": "",
    }  # fmt: skip
    (call,) = calls()
    assert call[-4:] == ["--seed", "3", "--max-foo", "1"]
    assert [call[i + 1] for i, word in enumerate(call) if word == "--reject"] == ["gold.mod", "bad.star"]
    assert "--in_3dref" not in call
    assert "--in-3dref" not in call


def test_relion_4_needs_the_reconstructions_and_gets_unbinned_pixels(project):
    (JOB / "job.star").write_text("# version 30001\n\ndata_job\n_rlnJobTypeLabel relion.external\n")
    lines = [line for line in TOMOGRAMS.splitlines() if "Binning" not in line and "Reconstructed" not in line]
    text = "\n".join(lines).replace(" 4.0 48", " 48").replace(" Import/job001/Tomograms/t1.mrc", "")
    (project / "four.star").write_text(text.replace(" Import/job001/Tomograms/t2.mrc", "") + "\n")
    text = (project / "four.star").read_text().replace("#4", "#3").replace("#5", "#4").replace("#6", "#5")
    (project / "four.star").write_text(text)
    assert relion("--in_mics", "four.star", "--model", "m.safetensors") == 2
    assert markers() == {"FAILURE"}
    volumes = [f"Import/job001/Tomograms/{name}.mrc" for name in ("t1", "t2")]
    assert relion("--in_mics", "four.star", "--model", "m.safetensors", "--tomograms", *volumes) == 0
    particles = read_star(JOB / "particles.star")["particles"]
    assert [float(particles[f"rlnCoordinate{axis}"][0]) for axis in "XYZ"] == [12, 16, 20]
    assert nodes()[0][2] == "ParticlesData.star.relion"
    assert read_star(JOB / "optimisation_set.star")["optimisation_set"]["rlnTomoTomogramsFile"][0] == "four.star"
    # a reconstruction that breaks: the job is not finished, and what it made of that one before is there
    broken = Path(volumes[1])
    broken.write_bytes(broken.read_bytes()[:500])
    Path("picks").write_text("t1")
    Path("code").write_text("1")
    assert relion("--in_mics", "four.star", "--model", "m.safetensors", "--tomograms", *volumes) == 1
    assert markers() == {"FAILURE"}
    assert (JOB / "records/t2.json").exists()
    assert str(read_star(JOB / "tomograms.star")["global"]["rlnTomoReconstructedTomogram"][1]) == volumes[1]
    # one that is not named any more is not asked for
    Path("code").unlink()
    assert relion("--in_mics", "four.star", "--model", "m.safetensors", "--tomograms", volumes[0]) == 0
    assert list(read_star(JOB / "particles.star")["particles"]["rlnTomoName"]) == ["t1"]


def test_continue_cuts_again_and_finishes_what_is_missing(project):
    Path("picks").write_text("t1")
    Path("code").write_text("1")
    arguments = ("--in_mics", "tomograms.star", "--model", "m.safetensors")
    assert relion(*arguments) == 1
    assert markers() == {"FAILURE"}
    assert list(read_star(JOB / "particles.star")["particles"]["rlnTomoName"]) == ["t1"]
    Path("picks").write_text("t2")
    Path("code").unlink()
    assert relion(*arguments) == 0
    assert markers() == {"SUCCESS"}
    assert len(read_star(JOB / "particles.star")["particles"]) == 2
    assert relion(*arguments, "--threshold", "0.3") == 0
    assert len(read_star(JOB / "particles.star")["particles"]) == 4
    # each time cetpick is asked for all, and left to see what is missing
    assert [call[:2] for call in calls()] == [["pick", "tomograms.star"]] * 3
    assert not any("--overwrite" in call or "--resume" in call for call in calls())
    # another model: nothing of what is there counts
    os.utime("m.safetensors", ns=(1, 1))
    (JOB / "run.1of1.json").touch()
    Path("picks").write_text("t1")
    assert relion(*arguments) == 1
    assert list(read_star(JOB / "particles.star")["particles"]["rlnTomoName"]) == ["t1"]
    assert not any((JOB / name).exists() for name in ("records/t2.json", "run.1of1.json", "t2.csv"))


def test_another_cut_and_what_decides_nothing_do_not_start_over(project):
    arguments = ("--in_mics", "tomograms.star", "--labels", "t1.csv", "--diameter", "60")
    assert relion(*arguments) == 0
    (JOB / "model.checkpoint").touch()  # would be removed
    for more in (
        ("--target_precision", "0.8"),
        ("--top", "3"),
        ("--no_report", "--memory", "4"),
        ("--star=warp", "-q"),
        ("--threads", "3", "--device=cpu", "--resume"),
    ):
        assert relion(*arguments, *more) == 0
        assert (JOB / "model.checkpoint").exists()
    assert calls()[1][-10:-8] == ["--target-precision", "0.8"]
    assert relion(*arguments, "--no_report", "--steps", "9") == 0
    assert not (JOB / "model.checkpoint").exists()


@pytest.mark.parametrize("changed", ["labels/t1.csv", "Import/job001/Tomograms/t1.mrc", "mask.mrc"])
def test_other_content_of_what_was_trained_on_starts_over(project, changed):
    (project / "labels").mkdir()
    (project / "t1.csv").rename("labels/t1.csv")
    (project / "mask.mrc").touch()
    arguments = ("--in_mics", "tomograms.star", "--labels", "labels", "--train", "Import/job001/Tomograms/t1.mrc")
    arguments = (*arguments, "--diameter", "60", "--mask", "mask.mrc")
    assert relion(*arguments) == 0
    (JOB / "model.checkpoint").touch()
    assert relion(*arguments) == 0
    assert (JOB / "model.checkpoint").exists()
    os.utime(changed, ns=(1, 1))
    assert relion(*arguments) == 0
    assert not (JOB / "model.checkpoint").exists()


@pytest.mark.parametrize(
    ("star", "left"), [("mics.star", "Tomograms/{}_pick.star"), ("tomograms.star", "annotations/{}_particles.star")]
)
def test_no_coordinates_are_left_of_tomograms_that_now_fail_or_of_another_model(project, star, left):
    (JOB / "job.star").write_text("data_job\n_rlnJobType 99\n")
    arguments = ("--in_mics", star, "--model", "m.safetensors")
    files = [JOB / left.format(name) for name in ("t1", "t2")]
    assert relion(*arguments) == 0
    assert all(file.exists() for file in files)
    (JOB / "run.json").unlink()
    Path("picks").write_text("t1")
    Path("code").write_text("1")
    assert relion(*arguments) == 1
    assert [file.exists() for file in files] == [True, False]
    os.utime("m.safetensors", ns=(1, 1))
    Path("code").write_text("2")
    Path("picks").write_text("")
    assert relion(*arguments) == 1
    assert not any(file.exists() for file in files)
    assert not (JOB / "RELION_OUTPUT_NODES.star").exists()


@pytest.mark.parametrize("killed", [False, True])
def test_a_second_run_of_a_job_fails_and_leaves_the_first_alone(project, killed, capsys):
    Path("hold").touch()
    code = "from cetpick.cli.relion import main; main()"
    arguments = ["--in_mics", "tomograms.star", "--model", "m.safetensors"]
    words = [sys.executable, "-c", code, "--o", f"{JOB}/", *arguments, "--exe", f"{sys.executable} fake.py"]
    first = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not Path("calls.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    if killed:  # what it has started lives on
        first.kill()
        first.wait()
    os.utime("m.safetensors", ns=(1, 1))  # nothing is cleared away for another model
    stored = (JOB / "cetpick_job.json").read_bytes()
    assert relion(*arguments) == 2
    assert "another cetpick is at work in this folder" in capsys.readouterr().err
    assert markers() == {"FAILURE"}
    assert (JOB / "cetpick_job.json").read_bytes() == stored
    assert len(calls()) == 1
    Path("hold").unlink()
    if not killed:
        assert first.wait(60) == 0
        assert markers() == {"SUCCESS"}
    while (code := relion(*arguments)) == 2 and time.monotonic() < deadline:  # until the command ends, too
        time.sleep(0.1)
    assert code == 0
    assert markers() == {"SUCCESS"}
    assert not list(JOB.glob(".*"))


def test_results_of_tomograms_that_are_no_longer_asked_for_are_removed(project):
    arguments = ("--in_mics", "tomograms.star", "--model", "m.safetensors")
    assert relion(*arguments) == 0
    (JOB / "records/t0.json").touch()
    assert relion(*arguments) == 0
    assert {path.name for path in (JOB / "records").iterdir()} == {"t1.json", "t2.json"}


def test_a_training_goes_on_and_other_labels_start_over(project):
    arguments = ("--in_mics", "tomograms.star", "--labels", "t1.csv", "--diameter", "60")
    for _ in range(2):
        assert relion(*arguments) == 0
    first, second = calls()
    assert first == second
    assert "--resume" in first
    assert "--overwrite" not in first
    endings = (".run.json", ".report.html", ".checkpoint")
    for ending in endings:
        (JOB / f"model{ending}").touch()
    assert relion(*arguments, "--seed", "3") == 0
    assert not any((JOB / f"model{ending}").exists() for ending in endings)
    assert not (JOB / ".earlier").exists()


def kept():
    return {path: path.read_bytes() for path in JOB.rglob("*") if path.is_file() and path.parent != JOB / "annotations"}


@pytest.mark.parametrize("killed", [False, True])
def test_a_command_that_comes_to_nothing_leaves_what_was_there(project, killed):
    """Such as one with a mistyped option."""
    arguments = ("--in_mics", "tomograms.star", "--labels", "t1.csv", "--diameter", "60")
    assert relion(*arguments) == 0
    (JOB / "RELION_OUTPUT_NODES.star").unlink()  # RELION is not told of what it did not ask for
    (JOB / "RELION_JOB_EXIT_SUCCESS").rename(JOB / "RELION_JOB_EXIT_FAILURE")
    before = kept()
    (project / "made.safetensors").rename("other.safetensors")  # so that the command fails at once
    if killed:  # the job itself, with all that had been set aside
        (JOB / ".earlier").mkdir()
        for name in ("model.safetensors", "t1.csv", "run.json", "records", "cetpick_job.json"):
            (JOB / name).rename(JOB / ".earlier" / name)
        (JOB / "cetpick_job.json").write_text("{}")
    assert relion(*arguments, "--treshold", "0.7") == 1
    assert kept() == before
    assert not (JOB / ".earlier").exists()
    (project / "other.safetensors").rename("made.safetensors")
    (JOB / "model.checkpoint").touch()  # would be set aside
    assert relion(*arguments) == 0
    assert (JOB / "model.checkpoint").exists()
    assert (JOB / "RELION_OUTPUT_NODES.star").exists()


def test_who_goes_back_to_the_parameters_of_before_finds_the_results_of_before(project):
    """After a training with others that was stopped, which leaves its checkpoint."""
    arguments = ("--in_mics", "tomograms.star", "--labels", "t1.csv", "--diameter", "60")
    assert relion(*arguments) == 0
    (JOB / "model.run.json").write_text("the first")
    (project / "made.safetensors").rename("other.safetensors")
    assert relion(*arguments, "--seed", "3") == 1
    (JOB / ".earlier").mkdir()
    for name in ("model.safetensors", "model.run.json", "t1.csv", "t2.csv", "run.json", "records", "cetpick_job.json"):
        (JOB / name).rename(JOB / ".earlier" / name)
    (JOB / "cetpick_job.json").write_text("{}")
    (JOB / "model.checkpoint").touch()
    (project / "other.safetensors").rename("made.safetensors")
    assert relion(*arguments) == 0
    assert (JOB / "model.run.json").read_text() == "the first"
    assert not (JOB / "model.checkpoint").exists()
    assert not (JOB / ".earlier").exists()


def test_results_that_no_job_made_are_left_alone(project, capsys):
    (JOB / "model.safetensors").write_bytes(b"precious")
    assert relion("--in_mics", "tomograms.star", "--labels", "t1.csv", "--diameter", "60") == 2
    assert "not of this job" in capsys.readouterr().err
    assert (JOB / "model.safetensors").read_bytes() == b"precious"
    assert not Path("calls.jsonl").exists()


def test_parameters_are_understood_as_the_command_spells_them(project):
    arguments = ("--tomograms", "Import/job001/Tomograms/t1.mrc", "--model", "m.safetensors")
    Path("picks").write_text("Tomograms_t1")
    spelt = ("--voxel-size", "13.0", "--names", "parent", "--target-precision", "0.9")
    assert relion(*arguments, *spelt) == 0
    (words,) = calls()
    for option, value in zip(spelt[::2], spelt[1::2], strict=True):
        assert words.count(option) == 1
        assert words[words.index(option) + 1] == value
    assert markers() == {"SUCCESS"}


def test_closed_output_does_not_keep_a_job_from_ending(project, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert relion("--in_mics", "tomograms.star", "--model", "m.safetensors") == 0
    assert markers() == {"SUCCESS"}


@pytest.mark.parametrize("labels", ["labb.csv", f"{JOB}/t1.csv"], ids=["mistyped", "in the job's folder"])
def test_continuing_with_unusable_labels_keeps_what_is_there(project, labels, capsys):
    arguments = ("--in_mics", "tomograms.star", "--diameter", "60", "--labels")
    assert relion(*arguments, "t1.csv") == 0
    before = {path: path.read_bytes() for path in JOB.rglob("*") if path.is_file() and "RELION_JOB" not in path.name}
    assert relion(*arguments, labels) == 2
    assert labels in capsys.readouterr().err
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize(
    ("gpu", "picking", "training"),
    [
        ("1", "cuda:1", "cuda:1"),
        ("0:2", "cuda:0,cuda:2", "cuda:0"),
        ("1,0", "cuda:1,cuda:0", "cuda:1"),
        ("cpu", "cpu", "cpu"),
    ],
)
def test_several_gpus_pick_and_one_trains(project, gpu, picking, training):
    arguments = ("--in_mics", "tomograms.star", "--labels", "t1.csv", "--diameter", "60", "--gpu", gpu)
    assert relion(*arguments) == relion(*arguments, "--train") == 0
    assert [call[call.index("--device") + 1] for call in calls()] == [picking, training]


def test_train_only_leaves_a_model(project):
    arguments = ("--in_mics", "tomograms.star", "--labels", "t1.csv", "--diameter", "60", "--train")
    assert relion(*arguments) == 0
    assert markers() == {"SUCCESS"}
    assert (JOB / "model.safetensors").is_file()
    assert calls()[0][0] == "train"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--in_mics", "tomograms.star"),
        ("--in_mics", "tomograms.star", "--labels", "t1.csv"),
        ("--in_mics", "tomograms.star", "--labels", "t1.csv", "--model", "m.safetensors"),
        ("--in_mics", "tomograms.star", "--model", "m.safetensors", "--added", "t1.csv"),
        ("--in_mics", "tomograms.star", "--model", "m.safetensors", "--count_hint", "9"),
        ("--in_mics", "nothere.star", "--model", "m.safetensors"),
        ("--in_mics", "tomograms.star", "--model", "m.safetensors", "--threshold", "high"),
        ("--in_mics", "tomograms.star", "--model", "m.safetensors", "--help"),
    ],
)
def test_unusable_settings_end_as_failed(project, arguments, capsys):
    assert relion(*arguments) == 2
    assert markers() == {"FAILURE"}
    assert "error:" in capsys.readouterr().err
    assert not Path("calls.jsonl").exists()


@pytest.mark.parametrize("train", [[], ["--train"]])
@pytest.mark.parametrize("code", [1, 2])
def test_what_the_job_says_of_a_failed_command_leaves_room_for_the_reason(project, capsys, train, code):
    # RELION's window shows the last two or three lines of run.err: the command's own have to be among them
    Path("code").write_text(str(code))
    Path("picks").write_text("")
    assert relion("--in_mics", "mics.star", "--labels", "t1.csv", "--diameter", "60", *train) == 1
    assert markers() == {"FAILURE"}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("the reason is above, in run.err")


@pytest.mark.parametrize("ending", ["ABORTED", "FAILURE"])
def test_abort_and_signal_are_noticed_while_the_command_runs(project, ending):
    Path("hold").touch()
    code = "from cetpick.cli.relion import main; main()"
    arguments = ["--o", f"{JOB}/", "--in_mics", "tomograms.star", "--model", "m.safetensors"]
    job = subprocess.Popen(
        [sys.executable, "-c", code, *arguments, "--exe", f"{sys.executable} fake.py"], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not Path("calls.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    start = time.monotonic()
    if ending == "ABORTED":
        (JOB / "RELION_JOB_ABORT_NOW").touch()
    else:
        job.terminate()
    assert job.wait(30) != 0
    assert time.monotonic() - start < 15
    assert markers() == {ending}
    assert not (JOB / "RELION_JOB_ABORT_NOW").exists()


def test_coordinates_never_lie_outside_of_the_job():
    assert coordinate_file(JOB, "/data/t1.mrc") == JOB / "data/t1_pick.star"
    with pytest.raises(InputError, match="outside"):
        coordinate_file(JOB, "../t1.mrc")
