"""Files appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cetpick.errors import CetpickError, InputError

TOKEN = 4
"""Random bytes in the name that a file has until it is complete."""


@contextmanager
def all_or_none(paths: Iterable[Path]) -> Iterator[None]:
    """When the body, which writes these files, raises, put back what they held before; new ones are removed.

    Raises:
        CetpickError: a file that is there already cannot be read.
    """
    before: dict[Path, bytes | None] = {}
    for path in paths:
        try:
            before[path] = path.read_bytes() if path.is_file() else None
        except OSError as error:
            raise CetpickError("cannot be replaced", file=path, found=error) from error
    try:
        yield
    except BaseException:
        for path, content in before.items():
            with suppress(OSError):
                if content is not None:
                    path.write_bytes(content)
                elif path.is_file():
                    path.unlink()
        raise


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove what `replacing` left of these files when it was killed; nobody may be writing them."""
    names: dict[Path, set[str]] = {}
    for path in paths:
        names.setdefault(path.parent, set()).add(path.name)
    for folder, of in names.items():
        for found in folder.glob(f".{'[0-9a-f]' * 2 * TOKEN}-*"):
            if found.name.partition("-")[2] in of:
                found.unlink(missing_ok=True)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path to write to, in the folder of `path` and with its endings, that becomes `path` on success.

    The folder is made if it is missing. When the body raises, what it wrote is removed and `path` stays as it was.

    Raises:
        InputError: `path` is a folder, or its folder cannot be made.
        CetpickError: the body or the renaming ended in an OSError (disk full, no permission).
    """
    target = Path(path)
    if target.is_dir():
        raise InputError("a folder is where the file should be written", file=target, cure="name another file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("its folder cannot be made", file=target, found=error, cure="name another folder") from error
    # Not tempfile: its files are private to the user, results should have the permissions that umask gives.
    temporary = target.with_name(f".{secrets.token_hex(TOKEN)}-{target.name}")
    try:
        yield temporary
        temporary.replace(target)
    except OSError as error:
        cure = f"make sure that {target.parent} has space and may be written to, or name another folder"
        raise CetpickError("cannot be written", file=target, found=error, cure=cure) from error
    finally:
        with suppress(OSError):  # a read-only file system refuses even what is not there, and hides the reason
            temporary.unlink(missing_ok=True)
