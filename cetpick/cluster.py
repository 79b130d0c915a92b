"""Work that is shared out among the workers of a Dask cluster: of this machine, a running one, or jobs of a queue.

Queue, memory, GPUs and time of jobs are settings of dask-jobqueue, in its own file. Dask is imported when it is needed.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Self, TypeVar

from cetpick.errors import CetpickError, InputError
from cetpick.interrupts import held_signals, interrupts_for_this_process

Item = TypeVar("Item")
Result = TypeVar("Result")

LOCAL = "local"
QUEUES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster"}
"""Their classes in dask_jobqueue."""
MOST_JOBS = 10
"""Jobs in a queue, when the user tells no number."""
RETRIES = 2
"""How often an item is tried again that ended with an exception; for lost workers see Dask's `allowed-failures`."""
LOOK = 5.0
"""Seconds between two looks at the workers."""
TELL = 60.0
"""Seconds between two messages that there is no worker."""
ALONE = ("--nthreads", "1", "--memory-limit", "0")
"""Of a worker: one item at a time, and not killed for the files that it maps into memory: the queue guards memory."""
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""Variables that say how threads wait; the command line sets them, and most queues keep them from their jobs."""

_one_at_a_time = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where work is done.

    Attributes:
        kind: `local`, one of QUEUES, or `running`.
        number: of processes or jobs, None for a default.
        address: of the scheduler that is running: an address, or its file.
    """

    kind: str
    number: int | None = None
    address: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what the user gave: `local`, `slurm:8`, `tcp://host:8786`, `scheduler.json`.

        Raises:
            InputError: it is something else, Dask is not installed, or not set up for such jobs, or no scheduler
                answers.
        """
        kind, _, number = text.partition(":")
        if kind in (LOCAL, *QUEUES) and (kind == text or (number.isdecimal() and int(number) > 0)):
            cluster = cls(kind=kind, number=int(number) if number else None)
        elif "://" in text or Path(text).is_file():
            cluster = cls(kind="running", address=text)
        else:
            raise InputError(
                "unusable --cluster",
                expected="local, slurm, pbs, lsf or sge, with or without :N, or address or file of a Dask scheduler",
                found=text,
                cure="such as --cluster local:4, --cluster slurm:8 or --cluster tcp://HOST:8786; see docs/cluster.md",
            )
        try:
            cluster._check()
        except ModuleNotFoundError as error:
            raise InputError(
                f"--cluster needs a package that is not installed: {error.name}", cure="pip install 'cetpick[cluster]'"
            ) from None
        return cluster

    @property
    def is_local(self) -> bool:
        """Whether its workers are processes of this machine."""
        return self.kind == LOCAL

    @property
    def threads(self) -> int | None:
        """CPU threads that a worker in a queue's job may use, None where that is not known."""
        return int(self._setting("cores")) // self._processes if self.kind in QUEUES else None

    def share_out(
        self,
        works: Sequence[Callable[[Item], Result]],
        items: Sequence[Item],
        *,
        say: Callable[[str], None],
    ) -> Generator[tuple[Item, Result | Exception], None, None]:
        """Yield each item, as they are done, with what came of it or the exception that it ended with.

        What is not done when the generator is closed is given up, and jobs that were submitted are cancelled.

        Args:
            works: what to do with an item, the same everywhere, or of this machine one for each worker.
            items: what there is to do.
            say: told in a line where the dashboard is, and when workers do not come.

        Raises:
            InputError: no scheduler answers.
            CetpickError: it does not any more.
        """
        from distributed import wait

        with self._workers(len(works) if self.is_local else len(items)) as (client, renew):
            say(f"dashboard of Dask: {client.dashboard_link}")
            futures = {client.submit(pick, works, item, retries=RETRIES, pure=False): item for item in items}
            told = time.monotonic()
            while futures:
                try:
                    if time.monotonic() - told > TELL:
                        told = time.monotonic()
                        if not client.nthreads():
                            say("no worker of the cluster is there; its queue and the logs of its jobs tell more")
                    renew()
                    done, _ = wait(list(futures), timeout=LOOK, return_when="FIRST_COMPLETED")
                except TimeoutError:
                    continue
                except (CancelledError, OSError):
                    raise CetpickError(
                        "the connection to the scheduler is lost",
                        file=client.scheduler.address,
                        cure="the same command goes on, with this or another --cluster",
                    ) from None
                for future in done:
                    error = future.exception()
                    yield futures.pop(future), future.result() if error is None else error

    @contextmanager
    def _workers(self, most: int) -> Iterator[tuple[Any, Callable[[], None]]]:
        """A client of the cluster, with workers for at most so many items, and what renews those that are lost."""
        from distributed import Client

        if self.kind == "running":
            with self._client() as client:
                yield client, _nothing
        elif self.is_local:
            from distributed import LocalCluster

            with ExitStack() as held:
                with held_signals(), interrupts_for_this_process():
                    workers = LocalCluster(
                        n_workers=most,
                        threads_per_worker=1,
                        memory_limit=0,
                        dashboard_address=":0",
                        silence_logs=logging.CRITICAL,  # what a heartbeat finds at the end is an error to Dask
                    )
                    client = held.enter_context(Client(held.enter_context(workers)))
                yield client, _nothing  # Dask starts lost ones anew itself
        else:
            jobs = min(self.number or MOST_JOBS, most)
            with self.queue() as cluster, Client(cluster) as client:
                # what is asked for again is there, but for the jobs of workers that were lost
                cluster.scale(jobs=jobs)
                yield client, lambda: cluster.scale(jobs=jobs)

    def queue(self) -> Any:
        """The cluster of jobs, of dask-jobqueue; none is submitted yet."""
        waiting = [f"export {name}={shlex.quote(os.environ[name])}" for name in WAITING if name in os.environ]
        return self._class()(
            processes=self._processes,
            worker_extra_args=[*self._setting("worker-extra-args"), *ALONE],
            job_script_prologue=[*waiting, *self._setting("job-script-prologue")],  # the user's come last
        )

    def _client(self) -> Any:
        """A client of the scheduler that is running."""
        from distributed import Client

        where = {"scheduler_file": self.address} if Path(self.address).is_file() else {"address": self.address}
        try:
            return Client(**where)
        except Exception as error:  # noqa: BLE001 - Dask does not say which exceptions addresses and files raise
            raise InputError(
                "no Dask scheduler answers",
                file=self.address,
                found=f"{type(error).__name__}: {error}",
                cure="start one with `dask scheduler`, and workers as docs/cluster.md tells",
            ) from None

    def _check(self) -> None:
        """See that all is there that will be needed, before a model is trained for hours."""
        import distributed  # noqa: F401

        if self.kind == "running":
            with self._client() as client:
                try:
                    client.run(import_module, __name__)
                except ImportError as error:  # it would be the end of the workers, and nothing would be said
                    raise InputError(
                        "its workers cannot load this cetpick",
                        file=self.address,
                        found=error,
                        cure="start scheduler and workers from the installation that calls them",
                    ) from None
        elif self.kind in QUEUES:
            command = self._class().job_cls.submit_command
            if not shutil.which(command):
                raise InputError(
                    f"--cluster {self.kind} submits jobs with {command}, which is not there",
                    cure=f"call cetpick on a machine from which jobs are submitted, with {command} in PATH",
                )
            missing = [name for name in ("cores", "memory") if self._setting(name) is None]
            if missing:
                import dask

                raise InputError(
                    f"Dask is not told what a job is to have: no {' and no '.join(missing)}",
                    file=Path(dask.config.PATH, "jobqueue.yaml"),
                    expected=f"at least `cores` and `memory` under `jobqueue`, `{self.kind}`",
                    cure="write them there; docs/cluster.md has an example",
                )

    def _class(self) -> Any:
        import dask_jobqueue

        return getattr(dask_jobqueue, QUEUES[self.kind])

    def _setting(self, name: str) -> Any:
        import dask
        import dask_jobqueue  # noqa: F401 - brings the defaults

        return dask.config.get(f"jobqueue.{self.kind}.{name}")

    @property
    def _processes(self) -> int:
        """Workers in a job: by default one, as it is to have a GPU; dask-jobqueue would start several."""
        return self._setting("processes") or 1


def pick(works: Sequence[Callable[[Item], Result]], item: Item) -> Result:
    """What a worker does, whose name is a number in a cluster of this machine; Dask shows the name of the function."""
    from distributed import get_worker

    name = get_worker().name
    with _one_at_a_time:
        return works[name % len(works) if isinstance(name, int) else 0](item)


def _nothing() -> None:
    pass
