"""Turns a sandbox and a zygote into a worker: its channel, its log pipe, its first frame, and the fork request."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from sandbox.cgroups import Leaf
from sandbox.channel import init_frame
from sandbox.channel_ends import ChannelsAhead
from sandbox.errors import SandboxError
from sandbox.function_zygote import FunctionZygote
from sandbox.host import Host
from sandbox.mounts import clone_readonly
from sandbox.role_credentials import RoleCredentials
from sandbox.runtime_zygotes import RuntimeZygotes
from sandbox.runtimes.catalogue import IMAGE
from sandbox.shell_pool import first_limits
from sandbox.shells import Shell
from sandbox.spec import Spec
from sandbox.worker import Worker
from sandbox.zygote import ForkRequest, Zygote

CODE, LAYERS, RUNTIME_LAYER = "/var/task", "/opt", "/var/runtime"
ROOT = "/"  # of a container image, which brings all of these itself


@dataclass(slots=True)
class Forker:
    """`on_forked(worker)` once its pidfd is known, `on_failed(worker, error)` when there will be no process.

    `park`: nobody waits for this worker, so it may get ready for its first event at leisure.
    """

    host: Host
    loop: asyncio.AbstractEventLoop
    zygotes: RuntimeZygotes
    on_forked: Callable[[Worker], None]
    on_failed: Callable[[Worker, SandboxError], None]
    numbers: itertools.count[int]
    channels: ChannelsAhead

    def fork_into(
        self,
        spec: Spec,
        shell: Shell,
        credentials: RoleCredentials | None,
        *,
        park: bool,
        provisioned: bool = False,
    ) -> Worker:
        """A worker of the runtime zygote in its own sandbox. Raises SandboxError; the shell stays the caller's then."""
        zygote = self.zygotes.get(spec.runtime, extensions=spec.extensions)
        if spec.limits != first_limits(spec.limits.tmp_mb):
            shell.leaf.set_limits(spec.limits, boost=True)
        trees = open_trees(spec)
        try:
            fds = [("shell", shell.pidfd), *shell.leaf.attach_fds(inside_zygote=False), *trees]
            return self._fork(spec, zygote, shell, shell.leaf, fds, credentials, park, provisioned)
        finally:
            for _, fd in trees:
                os.close(fd)

    def fork_from(
        self, spec: Spec, parent: FunctionZygote, credentials: RoleCredentials | None, *, park: bool
    ) -> Worker:
        """A worker of the function's own zygote, inside that zygote's sandbox but in a cgroup of its own."""
        leaf = parent.leaves.pop() if parent.leaves else self.new_leaf(spec)
        try:
            fds = leaf.attach_fds(inside_zygote=True)
            return self._fork(spec, parent.zygote, None, leaf, fds, credentials, park)
        except OSError:
            leaf.remove()
            raise

    def new_leaf(self, spec: Spec) -> Leaf:
        """A cgroup for a child of a function zygote. No boost: it has nothing left to initialise."""
        leaf = self.host.new_leaf(f"w{next(self.numbers)}", spec.limits)
        try:
            leaf.attach_fds(inside_zygote=True)
        except OSError:
            leaf.remove()
            raise
        return leaf

    def _fork(
        self,
        spec: Spec,
        zygote: Zygote,
        shell: Shell | None,
        leaf: Leaf,
        fds: list[tuple[str, int]],
        credentials: RoleCredentials | None,
        park: bool,
        provisioned: bool = False,
    ) -> Worker:
        ends = self.channels.take()
        try:
            worker = Worker(
                worker_id=next(self.numbers),
                key=spec.key,
                instance=os.urandom(16).hex(),
                born=time.time(),
                shell=shell,
                leaf=leaf,
                channel_fd=ends.channel,
                log_fd=ends.log,
                forked_at=self.loop.time(),
                spec=spec,
                credentials=credentials,
            )
            document = {**spec.init, "instance": worker.instance, "born": worker.born, "park": park}
            if credentials is not None:
                document["credentials"] = credentials.document()
            if provisioned:
                document["init_type"] = "provisioned-concurrency"
            os.write(worker.channel_fd, init_frame(document))

            def forked(pidfd: int) -> None:
                worker.pidfd = pidfd
                self.on_forked(worker)

            zygote.fork(
                ForkRequest(
                    role="worker",
                    fds=[("channel", ends.guests_channel), ("log", ends.guests_log), *fds],
                    uid=shell.uid if shell is not None else 0,
                    gid=shell.gid if shell is not None else 0,
                    join=shell.join if shell is not None else [],
                    # A child of a function zygote inherits that zygote's.
                    rlimits=self.host.rlimits(spec.limits) if shell is not None else {},
                    drop=shell is not None,
                    keep_ids=self.host.rootless,
                    on_forked=forked,
                    on_failed=lambda error: self.on_failed(worker, error),
                )
            )
        except BaseException:
            ends.close()
            raise
        ends.close_guests()
        return worker


def open_trees(spec: Spec) -> list[tuple[str, int]]:
    """Detached read-only mounts of the function's code, layers and the runtime layer, for the child to attach."""
    trees: list[tuple[str, int]] = []
    wanted = [(ROOT if spec.runtime == IMAGE else CODE, spec.code)]
    wanted += [(LAYERS, layer) for layer in spec.layers[:1]]
    if spec.runtime_layer:
        wanted.append((RUNTIME_LAYER, spec.runtime_layer))
    try:
        for target, source in wanted:
            trees.append((f"tree:{target}", clone_readonly(source)))
    except OSError:
        for _, fd in trees:
            os.close(fd)
        raise
    return trees
