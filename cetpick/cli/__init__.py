"""The command line: parse, build settings, call one workflow, say where the output is."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Annotated

import typer

from cetpick import __version__
from cetpick.cli.check import check
from cetpick.cli.collect import collect
from cetpick.cli.convert import convert
from cetpick.cli.curate import curate
from cetpick.cli.demo import demo
from cetpick.cli.doctor import doctor
from cetpick.cli.evaluate import evaluate
from cetpick.cli.info import info
from cetpick.cli.pick import pick
from cetpick.cli.repick import repick
from cetpick.cli.report import report
from cetpick.cli.simulate import simulate
from cetpick.cli.suggest import suggest
from cetpick.cli.train import train
from cetpick.errors import CetpickError, CetpickWarning, InputError

STOPPED = 130
"""Exit code after Ctrl-C, as shells have it."""
BROKEN_PIPE = 141
"""Exit code when nobody reads the output any more, as shells have it."""
GOES_ON = {
    "pick": ": the same command does the rest; with --resume it goes on with a training, too",
    "train": ": the same command with --resume goes on",
    "repick": ": the same command does the rest",
}
"""What to do after Ctrl-C."""
TERMINATED = 143
"""Exit code after SIGTERM, as shells and schedulers have it (128 + 15), also when it comes before Python is up."""

app = typer.Typer(
    name="cetpick",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Pick particles in cryo-electron tomograms, learning from 20 to 50 labels.",
    epilog="Exit codes: 0 all done; 1 something failed: a tomogram, and the others are done, or the training; "
    "2 unusable input, nothing done; 130 and 143 stopped by Ctrl-C and SIGTERM; 141 nobody reads the output.",
)
for command in (
    pick, collect, repick, report, suggest, curate, train, check, evaluate, convert, info, simulate, demo, doctor,
):  # fmt: skip
    app.command(no_args_is_help=command not in (demo, doctor))(command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cetpick {__version__}")
        raise typer.Exit


SPINS = "1000"
"""How often a waiting thread of GNU's OpenMP, which torch uses, looks before it sleeps; some ten microseconds."""


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Print a warning of cetpick, and none of others."""
    if issubclass(category, CetpickWarning):
        with suppress(OSError):  # as of progress: a log on a full disk
            print(f"warning: {message}", file=sys.stderr)


def _terminate(*_: object) -> None:
    """Leave as after an exception, so that nothing is left half-written; a second signal does not cut that short."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(TERMINATED)


def _refuse_empty(words: Sequence[str]) -> None:
    """Raise an InputError for an argument that is empty: as a path it would be the working folder."""
    for before, word in pairwise(["cetpick", *words]):
        if not word or (word.startswith("--") and word.endswith("=")):
            raise InputError(
                f"an argument is empty, after {before}" if not word else f"nothing is given to {word}",
                expected="a path, a number or a name",
                cure="is a variable of the shell not set?",
            )


def main() -> None:
    """Run the command line; errors end with their message and exit code, never with a traceback."""
    if "OMP_WAIT_POLICY" not in os.environ:
        # read when torch is loaded. OpenMP threads that spin for milliseconds while they wait, as is usual, make torch
        # several times slower on cores that others use too; without any spinning, a fifth slower on cores of its own
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    signal.signal(signal.SIGTERM, _terminate)
    # a terminal that is closed; as process 1 of a container nothing else would end cetpick. nohup has it ignored
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _terminate)
    warnings.showwarning = show_warning
    warnings.simplefilter("always", CetpickWarning)
    try:
        _refuse_empty(sys.argv[1:])
        app()
    except CetpickError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ImportError as error:
        # a compiled module turns the exception of a signal that comes while it is loaded into this one
        if not isinstance(error.__cause__, SystemExit | KeyboardInterrupt):
            raise
        what, code = ("terminated", TERMINATED) if isinstance(error.__cause__, SystemExit) else ("stopped", STOPPED)
        print(what, file=sys.stderr)
        sys.exit(code)
    except (KeyboardInterrupt, SystemExit) as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # which typer turns into an exit with code 1
            sys.exit(BROKEN_PIPE)
        # and Ctrl-C into a silent exit with this code
        if isinstance(ended, SystemExit) and ended.code == TERMINATED:
            print("terminated", file=sys.stderr)
        if isinstance(ended, SystemExit) and ended.code != STOPPED:
            raise
        print(f"stopped{GOES_ON.get(next(iter(sys.argv[1:]), ''), '')}", file=sys.stderr)
        sys.exit(STOPPED)
    except BrokenPipeError:
        sys.exit(BROKEN_PIPE)
    except OSError as error:  # such as a name that is too long, or a disk that is gone
        print(f"error: {error}", file=sys.stderr)
        sys.exit(CetpickError.exit_code)
