"""The Lambda Runtime API (2018-06-01) inside a worker, for functions that are no Python of ours: a package's own `bootstrap`, Node.

The worker is one like any other: same sandbox, channel, limits and deaths. Instead of a handler it has an HTTP server on the loopback
interface of its own network namespace and the runtime as a child. Nothing outside trusts it more than any worker.
"""
