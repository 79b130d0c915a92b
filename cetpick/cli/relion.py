"""cetpick-relion: an External job of RELION 3.1, 4 and 5."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

DESCRIPTION = """\
Train, pick, or both, as an External job of RELION, which gives these arguments; see docs/relion.md.
With `model`: pick with it. With labels (`labels`, or input coordinates or particles) and `diameter`: train, then pick;
`train` without a value: train only."""
DECIDED = {
    "-o": "leave it out: results go to the job's folder",
    "--output": "leave it out: results go to the job's folder",
    "--shard": "leave it out: a job is not divided",
    "-m": "give it as the parameter `model`",
    "-l": "give it as the parameter `labels`",
    "-d": "give it as the parameter `diameter`",
}
"""What the job decides, or has a parameter for, and what to do."""
ELSE = "Everything else is handed to `cetpick pick` (or `train`): a parameter such as `seed`, or other arguments."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "cetpick-relion", description=DESCRIPTION, epilog=ELSE, allow_abbrev=False, add_help=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("-h", "--help", action="store_true", help="show this text")
    parser.add_argument("--o", type=Path, metavar="FOLDER", help="folder of the job; needed")
    # RELION leaves out the value of an empty field, and pastes values without quotes: any number of words may follow
    for name, text in {
        "in_mics": "tomograms.star (RELION 5), micrographs STAR (3.1), or tomogram files",
        "in_coords": "coordinates to train on: coords_suffix_*.star and the like of a picking job",
        "in_parts": "particles to train on: particles.star or optimisation_set.star",
        "tomograms": "tomogram files; those to pick for the tilt series of a tomograms.star, needed with RELION 4's",
        "model": "model file to pick with",
        "train": "tomograms to train on; without a value (or `only`): train and do not pick",
        "labels": "label files in any format that cetpick reads, or a folder of them",
        "reject": "files of places that are no particles, in the same formats",
        "added": "files of further labels that were found by looking at picks, in the same formats",
        "diameter": "of the particle, angstrom; needed to train",
        "count_hint": "expected particles in a tomogram",
        "threshold": "score from which a candidate is a pick",
        "target_precision": "expected of the picks, in the place of a threshold",
        "top": "at most so many picks in a tomogram",
        "gpu": "number of the GPU, several as 0:1, or `cpu`; by default all GPUs that there are",
        "voxel_size": "angstrom, where header or STAR are wrong",
        "which": "reconstructed or denoised, of a tomograms.star",
        "names": "file, or parent where tomograms of several folders have one file name",
        "exe": "command in the place of `cetpick`, such as the container's wrapper",
        "j": "threads",
    }.items():
        spellings = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
        parser.add_argument(*spellings, nargs="*", metavar="VALUE", help=text)
    for name in ("pipeline_control", "pipeline-control", "in_movies", "in_3dref", "in_mask"):
        parser.add_argument(f"--{name}", nargs="*", help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the job; the last that it leaves in its folder is the marker of how it ended."""
    parser = _parser()
    given, extra = parser.parse_known_args(arguments)
    if given.help:
        parser.print_help()
        if given.o is None:
            return
    elif given.o is None:
        parser.error("the following arguments are required: --o")
    from cetpick.cli import show_warning
    from cetpick.errors import CetpickError, InputError
    from cetpick.io.relion_job import exit_marker

    def stop(number: int, _: object) -> None:
        for other in STOPPING:
            signal.signal(other, signal.SIG_IGN)  # the end is on its way; it must not be cut short
        print(f"stopped by {signal.Signals(number).name}", file=sys.stderr)
        sys.exit(128 + number)

    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)
    warnings.showwarning = show_warning
    if sys.stdout is not None:  # closed
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        given.o.mkdir(parents=True, exist_ok=True)
        with exit_marker(given.o):
            if given.help:
                raise InputError(
                    "nothing was done but to show the help",
                    expected="arguments of a job",
                    found="--help among them",
                    cure="leave it out",
                )
            from cetpick.workflows.relion import run_relion_job

            run_relion_job(_job(vars(given), extra))
    except CetpickError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(CetpickError.exit_code)


def _job(given: dict[str, Any], extra: Sequence[str]) -> Any:
    """What RELION asked for, as the workflow takes it."""
    from cetpick.workflows.inputs import InputOptions
    from cetpick.workflows.relion import RelionJob

    def paths(name: str) -> list[Path]:
        return [Path(value) for value in given[name] or []]

    train = given["train"]
    train_only = train is not None and train in ([], ["only"])
    exe = given["exe"] or [os.environ.get("CETPICK_EXE", "")]
    which: Any = _one(given, "which") or "reconstructed"
    names: Any = _one(given, "names") or "file"
    model = _one(given, "model")
    return RelionJob(
        folder=given["o"],
        inputs=paths("in_mics"),
        tomograms=paths("tomograms"),
        model=Path(model) if model else None,
        train=[] if train_only else paths("train"),
        train_only=train_only,
        labels=[*paths("labels"), *paths("in_coords"), *paths("in_parts")],
        reject=paths("reject"),
        added=paths("added"),
        diameter=_one(given, "diameter"),
        count_hint=_one(given, "count_hint"),
        threshold=_number(given, "threshold", float),
        precision=_number(given, "target_precision", float),
        top=_number(given, "top", int),
        device=_device(_one(given, "gpu")),
        threads=_one(given, "j"),
        options=InputOptions(voxel_size=_number(given, "voxel_size", float), which=which, names=names),
        exe=shlex.split(" ".join(exe)) or [sys.executable, "-P", "-m", "cetpick"],
        extra=_handed_on(extra),
    )


def _one(given: dict[str, Any], name: str) -> str | None:
    """The only value of an argument, None when it has none.

    Raises:
        InputError: it has several.
    """
    from cetpick.errors import InputError

    values = given[name] or []
    if len(values) > 1:
        raise InputError(f"parameter `{name}` takes one value", found=" ".join(values), cure="paths without blanks")
    return values[0] if values else None


def _number(given: dict[str, Any], name: str, kind: type[float] | type[int]) -> Any:
    from cetpick.errors import InputError

    value = _one(given, name)
    try:
        return None if value is None else kind(value)
    except ValueError:
        raise InputError(f"parameter `{name}` is not a number", found=value) from None


def _device(gpu: str | None) -> str:
    """What --device calls the GPUs of these numbers; RELION lists several as 0:1 or 0,1."""
    if gpu is None:
        return "auto"
    if gpu.lower() in ("cpu", "no", "none", "-1"):
        return "cpu"
    numbers = gpu.replace(",", ":").split(":")
    return ",".join(f"cuda:{number}" for number in numbers) if all(map(str.isdigit, numbers)) else gpu


def _handed_on(extra: Sequence[str]) -> list[str]:
    """Arguments for the command line, as it spells them; inputs of RELION that it has no use for are left out.

    Raises:
        InputError: the job itself decides one of them.
    """
    from cetpick.errors import InputError

    kept: list[str] = []
    skipping = False
    for word in extra:
        if word.startswith("--"):
            skipping = word.startswith("--in_")
            name, *value = word.split("=", 1)
            word = "=".join([name.replace("_", "-"), *value])
        decided = DECIDED.get(word.split("=", 1)[0] if word.startswith("--") else word[:2])
        if decided:
            raise InputError(f"{word} cannot be among the other arguments of a job", cure=decided)
        if not skipping:
            kept.append(word)
    return kept
