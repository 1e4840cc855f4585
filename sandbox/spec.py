"""What the supervisor must know of one function version to run it: a plain value that the control process defines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from sandbox.limits import Limits

Isolation = Literal["reuse", "tenant", "request"]
Snapshot = Literal["off", "on", "auto"]
Network = Literal["none", "egress", "host"]


@dataclass(frozen=True, slots=True)
class Spec:
    """`key` names one version at one revision; a changed function is a new key. `init` is the guest's; we read no more of it than whose
    it is. With the runtime "image" `code` is the root directory of a container image."""

    key: str
    runtime: str
    code: str
    layers: tuple[str, ...]
    runtime_layer: str | None
    limits: Limits
    network: Network
    isolation: Isolation
    snapshot: Snapshot
    init: dict[str, object]
    extensions: bool = False  # its layers bring external ones

    @property
    def takes_snapshots(self) -> bool:
        """Workers forked from a snapshot share a sandbox. So there is none for tenants, and none for `request` unless somebody has
        asked for just that. Extensions are processes, which a fork does not carry."""
        if self.isolation == "tenant" or self.extensions:
            return False
        return self.snapshot == "on" or (self.snapshot == "auto" and self.isolation == "reuse")

    @property
    def region(self) -> str:
        return str(self.init.get("region", ""))

    @property
    def function(self) -> str:
        return str(self.init.get("function_name", ""))

    @classmethod
    def from_message(cls, message: dict[str, object]) -> Spec:
        """Raises ValueError or KeyError, naming the member, for a spec that cannot be run."""
        limits = cast("dict[str, int]", message["limits"])
        isolation, snapshot, network = message["isolation"], message["snapshot"], message["network"]
        if isolation not in ("reuse", "tenant", "request"):
            raise ValueError(f"isolation: {isolation!r}")
        if snapshot not in ("off", "on", "auto"):
            raise ValueError(f"snapshot: {snapshot!r}")
        if network not in ("none", "egress", "host"):
            raise ValueError(f"network: {network!r}")
        code = message["code"]
        if not isinstance(code, str) or not code.startswith("/"):
            raise ValueError(f"code: {code!r} is not an absolute path")
        runtime_layer = message.get("runtime_layer")
        return cls(
            key=str(message["key"]),
            runtime=str(message["runtime"]),
            code=code,
            layers=tuple(cast("list[str]", message.get("layers") or [])),
            runtime_layer=str(runtime_layer) if runtime_layer else None,
            limits=Limits(
                memory_mb=int(limits["memory_mb"]),
                tmp_mb=int(limits["tmp_mb"]),
                pids=int(limits.get("pids", 1024)),
            ),
            network=network,
            isolation=isolation,
            snapshot=snapshot,
            init=cast("dict[str, object]", message["init"]),
            extensions=bool(message.get("extensions")),
        )
