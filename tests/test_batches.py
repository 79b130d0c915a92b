"""Batches: reruns, shards and what is collected of them, with a network that was not trained."""

import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import cetpick
import cetpick.workflows.batch as batch
import cetpick.workflows.pick as workflow
from cetpick.checkpoint import save_model
from cetpick.config import PickSettings
from cetpick.errors import CetpickError
from cetpick.io.lock import alone_in
from cetpick.io.model import read_settings
from cetpick.io.mrc import write_mrc
from cetpick.io.star import read_star
from cetpick.io.table import read_table
from cetpick.networks.build import build_network
from cetpick.workflows import results
from cetpick.workflows.record import revision
from cetpick.workflows.runs import Shard
from tests.conftest import Run, TinySet, noise_and_models

NAMES = ("a", "b", "c", "d")
DIAMETER = 60.0
MAIN = [sys.executable, "-c", "from cetpick.cli import main; main()"]
NO_TORCH = "import sys; sys.modules['torch'] = None; from cetpick.cli import main; main()"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tomograms of noise, and two models."""
    return noise_and_models(tmp_path_factory.mktemp("source"), NAMES, diameter=DIAMETER, models=("m0", "m1"))


@pytest.fixture(scope="module")
def scores(source: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.Series:
    """Of all candidates, falling."""
    output = tmp_path_factory.mktemp("scores")
    settings = PickSettings(threshold=0)
    workflow.run_pick([*source.glob("*.mrc")], output=output, model=source / "m0.safetensors", settings=settings)
    found = [read_table(path).table["score"] for path in output.glob("candidates/*.csv")]
    return pd.concat(found).sort_values(ascending=False, ignore_index=True)


@pytest.fixture
def data(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tomograms and models, as the current folder."""
    shutil.copytree(source, tmp_path / "data")
    monkeypatch.chdir(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def pick(cetpick: Run, data: Path, scores: pd.Series) -> Run:
    """Pick into out, by default all tomograms at a threshold that about a third of the candidates reach."""

    def pick(*more: object, tomograms: tuple[str, ...] = NAMES, model: str = "m0", out: str = "out") -> Any:
        threshold = [] if "--threshold" in more else ["--threshold", scores[len(scores) // 3]]
        files = [f"{name}.mrc" for name in tomograms]
        return cetpick("pick", *files, "--model", f"{model}.safetensors", "-o", out, *threshold, *more)

    return pick


def contents(output: Path | str, *left_out: str) -> dict[str, bytes]:
    """What the files of a folder hold, but for the records and the report, which tell times."""
    paths = [path for path in Path(output).rglob("*") if path.is_file() and path.suffix not in (".json", ".html")]
    return {str(path.relative_to(output)): path.read_bytes() for path in paths if path.stem not in left_out}


def record(output: str = "out") -> dict[str, Any]:
    values: dict[str, Any] = json.loads(Path(output, "run.json").read_text())
    return values


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, running the network or reading a tomogram to hash it fails."""

    def forbid() -> None:
        def never(*_: object, **__: object) -> None:
            raise AssertionError("this was not to be done")

        from cetpick.workflows import record as module

        sha256 = module.sha256
        for user in (workflow, batch):
            monkeypatch.setattr(user, "load_model", never)
        monkeypatch.setattr(module, "sha256", lambda path: never() if str(path).endswith(".mrc") else sha256(path))

    return forbid


def done(out: str) -> str:
    """The line that counts what was done."""
    lines = re.findall(r"^(?:\d+ (?:done before|cut again|picked|failed|missing).*|nothing to do)$", out, re.MULTILINE)
    assert len(lines) == 1
    return str(lines[0])


def test_a_rerun_does_nothing_when_all_is_done(pick: Run, no_work: Callable[[], None]) -> None:
    code, out, err = pick()
    assert code == 0
    assert done(out) == "4 picked"
    assert [line.split()[0] for line in err.splitlines()] == ["1/4", "2/4", "3/4", "4/4"]
    before, notes = contents("out"), record()["tomograms"]
    assert all(note["picks"] > 0 for note in notes.values())
    assert not Path("out/run.1of1.json").exists()
    no_work()
    code, out, err = pick()
    assert code == 0
    assert done(out) == "4 done before"
    assert err == "4 of 4 tomograms done before\n"
    assert contents("out") == before
    assert record()["tomograms"] == notes
    assert set(record()["inputs"]) == {"m0.safetensors", *(f"{name}.mrc" for name in NAMES)}


def test_new_changed_and_moved_tomograms(
    pick: Run, monkeypatch: pytest.MonkeyPatch, no_work: Callable[[], None]
) -> None:
    assert pick(tomograms=NAMES[:3])[0] == 0
    before = contents("out", "particles")
    os.utime("a.mrc", ns=(1, 1))  # touched, but the same: read once, to see that
    Path("sub").mkdir()
    shutil.move("b.mrc", "sub/b.mrc")
    changed = np.random.default_rng(9).normal(size=(20, 48, 52)).astype(np.float32)
    write_mrc("c.mrc", changed, voxel_size=10.0)
    code, out, err = pick(tomograms=("a", "sub/b", "c", "d"))
    assert (code, done(out)) == (0, "2 done before, 2 picked")
    assert [line.split()[:3] for line in err.splitlines()[1:]] == [["3/4", "picked", "c:"], ["4/4", "picked", "d:"]]
    after = contents("out", "particles")
    same = {name for name in before if before[name] == after[name]}
    assert same == {f"{folder}{name}" for n in "ab" for folder, name in (("", f"{n}.mod"), ("", f"{n}.csv"))} | {
        "candidates/a.csv",
        "candidates/b.csv",
    }
    named = read_star("out/particles.star")[""]["rlnMicrographName"]
    assert list(dict.fromkeys(named)) == ["a.mrc", "sub/b.mrc", "c.mrc", "d.mrc"]
    no_work()
    assert done(pick(tomograms=("a", "sub/b", "c", "d"))[1]) == "4 done before"


def test_another_cut_needs_no_network(pick: Run, scores: pd.Series, no_work: Callable[[], None]) -> None:
    cut = ["--threshold", scores[len(scores) // 2], "--top", 7]
    assert pick(*cut, out="fresh")[0] == 0
    assert pick()[0] == 0
    assert contents("out") != contents("fresh")
    no_work()
    code, out, err = pick(*cut)
    assert (code, done(out)) == (0, "4 cut again")
    assert re.fullmatch(r"1/4 cut again a: 7 picks of .*; before: \d+ picks, threshold [\d.]+", err.splitlines()[0])
    assert contents("out") == contents("fresh")
    assert {note["picks"] for note in record()["tomograms"].values()} == {7}
    assert record()["tomograms"] == record("fresh")["tomograms"] | {
        name: record("fresh")["tomograms"][name] | {key: note[key] for key in ("picked", "seconds")}
        for name, note in record()["tomograms"].items()
    }


def test_results_of_something_else_are_refused(pick: Run, source: Path) -> None:
    assert pick()[0] == 0
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}

    def refused(because: str, *more: object, **how: Any) -> None:
        code, out, err = pick(*more, **how)
        assert (code, out) == (2, "")
        assert because in err
        assert "--overwrite" in err or "-o" in err
        assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == before

    refused("particles.star, report.html, run.json: made with another model, SHA-256 ", model="m1")
    refused("records/b.json: made with another model", model="m1")
    refused("found: a, b, c", tomograms=("d",))
    shutil.move("a.mrc", "kept.mrc")
    Path("other").mkdir()
    shutil.copy("b.mrc", "other/a.mrc")
    refused("records/a.json: of another tomogram of this name", tomograms=("other/a", *NAMES[1:]))
    shutil.move("kept.mrc", "a.mrc")
    Path("out/records/c.json").unlink()
    del before[Path("out/records/c.json")]
    refused("c.mod, c.csv, candidates/c.csv: no record of how they were made")
    values = json.loads(Path("out/records/b.json").read_text())
    values["maker"]["cetpick"] = "0.0.1"
    Path("out/records/b.json").write_text(json.dumps(values))
    before[Path("out/records/b.json")] = Path("out/records/b.json").read_bytes()
    refused("records/b.json: made by cetpick 0.0.1, this is ")
    code, out, _ = pick("--overwrite", model="m1")
    assert (code, done(out)) == (0, "4 picked")
    assert pick(model="m1", out="fresh")[0] == 0
    assert contents("out", "c.edited") == contents("fresh")


def test_a_tomogram_that_breaks_loses_its_results_and_comes_back(pick: Run, source: Path) -> None:
    assert pick(out="fresh")[0] == pick()[0] == 0
    write_mrc("b.mrc", np.zeros((20, 48, 52), np.float32), voxel_size=10.0)
    Path("c.mrc").write_bytes(b"broken")
    code, out, err = pick()
    assert (code, done(out)) == (1, "2 done before, 2 failed")
    assert "4/4 failed b" in err
    assert "failed: c.mrc" in err
    assert not Path("out/b.csv").exists()
    assert list(record()["tomograms"]) == ["a", "d"]
    assert len(record()["failures"]) == 2
    for name in "bc":
        shutil.copy(source / f"{name}.mrc", ".")
    assert done(pick()[1]) == "3 done before, 1 picked"
    assert contents("out") == contents("fresh")


def test_where_nothing_can_be_picked_any_more_all_stays(pick: Run, source: Path) -> None:
    """Exit code 2 tells that nothing was written, so nothing was removed either."""
    one = ("a",)
    assert pick(tomograms=one)[0] == 0
    before = contents("out")
    write_mrc(Path("a.mrc"), np.zeros((24, 40, 48), np.float32), voxel_size=10)
    code, _, err = pick(tomograms=one)
    assert code == 2
    assert "no tomogram could be picked" in err
    assert contents("out") == before
    assert Path("out/run.json").exists()
    # nor what a tomogram had that is not there for a while
    assert pick("--overwrite", tomograms=("b",), out="two")[0] == 0
    shutil.copy(source / "a.mrc", "a.mrc")
    assert pick(tomograms=("a", "b"), out="two")[0] == 0
    Path("a.mrc").rename("elsewhere")
    assert pick(tomograms=("a", "b"), out="two")[0] == 1
    assert Path("two/a.csv").exists()
    Path("elsewhere").rename("a.mrc")
    assert done(pick(tomograms=("a", "b"), out="two")[1]) == "2 done before"


def test_a_folder_in_which_only_a_part_can_be_written_to_is_refused(pick: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as that of a colleague, whose folder is open to the group and the folders in it are not."""
    assert pick()[0] == 0
    before = contents("out")
    real = tempfile.TemporaryFile

    def closed(*arguments: Any, **more: Any) -> Any:
        if Path(more["dir"]).name == "records":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(*arguments, **more)

    monkeypatch.setattr(tempfile, "TemporaryFile", closed)
    code, _, err = pick("--threshold", 0.01)
    assert code == 2
    assert "records: the output folder cannot be written to" in err
    assert contents("out") == before


def test_pictures_that_a_killed_run_has_not_drawn_are_drawn_by_the_next(pick: Run) -> None:
    assert pick()[0] == 0
    Path("out/views/b.json").unlink()
    code, out, _ = pick()
    assert (code, done(out)) == (0, "4 done before")
    assert Path("out/views/b.json").exists()


@pytest.mark.parametrize("name", ["a b", "expected_precision"])
def test_a_tomogram_with_a_name_that_no_result_can_have_fails_alone(pick: Run, name: str) -> None:
    Path("a.mrc").rename(f"{name}.mrc")
    code, out, err = pick(tomograms=(name, "b"))
    assert code == 1
    assert f"{name}.mrc" in err
    assert done(out) == "1 picked, 1 failed"
    assert [path.name for path in Path("out").glob("*.csv")] == ["b.csv"]


def test_a_disk_that_is_full_tells_of_which_tomogram(pick: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that no other was tried."""
    real = results.write_json

    def full(path: Path, values: Any) -> None:
        if path.name == "b.json" or (path.name == "run.1of1.json" and "b.json" in str(values)):
            raise CetpickError("cannot be written", file=path, found="No space left on device")
        real(path, values)

    monkeypatch.setattr(results, "write_json", full)
    monkeypatch.setattr("cetpick.workflows.record.write_json", full)
    code, _, err = pick("--no-report")
    assert code == 1
    told = ["b.json: cannot be written", "found", "run.1of1.json: cannot be written", "found", "no further tomogram"]
    assert [part in line for part, line in zip(told, err.splitlines()[-5:], strict=True)] == [True] * 5


def test_a_log_on_a_full_disk_stops_nothing(data: Path, scores: pd.Series) -> None:
    arguments = ["pick", "a.mrc", "b.mrc", "--model", "m0.safetensors", "-o", "out", "--no-report"]
    with Path("/dev/full").open("w") as full:
        code = subprocess.run([*MAIN, *arguments], check=False, stderr=full, stdout=subprocess.DEVNULL).returncode
    assert code == 0
    assert Path("out/particles.star").exists()


def test_two_at_once_in_a_folder_are_refused(pick: Run, cetpick: Run) -> None:
    assert pick()[0] == 0
    before = contents("out")
    with alone_in(Path("out"), "run.1of1.json"):
        for code, _, err in (pick("--overwrite"), cetpick("repick", "out", "--top", 1)):
            assert code == 2
            assert f"out: another cetpick is at work in this folder\n  found: process {os.getpid()} on " in err
        assert contents("out", ".run.1of1.json") == before
        assert pick("--shard", "1/2")[0] == cetpick("collect", "out")[0] == 0
    # a file that was left is in nobody's way
    Path("out/.run.1of1.json.lock").write_text("process 1 on earth")
    assert done(pick()[1]) == "4 done before"
    assert contents("out") == before


def test_a_lock_is_of_the_file_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, times = tmp_path / "new" / ".x.lock", []
    flock = fcntl.flock

    def slowly(descriptor: int, operation: int) -> None:
        if operation != fcntl.LOCK_UN and not times:
            times.append(lock.unlink())  # by who held it before
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", slowly)
    with alone_in(lock.parent, "x") as held:
        assert lock.stat().st_ino == os.fstat(held[0]).st_ino
    assert times
    assert not lock.parent.exists()
    # without locks nothing is held
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "no locks")))
    with alone_in(tmp_path, "x") as held:
        assert held == []


def test_a_tomogram_that_is_being_written_fails_alone(pick: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    find = batch.find_candidates

    def slowly(*arguments: Any, **how: Any) -> pd.DataFrame:
        if not Path("out/records/a.json").exists():
            os.utime("a.mrc", ns=(5, 5))
        return find(*arguments, **how)

    monkeypatch.setattr(batch, "find_candidates", slowly)
    code, _, err = pick(tomograms=("a",))
    assert code == 2
    assert "a.mrc: was written to while it was picked" in err
    assert not Path("out").exists()


def test_shards_make_what_one_run_makes(pick: Run, cetpick: Run, tmp_path: Path) -> None:
    Path("b.mrc").write_bytes(b"broken")
    assert pick(out="whole")[0] == 1
    codes = [pick("--shard", f"{number}/3")[0] for number in (1, 3)]
    assert codes == [0, 0]
    assert sorted(path.name for path in Path("out").iterdir()) == [
        *("a.csv", "a.mod", "c.csv", "c.mod", "candidates", "d.csv", "d.mod", "records"),
        *("run.1of3.json", "run.3of3.json", "views"),
    ]
    code, out, err = cetpick("collect", "out")
    assert (code, err) == (1, "missing (shard 2/3 has not begun): b\n")
    assert f"{sum(note['picks'] for note in record()['tomograms'].values())} picks in 3 tomograms, 1 missing" in out
    code, out, err = pick("--shard", "2/3")
    assert code == 1
    assert "failed: b.mrc" in err
    assert out.splitlines()[-3:] == [
        "1 failed",
        f"threshold {record()['threshold']:.3f}",
        "results: shard 2/3; when all have ended: cetpick collect out",
    ]
    code, _, err = cetpick("collect", "out")
    assert code == 1
    assert err.startswith("failed: b.mrc")
    assert "missing" not in err
    assert contents("out") == contents("whole")
    values, whole = record(), record("whole")
    assert [shard["finished"] for shard in values["shards"]] == [True, True, True]
    assert values["failures"] == whole["failures"]
    for key in ("model", "threshold", "star", "settings"):
        assert values[key] == whole[key]
    assert {name: note["picks"] for name, note in values["tomograms"].items()} == {
        name: note["picks"] for name, note in whole["tomograms"].items()
    }
    assert cetpick("info", "out")[0] == 0
    # a shard again, and a whole run: nothing is done twice
    assert done(pick("--shard", "1/3")[1]) == "2 done before"
    assert done(pick()[1]) == "3 done before, 1 failed"


def test_shards_that_do_not_belong_together_are_not_mixed(pick: Run, cetpick: Run, scores: pd.Series) -> None:
    assert pick("--shard", "1/2")[0] == pick("--shard", "2/2")[0] == 0
    assert pick("--shard", "2/2", "--threshold", scores[5])[0] == 0
    code, _, _ = cetpick("collect", "out", "--json")
    assert code == 1
    assert list(record()["tomograms"]) == ["b", "d"]
    assert all("shard 1/2 was last run with other" in why for why in record()["missing"].values())
    assert done(pick("--shard", "1/2", "--threshold", scores[5])[1]) == "2 cut again"
    assert cetpick("collect", "out")[0] == 0
    assert pick("--threshold", scores[5], out="whole")[0] == 0
    assert contents("out") == contents("whole")


def test_files_that_were_changed_are_missing_and_made_again(
    pick: Run, cetpick: Run, no_work: Callable[[], None]
) -> None:
    assert pick("--shard", "1/1")[0] == 0
    before = contents("out")
    Path("out/b.csv").write_text("x,y,z,score,class\n")
    Path("out/c.mod").unlink()
    code, _, err = cetpick("collect", "out")
    changed = "missing (files changed or removed since they were written; `cetpick repick` makes picks again and keeps"
    assert (code, err.startswith(changed), err.endswith("learns): b, c\n")) == (1, True, True)
    no_work()
    assert done(pick("--shard", "1/1")[1]) == "2 done before, 2 cut again"
    assert cetpick("collect", "out")[0] == 0
    assert contents("out", "particles", "b.edited") == before


def test_a_report_says_what_it_leaves_out(pick: Run, cetpick: Run) -> None:
    assert pick()[0] == 0
    Path("out/b.mod").write_bytes(b"clicks")
    code, _, err = cetpick("report", "out")
    assert (code, "the report leaves out b: files changed or removed since" in err) == (0, True)
    for name in NAMES:
        Path(f"out/{name}.mod").write_bytes(b"clicks")
    code, _, err = cetpick("report", "out")
    assert (code, "found: a, b, c, d: files changed" in err) == (2, True)


def test_what_a_rerun_that_was_stopped_has_not_made_anew_is_missing(
    pick: Run, cetpick: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pick()[0] == 0
    with monkeypatch.context() as patch:
        picks = batch.pick_tomogram

        def stopping(info: Any, *more: Any, **options: Any) -> Any:
            if info.name == "c":
                raise KeyboardInterrupt
            return picks(info, *more, **options)

        patch.setattr(batch, "pick_tomogram", stopping)
        assert pick("--slab", 0, 150)[0] == 130
    code, _, err = cetpick("collect", "out")
    assert (code, err) == (1, "missing (the run has not come to its end): c, d\n")
    assert set(record()["tomograms"]) == {"a", "b"}
    assert done(pick("--slab", 0, 150)[1]) == "2 done before, 2 picked"
    assert max(pd.read_csv(f"out/candidates/{name}.csv")["z"].max() for name in NAMES) < 15


def test_shards_of_other_regions_are_not_mixed(pick: Run, cetpick: Run) -> None:
    assert pick("--shard", "1/2", "--slab", 0, 150)[0] == pick("--shard", "2/2")[0] == 0
    code, _, err = cetpick("collect", "out")
    assert (code, "shard 1/2 was last run with other tomograms, model, region or cut" in err) == (1, True)
    assert set(record()["tomograms"]) == {"b", "d"}


def test_a_collect_that_is_stopped_is_repeated_or_the_run_goes_on(
    pick: Run, cetpick: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pick("--shard", "1/2")[0] == pick("--shard", "2/2")[0] == 0
    with monkeypatch.context() as patch:

        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("cetpick.workflows.collect.write_report", interrupted)
        assert cetpick("collect", "out")[0] == 130
    assert Path("out/particles.star").exists()
    assert not Path("out/run.json").exists()
    assert done(pick("--shard", "2/2")[1]) == "2 done before"
    assert cetpick("collect", "out")[0] == 0
    assert done(pick()[1]) == "4 done before"


def test_overwriting_leaves_nothing_of_the_model_before(pick: Run, cetpick: Run) -> None:
    assert pick()[0] == 0
    Path("b.mrc").rename("away")
    assert pick("--overwrite", model="m1")[0] == 1
    Path("away").rename("b.mrc")
    assert done(pick(model="m1")[1]) == "3 done before, 1 picked"
    code, _, err = pick("--overwrite", tomograms=("a",))
    assert (code, "does not name, and particles.star would lose them\n  found: b, c, d" in err) == (2, True)
    assert done(pick(model="m1")[1]) == "4 done before"


def test_what_another_model_made_is_left_out_of_suggestions(cetpick: Run, data: Path) -> None:
    files = [f"{name}.mrc" for name in NAMES]
    picks = ["pick", *files, "--threshold", 0, "-q", "-o", "out", "--model"]
    assert cetpick(*picks, "m0.safetensors")[0] == 0
    assert cetpick(*picks, "m1.safetensors", "--shard", "1/2", "--overwrite")[0] == 0
    code, _, err = cetpick("suggest", "out", "--number", 8, "--tomograms", 4)
    assert code == 0
    assert "left out, as their candidates are of another model than those of the newest run: b, d" in err
    places = pd.read_csv(next(Path("out").rglob("suggested.csv")))
    assert set(places["tomogram"]) == {"a", "c"}


def test_odd_files_among_the_records_cost_nothing_but_their_own_tomogram(
    pick: Run, no_work: Callable[[], None]
) -> None:
    assert pick()[0] == 0
    before = contents("out")
    Path("out/records/._a.json").write_bytes(b"\0\5\26\7")  # as macOS leaves it
    Path("out/records/.#b.json").symlink_to("user@host.1234")  # as Emacs does
    assert done(pick()[1]) == "4 done before"
    Path("out/records/c.json").write_bytes(b"")  # the machine stopped
    code, out, err = pick()
    assert (code, done(out)) == (0, "3 done before, 1 picked")
    assert "out/c.csv: not known how it was made; it is kept as c.edited.csv" in err
    assert contents("out", "c.edited") == before


def test_more_shards_than_tomograms(pick: Run) -> None:
    code, out, _ = pick("--shard", "5/9")
    assert (code, done(out)) == (0, "nothing to do")
    assert [path.name for path in Path("out").iterdir()] == ["run.5of9.json"]


def test_every_place_is_in_one_shard() -> None:
    for count in (1, 3, 8, 12):
        places = [place for number in range(1, count + 1) for place in Shard(number=number, count=count).positions(8)]
        assert sorted(places) == list(range(8))


@pytest.mark.parametrize("shard", ["0/3", "4/3", "3", "a/b", "-1/2", "1/2/3"])
def test_an_unusable_shard_is_said(pick: Run, shard: str) -> None:
    code, _, err = pick("--shard", shard)
    assert code == 2
    assert "I/N" in err


def test_shards_do_not_train(cetpick: Run, tiny: TinySet, tmp_path: Path) -> None:
    command = ["pick", tiny.path("two"), "--train", tiny.path("one"), "--labels", tiny.labels, "-d", 160]
    code, _, err = cetpick(*command, "-o", tmp_path / "out", "--shard", "1/2")
    assert code == 2
    assert "cetpick train" in err
    assert not (tmp_path / "out").exists()


def test_nothing_to_collect(cetpick: Run, pick: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for command in ("collect", "repick"):
        code, _, err = cetpick(command, tmp_path / "empty")
        assert code == 2
        assert "holds no results of cetpick pick" in err
    Path("a.mrc").write_bytes(b"broken")
    assert pick("--shard", "1/1", tomograms=("a",))[0] == 1
    code, _, err = cetpick("collect", "out")
    assert code == 2
    assert "no tomogram has been picked" in err
    assert "a.mrc: " in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_batch_that_is_stopped_goes_on(
    pick: Run, cetpick: Run, data: Path, scores: pd.Series, number: signal.Signals
) -> None:
    assert pick(out="whole")[0] == 0
    command = [*MAIN, "pick", *(f"{name}.mrc" for name in NAMES), "--model", "m0.safetensors", "-o", "out"]
    command += ["--threshold", str(scores[len(scores) // 3])]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert running.stderr.readline().startswith("1/4 picked a")
        running.send_signal(number)
        running.stderr.read()
    assert running.returncode == (143 if number == signal.SIGTERM else -9)
    assert not Path("out/run.json").exists()
    code, _, err = cetpick("collect", "out")
    assert code == 1
    assert "missing (the run has not come to its end): " in err
    code, out, _ = pick()
    assert code == 0
    assert "done before" in done(out)
    assert "4 done before" not in out
    visible = {name: text for name, text in contents("out").items() if not Path(name).name.startswith(".")}
    assert visible == contents("whole")
    assert list(record()["tomograms"]) == list(NAMES)
    assert not Path("out/run.1of1.json").exists()


def interrupt(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """Ctrl-C at the so-many-th table that is written, before it is."""

    write, left = results.write_table, [calls]

    def interrupted(*arguments: Any) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(results, "write_table", interrupted)


@pytest.mark.parametrize("table", [3, 4])
def test_files_without_a_finished_record_are_done_again(pick: Run, monkeypatch: pytest.MonkeyPatch, table: int) -> None:
    assert pick(out="whole")[0] == 0
    with monkeypatch.context() as patch:
        interrupt(patch, table)
        assert pick()[0] == 130
    assert Path("out/b.mod").exists()
    assert not Path("out/candidates/b.csv").exists()
    assert done(pick()[1]) == "1 done before, 3 picked"
    assert contents("out") == contents("whole")


def test_repick_cuts_again_and_says_so(pick: Run, cetpick: Run, scores: pd.Series) -> None:
    assert pick("--top", 9)[0] == 0
    before = contents("out")
    low = scores[len(scores) // 2]
    Path("out/evaluation.html").touch()  # of the picks before
    assert pick("--threshold", low, "--top", 9, out="fresh")[0] == 0
    code, out, err = cetpick("repick", "out", "--threshold", low)
    assert code == 0
    assert out.startswith("36 picks in 4 tomograms\n")
    assert err.splitlines()[0].startswith("1/4 cut a: 9 picks of ")
    assert contents("out") == contents("fresh")
    values = record()
    assert values["threshold"] == low
    assert values["repicked"]["cut"] == {"threshold": low, "precision": None, "top": 9, "separation": None}
    assert values["settings"]["pick"]["threshold"] == scores[len(scores) // 3]
    assert not Path("out/run.1of1.json").exists()
    assert cetpick("collect", "out")[0] == 0
    assert contents("out") == contents("fresh")
    # without options: as it was picked
    assert cetpick("repick", "out", "-q")[0] == 0
    assert contents("out") == before
    assert cetpick("repick", "out", "--threshold", low, "-q")[0] == 0
    assert done(pick("--top", 9)[1]) == "4 cut again"
    assert contents("out") == before
    assert "repicked" not in record()


def test_a_precision_is_aimed_at_in_each_tomogram(cetpick: Run, pick: Run, scores: pd.Series) -> None:
    logits = np.log(scores / (1 - scores))
    knots = ((float(logits.min()), -6.0), (float(logits.max()), 3.0))  # tells them apart
    settings = replace(read_settings("m0.safetensors"), calibration=knots)
    save_model("sure.safetensors", build_network(settings, seed=0), settings)
    assert pick("--threshold", 0, model="sure")[0] == 0
    everything = {name: read_table(f"out/candidates/{name}.csv").table["score"] for name in NAMES}
    aim = 0.4
    code, out, _ = cetpick("repick", "out", "--target-precision", aim)
    assert code == 0
    picked = {name: read_table(f"out/{name}.csv").table["score"] for name in NAMES}
    assert min(map(len, picked.values())) > 0
    for name, falling in everything.items():
        number = len(picked[name])
        following = falling >= falling[number]
        assert falling[following].mean() < aim <= falling.head(number).mean()
    total, true = sum(map(len, picked.values())), sum(found.sum() for found in picked.values())
    particles = sum(found.sum() for found in everything.values())
    assert f"target precision {aim:g}; expected: {true:.0f} of the {total} picks are particles" in out
    assert record()["expected_particles"] == pytest.approx(particles)
    note = record()["tomograms"]["a"]
    assert note["expected_precision"] == pytest.approx(picked["a"].mean(), abs=1e-3)
    assert note["expected_recall"] == pytest.approx(picked["a"].sum() / everything["a"].sum(), abs=1e-3)
    table = pd.read_csv("out/expected_precision.csv").set_index("threshold")
    at_least = [found[found >= 0.05] for found in everything.values()]
    assert table.loc[0.05, "picks"] == sum(map(len, at_least))
    assert table.loc[0.05, "recall"] == pytest.approx(sum(s.sum() for s in at_least) / particles, abs=1e-3)
    assert cetpick("repick", "out", "--top", 2, "-q")[0] == 0
    table = pd.read_csv("out/expected_precision.csv").set_index("threshold")
    assert table.loc[0.05, "picks"] == 2 * len(NAMES)  # as many as the report's slider shows
    # a threshold takes its place, and both at once are refused
    assert cetpick("repick", "out", "--threshold", 0, "-q")[0] == 0
    assert record()["plan"]["cut"]["precision"] is None
    code, _, err = cetpick("repick", "out", "--threshold", 0.5, "--target-precision", 0.9)
    assert (code, "two ways to cut" in err) == (2, True)


def test_results_of_another_version_are_said_to_be(pick: Run, cetpick: Run) -> None:
    assert pick()[0] == 0
    whole = record()
    for part, changed in (("model", {"colour": "red"}), ("settings", {"pick": {"colour": "red"}})):
        values = {**whole, "cetpick": "9.9.9", part: {**whole[part], **changed}}
        Path("out/run.json").write_text(json.dumps(values))
        for command in (["repick", "out"], ["report", "out"], ["suggest", "out"], ["collect", "out"]):
            code, _, err = cetpick(*command)
            assert (code, "is of another version of cetpick" in err, "found: 9.9.9" in err) == (2, True, True), err


def test_a_cut_is_told_in_full(pick: Run, cetpick: Run) -> None:
    assert pick()[0] == 0
    assert cetpick("repick", "out", "--top", 3, "--separation", 1.5)[0] == 0
    _, _, err = pick()
    assert "before: 3 picks, threshold" in err
    assert ", at most 3 picks a tomogram, 1.5 diameters apart" in err


def test_a_precision_needs_probabilities(cetpick: Run, pick: Run) -> None:
    code, _, err = pick("--target-precision", 0.9, "--top", 5)
    assert code == 2
    code, _, err = cetpick("pick", "a.mrc", "--model", "m0.safetensors", "-o", "out", "--target-precision", 0.9)
    assert (code, "needs scores that are probabilities" in err) == (2, True)
    code, _, err = cetpick(
        *("pick", "a.mrc", "--labels", "none.csv", "--mode", "paper", "--diameter", 250, "-o", "out"),
        *("--target-precision", 0.9),
    )
    assert (code, "one of `paper` mode" in err) == (2, True)
    assert not Path("out").exists()


def test_work_in_3dmod_is_not_written_over(pick: Run, cetpick: Run, scores: pd.Series) -> None:
    assert pick()[0] == 0
    written = contents("out")
    for version in (b"mine", b"mine again"):
        Path("out/b.mod").write_bytes(version)
        _, _, err = cetpick("repick", "out", "--threshold", scores[len(scores) // 2])
        assert "out/b.mod: changed since it was written; your version is kept as b.edited" in err
    assert Path("out/b.edited.mod").read_bytes() == b"mine"
    assert Path("out/b.edited1.mod").read_bytes() == b"mine again"
    assert cetpick("repick", "out")[0] == 0
    assert contents("out", "b.edited", "b.edited1") == written


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning:mrcfile")  # it adds up what is not finite
def test_a_run_again_does_not_write_over_work_in_3dmod_either(pick: Run) -> None:
    assert pick()[0] == 0
    written = contents("out")
    Path("out/b.mod").write_bytes(b"mine")
    _, out, err = pick()
    assert "out/b.mod: changed since it was written; your version is kept as b.edited" in err
    assert done(out) == "3 done before, 1 cut again"
    Path("out/b.csv").write_text("x,y,z\n1,2,3\n")
    write_mrc("b.mrc", np.full((20, 48, 52), np.nan, np.float32), voxel_size=10.0)
    assert pick()[0] == 1  # it fails, and its results go
    assert not Path("out/b.csv").exists()
    assert Path("out/b.edited.mod").read_bytes() == b"mine"
    assert Path("out/b.edited.csv").read_text() == "x,y,z\n1,2,3\n"
    assert contents("out").keys() - {"b.edited.mod", "b.edited.csv"} < written.keys()


def test_clicks_in_the_output_folder_are_not_written_over(pick: Run) -> None:
    Path("b.mod").write_bytes(b"clicks")
    code, _, err = pick(out=".")
    assert (code, "b.mod: no record of how they were made" in err) == (2, True)
    code, _, err = pick("--overwrite", out=".")
    assert (code, "b.mod: not known how it was made; it is kept as b.edited.mod" in err) == (0, True)
    assert Path("b.edited.mod").read_bytes() == b"clicks"


def test_complete_results_of_a_run_that_was_stopped_are_not_left_out_in_silence(pick: Run, cetpick: Run) -> None:
    assert pick("--shard", "1/1", tomograms=("a", "b"))[0] == 0  # no particles.star yet
    code, _, err = pick(tomograms=("c",))
    assert (code, "particles.star would lose them" in err) == (2, True)
    unfinished = Path("out/records/.0123abcd-c.json")
    unfinished.touch()  # by a worker that was killed
    assert pick(tomograms=("a", "b", "c"))[0] == 0
    assert not unfinished.exists()


def test_truth_is_judged_in_the_tomograms_that_were_picked(pick: Run, cetpick: Run) -> None:
    assert pick()[0] == 0
    points = pd.read_csv("out/a.csv")[["x", "y", "z"]]
    ((points + 0.5) * 4 - 0.5).to_csv("a_truth.csv", index=False)
    assert "points lie outside of tomogram a" in cetpick("evaluate", "out", "--truth", "a_truth.csv")[2]


def test_particles_are_judged_in_angstrom_by_the_folder_that_they_are_in(pick: Run, cetpick: Run) -> None:
    assert pick("--threshold", 0)[0] == 0
    Path("truth").mkdir()
    for name in NAMES:
        pd.read_csv(f"out/{name}.csv")[["x", "y", "z"]].to_csv(f"truth/{name}.csv", index=False)
    code, out, err = cetpick("evaluate", "out/particles.star", "--truth", "truth", "--diameter", 20, "--json")
    assert code == 0, err
    (result,) = json.loads(out)["results"]
    assert (result["radius"], result["all_picks"]["f1"]) == (1, 1)


def test_repick_keeps_particles_apart(pick: Run, cetpick: Run) -> None:
    assert pick("--threshold", 0)[0] == 0
    code, _, err = cetpick("repick", "out", "--separation", 0.3)
    assert code == 2
    assert "0.6 to 5 diameters" in err
    before = {name: len(pd.read_csv(f"out/{name}.csv")) for name in NAMES}
    assert cetpick("repick", "out", "--separation", 1.5)[0] == 0
    for name in NAMES:
        picks = pd.read_csv(f"out/{name}.csv")
        xyz = picks[["x", "y", "z"]].to_numpy()
        distances = np.linalg.norm(xyz[:, None] - xyz[None], axis=2)[np.triu_indices(len(xyz), 1)]
        assert 1 < len(picks) < before[name]
        assert distances.min() >= 1.5 * DIAMETER / 10
        assert picks["score"][0] == pd.read_csv(f"out/candidates/{name}.csv")["score"][0]
        assert record()["tomograms"][name]["separation"] == 1.5
    pd.read_csv("out/a.csv")[["x", "y", "z"]].to_csv("a_truth.csv", index=False)
    code, out, _ = cetpick("evaluate", "out", "--truth", "a_truth.csv", "--radius", 1, "--json")
    assert json.loads(out)["results"][0]["at_threshold"]["f1"] == 1


def test_repick_that_is_stopped_is_repeated(
    pick: Run, cetpick: Run, scores: pd.Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    low = scores[len(scores) // 2]
    assert pick("--shard", "1/2")[0] == pick("--shard", "2/2")[0] == 0
    assert pick("--threshold", low, out="fresh")[0] == 0
    for _ in range(2):
        with monkeypatch.context() as patch:
            interrupt(patch, 2)
            assert cetpick("repick", "out", "--threshold", low)[0] == 130
    assert not Path("out/particles.star").exists()
    assert cetpick("repick", "out", "--threshold", low)[0] == 0
    assert contents("out") == contents("fresh")
    # what was not repicked of a run that was stopped can still be collected
    assert len(record()["shards"]) == 2


def test_collect_and_repick_need_no_torch_and_no_tomograms(pick: Run, data: Path) -> None:
    assert pick("--shard", "1/1")[0] == 0
    for path in (*data.glob("*.mrc"), *data.glob("*.safetensors")):
        path.unlink()
    for command in (("collect", "out"), ("repick", "out", "--top", "5", "-q")):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", NO_TORCH, *command], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert record()["repicked"]["cut"]["top"] == 5


def test_a_pick_that_is_stopped_after_its_training_goes_on(
    cetpick: Run, tiny: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    command = ["pick", tiny.path("two"), "--train", tiny.path("one"), "--labels", tiny.labels, "-d", tiny.diameter]
    command += ["--mode", "paper", "--steps", 2, "-q", "-o", output]

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(batch, "find_candidates", interrupted)
        assert cetpick(*command)[0] == 130
    names = ["model.report.html", "model.run.json", "model.safetensors"]
    assert sorted(path.name for path in output.iterdir()) == names
    model = (output / "model.safetensors").read_bytes()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("cetpick.workflows.train.train", never)
    code, _, err = cetpick(*command, "--steps", 3)
    assert code == 2
    assert "already holds model.safetensors, model.run.json" in err
    assert cetpick(*command)[0] == 0
    values = json.loads((output / "run.json").read_text())
    assert values["training"]["done_before"] is True
    assert values["training"]["labels"] == {"one": 8}
    assert values["training"]["steps"] == 2
    assert any("only 8 labels" in text for text in values["warnings"])
    assert str(tiny.labels) in values["inputs"]
    assert (output / "model.safetensors").read_bytes() == model
    code, out, _ = cetpick(*command)
    assert (code, done(out)) == (0, "1 done before")
    # and so does `train`
    (output / "model.run.json").rename(tmp_path / "m.run.json")
    shutil.copy(output / "model.safetensors", tmp_path / "m.safetensors")
    command = ["train", tiny.path("one"), "--labels", tiny.labels, "-d", tiny.diameter, "--mode", "paper"]
    command += ["--steps", 2, "-q", "-o", tmp_path / "m.safetensors"]
    code, out, _ = cetpick(*command)
    assert code == 0
    assert "m.safetensors: trained before on 8 labels" in out
    assert cetpick(*command, "--seed", 1)[0] == 2


def test_overwriting_with_another_training_that_is_stopped_before_the_first_pick_goes_on(
    cetpick: Run, tiny: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    command = ["pick", tiny.path("two"), "--train", tiny.path("one"), "--labels", tiny.labels, "-d", tiny.diameter]
    command += ["--mode", "paper", "--steps", 2, "-q", "--no-report", "-o", output]
    assert cetpick(*command)[0] == 0
    first = (output / "model.safetensors").read_bytes()
    (output / "two.mod").write_bytes(b"clicks")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(batch, "find_candidates", interrupted)
        assert cetpick(*command, "--seed", 3, "--overwrite")[0] == 130
    names = ["candidates", "model.run.json", "model.safetensors", "records", "two.edited.mod"]
    assert sorted(path.name for path in output.iterdir()) == names
    trained = (output / "model.safetensors").read_bytes()
    assert trained != first
    code, out, _ = cetpick(*command, "--seed", 3)
    assert (code, done(out)) == (0, "1 picked")
    assert (output / "model.safetensors").read_bytes() == trained
    assert record(str(output))["training"]["done_before"] is True


def test_other_code_of_one_version_is_another_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a clone that was updated between two weeks; what decides no result does not count."""
    known = revision()
    assert known.startswith(f"{cetpick.__version__}+")
    copied = shutil.copytree(Path(cetpick.__file__).parent, tmp_path / "cetpick")
    monkeypatch.setattr(cetpick, "__file__", str(copied / "__init__.py"))
    assert revision.__wrapped__() == known
    (copied / "report/page.py").write_text("")
    assert revision.__wrapped__() == known
    (copied / "peaks.py").write_text("")
    assert revision.__wrapped__() != known
