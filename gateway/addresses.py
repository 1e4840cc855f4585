"""HOST:PORT settings: parsing, and finding a free port for `:0` so that every door binds the same one."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int

    @classmethod
    def parse(cls, text: str, default_port: int) -> Address:
        """`HOST:PORT`, `HOST`, `:PORT` or `[V6]:PORT`; raises ValueError with a sentence for anything else."""
        host, separator, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
        if not separator:
            host, port = text, str(default_port)
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        if not port.isdecimal() or int(port) > 65535:
            raise ValueError(f"{text}: not HOST:PORT")
        return cls(host or "127.0.0.1", int(port))

    @property
    def loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def claim(address: Address) -> Address:
    """The address with a port that is free right now. Raises OSError when somebody else listens there.

    Doors bind with SO_REUSEPORT, under which a second server would share the port silently: so this bind goes without it.
    """
    family, kind, protocol, _, sockaddr = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(sockaddr)
        return Address(address.host, sock.getsockname()[1])
