"""Workers from their start to the removal of what they ran in: forks them, watches for READY and for death, kills, buries.

Who gets a worker is decided elsewhere (lending.py, version_pool.py).
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
import signal
import socket
from collections.abc import Callable

from sandbox.channel import HEADER, READY
from sandbox.channel_ends import ChannelsAhead
from sandbox.deaths import Cause, Death, Deaths, of_status
from sandbox.endings import ENDINGS
from sandbox.errors import SandboxError
from sandbox.foreign_calls import ForeignCall
from sandbox.forking import Forker
from sandbox.host import Host
from sandbox.last_words import LastWords
from sandbox.processes import ExitStatus, pid_of, pidfd_kill, reap, reap_strays
from sandbox.runtime_zygotes import RuntimeZygotes
from sandbox.shell_pool import LIFT_IO_AFTER_S, ShellKind, ShellPool
from sandbox.shells import Shell
from sandbox.snapshots import Snapshots
from sandbox.version_pool import SnapshotState, VersionPool
from sandbox.worker import Worker
from sandbox.worker_state import WorkerState

log = logging.getLogger("forklight.sandbox")

# A leaf of a worker in a function zygote's sandbox may hold strays for a moment after the kill.
_REMOVE_RETRY_S = 0.02
# A process that is alone in its cgroup ends within a millisecond or two, unless that has no CPU time left, or its disk is slow.
_ENDS_ALONE_S = 0.02
# A worker that is not ready after this time waits for something, or has long work of its own: it does not hold up other starts.
YOUNG_S = 0.02


class WorkerKeeper:
    """`pool_of(key)` finds the pool of a worker, None once its version is gone. `on_free(pool)`: a worker may have become available,
    or room for one. `on_failed(pool, error)`: a worker that was asked for will not come. `on_room(pool)`: one has gone; None: and its
    version, too. `on_free` and `on_failed` may be called before `start` returns.
    `on_last_words(worker, text)`: it printed that when it had been told to end."""

    def __init__(
        self,
        host: Host,
        loop: asyncio.AbstractEventLoop,
        shells: ShellPool,
        zygotes: RuntimeZygotes,
        snapshots: Snapshots,
        pool_of: Callable[[str], VersionPool | None],
        on_free: Callable[[VersionPool], None],
        on_failed: Callable[[VersionPool, OSError], None],
        on_room: Callable[[VersionPool | None], None],
        deaths: Deaths,
        on_last_words: Callable[[Worker, str], None] = lambda worker, text: None,
    ) -> None:
        self._loop = loop
        self._last_words = LastWords(loop, on_last_words)
        self._shells = shells
        self._snapshots = snapshots
        self._pool_of = pool_of
        self._on_free = on_free
        self._on_failed = on_failed
        self._on_room = on_room
        self._deaths = deaths
        self._channels = ChannelsAhead(loop)
        self._forker = Forker(
            host, loop, zygotes, self._forked, self._fork_failed, itertools.count(1), self._channels
        )
        self.workers: dict[int, Worker] = {}
        self.ending: set[int] = set()  # workers with extensions that have been told to end
        self.starting = 0  # workers that wait for a sandbox, of all pools
        self._young: dict[int, float] = {}  # started and not ready yet -> when

    def close(self) -> None:
        """Nothing is started any more."""
        self._channels.close()

    def young(self) -> int:
        """How many workers are between their start and their READY, those aside whose init takes long."""
        if self._young:
            long_ago = self._loop.time() - YOUNG_S
            for worker_id in [worker_id for worker_id, since in self._young.items() if since < long_ago]:
                del self._young[worker_id]
        return len(self._young)

    def grown_up(self, worker_id: int) -> None:
        """It is ready. Idempotent."""
        self._young.pop(worker_id, None)

    def make_leaf_ahead(self, pool: VersionPool) -> None:
        """For the next child of the pool's function zygote."""
        assert pool.zygote is not None
        pool.zygote.leaves.append(self._forker.new_leaf(pool.spec))

    def start(self, pool: VersionPool) -> None:
        if pool.snapshot is SnapshotState.ON and pool.zygote is not None:
            try:
                park = not pool.awaited()
                worker = self._forker.fork_from(pool.spec, pool.zygote, pool.credentials, park=park)
            except OSError as error:
                self._start_failed(pool, error)
                return
            pool.zygote.users += 1
            worker.zygote = pool.zygote
            self._add(pool, worker)
            return
        pool.starting += 1
        self.starting += 1
        kind = ShellKind(pool.spec.network, pool.spec.limits.tmp_mb)
        self._shells.take(kind, lambda shell: self._got_shell(pool, shell))

    def _got_shell(self, pool: VersionPool, shell: Shell | SandboxError) -> None:
        pool.starting -= 1
        self.starting -= 1
        if isinstance(shell, SandboxError):
            self._start_failed(pool, shell)
            return
        if pool.retired:
            self._shells.retire(shell)
            return
        try:
            worker = self._forker.fork_into(
                pool.spec,
                shell,
                pool.credentials,
                park=not pool.awaited(),
                provisioned=pool.provisioned > 0 and not pool.waiting,
            )
        except OSError as error:
            self._shells.retire(shell)
            self._start_failed(pool, error)
            return
        self._add(pool, worker)

    def _add(self, pool: VersionPool, worker: Worker) -> None:
        self.workers[worker.worker_id] = worker
        self._young[worker.worker_id] = self._loop.time()
        pool.workers[worker.worker_id] = worker
        pool.spares.append(worker)
        self._on_free(pool)
        self._loop.call_soon(self._watch, worker)  # who was waited for has been lent by then

    def _watch(self, worker: Worker) -> None:
        """Only while nobody has it: a lent worker's READY is read by the door."""
        if worker.state is WorkerState.STARTING:
            self._loop.add_reader(worker.channel_fd, self._first_frame, worker)

    def _start_failed(self, pool: VersionPool, error: OSError) -> None:
        log.error("worker of %s not started: %s", pool.spec.key, error)
        pool.failed_spares += 1
        self._on_failed(pool, error)

    def _forked(self, worker: Worker) -> None:
        worker.leaf.release()  # it is in there: descriptors are what limits how many workers a host can have
        self._loop.add_reader(worker.pidfd, self._died, worker)
        if worker.state is WorkerState.DYING:
            pidfd_kill(worker.pidfd)

    def _fork_failed(self, worker: Worker, error: SandboxError) -> None:
        log.error("fork for %s failed: %s", worker.key, error)
        worker.failure = Death("setup", str(error))
        self.kill(worker, "setup", str(error))
        self._bury(worker, worker.failure)

    def _first_frame(self, worker: Worker) -> None:
        """A worker nobody has yet said something: READY makes it a spare, anything else ends it."""
        sock = socket.socket(fileno=worker.channel_fd)
        try:
            head = sock.recv(HEADER.size, socket.MSG_PEEK)
            if len(head) == HEADER.size:
                length, kind, _, aux, _ = HEADER.unpack(head)
                if kind == READY and length == 0:
                    sock.recv(HEADER.size)
                    self._loop.remove_reader(worker.channel_fd)
                    self._spare_ready(worker, aux)
                    return
        except BlockingIOError:
            return
        except OSError as error:
            worker.failure = Death("init_failed", str(error))
        finally:
            sock.detach()  # the descriptor is the worker's
        self._loop.remove_reader(worker.channel_fd)
        pool = self._pool_of(worker.key)
        if pool is not None:
            pool.failed_spares += 1
        self.kill(worker, "init_failed")

    def _spare_ready(self, worker: Worker, init_us: int) -> None:
        self._young.pop(worker.worker_id, None)
        worker.become(WorkerState.SPARE)
        worker.inited = True
        worker.init_us = min(init_us, 1 << 40)
        pool = self._pool_of(worker.key)
        if pool is not None and self.limit(worker):
            pool.failed_spares = 0
            self._on_free(pool)

    def limit(self, worker: Worker) -> bool:
        """From the end of its init on it has its share of CPU time. False: that could not be set, and it is ended, or it ends already."""
        if worker.state in (WorkerState.DYING, WorkerState.DEAD):
            return False
        try:
            worker.leaf.set_limits(worker.spec.limits)
        except OSError as error:
            self.kill(worker, "limits", str(error))
            return False
        return True

    def freeze(self, worker: Worker) -> None:
        """If it rests, nothing that it has left behind is to run meanwhile. It is ended if that cannot be had.

        Its cgroup is there until it is buried, so that it has just died is no reason for a failure, here and in `thaw`."""
        if worker.state is not WorkerState.IDLE:
            return
        try:
            worker.leaf.freeze()
        except OSError as error:
            self.kill(worker, "limits", str(error))
        else:
            worker.frozen = True

    def thaw(self, worker: Worker) -> bool:
        """Before somebody gets it. False: it would not have run, and is ended."""
        if not worker.frozen:
            return True
        worker.frozen = False
        try:
            worker.leaf.thaw(worker.spec.limits)
        except OSError as error:
            self.kill(worker, "limits", str(error))
            return False
        return True

    def _let_end(self, worker: Worker) -> None:
        """To end takes CPU time, too: hundreds of processes that are all killed would take minutes in a small share of it, and
        longer still if they rested. Nothing of theirs runs any more, so there is no share to keep to."""
        thaw, worker.frozen = worker.frozen, False
        try:
            if thaw:
                worker.leaf.thaw(worker.spec.limits)
            worker.leaf.set_limits(worker.spec.limits, boost=True)
        except OSError as error:
            # What is removed was empty. Else it ends all the same, and only takes longer.
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                log.warning("worker %d ends in its share of CPU time: %s", worker.worker_id, error)

    def reap_strays(self, others: list[int]) -> None:
        """Function code may fork with CLONE_PARENT, which makes its child ours; unreaped it would keep its sandbox from ending.
        `others`: pidfds of children that are ours and nothing to do with workers."""
        known = [worker.pidfd for worker in self.workers.values()] + self._snapshots.pidfds()
        if -1 not in known:  # else a child of ours has been born and we do not know it yet
            reap_strays([*known, *self._shells.pidfds(), *others])

    def kill_all(self, pool: VersionPool) -> int:
        """For an operator: every worker, and the snapshot's zygote, so that the next call starts from nothing."""
        workers = list(pool.workers.values())
        log.warning("an operator ends the %d workers of %s", len(workers), pool.spec.function)
        for worker in workers:
            self.kill(worker, "operator")
        if pool.snapshot is SnapshotState.ON:
            self._snapshots.stop(pool)
        return len(workers)

    def called(self, call: ForeignCall) -> bool:
        """End the worker, or the snapshot's zygote, that made a call of a foreign architecture. False: it is none of ours."""
        for worker in self.workers.values():
            if (call.leaf and worker.leaf.name == call.leaf) or pid_of(worker.pidfd) == call.pid:
                self.kill(worker, "seccomp", call.name)
                return True
        return self._snapshots.called(call)

    def kill(self, worker: Worker, cause: Cause, detail: str = "") -> None:
        if worker.state in (WorkerState.DYING, WorkerState.DEAD):
            return
        pool = self._pool_of(worker.key)
        if pool is not None:
            pool.drop(worker)
        if worker.state is WorkerState.STARTING:
            self._loop.remove_reader(worker.channel_fd)
        worker.killed_for = Death(cause, detail)
        ending = ENDINGS.get(cause) if self._hears(worker, cause) else None
        worker.become(WorkerState.DYING)
        if ending is not None:
            number, seconds = ending
            self.ending.add(worker.worker_id)
            self._last_words.listen(worker)
            self._let_end(worker)
            pidfd_kill(worker.pidfd, number)
            self._loop.call_later(seconds, self._kill_now, worker)
            return
        self._kill_now(worker)

    async def all_ended(self) -> None:
        """Extensions have a moment for what they hold; after it nobody has."""
        while self.ending:  # noqa: ASYNC110 - once in our life
            await asyncio.sleep(0.01)

    def _hears(self, worker: Worker, cause: Cause) -> bool:
        """Whether it is one that can be told: it has extensions, and has begun to listen for that."""
        return (
            worker.spec.extensions
            and worker.pidfd >= 0
            and (worker.inited or cause == "init_failed")
            and worker.state is not WorkerState.STARTING
        )

    def _kill_now(self, worker: Worker) -> None:
        self.ending.discard(worker.worker_id)
        if worker.state is WorkerState.DEAD:
            return
        if (
            worker.zygote is not None
            and worker.killed_for == Death("released")
            and worker.pidfd >= 0
            and worker.leaf.alone()
        ):
            worker.killed_alone = True
            pidfd_kill(worker.pidfd)
            self._loop.call_later(_ENDS_ALONE_S, self._end_all, worker)
            return
        if worker.shell is None:
            worker.leaf.kill()
            self._loop.call_later(LIFT_IO_AFTER_S, self._lift_io, worker)
        if worker.pidfd >= 0:
            pidfd_kill(worker.pidfd)
        # Not before the worker: pid 1 could otherwise wait for a zombie that only we can reap (it does not, but costs time).
        if worker.shell is not None and worker.pidfd >= 0:
            self._shells.retire(worker.shell)
        self._let_end(worker)

    def _end_all(self, worker: Worker) -> None:
        """It was killed alone a while ago, and has not ended: something holds it up."""
        if worker.state is not WorkerState.DEAD:
            worker.killed_alone = False
            worker.leaf.kill()
            self._let_end(worker)
            self._loop.call_later(LIFT_IO_AFTER_S, self._lift_io, worker)

    def _lift_io(self, worker: Worker) -> None:
        if worker.state is not WorkerState.DEAD:
            worker.leaf.lift_io()

    def _died(self, worker: Worker) -> None:
        try:
            status = reap(worker.pidfd)
        except ChildProcessError:  # its zygote gave one pidfd for two workers, and the other is reaped
            status = ExitStatus("signal", signal.SIGKILL)
        if status is None:
            return
        self._loop.remove_reader(worker.pidfd)
        self._bury(worker, of_status(status, worker.killed_for, worker.leaf.starved))

    def _bury(self, worker: Worker, death: Death) -> None:
        """The process is gone (or never was): tell its door, give up what it ran in."""
        pool = self._pool_of(worker.key)
        self._deaths.note(f"worker {worker.worker_id}", death, worker.spec)
        if worker.state is WorkerState.STARTING:
            self._loop.remove_reader(worker.channel_fd)
        if pool is not None:
            pool.drop(worker)
            pool.workers.pop(worker.worker_id, None)
        worker.become(WorkerState.DEAD)
        self.workers.pop(worker.worker_id, None)
        self.ending.discard(worker.worker_id)
        self._young.pop(worker.worker_id, None)
        if worker.door is not None:
            worker.door.workers.pop(worker.worker_id, None)
            worker.door.died(worker, death)
            worker.door = None
        self._last_words.end(worker)
        for fd in (worker.channel_fd, worker.log_fd, worker.pidfd):
            if fd >= 0:
                os.close(fd)
        if worker.shell is not None:
            self._shells.retire(worker.shell)
            self._let_end(worker)
        elif (
            worker.killed_alone
            and worker.zygote is not None
            and worker.zygote.keep_leaf(worker.leaf, worker.spec.limits)
        ):
            self._left_zygote(worker)
        else:
            self._remove_leaf(worker)
        self._on_room(pool)

    def _remove_leaf(self, worker: Worker) -> None:
        # It was the only process in there, mostly: then there is nobody to kill.
        if not worker.leaf.remove():
            worker.leaf.kill()
            self._let_end(worker)
            self._loop.call_later(_REMOVE_RETRY_S, self._remove_leaf, worker)
        elif worker.zygote is not None:
            if self._snapshots.clean(worker.zygote):
                self._left_zygote(worker)
            else:
                self._loop.call_later(_REMOVE_RETRY_S, self._remove_leaf, worker)

    def _left_zygote(self, worker: Worker) -> None:
        assert worker.zygote is not None
        self._snapshots.leave(worker.zygote)
        worker.zygote = None
