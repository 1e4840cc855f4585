"""What this host offers, found out once at start, and the things made from it: cgroup leaves and shells."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import select
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network
from pathlib import Path

from sandbox import cgroups, mounts, namespaces, native, network, reserve, seccomp, trial, users
from sandbox.cgroups import Leaf, Tree
from sandbox.egress import router as egress
from sandbox.egress.addresses import Place
from sandbox.egress.router import Router
from sandbox.errors import SandboxError
from sandbox.host_report import describe
from sandbox.io_limits import Disks, Rates, look_for_disks
from sandbox.isolation import IsolationReport
from sandbox.limits import Limits, worker_rlimits
from sandbox.oom_events import OomEvents
from sandbox.runtimes.catalogue import Catalogue
from sandbox.shells import Shell
from sandbox.tmp_volumes import TmpVolumes, find_mkfs

log = logging.getLogger("forklight.sandbox")

INIT_PROGRAM = Path(__file__).parent / "bin" / "forklight-init"

# Lambda has no /dev/shm at all; this is for the locks of multiprocessing.
SHM_MB = 16

# Descriptors of forklight-init: 0-2 as ever, 3 its status pipe.
_FIRST_EXTRA_FD = 4

_PROBE_LIMITS = Limits(memory_mb=128, tmp_mb=512)
_PROBE_PATIENCE_S = 10.0


class Host:
    """Made by `prepare`. To be used by one thread, the supervisor's main thread: its end is the end of every sandbox."""

    def __init__(
        self,
        *,
        folder: Path,
        lock_fd: int,
        rootless: bool,
        tree: Tree,
        disks: Disks,
        catalogue: Catalogue,
    ) -> None:
        self.rootless = rootless
        self.catalogue = catalogue
        self.report = IsolationReport()
        self.filters = seccomp.all_programs(platform.machine())
        self._folder = folder
        self._lock_fd = lock_fd
        self._tree = tree
        self._disks = disks
        self._volumes: TmpVolumes | None = None
        self._networks: dict[str, str] = {}
        self._router: Router | None = None
        self._shared_arguments = mounts.shared_arguments(catalogue.prefixes())

    # ---- life ------------------------------------------------------------------------------------------------------

    @classmethod
    def prepare(
        cls,
        run_dir: Path,
        state_dir: Path,
        *,
        egress_allow: Sequence[IPv4Network] = (),
        egress_places: Sequence[Place] = (),
        allow_host_network: bool = False,
        io_rates: Rates = Rates(),  # noqa: B008 - a value
        settled: Callable[[], None] = lambda: None,
    ) -> Host:
        """Take possession of `run_dir` and find out what can be isolated; about 0.1 s.

        As root: makes our cgroup slice and removes what a dead predecessor left. Otherwise (users.rootless) the calling process, which
        must have one thread, first moves into a user namespace of its own. Raises SandboxError when not even that is possible, or when
        another supervisor lives in `run_dir`.

        `egress_allow`: networks that sandboxes with a way out may reach although they are not of the public internet; `egress_places`: a
        port of an address, likewise. `io_rates`: what
        sandboxes may read and write of the disks that hold `state_dir`, `run_dir` and the interpreters. `settled` is called when the
        process is in the namespaces and the cgroup where it stays, before the trial: children that it starts from there on are too.
        """
        reserve.hold()
        rootless = users.rootless()
        folder = run_dir / "sandbox"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        catalogue = Catalogue.find()
        lock_fd = _take_over(folder)
        try:
            if rootless:
                _enter_user_namespace()
            instance = f"{os.getpid()}-{os.urandom(4).hex()}"
            paths = sorted({"/usr", str(state_dir), str(folder), *map(str, catalogue.prefixes())})
            disks = look_for_disks(io_rates, paths, "" if rootless else str(folder))
            tree = cgroups.choose(instance, rootless=rootless, io=disks.plan)
            _record(lock_fd, tree, egress.Note())
            host = cls(
                folder=folder,
                lock_fd=lock_fd,
                rootless=rootless,
                tree=tree,
                disks=disks,
                catalogue=catalogue,
            )
            try:
                settled()
                host._find_out(egress_allow, egress_places, allow_host_network)
            except BaseException:
                tree.close()
                raise
        except BaseException:
            os.close(lock_fd)
            raise
        return host

    def close(self) -> None:
        """Kill and remove everything of ours. The caller has reaped or forgotten its workers. Idempotent."""
        if self._lock_fd < 0:
            return
        if self._router is not None:
            self._router.close()
        self._tree.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock_fd)
        self._lock_fd = -1

    @property
    def has_cgroups(self) -> bool:
        return self._tree.version != 0

    @property
    def ooms(self) -> OomEvents | None:
        """Of the cgroups here; None where nobody has to look after them."""
        return self._tree.ooms

    # ---- what the supervisor makes of it ---------------------------------------------------------------------------

    def new_leaf(self, name: str, limits: Limits) -> Leaf:
        """A cgroup; `name` must be new among the living. Raises SandboxError."""
        return self._tree.new_leaf(name, limits)

    def rlimits(self, limits: Limits) -> dict[str, int]:
        """Resource limits for a worker, names without RLIMIT_: the `rlimits` of a fork request."""
        return worker_rlimits(limits, cgroups=self._tree.version != 0)

    def prepare_tmp(self, tmp_mb: int) -> None:
        """Make what sandboxes with a /tmp of this size share, once per size: some 15 ms, else at the first spawn_shell of that size."""
        if self._volumes is not None:
            self._volumes.template(tmp_mb)

    def why_no_network(self, mode: str) -> str:
        """Why sandboxes with this network mode cannot be had here; "" if they can. Raises ValueError for a mode that does not exist."""
        network.check_mode(mode)
        return self._networks.get(mode, "")

    def networks(self) -> dict[str, str]:
        """Of every network mode that there is: why it cannot be had here, "" if it can."""
        return {mode: self.why_no_network(mode) for mode in network.MODES}

    def open_egress(self) -> tuple[socket.socket, socket.socket]:
        """Make the way out; to be called once. The sockets (UDP, TCP) at which sandboxes look for their name server are the caller's.

        Raises SandboxError when it cannot be made.
        """
        if self._router is None:
            raise SandboxError(0, "open a way out", self._networks[network.EGRESS])
        self._router.connect()
        return self._router.name_server_sockets()

    def spawn_shell(self, slot: int, *, network: str, tmp_mb: int, limits: Limits) -> Shell:
        """Start a sandbox; it is complete when `finish` of the result says so, some milliseconds later. Raises SandboxError.

        `slot` gives it its uid and the name of its cgroup: no other living sandbox may have it.
        """
        uid, gid = users.worker_ids(slot, rootless=self.rootless)
        arguments = self._arguments(uid, gid, network, tmp_mb) + self._network_arguments(slot, network)
        router = self._router if network == "egress" else None
        leaf = self.new_leaf(f"s{slot}", limits)
        try:
            pidfd, status_fd = self._start_init(arguments, leaf, [router.descriptor] if router else [])
        except BaseException:
            leaf.remove()
            raise
        return Shell(
            slot=slot, uid=uid, gid=gid, network=network, leaf=leaf, pidfd=pidfd, status_fd=status_fd
        )

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _arguments(self, uid: int, gid: int, network_mode: str, tmp_mb: int) -> list[bytes]:
        ids = [b"--user-namespace"] if self.rootless else [b"--uid", b"%d" % uid, b"--gid", b"%d" % gid]
        volume = self._volumes.init_arguments(tmp_mb) if self._volumes is not None else []
        return [
            os.fsencode(INIT_PROGRAM),
            *(b"--status-fd", b"3", b"--root", os.fsencode(self._mount_point)),
            *(b"--hostname", mounts.HOSTNAME.encode()),
            *(b"--tmp-megabytes", b"%d" % tmp_mb, b"--shm-megabytes", b"%d" % SHM_MB),
            *ids,
            *volume,
            *self._shared_arguments,
            *mounts.own_arguments(uid, gid, network_mode),
        ]

    def _network_arguments(self, slot: int, mode: str) -> list[bytes]:
        network.check_mode(mode)
        if mode != network.EGRESS:
            return [b"--host-network"] if mode == network.HOST else []
        if self._router is None:
            raise SandboxError(0, "open a way out", self._networks[mode])
        self._router.connect()
        return self._router.init_arguments(slot, _FIRST_EXTRA_FD)

    def _start_init(self, arguments: list[bytes], leaf: Leaf, extra: list[int]) -> tuple[int, int]:
        tasks, cgroup = cgroups.attach_arguments(leaf)
        status_read, status_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        null = -1
        try:
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            pidfd = native.spawn(
                arguments,
                [null, null, null, status_write, *extra],
                tasks=tasks,
                cgroup=cgroup,
                namespaces=namespaces.CLONE_NEWPID,
            )
        except BaseException:
            os.close(status_read)
            raise
        finally:
            os.close(status_write)
            if null >= 0:
                os.close(null)
        return pidfd, status_read

    @property
    def _mount_point(self) -> Path:
        """Where forklight-init mounts a new root in its own mount namespace; on the host it stays empty."""
        return self._folder / "root"

    def _find_out(
        self, egress_allow: Sequence[IPv4Network], egress_places: Sequence[Place], allow_host_network: bool
    ) -> None:
        """Make one sandbox as a trial, with an image for /tmp if possible, and write the report from what worked."""
        self._mount_point.mkdir(exist_ok=True)
        no_image = self._choose_tmp()
        wrong = self._try_out("none")
        self._networks[network.EGRESS] = self._choose_egress(egress_allow, egress_places)
        if not allow_host_network:
            self._networks[network.HOST] = (
                "the operator has not allowed it (forklight serve --allow-host-network)"
            )
        describe(
            self.report,
            rootless=self.rootless,
            tree=self._tree,
            disks=self._disks,
            seccomp=bool(self.filters["worker"]),
            tmp_without_image=no_image,
            wrong=wrong,
            networks=self.networks(),
            dropping=self._router.blocked_by() if self._router is not None else [],
        )

    def _choose_tmp(self) -> str:
        """Why /tmp cannot be an image of its own here; "" if it can."""
        if self.rootless:
            return "loop devices need root"
        mkfs = find_mkfs()
        if mkfs is None:
            return "mkfs.ext4 is not installed (package e2fsprogs)"
        try:
            self._volumes = TmpVolumes(self._folder, mkfs)
            self._try_out("none")
        except SandboxError as error:
            self._volumes = None
            return str(error)
        return ""

    def _choose_egress(self, allowed: Sequence[IPv4Network], places: Sequence[Place]) -> str:
        """Why sandboxes cannot have a way out here; "" if they can. The host itself is not changed for that yet."""
        if self.rootless:
            return "a link to the host's network needs root"
        try:
            self._router = Router.open(allowed, lambda note: _record(self._lock_fd, self._tree, note), places)
        except SandboxError as error:
            return f"{error} (the kernel needs veth, nf_tables with inet, nat, fib and connlimit)"
        return ""

    def _try_out(self, network_mode: str) -> dict[str, str]:
        """Make, look at and destroy one sandbox; returns trial.weaknesses. Raises what went wrong."""
        shell = self.spawn_shell(0, network=network_mode, tmp_mb=_PROBE_LIMITS.tmp_mb, limits=_PROBE_LIMITS)
        try:
            select.select([shell.status_fd], [], [], _PROBE_PATIENCE_S)
            shell.finish()
            return trial.weaknesses(
                shell.pidfd,
                uid=shell.uid,
                gid=shell.gid,
                leaf=f"s{shell.slot}" if self._tree.version else "",
                tmp_image=self._volumes is not None,
                io=not self._disks.why_not and "io" not in self._tree.weaknesses,
            )
        finally:
            shell.kill()
            select.select([shell.pidfd], [], [], _PROBE_PATIENCE_S)
            shell.try_reap()
            shell.close()
            _remove(shell.leaf)


