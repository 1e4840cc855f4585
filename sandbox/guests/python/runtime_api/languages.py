"""What the runtimes that are not a package's own are started with: the memory that they may use, and where layers have modules.

Sizes of Java's areas are those of AWS's runtimes (85, 10 and 5 hundredths of the memory), which also compile no more than once.
"""

from __future__ import annotations

from ..environment import Document

_SMALLEST_MB = 128


def options(document: Document) -> list[str]:
    """Of the interpreter's command line."""
    family, _ = _split(document)
    megabytes = document.get("memory_limit_in_mb")
    memory_mb = int(megabytes) if isinstance(megabytes, int) else _SMALLEST_MB
    if family == "nodejs":
        # V8 does not see the sandbox's memory limit, and would collect too late.
        return ["--expose-gc", "--max-http-header-size=81920", f"--max-old-space-size={memory_mb * 9 // 10}"]
    if family == "java":
        kib = memory_mb * 1024
        return [
            f"-XX:MaxHeapSize={kib * 85 // 100}k",
            f"-XX:MaxMetaspaceSize={kib // 10}k",
            f"-XX:ReservedCodeCacheSize={kib // 20}k",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:-UsePerfData",  # a file in /tmp that nobody could read
            "-Xshare:auto",
            "-Djava.net.preferIPv4Stack=true",
        ]
    return []


def variables(document: Document) -> dict[str, str]:
    """Those that a function may set otherwise."""
    family, version = _split(document)
    if family == "nodejs":
        return {
            "NODE_PATH": f"/opt/nodejs/node{version.removesuffix('.x')}/node_modules:/opt/nodejs/node_modules:"
            "/var/runtime/node_modules:/var/runtime:/var/task"
        }
    if family == "ruby":
        return {
            "GEM_PATH": f"/var/task/vendor/bundle/ruby/{version}.0:/opt/ruby/gems/{version}.0",
            "RUBYLIB": "/var/task:/var/runtime/lib:/opt/ruby/lib",
        }
    return {}


def _split(document: Document) -> tuple[str, str]:
    """("nodejs", "20.x") of "nodejs20.x"."""
    runtime = str(document["runtime"])
    family = runtime.partition(".")[0].rstrip("0123456789")
    return family, runtime.removeprefix(family)
