"""Name resolution for sandboxes with a way out: carries their queries to the host's name servers and the answers back.

A process of its own without privileges: it alone has one foot in the router's network namespace (two sockets that the supervisor made)
and one in the host's. So it does not matter where the host's name server is: on the loopback interface, on a private address that
sandboxes cannot reach, or elsewhere. Nothing of a query is looked at but its first twelve bytes; no answer is kept.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
import signal
import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("forklight.names")

RESOLV_CONF = Path("/etc/resolv.conf")
# As the C library does with /etc/resolv.conf.
MAX_SERVERS = 3
DNS_PORT = 53
# After this time the next name server is asked; a caller's own patience is 5 s, resolv.conf(5).
NEXT_SERVER_S = 1.5
GIVE_UP_S = 6.0
# At once, of one sandbox and of all: beyond, queries are dropped, as any name server does.
MAX_OF_ONE, MAX_OF_ALL = 64, 2048
MAX_STREAMS_OF_ONE, MAX_STREAMS = 8, 256
STREAM_S = 20.0
MAX_DATAGRAM = 65_535

_HEAD = struct.Struct("!HH")
_HEAD_SIZE = 12
_IS_ANSWER, _SERVER_FAILURE = 0x8000, 2


def servers_of(text: str) -> list[str]:
    """Addresses of the `nameserver` lines of a resolv.conf, at most three."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            with suppress(ValueError):
                ipaddress.ip_address(words[1])
                found.append(words[1])
    return found[:MAX_SERVERS]


class Servers:
    """The fixed ones, or those of the host's resolv.conf, which is read again when it changes."""

    def __init__(self, fixed: Sequence[str], path: Path = RESOLV_CONF) -> None:
        self._servers = list(fixed)
        self._path = None if fixed else path
        self._seen: tuple[int, int] | None = None

    def now(self) -> list[str]:
        if self._path is not None:
            try:
                status = self._path.stat()
                if (status.st_mtime_ns, status.st_ino) != self._seen:
                    self._servers = servers_of(self._path.read_text(errors="replace"))
                    self._seen = status.st_mtime_ns, status.st_ino
            except OSError:
                self._servers, self._seen = [], None
        return self._servers