def _remove(leaf: Leaf) -> None:
    deadline = time.monotonic() + _PROBE_PATIENCE_S
    while not leaf.remove() and time.monotonic() < deadline:
        time.sleep(0.001)


def _enter_user_namespace() -> None:
    try:
        native.enter_user_namespace()
    except SandboxError as error:
        raise SandboxError(
            error.errno or 0,
            "this host lets ordinary users make no sandboxes: user namespaces are switched off "
            "(sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone or "
            "kernel.apparmor_restrict_unprivileged_userns); run forklight as root",
            error.step,
        ) from error


# ---- one supervisor per run_dir --------------------------------------------------------------------------------------


def _take_over(folder: Path) -> int:
    """Lock the folder for our lifetime and clear away what a dead predecessor noted in it. Returns the lock's descriptor."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SandboxError(
                error.errno or 0, "another supervisor is using this directory", str(folder)
            ) from None
        dead = _predecessor(fd)
        if dead:
            log.warning(
                "the supervisor before this one (process %d) did not end in order: removing what it left",
                dead,
            )
        egress.take_back_from(_note(fd).get("egress"))
        left = [
            directory
            for directory in _recorded(fd)
            if f"/{cgroups.SLICE_PREFIX}" in directory and os.path.isdir(directory)
        ]
        cgroups.remove_trees(left)
        for directory in left:
            # Never killed: it may hold the shell that we were started from. It is empty after a service's end.
            cgroups.remove_directory(directory + cgroups.REFUGE_SUFFIX)
        for leftover in folder.glob("tmp-*"):
            leftover.unlink(missing_ok=True)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _note(fd: int) -> dict[str, object]:
    """What the last owner wrote; it removes that, and the folder, when it ends in order."""
    try:
        note = json.loads(os.pread(fd, 65536, 0) or b"{}")
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}


def _predecessor(fd: int) -> int:
    """Its process id if it left a note; 0 if it ended in order or never was."""
    pid = _note(fd).get("pid")
    return pid if isinstance(pid, int) else 0


def _recorded(fd: int) -> list[str]:
    directories = _note(fd).get("cgroups")
    if not isinstance(directories, list):
        return []
    return [directory for directory in directories if isinstance(directory, str)]


def _record(fd: int, tree: Tree, way_out: egress.Note) -> None:
    note = json.dumps({"pid": os.getpid(), "cgroups": tree.directories, "egress": way_out.as_dict()}).encode()
    os.pwrite(fd, note, 0)
    os.ftruncate(fd, len(note))
