"""Every setting of a host, with its default and what it means.

The command line fills it in; processes started by the supervisor get it back through `as_json` / `from_json`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """Units are in the names; a path is absolute."""

    # Where functions, keys, code and logs live; nothing outside it is written.
    state_dir: Path
    # host:port of the Lambda HTTP API; port 0 takes a free one.
    http: str = "127.0.0.1:8080"
    # host:port of the gRPC API; port 0 takes a free one.
    grpc: str = "127.0.0.1:8081"
    # What carries gRPC: HTTP/2 in C, or grpcio's own server.
    grpc_engine: Literal["native", "grpcio"] = "native"
    # Front-door processes; they share both ports.
    doors: int = 2
    # "required": every request is signed (HTTP) or bears the token (gRPC). "none" is for loopback addresses only.
    auth: Literal["required", "none"] = "required"
    # Region that `forklight env` prints; a region is a namespace of functions, named by the request's signature.
    region: str = "us-east-1"
    # Function URLs are http://ID.lambda-url.REGION.DOMAIN:PORT/; clients must resolve these names to this host. Requests are told
    # apart by ID and REGION, whatever follows.
    url_domain: str = "localhost"
    # Functions that may run at the same time on this host; above it calls are throttled (429).
    concurrency: int = 1000
    # Connections that a front door has at a time: of HTTP, of gRPC, and on either port of one address (IPv6: of one /64);
    # more are turned away. A proxy in front is one address.
    http_connections: int = 10_000
    grpc_connections: int = 4_096
    connections_per_peer: int = 2_048
    # Of HTTP requests that a front door holds, from their first byte until they are answered; above it the slowest that
    # still arrive are answered 503.
    request_bytes: int = 512 * MIB
    # Of HTTP answers that wait in a front door for their clients to read them; above it the slowest readers are cut off.
    answer_bytes: int = 512 * MIB
    # How long a worker without work is kept.
    idle_timeout_s: float = 300.0
    # PEM files; both set: the HTTP and gRPC ports speak TLS.
    tls_cert: str | None = None
    tls_key: str | None = None
    # Of the platform's own log on stderr: debug, info, warning or error.
    log_level: str = "info"
    # Networks that functions with network "egress" may reach although they are not of the public internet (10.1.2.0/24).
    egress_allow: tuple[str, ...] = ()
    # Name servers for functions with network "egress"; none: those of the host's /etc/resolv.conf, whatever they are at the time.
    egress_dns: tuple[str, ...] = ()
    # Where functions reach this server, as they see it (http://10.0.0.5:8080): what SDKs in them are told, and the one address and
    # port that functions with network "egress" may reach for it, if it is an IPv4 address. None: they are told nothing.
    function_endpoint: str | None = None
    # How long credentials of execution roles are valid; workers are replaced long before theirs end, so at least an hour.
    role_credentials_s: float = 6 * 3600.0
    # Whether functions may ask for network "host".
    allow_host_network: bool = False
    # What a worker of 1,769 MB may read, and write as much, of each disk under it; others in proportion, at least a quarter. 0: no limit.
    io_bytes_per_s: int = 200 * MIB
    io_operations_per_s: int = 10_000
    # "full": do not start on a host that cannot isolate functions in every respect. "any": on one that can make sandboxes at all.
    # None: "full" as root, "any" as an ordinary user, who cannot have all of it anywhere.
    require_isolation: Literal["any", "full"] | None = None
    # How long SIGTERM waits for invocations that still run.
    grace_period_s: float = 30.0
    # Largest log segment; a log group keeps at most `log_segments` of them and drops the oldest.
    log_segment_bytes: int = 8 * MIB
    # Log segments kept for each log group.
    log_segments: int = 2
    # Log lines waiting for the disk, all groups together; above it new lines are dropped and counted.
    log_queue_bytes: int = 16 * MIB
    # How long code that no function uses any more stays on disk: longer than the longest invocation (900 s), because a
    # worker of the deleted version may still be reading it.
    code_retention_s: float = 960.0
    # Bytes of all layers of container images, packed as they came; what is more is refused.
    image_store_bytes: int = 64 * 1024 * MIB
    # Bytes of one image, unpacked. AWS: 10 GB.
    image_bytes: int = 10 * 1024 * MIB
    # Registries that images may come from, as http:// or https:// and host; no other address is ever asked for one.
    image_registries: tuple[str, ...] = ()
    # File of credentials for them: JSON as in ~/.docker/config.json ("auths"). None: nobody is named.
    image_credentials: str | None = None
    # A front door that has not confirmed a change of a function after this time is disconnected; it then starts anew
    # from the whole state, so no door answers from an old view.
    door_ack_timeout_s: float = 5.0
    # How long the supervisor may take to accept a function's definition.
    define_timeout_s: float = 30.0
    # How long making a function's snapshot may take (its module code runs in it) before it counts as failed.
    snapshot_timeout_s: float = 150.0

    # Asynchronous events (InvocationType Event) of one function that may wait; above it they are answered 429.
    event_queue_depth: int = 100_000
    # Bytes of all events that wait; above it they are answered 429.
    event_queue_bytes: int = 8 * 1024 * MIB
    # Asynchronous events that run at a time; one function gets at most half of them.
    event_concurrency: int = 64
    # How long an asynchronous event waits after its function has failed for the first time, for the second.
    event_retry_waits_s: tuple[float, ...] = (60.0, 120.0)
    # Shortest and longest pause of an event that there was no room for, and of a destination that does not answer.
    event_backoff_s: tuple[float, float] = (1.0, 300.0)
    # How long the status of an event, and its idempotency key, are kept (gRPC InvokeAsync).
    event_status_retention_s: float = 3600.0
    # Where destinations and dead-letter targets that are SQS queues and SNS topics are reached: a URL, or "aws" for AWS itself.
    # None: functions cannot have such targets.
    sqs_endpoint: str | None = None
    sns_endpoint: str | None = None
    # File of credentials for these, in the form of ~/.aws/credentials (section "default"); None: those of the environment.
    destination_credentials: str | None = None
    # Where code is that CreateFunction and its kin name by bucket and key: a URL, or "aws". None: code comes inline only.
    s3_endpoint: str | None = None
    # File of credentials for it, as above; None: AWS_ACCESS_KEY_ID and so on of the environment; without these nothing is signed.
    s3_credentials: str | None = None
    # URLs below which destinations may lie that are HTTP servers (http://10.0.0.5:9000/hooks).
    http_destinations: tuple[str, ...] = ()

    def as_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Unknown members are ignored, missing ones have their default. Raises KeyError without a state_dir."""
        document: dict[str, Any] = json.loads(text)
        known = {field.name for field in fields(cls)} - {"state_dir"}
        chosen: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in document.items()
            if name in known
        }
        return replace(cls(state_dir=Path(document["state_dir"])), **chosen)

    @property
    def control_socket(self) -> Path:
        """Unix socket of the control process, for the front doors."""
        return self.state_dir / "run" / "control.sock"

    @property
    def events_socket(self) -> Path:
        """Unix socket of the process that keeps asynchronous events, for the front doors."""
        return self.state_dir / "run" / "events.sock"

    @property
    def events_database(self) -> Path:
        return self.state_dir / "events.db"

    @property
    def database(self) -> Path:
        return self.state_dir / "forklight.db"

    @property
    def usage_database(self) -> Path:
        return self.state_dir / "usage.db"

    @property
    def credentials(self) -> Path:
        """What `forklight env` reads; mode 0600."""
        return self.state_dir / "credentials.json"
