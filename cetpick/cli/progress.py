"""Progress on stderr."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cetpick.records import TomogramInfo


class Reporter(Protocol):
    """What the workflows tell of their progress."""

    def step(self, what: str, step: int, steps: int, log: Mapping[str, float]) -> None:
        """A training step is done."""

    def tomogram(self, info: TomogramInfo, picks: int, candidates: int) -> None:
        """A tomogram is picked."""


class _Silent:
    def step(self, what: str, step: int, steps: int, log: Mapping[str, float]) -> None:
        pass

    def tomogram(self, info: TomogramInfo, picks: int, candidates: int) -> None:
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
                if step == steps or (not console.is_terminal and step % 100 == 0):
                    console.print(f"{what}: step {step} of {steps}, loss {log['loss']:.3f}")

            def tomogram(self, info: TomogramInfo, picks: int, candidates: int) -> None:
                console.print(f"picked {info.name}: {picks} picks of {candidates} candidates")

        yield _Shown()
