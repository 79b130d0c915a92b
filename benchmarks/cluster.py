"""What killed workers do to `cetpick pick --cluster`: nothing. See README.md.

    python benchmarks/cluster.py OUT --cluster slurm:2 --count 100 --kills 2

Small simulated tomograms are picked once by one process and once by the cluster, whose workers are killed on the way: a
job with `scancel --signal=KILL --full`, of `local:N` a process with SIGKILL. Then every tomogram must have been done
once, by the log and the records; the picks must be those of the one process, to the byte; nothing half-written may be
left; and the same command again must find all done. Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil

DONE = re.compile(r"^\d+/\d+ picked (\S+):", re.MULTILINE)
TIMES = (".json", ".html")
"""Endings of files that tell times."""


def run(*arguments: object) -> tuple[float, str]:
    """Run cetpick; how long it took and what it said.

    Raises:
        SystemExit: it failed.
    """
    start = time.monotonic()
    words = [sys.executable, "-m", "cetpick", *map(str, arguments)]
    done = subprocess.run(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise SystemExit(f"cetpick {arguments[0]} ended with {done.returncode}:\n{done.stdout}")
    return time.monotonic() - start, done.stdout


def workers(kind: str, client: int) -> list[str]:
    """The workers that run: numbers of jobs or processes."""
    if kind == "local":
        children = psutil.Process(client).children()
        return [str(child.pid) for child in children if "spawn_main" in " ".join(child.cmdline())]
    words = ["squeue", "--noheader", "--me", "--name=dask-worker", "--states=RUNNING", "--format=%A"]
    return subprocess.run(words, text=True, capture_output=True, check=True).stdout.split()


def kill(kind: str, worker: str) -> None:
    """End a worker without a chance to tidy up."""
    if kind == "local":
        os.kill(int(worker), signal.SIGKILL)
    else:
        subprocess.run(["scancel", "--signal=KILL", "--full", worker], check=True)


def contents(folder: Path) -> dict[Path, bytes]:
    """What the files of a folder of results hold, but for times."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in TIMES]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def pick_and_kill(command: list[object], where: str, output: Path, *, kills: int, count: int, seed: int) -> float:
    """Pick on the cluster and kill workers, evenly over the tomograms; how long it took."""
    log, moments, kind = output.with_suffix(".log"), random.Random(seed), where.partition(":")[0]
    start, killed = time.monotonic(), 0
    with log.open("w") as file:
        words = [sys.executable, "-m", "cetpick", *map(str, command), "--cluster", where, "-o", str(output)]
        client = subprocess.Popen(words, stdout=file, stderr=file)
        while client.poll() is None:
            time.sleep(moments.uniform(0.1, 0.5))
            done = len(DONE.findall(log.read_text()))
            if killed < kills and done >= (killed + 1) * count / (kills + 1) and (there := workers(kind, client.pid)):
                victim = moments.choice(there)
                kill(kind, victim)
                killed += 1
                print(
                    f"{time.monotonic() - start:.0f} s, {done} done: killed {victim} of {', '.join(there)}", flush=True
                )
    if client.returncode or killed < kills:
        raise SystemExit(f"ended with {client.returncode} after {killed} kills; see {log}")
    return time.monotonic() - start


def faults(serial: Path, output: Path, names: list[str]) -> list[str]:
    """What is not as it should be."""
    found = []
    told = Counter(DONE.findall(output.with_suffix(".log").read_text()))
    found += [f"{name} was done {told[name]} times" for name in names if told[name] != 1]
    expected, there = contents(serial), contents(output)
    found += [f"{path} differs" for path in expected if there.get(path) != expected[path]]
    found += [f"{path} is left" for path in there if path not in expected]
    values = json.loads((output / "run.json").read_text())
    if list(values["tomograms"]) != names or values["failures"] or values["missing"]:
        found.append("run.json does not have all tomograms")
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--cluster", default="local:2", help="local:N or slurm:N")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--shape", nargs=3, default=["160", "160", "48"])
    parser.add_argument("--steps", type=int, default=20, help="of the training; the picks need not be good")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    data, serial, output = (given.output / name for name in ("data", "serial", "cluster"))
    for folder in (data, serial, output):
        shutil.rmtree(folder, ignore_errors=True)
    run("simulate", "-o", data, "--count", given.count, "--shape", *given.shape, "--seed", given.seed)
    tomograms = sorted(data.glob("*.mrc"))
    names, model = [path.stem for path in tomograms], given.output / "model.safetensors"
    labels = data / "labels" / f"{names[0]}.mod"
    run("train", tomograms[0], "--labels", labels, "-d", 210, "--steps", given.steps, "-o", model, "--overwrite")
    command = ["pick", *tomograms, "--model", model, "--threads", 1, "--top", 40]
    seconds, _ = run(*command, "-o", serial)
    print(f"one process: {given.count} tomograms in {seconds:.0f} s", flush=True)
    seconds = pick_and_kill(command, given.cluster, output, kills=given.kills, count=given.count, seed=given.seed)
    print(f"{given.cluster}: {seconds:.0f} s", flush=True)
    wrong = faults(serial, output, names)
    _, said = run(*command, "--cluster", given.cluster, "-o", output)
    if f"{given.count} done before" not in said:
        wrong.append("again, not all was done before")
    wrong += [fault for fault in faults(serial, output, names) if fault not in wrong]
    print(f"{given.kills} kills, {given.count} tomograms, {len(wrong)} faults", *wrong, sep="\n")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
