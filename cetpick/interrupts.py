"""Ctrl-C, SIGTERM and SIGHUP wait until what must stay whole is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType

HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interrupts_for_this_process() -> Iterator[None]:
    """Let no process that is started within, or by a thread that is, hear Ctrl-C; this one hears of it at the end."""
    resource_tracker.ensure_running()  # the first process that is spawned starts it, which would let Ctrl-C in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def held_signals() -> Iterator[list[int]]:
    """Hold back Ctrl-C, SIGTERM and SIGHUP during the body, yield those that came, and deliver them after it.

    A second Ctrl-C interrupts the body at once. SIGTERM may come twice for one end: Slurm sends it to a batch script,
    which passes it on, and to all that the script has started. Signals that are ignored stay so; outside of the main
    thread, where Python handles none, nothing is held.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = {number: signal.getsignal(number) for number in HELD}
    # None: a handler that is not Python's, which could not be put back
    before = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        came.append(number)
        if number == signal.SIGINT and len(came) > 1:
            restore()
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, note)
    try:
        yield came
    finally:
        restore()
        if came:  # also where the body has failed: who catches that would never hear of it
            signal.raise_signal(came[0])
