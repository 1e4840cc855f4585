"""Who uses which unpacked code, and the removal of what nobody has used for long enough.

Counted in memory only: the functions in the store are the truth, and the count is made from them at each start.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar
from weakref import WeakValueDictionary

from gateway.control.function_rules import check_extended
from gateway.control.packages import check_zipped_size, unpack
from gateway.control.specs import has_extensions
from gateway.model.errors import ApiError
from gateway.model.function import Code, Function
from gateway.model.image import BadImage, ImageConfig
from gateway.model.layer import tree_name
from gateway.model.quotas import MAX_UNZIPPED
from gateway.storage.code import CodeStore
from gateway.storage.images import ImageStore
from gateway.storage.merged_tree import size_of

_P = ParamSpec("_P")
_T = TypeVar("_T")

# Unpacking is bound by one CPU and the disk; more at once only take memory (a package is up to 50 MB, unpacked 250).
_THREADS = 2
# Images, of 10 GB, are unpacked beside that: nobody's package waits for one.
_IMAGE_THREADS = 1


class CodeKeeper:
    """`retention_s`: how long code stays after its last user is gone. Used from the loop's thread only."""

    def __init__(self, store: CodeStore, retention_s: float, images: ImageStore) -> None:
        self._store = store
        self._images = images
        self._retention_s = retention_s
        self._pool = ThreadPoolExecutor(_THREADS, "code")
        self._image_pool = ThreadPoolExecutor(_IMAGE_THREADS, "image")
        self._uses: Counter[str] = Counter()
        self._unused_since: dict[str, float] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def path(self, code: Code) -> Path:
        return self._store.tree(code.sha256)

    async def start(self, used: Iterable[str], functions: Iterable[Function]) -> dict[str, str]:
        """Count `used` and what the functions use, and make missing trees anew, but for images: those take minutes. Returns key of a
        function -> why it is unusable."""
        functions = list(functions)
        merged = {tree_name(function.layers) for function in functions if len(function.layers) > 1}
        self._uses.update(used)
        for function in functions:
            self._uses.update(packages_of(function))
        await self._run(self._store.remove_leftovers)
        stored = await self._run(self._store.stored)
        now = time.monotonic()
        self._unused_since = {sha256: now for sha256 in stored if not self._uses[sha256]}
        missing: dict[str, str] = {}
        images = {function.code.sha256 for function in functions if function.image is not None}
        for sha256 in self._uses.keys() - merged - images:
            try:
                await self._run(self._store.restore, sha256, unpack)
            except (OSError, ApiError) as error:
                missing[sha256] = str(error)
        unusable: dict[str, str] = {}
        for function in functions:
            try:
                if gone := [missing[sha256] for sha256 in packages_of(function) if sha256 in missing]:
                    raise OSError(gone[0])
                await self._prepare(function)
            except (OSError, ApiError) as error:
                unusable[function.key] = str(error)
        return unusable

    async def add(self, package: bytes) -> Code:
        """Store, unpack and count one use, which the caller must `release` or give to a function.

        Raises ApiError for a bad package, OSError for a bad disk; then nothing is stored or counted.
        """
        check_zipped_size(len(package))
        sha256 = await self._run(lambda: hashlib.sha256(package).hexdigest())
        lock = self._lock(sha256)
        async with lock:
            self.use(sha256)
            try:
                return await self._run(self._store.add, package, unpack)
            except BaseException:
                self.release(sha256)
                raise

    async def package(self, code: Code) -> bytes:
        """The zip as uploaded. Raises OSError."""
        return await self._run(self._store.package, code.sha256)

    def has_image(self, sha256: str) -> bool:
        """Whether it is unpacked."""
        return self._store.has_tree(sha256)

    async def unpack_image(self, sha256: str) -> None:
        """Once for all that use it. Raises BadImage, OSError."""
        async with self._lock(sha256):
            digest = f"sha256:{sha256}"

            def make() -> None:
                self._store.fill(sha256, lambda folder: self._images.unpack(digest, folder))

            await asyncio.get_running_loop().run_in_executor(self._image_pool, make)

    async def image_config(self, function: Function) -> ImageConfig | None:
        """None for a function that is none. Raises OSError."""
        if function.image is None:
            return None
        try:
            return await self._run(self._images.config, f"sha256:{function.code.sha256}")
        except BadImage as error:
            raise OSError(errno.EIO, str(error)) from error

    async def hold(self, function: Function) -> None:
        """Count its uses, and have what its layers make together. Raises ApiError, OSError; then nothing is counted."""
        used = packages_of(function)
        for sha256 in used:
            self.use(sha256)
        try:
            await self._prepare(function)
        except BaseException:
            self.let_go(function)
            raise

    def let_go(self, function: Function) -> None:
        """The opposite of `hold`."""
        for sha256 in packages_of(function):
            self.release(sha256)

    def layers(self, function: Function) -> list[Path]:
        """What is mounted at /opt."""
        return [self._store.tree(tree_name(function.layers))] if function.layers else []

    async def _prepare(self, function: Function) -> None:
        if not function.layers:
            return
        parts = [self._store.tree(layer.code.sha256) for layer in function.layers]
        name = tree_name(function.layers)
        async with self._lock(name):
            await self._run(self._store.merge, name, parts)
        if await self._run(has_extensions, self._store.tree(name)):
            check_extended(function.settings)
        sizes = await self._run(lambda: [size_of(tree) for tree in (self.path(function.code), *parts)])
        if sum(sizes) > MAX_UNZIPPED:
            raise ApiError(
                "InvalidParameterValueException",
                f"Function code combined with layers exceeds the maximum allowed size of {MAX_UNZIPPED} bytes. "
                f"The actual size is {sum(sizes)} bytes.",
            )

    def use(self, sha256: str) -> None:
        self._uses[sha256] += 1
        self._unused_since.pop(sha256, None)

    def release(self, sha256: str) -> None:
        self._uses[sha256] -= 1
        if self._uses[sha256] <= 0:
            del self._uses[sha256]
            self._unused_since[sha256] = time.monotonic()

    async def collect(self) -> None:
        """Remove what has been unused for the retention time."""
        limit = time.monotonic() - self._retention_s
        for sha256 in [name for name, since in self._unused_since.items() if since <= limit]:
            lock = self._lock(sha256)
            async with lock:
                # Taken up again while we waited: `add` and this are exclusive for one package.
                if self._uses[sha256]:
                    continue
                await self._run(self._store.remove, sha256)
                self._unused_since.pop(sha256, None)

    def close(self) -> None:
        for pool in (self._image_pool, self._pool):
            pool.shutdown(wait=True, cancel_futures=True)

    def _lock(self, sha256: str) -> asyncio.Lock:
        lock = self._locks.get(sha256)
        if lock is None:
            lock = self._locks[sha256] = asyncio.Lock()
        return lock

    async def _run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: function(*args, **kwargs))


def packages_of(function: Function) -> list[str]:
    """Names of the trees that a function uses; each is one use."""
    used = [function.code.sha256, *(layer.code.sha256 for layer in function.layers)]
    return [*used, tree_name(function.layers)] if len(function.layers) > 1 else used
