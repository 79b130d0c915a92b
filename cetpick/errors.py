"""What goes wrong, said so that a user can act on it."""

from __future__ import annotations

from os import PathLike
from typing import Any


class CetpickError(Exception):
    """An error whose message a user can act on: what, in which file, expected, found, cure.

    Args:
        problem: one sentence, no full stop needed.
        file: the file it is about.
        expected: what a good input would have had.
        found: what was there.
        cure: what the user can do.
    """

    exit_code = 1

    def __init__(
        self,
        problem: str,
        *,
        file: str | PathLike[str] | None = None,
        expected: Any = None,
        found: Any = None,
        cure: str | None = None,
    ) -> None:
        self.problem, self.file, self.expected, self.found, self.cure = problem, file, expected, found, cure
        lines = [f"{file}: {problem}" if file is not None else problem]
        lines += [
            f"  {word}: {value}"
            for word, value in (("expected", expected), ("found", found), ("cure", cure))
            if value is not None
        ]
        super().__init__("\n".join(lines))


class InputError(CetpickError):
    """Unusable input or usage: nothing was done, the command ends with exit code 2."""

    exit_code = 2


class TrainingError(CetpickError):
    """Training went wrong in a way that would make the picks worthless."""


class CetpickWarning(UserWarning):
    """Something the user should know that does not stop the work; the commands print it and keep it in run.json."""
