"""One process at a time works in a folder."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cetpick.errors import CetpickError, InputError


@contextmanager
def alone_in(folder: Path, what: str) -> Iterator[list[int]]:
    """Hold the file `.<what>.lock` of a folder during the body, or refuse when another process does.

    The kernel holds the lock for this process and those that inherit the descriptor, until the body or the last of them
    has ended, however that was: a file that a killed process has left is in nobody's way. Where there are no locks, as
    on some shared file systems, nothing is held.

    Args:
        folder: it is made if it is missing, and removed if it is empty in the end.
        what: that only one may do at a time; part of the file's name.

    Yields:
        The descriptor for processes that shall hold the lock too (`pass_fds`); none without a lock.

    Raises:
        InputError: another process holds it.
        CetpickError: the folder cannot be made.
    """
    path, new = folder / f".{what}.lock", not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CetpickError(
            "cannot be made",
            file=folder,
            expected="a folder to write to",
            found=error.strerror or error,
            cure="give another with -o, or the right to write there",
        ) from error
    descriptor = _locked(path)
    try:
        yield [] if descriptor is None else [descriptor]
    finally:
        if descriptor is not None:
            with suppress(OSError):  # another user's, left by a process that was killed
                path.unlink(missing_ok=True)
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # for those that inherited it, too
            os.close(descriptor)
        if new:
            with suppress(OSError):
                folder.rmdir()


def _locked(path: Path) -> int | None:
    """Lock a file; its descriptor, None where that cannot be had.

    Raises:
        InputError: another process holds it.
    """
    while True:
        descriptor = None
        try:
            own = True
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            except PermissionError:  # another user's, who may be at work
                own, descriptor = False, os.open(path, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # who held it before may have removed it since it was opened
            if _is(path, descriptor):
                if own:
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}".encode(), 0)
                return descriptor
        except BlockingIOError:
            assert descriptor is not None
            holder = os.pread(descriptor, 200, 0).decode(errors="replace")
            os.close(descriptor)
            raise InputError(
                "another cetpick is at work in this folder",
                file=path.parent,
                found=f"{holder}, or what it has started",
                cure=f"wait for its end, or end it; if it is gone for certain, with its machine, remove {path}",
            ) from None
        except OSError:
            if descriptor is not None:
                os.close(descriptor)
            return None
        os.close(descriptor)


def _is(path: Path, descriptor: int) -> bool:
    """Whether a path is still that of a file that is open."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
