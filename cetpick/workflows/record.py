"""run.json: how a result was made."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import Any, Self

import cetpick
from cetpick.errors import CetpickWarning, InputError
from cetpick.io.atomic import replacing
from cetpick.io.omezarr import is_store
from cetpick.io.to_json import to_json

PACKAGES = ("numpy", "scipy", "torch", "mrcfile", "zarr", "h5py", "pandas", "safetensors")


@cache
def revision() -> str:
    """The version of cetpick, and after a plus what tells its code from other code of that version.

    It is of all modules but those of the command line and the report, which decide no result.
    """
    package = Path(cetpick.__file__).parent
    code = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(package)
        if name.parts[0] not in ("cli", "report") and not name.name.startswith("."):  # as editors leave them
            code.update(b"%s %s" % (name.as_posix().encode(), hashlib.sha256(file.read_bytes()).digest()))
    return f"{cetpick.__version__}+{code.hexdigest()[:10]}"


def sha256(path: str | PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file; for a folder, of the lines that sha256sum prints of its files.

    By hand, in the folder: ``find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum``.
    """
    path = Path(path)
    if path.is_dir():
        lines = "".join(f"{sha256(file)}  ./{file.relative_to(path).as_posix()}\n" for file in _files(path))
        return hashlib.sha256(lines.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What tells whether a file, or the folder of a Zarr store, is still the one that it was.

    Attributes:
        bytes: its size.
        modified: when it was last written to, nanoseconds since 1970.
        sha256: as of sha256().
    """

    bytes: int
    modified: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """The stamp of a file as it is now.

        Raises:
            OSError: it cannot be read.
        """
        size, modified = size_and_time(path)
        return cls(bytes=size, modified=modified, sha256=sha256(path))

    def fits(self, path: Path, *, content: bool = False) -> bool:
        """Whether a file is there and the same: by size and time, its content is only read when the time differs.

        Args:
            path: the file.
            content: read its content in any case.
        """
        try:
            size, modified = size_and_time(path)
            if size != self.bytes:
                return False
            return (modified == self.modified and not content) or sha256(path) == self.sha256
        except OSError:
            return False


def size_and_time(path: Path) -> tuple[int, int]:
    """Bytes, and nanoseconds since 1970 of the last change, of a file or of all files in a folder.

    Raises:
        OSError: it cannot be read.
    """
    states = [file.stat() for file in _files(path)] if path.is_dir() else [path.stat()]
    return sum(state.st_size for state in states), max((state.st_mtime_ns for state in states), default=0)


def set_aside(path: Path, stamp: Stamp | None, folder: Path | None = None) -> None:
    """Rename a file that is there, but not as it was written: nobody's work is written over.

    Args:
        path: it becomes `<stem>.edited<suffix>`, or with a number where that is taken.
        stamp: of the file when it was written, None when that is not known.
        folder: where to; None for where it is.

    Warns:
        CetpickWarning: it was renamed.
    """
    if not path.exists() or (stamp is not None and stamp.fits(path)):
        return
    folder = folder or path.parent
    folder.mkdir(exist_ok=True)
    names = (folder / f"{path.stem}.edited{number or ''}{path.suffix}" for number in itertools.count())
    aside = next(free for free in names if not free.exists())
    path.replace(aside)
    told = aside.name if folder == path.parent else aside
    why = "not known how it was made; it" if stamp is None else "changed since it was written; your version"
    message = f"{path}: {why} is kept as {told}"
    warnings.warn(message, CetpickWarning, stacklevel=3)


@contextmanager
def keeping_warnings(kept: list[str]) -> Iterator[None]:
    """Add the text of every CetpickWarning of the body to `kept`, besides showing it."""
    show = warnings.showwarning

    def keep(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
        if issubclass(category, CetpickWarning):
            kept.append(str(message))
        show(message, category, *args, **kwargs)

    with warnings.catch_warnings():
        warnings.simplefilter("always", CetpickWarning)
        warnings.showwarning = keep
        yield


def write_json(path: Path, values: Any) -> None:
    """Write values as JSON, atomically; see to_json."""
    with replacing(path) as temporary:
        temporary.write_text(to_json(values, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object that a JSON file holds, None when it is not there or something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


class RunRecord:
    """Collects what run.json tells: settings, versions, device, input hashes, outputs, warnings, seconds."""

    def __init__(self, command: str, settings: dict[str, Any]) -> None:
        """Start the clock of `command` with its resolved `settings`."""
        self._start = time.monotonic()
        self.values: dict[str, Any] = {
            "cetpick": revision(),
            "command": command,
            "arguments": sys.argv[1:],
            "folder": str(Path.cwd()),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "python": platform.python_version(),
            "packages": _versions(PACKAGES),
            "settings": settings,
            "inputs": {},
            "outputs": [],
            "seconds": {},
            "warnings": [],
        }

    def add_inputs(self, paths: Iterable[str | PathLike[str]]) -> None:
        """Note input files and Zarr stores with size and SHA-256; what is no longer readable is noted as such."""
        for path in paths:
            try:
                entry: dict[str, Any] = {"bytes": size_and_time(Path(path))[0], "sha256": sha256(path)}
            except OSError as error:
                entry = {"unreadable": str(error)}
            self.values["inputs"][str(path)] = entry

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the seconds of the body to those of `what`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.add_seconds(what, time.monotonic() - start)

    def add_seconds(self, what: str, seconds: float) -> None:
        """Add to those of `what`."""
        spent = self.values["seconds"]
        spent[what] = round(spent.get(what, 0.0) + seconds, 3)

    def keeping_warnings(self) -> AbstractContextManager[None]:
        """Keep every CetpickWarning of the body, besides showing it."""
        return keeping_warnings(self.values["warnings"])

    def write(self, path: Path) -> None:
        """Write the record, atomically."""
        self.values["seconds"]["total"] = round(time.monotonic() - self._start, 3)
        write_json(path, self.values)


def read_record(path: Path) -> dict[str, Any] | None:
    """What the run.json of a cetpick command holds, None when the file is something else."""
    values = read_json(path) if path.suffix.lower() == ".json" else None
    return values if values is not None and {"cetpick", "command", "started"} <= values.keys() else None


def record_beside(model: Path) -> Path:
    """Where the record of a training is: `<stem>.run.json` beside the model."""
    return model.with_name(f"{model.stem}.run.json")


def versions(values: Mapping[str, Any]) -> str:
    """Of cetpick, Python and packages, for people, from the record of a run."""
    return f"cetpick {values['cetpick']}, Python {values['python']}, " + ", ".join(
        f"{name} {version}" for name, version in values["packages"].items()
    )


def report_beside(model: Path) -> Path:
    """Where the report of a training is: `<stem>.report.html` beside the model."""
    return model.with_name(f"{model.stem}.report.html")


def checkpoint_beside(model: Path) -> Path:
    """Where the state of a training is kept until the model is written: `<stem>.checkpoint`."""
    return model.with_name(f"{model.stem}.checkpoint")


def prepare_output(
    path: Path, names: Sequence[str], *, overwrite: bool, inputs: Iterable[Path] = (), option: str | None = "-o"
) -> None:
    """Refuse, before any work, to write where it is impossible, or over an input or the results of an earlier run.

    Args:
        path: output folder, or for a single output file its folder.
        names: what will be written into it.
        overwrite: allow results to be replaced; inputs never are.
        inputs: files that the command reads.
        option: that names the output, for messages; None where there is none.

    Raises:
        InputError: a result or an input is already there, or the folder is a file, lies in a Zarr store, or cannot be
            written to.
    """
    cure = f"name another with {option}" if option else "move it away"
    if store := next((folder for folder in (path.absolute(), *path.absolute().parents) if is_store(folder)), None):
        raise InputError("the output folder would lie in a Zarr store", file=store, cure=cure)
    existing = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if not existing.is_dir():
        raise InputError("a file is where the output folder should be", file=existing, cure=cure)
    inner = {(path / name).parent for name in names}
    for folder in (existing, *sorted(of for of in inner if of.is_dir())):
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise InputError(
                "the output folder cannot be written to", file=folder, found=error.strerror or error, cure=cure
            ) from None
    for name in names:
        if (path / name).is_dir():
            raise InputError("a folder is where a file should be written", file=path / name, cure=cure)
    read = {file.resolve() for file in inputs}
    for name in names:
        if (path / name).resolve() in read:
            raise InputError("an input would be overwritten", file=path / name, cure=cure)
    if not overwrite:
        refuse_earlier(path, names, option=option)


def refuse_earlier(path: Path, names: Iterable[str], *, option: str | None = "-o") -> None:
    """Refuse to write over the results of an earlier run.

    Raises:
        InputError: a file of one of these names is in the folder.
    """
    present = [name for name in names if (path / name).exists()]
    if present:
        raise InputError(
            f"already holds {', '.join(present)}",
            file=path,
            expected="a folder without earlier results",
            cure=f"{f'name another output with {option}, or ' if option else ''}add --overwrite",
        )


def _files(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(files, key=lambda path: os.fsencode(path.relative_to(folder)))


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