class Query:
    """One datagram on its way to a server, the next server, and back. `done(answer)` is called once; None: nobody answered."""

    def __init__(
        self,
        data: bytes,
        servers: Sequence[str],
        port: int,
        loop: asyncio.AbstractEventLoop,
        done: Callable[[bytes | None], None],
    ) -> None:
        self._data, self._port, self._loop, self._done = data, port, loop, done
        self._servers = list(servers)
        self._asked: dict[socket.socket, bytes] = {}  # by the id that the question went out with
        self._next: asyncio.TimerHandle | None = None
        self._last = loop.call_later(GIVE_UP_S, self._finish, None)
        self._ask_next()

    def _ask_next(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
        while self._servers:
            address = self._servers.pop(0)
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            # A port of its own and an id that the asker does not know: answers of others cannot be slipped in.
            number = secrets.token_bytes(2)
            try:
                sock.connect((address, self._port))
                sock.send(number + self._data[2:])
            except OSError as error:
                log.debug("name server %s: %s", address, error)
                sock.close()
                continue
            self._asked[sock] = number
            self._loop.add_reader(sock, self._answered, sock)
            self._next = self._loop.call_later(NEXT_SERVER_S, self._ask_next)
            return
        if not self._asked:
            self._loop.call_soon(self._finish, None)

    def _answered(self, sock: socket.socket) -> None:
        try:
            answer = sock.recv(MAX_DATAGRAM)
        except BlockingIOError:
            return
        except OSError:  # nobody listens there
            self._forget(sock)
            self._ask_next()
            return
        if len(answer) >= _HEAD_SIZE and answer[:2] == self._asked[sock]:
            self._finish(self._data[:2] + answer[2:])

    def _forget(self, sock: socket.socket) -> None:
        self._loop.remove_reader(sock)
        sock.close()
        del self._asked[sock]

    def _finish(self, answer: bytes | None) -> None:
        for timer in (self._next, self._last):
            if timer is not None:
                timer.cancel()
        for sock in list(self._asked):
            self._forget(sock)
        done, self._done = self._done, lambda _: None
        done(answer)


class Relay:
    """`port`: where name servers listen."""

    def __init__(
        self, udp: socket.socket, tcp: socket.socket, servers: Servers, port: int = DNS_PORT
    ) -> None:
        self._udp, self._tcp, self._servers, self._port = udp, tcp, servers, port
        self._loop = asyncio.get_running_loop()
        self._under_way: Counter[str] = Counter()
        self._streams: Counter[str] = Counter()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        for sock in (self._udp, self._tcp):
            sock.setblocking(False)
        self._loop.add_reader(self._udp, self._read)
        self._server = await asyncio.start_server(self._stream, sock=self._tcp)

    def close(self) -> None:
        self._loop.remove_reader(self._udp)
        if self._server is not None:
            self._server.close()

    def _read(self) -> None:
        for _ in range(64):  # then it is others' turn
            try:
                data, sender = self._udp.recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                return
            except OSError as error:
                log.debug("a sandbox's query: %s", error)
                continue
            self._take(data, sender)

    def _take(self, data: bytes, sender: tuple[str, int]) -> None:
        if len(data) < _HEAD_SIZE or _HEAD.unpack_from(data)[1] & _IS_ANSWER:
            return
        who = sender[0]
        if self._under_way[who] >= MAX_OF_ONE or self._under_way.total() >= MAX_OF_ALL:
            return
        self._under_way[who] += 1

        def done(answer: bytes | None) -> None:
            _count_down(self._under_way, who)
            with suppress(OSError):  # the sandbox has gone, or does not read
                self._udp.sendto(answer if answer is not None else _failure(data), sender)

        Query(data, self._servers.now(), self._port, self._loop, done)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A query over TCP, for an answer that is too long for a datagram: bytes are carried as they are."""
        who = str(writer.get_extra_info("peername")[0])
        if self._streams[who] >= MAX_STREAMS_OF_ONE or self._streams.total() >= MAX_STREAMS:
            writer.close()
            return
        self._streams[who] += 1
        try:
            async with asyncio.timeout(STREAM_S):
                await self._carry(reader, writer)
        except (OSError, TimeoutError) as error:
            log.debug("a sandbox's query over TCP: %s", error)
        finally:
            _count_down(self._streams, who)
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for address in self._servers.now():
            try:
                async with asyncio.timeout(NEXT_SERVER_S):
                    from_server, to_server = await asyncio.open_connection(address, self._port)
            except (OSError, TimeoutError):
                continue
            try:
                await asyncio.gather(_pump(reader, to_server), _pump(from_server, writer))
            finally:
                to_server.close()
            return


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    with suppress(OSError):
        writer.write_eof()


def _count_down(counter: Counter[str], who: str) -> None:
    counter[who] -= 1
    if not counter[who]:
        del counter[who]


def _failure(query: bytes) -> bytes:
    """ "Server failure" for this query, without the question."""
    number, flags = _HEAD.unpack_from(query)
    return _HEAD.pack(number, _IS_ANSWER | (flags & 0x7900) | 0x80 | _SERVER_FAILURE) + bytes(8)


async def relay(link: socket.socket, servers: Servers) -> None:
    """Until SIGTERM. `link`: the supervisor passes the two sockets over it that sandboxes reach."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with link:
        _, fds, _, _ = socket.recv_fds(link, 16, 2)
    udp, tcp = (socket.socket(fileno=each) for each in fds)
    running = Relay(udp, tcp, servers)
    await running.start()
    await stop.wait()
    running.close()
