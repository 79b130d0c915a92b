"""What `kill -9` does to a training and the picks after it: nothing, wherever it strikes. See README.md.

    python benchmarks/kill.py OUT --kills 50

One small run goes undisturbed, the other is killed at random moments and started again with `--resume`. After every
kill each result that is there under its final name must be what the undisturbed run made, to the byte, and every record
must be whole; so must all be in the end. The time of a kill is drawn over the length of the undisturbed run, so that
all its parts are struck. Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

FINAL = ("*.csv", "*.mod", "particles.star", "model.safetensors", "candidates/*.csv")
"""Results that the same command makes alike."""
RECORDS = ("*.json", "records/*.json", "views/*.json")
SIZE = ("256", "256", "64")


def run(*arguments: str | Path, seconds: float | None = None) -> float | None:
    """Run cetpick; how long it took, or None if it was killed after so many seconds.

    Raises:
        SystemExit: it failed.
    """
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "cetpick", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None
    if process.returncode:
        raise SystemExit(f"cetpick {arguments[0]} ended with {process.returncode}:\n{errors}")
    return time.monotonic() - start


def differing(reference: Path, output: Path, *, complete: bool) -> list[str]:
    """Results in `output` that are not those of `reference`; those that lack count when it should be complete."""
    wrong = []
    for pattern in FINAL:
        for expected in sorted(reference.glob(pattern)):
            name = expected.relative_to(reference)
            found = output / name
            if found.exists():
                wrong += [] if found.read_bytes() == expected.read_bytes() else [f"{name} differs"]
            elif complete:
                wrong.append(f"{name} is missing")
    for pattern in RECORDS:
        for found in sorted(output.glob(pattern)):
            if found.name.startswith("."):  # what was being written: not under its final name
                continue
            try:
                json.loads(found.read_bytes())
            except ValueError:
                wrong.append(f"{found.relative_to(output)} is no JSON")
    return wrong


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    data, reference, output = (given.output / name for name in ("data", "undisturbed", "killed"))
    for folder in (data, reference, output):
        shutil.rmtree(folder, ignore_errors=True)
    run("simulate", "-o", data, "--count", "2", "--shape", *SIZE, "--seed", given.seed)
    first, second = sorted(data.glob("*.mrc"))
    command = ["pick", first, second, "--train", first, "--labels", data / "labels" / f"{first.stem}.mod"]
    command += ["--diameter", "210", "--steps", given.steps, "--threads", given.threads, "--resume", "-o"]
    length = run(*command, reference)
    assert length is not None
    print(f"undisturbed: {length:.0f} s", flush=True)
    moments, wrong, kills, finished = random.Random(given.seed), list[str](), 0, 0
    while kills < given.kills:
        moment = moments.uniform(0, length)
        if run(*command, output, seconds=moment) is None:
            kills += 1
            found = differing(reference, output, complete=False)
            there = sorted(path.name for path in output.glob("*")) if output.exists() else []
            print(f"killed after {moment:.1f} s, {len(there)} files: {', '.join(found) or 'fine'}", flush=True)
        else:
            finished += 1
            found = differing(reference, output, complete=True)
            shutil.rmtree(output)
            print(f"finished: {', '.join(found) or 'the same picks'}", flush=True)
        wrong += found
    run(*command, output)
    wrong += differing(reference, output, complete=True)
    print(f"{kills} kills, {finished + 1} finished runs, {len(wrong)} faults")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
