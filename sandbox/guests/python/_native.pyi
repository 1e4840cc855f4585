def fork_worker(
    *,
    channel: int,
    log: int = -1,
    shell: int = -1,
    join: int = 0,
    cgroup: int = -1,
    attach: list[int] = ...,
    trees: list[tuple[int, str]] = ...,
    rlimits: list[tuple[int, int]] = ...,
    drop: bool = False,
    set_ids: bool = False,
    uid: int = 0,
    gid: int = 0,
    workdir: str | None = None,
    seccomp: bytes = b"",
    legacy: bool = False,
    control: bool = False,
    hooks: bool = True,
) -> tuple[int, int]: ...
def has_named_tuples(value: object) -> bool: ...

class Channel:
    def __init__(self, fd: int, /) -> None: ...
    def receive(self) -> tuple[int, int, str, bytes, bytes] | None: ...
    def send(self, kind: int, aux: int, body: bytes, /) -> None: ...
    def answer(self, kind: int, payload: bytes, /) -> None: ...
    def start_counting(self) -> None: ...

def watch_memory() -> bool: ...
def remap() -> int: ...
