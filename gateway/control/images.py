"""Container images: the repositories of this host, what their tags mean, and what goes when nothing refers to it any more.

A repository is one document in the store: its images by digest, and its tags. Blobs are kept once for all repositories, and each shows
those that were sent to it: a digest is no right to read. There is one
namespace of repositories for all regions, because a registry's clients name none.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Final, TypeVar

from gateway.control import function_rules as rules
from gateway.control.failures import as_service_errors
from gateway.control.resources import Resources
from gateway.model.arn import ACCOUNT_ID
from gateway.model.errors import ApiError, service_unavailable
from gateway.model.function import Function
from gateway.model.image import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    BadImage,
    ImageConfig,
    ImageUse,
    Manifest,
    Reference,
)
from gateway.model.resource import ResourceId
from gateway.storage.images import ImageStore, NoRoom
from gateway.storage.registry_client import NoImage, RegistryClient, RegistryDenied

_KIND: Final = "repository"
_ARCHITECTURES: Final = {"amd64": "x86_64", "arm64": "arm64"}
MAX_REPOSITORIES: Final = 10_000
MAX_IMAGES: Final = 10_000  # of one repository
# Blobs that were sent and are of no image yet. Who is so slow that his are forgotten sends them again.
_ARRIVED: Final = 10_000

_T = TypeVar("_T")
Document = dict[str, Any]


class UnknownRepository(Exception):
    """There is none of this name."""


class Images:
    """Look-ups raise UnknownRepository; changes are on disk when they return."""

    def __init__(self, resources: Resources, store: ImageStore) -> None:
        self._resources = resources
        self.store = store
        self._lock = asyncio.Lock()
        self._arrived: OrderedDict[tuple[str, str], None] = OrderedDict()  # repository, digest
        self._blobs_of = lru_cache(maxsize=MAX_IMAGES)(self._read_blobs_of)
        # Others are slow: nobody's manifest waits for layers, and nothing else of this process for either.
        self._manifest_pool = ThreadPoolExecutor(4, "manifest")
        self._layer_pool = ThreadPoolExecutor(2, "layer")
        self.remotes: Mapping[str, RegistryClient] = {}  # by host

    def close(self) -> None:
        """Fetches under way end soon, and nobody waits for them."""
        self.store.stop()
        for pool in (self._manifest_pool, self._layer_pool):
            pool.shutdown(wait=False, cancel_futures=True)

    # ---- repositories ------------------------------------------------------------------------------------------

    def repositories(self) -> dict[str, Document]:
        """By name, ordered: {"created": s, "images": {digest: {"type", "size", "pushed"}}, "tags": {tag: digest}}."""
        found = {}
        for owner in self._resources.owners("", f"{_KIND}:"):
            name = owner.partition(":")[2]
            document = self._resources.get(_id(name))
            if document is not None:
                found[name] = document
        return found

    def repository(self, name: str) -> Document:
        document = self._resources.get(_id(name))
        if document is None:
            raise UnknownRepository(name)
        return document

    async def create(self, name: str) -> tuple[Document, bool]:
        """The repository, and whether it is new. Raises ApiError."""
        async with self._lock:
            return await self._create(name)

    async def delete(self, name: str) -> None:
        async with self._lock:
            self.repository(name)
            await self._resources.remove(_id(name))
            for one in [one for one in self._arrived if one[0] == name]:
                del self._arrived[one]

    async def tag(self, name: str, digest: str, tag: str, media_type: str, size: int) -> None:
        """An image whose manifest and blobs are in the store is the repository's from now on; "" is no tag. Raises ApiError."""
        async with self._lock:
            document, _ = await self._create(name)
            images = dict(document["images"])
            if digest not in images:
                if len(images) >= MAX_IMAGES:
                    raise rules.invalid(f"A repository has at most {MAX_IMAGES} images.")
                images[digest] = {"type": media_type, "size": size, "pushed": time.time()}
            tags = {**document["tags"], tag: digest} if tag else document["tags"]
            await self._resources.put(_id(name), {**document, "images": images, "tags": tags})

    async def untag(self, name: str, reference: str) -> bool:
        """Take a tag away, or an image with all its tags; whether there was such. Functions keep what they use."""
        async with self._lock:
            document = self.repository(name)
            digest = document["tags"].get(reference)
            images, tags = dict(document["images"]), dict(document["tags"])
            if digest is not None:
                del tags[reference]
                if digest not in tags.values():
                    images.pop(digest, None)
            elif reference in images:
                del images[reference]
                tags = {tag: of for tag, of in tags.items() if of != reference}
            else:
                return False
            await self._resources.put(_id(name), {**document, "images": images, "tags": tags})
            return True

    def find(self, name: str, reference: str) -> str | None:
        """The digest that a tag or digest means; None: the repository has none such."""
        document = self.repository(name)
        digest = document["tags"].get(reference, reference)
        return digest if digest in document["images"] else None

    def arrived(self, name: str, digest: str) -> None:
        """A blob was sent to a repository."""
        self._arrived[name, digest] = None
        self._arrived.move_to_end((name, digest))
        if len(self._arrived) > _ARRIVED:
            self._arrived.popitem(last=False)

    def has_blob(self, name: str, document: Document, digest: str) -> bool:
        """Whether somebody has sent it to this repository, and not to another one only. Blocks."""
        images = document["images"]
        return (
            (name, digest) in self._arrived
            or digest in images
            or any(digest in self._blobs_of(image) for image in images)
        )

    def check(self, name: str, document: Document, data: bytes, media_type: str) -> Manifest:
        """A manifest that a repository is about to keep, with all its blobs here. Blocks. Raises BadImage."""
        if media_type in INDEX_TYPES:
            raise BadImage(
                "it is an index of several images, which Lambda does not take: push one image for one platform"
            )
        if media_type not in MANIFEST_TYPES:
            raise BadImage(f"a manifest of type {media_type[:100]} is not supported")
        manifest = Manifest.parse(data)
        for blob in manifest.blobs:
            size = self.store.touch(blob.digest)
            if size is None or not self.has_blob(name, document, blob.digest):
                raise BadImage(f"its blob {blob.digest} is not here")
            if size != blob.size:
                raise BadImage(f"its blob {blob.digest} has {size} bytes and not {blob.size}")
        ImageConfig.parse(self.store.read(manifest.config.digest), len(manifest.layers))
        return manifest

    # ---- what functions use ------------------------------------------------------------------------------------

    async def resolve(self, uri: str, addresses: Iterable[str]) -> tuple[str, str]:
        """Digest (hex) and ResolvedImageUri of the image that a function shall have. `addresses`: of this host. Raises ApiError."""
        try:
            reference = Reference.parse(uri)
        except BadImage:
            raise rules.invalid(f"Source image {uri} is not valid. Provide a valid source image.") from None
        try:
            remote = self.remotes.get(reference.host)
            if remote is not None:
                digest = await _from_remote(
                    self._manifest_pool, uri, lambda: remote.manifest(reference, self.store)
                )
            elif (
                reference.is_ecr
                or reference.host in addresses
                or reference.host.partition(":")[0] == "localhost"
            ):
                digest = self._own(reference, uri)
            else:
                raise rules.invalid(
                    f"Source image {uri} is not valid. Provide a valid source image. "
                    f"(This host takes images from its own repositories and from registries of serve --image-registry, "
                    f"and {reference.host} is none of them.)"
                )
            with as_service_errors():
                config = await asyncio.to_thread(self.store.config, digest)
        except BadImage as error:
            raise rules.invalid(f"The image {uri} is not supported: {error}.") from None
        architecture = _ARCHITECTURES.get(config.architecture, config.architecture)
        if config.os != "linux":
            raise rules.invalid(f"The image {uri} is for {config.os or 'no system'}, not for linux.")
        if architecture != rules.host_architecture():
            raise rules.invalid(
                f"The image {uri} is for {architecture or 'no architecture'}: "
                f"only [{rules.host_architecture()}] is supported by this host."
            )
        return digest.removeprefix("sha256:"), reference.resolved(digest)

    async def fetch(self, use: ImageUse) -> None:
        """Have the layers of a function's image here. Raises ApiError, BadImage."""
        reference = Reference.parse(use.resolved)
        remote = self.remotes.get(reference.host)
        if remote is not None:
            manifest = await asyncio.to_thread(self.store.manifest, reference.digest)
            await _from_remote(
                self._layer_pool, use.uri, lambda: remote.layers(reference, manifest, self.store)
            )

    def roots(self, functions: Iterable[Function]) -> set[str]:
        """Digests of all images that a repository has or a function uses."""
        found = {f"sha256:{function.code.sha256}" for function in functions if function.image is not None}
        return found.union(*(document["images"] for document in self.repositories().values()))

    def collect(self, roots: set[str], age_s: float) -> int:
        """Remove blobs that nothing of `roots` refers to and that nobody has asked for in `age_s`. Blocks; their number."""
        used = set(roots)
        for digest in roots:
            used |= self._read_blobs_of(digest)
        unused = [digest for digest in self.store.older_than(age_s) if digest not in used]
        self.store.end_stale(age_s)
        return sum(self.store.remove_old(digest, age_s) for digest in unused)

    # ---- parts -------------------------------------------------------------------------------------------------

    def _read_blobs_of(self, digest: str) -> frozenset[str]:
        try:
            return frozenset(blob.digest for blob in self.store.manifest(digest).blobs)
        except BadImage:
            return frozenset()  # it is damaged: what it referred to is not known to anybody

    async def _create(self, name: str) -> tuple[Document, bool]:
        document = self._resources.get(_id(name))
        if document is not None:
            return document, False
        if len(self._resources.owners("", f"{_KIND}:")) >= MAX_REPOSITORIES:
            raise rules.invalid(f"There are at most {MAX_REPOSITORIES} repositories.")
        document = {"created": time.time(), "images": {}, "tags": {}}
        await self._resources.put(_id(name), document)
        return document, True

    def _own(self, reference: Reference, uri: str) -> str:
        try:
            digest = self.find(reference.repository, reference.digest or reference.tag)
        except UnknownRepository:
            digest = None
        if digest is None:
            raise rules.invalid(f"Source image {uri} does not exist. Provide a valid source image.")
        return digest


async def _from_remote(pool: ThreadPoolExecutor, uri: str, ask: Callable[[], _T]) -> _T:
    """What another registry says. Raises ApiError, BadImage."""
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, ask)
    except NoImage:
        raise rules.invalid(f"Source image {uri} does not exist. Provide a valid source image.") from None
    except RegistryDenied as error:
        raise ApiError(
            "AccessDeniedException",
            f"Lambda does not have permission to access the image {uri}: {error}. Check the registry's permissions.",
        ) from None
    except NoRoom as error:
        raise ApiError("ServiceException", f"No room for the image: {error}.") from None
    except OSError as error:
        raise service_unavailable(f"The registry of {uri} does not answer: {error}") from error


def repository_arn(region: str, name: str) -> str:
    return f"arn:aws:ecr:{region}:{ACCOUNT_ID}:repository/{name}"


def _id(name: str) -> ResourceId:
    return ResourceId("", f"{_KIND}:{name}", _KIND, name)
