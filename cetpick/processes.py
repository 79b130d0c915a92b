"""Work that is shared out among processes of this machine, such as one for each GPU.

Not the pool of concurrent.futures: there a process that is killed, for want of memory say, breaks all of the pool, and
the processes of a parent that is killed live on. Here it costs the item at hand, a process takes the next item when it
is done with one, and ends when its parent has ended, however that was.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

ATTEMPTS = 2
"""So many processes may die of an item."""
PATIENCE = 60.0
"""Seconds that a process gets to end what must stay whole."""
MAIN = "import sys; from cetpick.processes import serve; serve(int(sys.argv[1]))"


def in_processes(
    works: Sequence[Callable[[Item], Result]], items: Sequence[Item]
) -> Generator[tuple[Item, Result | Exception], None, None]:
    """Yield each item, as they are done, with what came of it or the exception that it ended with.

    Args:
        works: what to do with an item; there is a process for each. Like items and results they are pickled.
        items: what there is to do.
    """
    waiting = deque((item, 1) for item in items)
    processes = [_Process(work) for work in works[: len(items)]]
    busy: dict[Connection, tuple[_Process, Item, int]] = {}
    try:
        idle = list(processes)
        while waiting or busy:
            while waiting and idle:
                process, (item, attempt) = idle.pop(), waiting.popleft()
                busy[process.give(item)] = process, item, attempt
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                process, item, attempt = busy.pop(connection)
                idle.append(process)
                try:
                    outcome = connection.recv()
                except (EOFError, OSError):
                    died = process.end()
                    if attempt < ATTEMPTS:
                        waiting.append((item, attempt + 1))
                        continue
                    outcome = ChildProcessError(f"{ATTEMPTS} processes died of it, the last one {died}")
                yield item, outcome
    finally:
        for process in processes:
            process.hang_up()
        for process in processes:
            process.end()


class _Process:
    """A process that is started when it is first given something to do, and again after it has died."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work = work
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def give(self, item: object) -> Connection:
        """Have it do an item; what it sends back, or that it has died, is told by the connection."""
        if self._connection is None:
            self._connection, theirs = Pipe()
            # not multiprocessing.Process, which would run the script that called cetpick again. In a group of its own:
            # Ctrl-C in a terminal is for the parent to pass on
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", MAIN, str(theirs.fileno())], pass_fds=[theirs.fileno()], process_group=0
            )
            theirs.close()
            self._send(self._work)
        self._send(item)
        return self._connection

    def _send(self, what: object) -> None:
        assert self._connection is not None
        with suppress(OSError):  # it has died, which receiving tells
            self._connection.send(what)

    def hang_up(self) -> None:
        """Have it end as after SIGTERM."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def end(self) -> str:
        """Wait for its end; how it ended."""
        self.hang_up()
        if self._process is None:
            return "unused"
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


def serve(descriptor: int) -> None:
    """Do what comes over a connection, first the work and then its items, until the other side hangs up."""
    connection, items = Connection(descriptor), queue.SimpleQueue[Any]()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    def receive() -> None:
        try:
            with suppress(EOFError, OSError):
                while True:
                    items.put(connection.recv())
        finally:  # the main thread ends what must stay whole, see held_signals
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=receive, daemon=True).start()
    work = items.get()
    while True:
        try:
            outcome = work(items.get())
        except Exception as error:  # noqa: BLE001 - it is the parent's to judge
            outcome = error
        connection.send(outcome)
