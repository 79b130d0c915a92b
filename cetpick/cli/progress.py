"""Progress on stderr."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Protocol


class Reporter(Protocol):
    """What the workflows tell of their progress."""

    def step(self, what: str, step: int, steps: int, log: Mapping[str, float]) -> None:
        """A training step is done."""

    def say(self, text: str) -> None:
        """What else there is to tell, a line."""


class _Silent:
    def step(self, what: str, step: int, steps: int, log: Mapping[str, float]) -> None:
        pass

    def say(self, text: str) -> None:
        pass


@contextmanager
def reporting(*, quiet: bool) -> Iterator[Reporter]:
    """Yield a reporter: a bar on a terminal, a line now and then in a log file, nothing if `quiet`."""
    if quiet:
        yield _Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:

        class _Shown:
            def __init__(self) -> None:
                self.training = bar.add_task("training", total=None, visible=False)

            def step(self, what: str, step: int, steps: int, log: Mapping[str, float]) -> None:
                bar.update(self.training, description=what, completed=step, total=steps, visible=step < steps)
                if step == steps or (not console.is_terminal and step % 50 == 0):
                    self.say(f"{what}: step {step} of {steps}, loss {log['loss']:.3f}")
                elif step == 1 and not console.is_terminal:
                    self.say(f"{what}: {steps} steps")

            def say(self, text: str) -> None:
                # a disk that is full, under the log, is no reason to stop
                with suppress(OSError):
                    console.print(text, markup=False, soft_wrap=True)

        yield _Shown()
