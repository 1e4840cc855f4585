"""A registry of container images: the OCI distribution specification 1.1, as far as clients push and pull single images.

Errors are the specification's. A blob comes in one request or in pieces; none is larger than what a front door lets in.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING

from gateway.control.images import UnknownRepository, repository_arn
from gateway.model.authority import Who
from gateway.model.errors import ApiError
from gateway.model.image import BadImage, is_digest, is_repository, is_tag
from gateway.storage.images import NoRoom, NoUpload
from gateway.web.apis.access import Context
from gateway.web.apis.wire import Request, parse_query

if TYPE_CHECKING:
    from gateway.control.server import ControlServer

Answer = tuple[int, dict[str, str], bytes]
HEAD_LENGTH = "X-Forklight-Length"  # gateway.web.router knows it
JSON = {"Content-Type": "application/json"}
_CONFIG_TYPE = "application/octet-stream"
_PATH = re.compile(r"/v2/(?P<name>.+)/(?P<kind>blobs/uploads|blobs|manifests|tags)(?:/(?P<last>[^/]*))?")
_RANGE = re.compile(r"(\d{1,18})-(\d{1,18})")
_BYTES = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")
_MAX_PIECE = 32 * 1024 * 1024  # of a blob in one answer
_MAX_TAGS = 1000
# What of ECR's actions a request is.
_READS = {"blobs": "ecr:GetDownloadUrlForLayer", "manifests": "ecr:BatchGetImage", "tags": "ecr:ListImages"}
_WRITES = {
    "blobs/uploads": "ecr:UploadLayerPart",
    "manifests": "ecr:PutImage",
    "blobs": "ecr:UploadLayerPart",
}


class RegistryApi:
    def __init__(self, server: ControlServer) -> None:
        self._server = server
        self._images = server.images
        self._store = server.images.store

    async def handle(self, region: str, request: Request, who: Who, context: Context) -> Answer:
        """Raises ApiError for who may not; everything else is answered."""
        if request.path in ("/v2", "/v2/"):
            return 200, {**JSON, "Docker-Distribution-Api-Version": "registry/2.0"}, b"{}"
        found = _PATH.fullmatch(request.path)
        if found is None or not is_repository(found["name"]):
            return _error(404, "NAME_INVALID", f"there is nothing at {request.path[:200]}")
        name, kind, last = found["name"], found["kind"], found["last"] or ""
        reads = request.method in ("GET", "HEAD") and kind != "blobs/uploads"
        action = _READS.get(kind) if reads else _WRITES.get(kind)
        if request.method == "DELETE" and kind == "manifests":
            action = "ecr:BatchDeleteImage"
        authority = self._server.identities.authority
        authority.check(
            who, action or "ecr:PutImage", repository_arn(region, name), region, None, lambda: context
        )
        try:
            if kind == "blobs/uploads":
                return await self._upload(request, name, last)
            if kind == "manifests":
                return await self._manifest(request, name, last)
            if kind == "tags":
                return self._tags(request, name, last)
            return await self._blob(request, name, last)
        except UnknownRepository:
            return _error(404, "NAME_UNKNOWN", f"there is no repository {name}")
        except NoUpload:
            return _error(404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload")
        except NoRoom as error:
            return _error(413, "DENIED", str(error))
        except BadImage as error:
            return _error(400, "MANIFEST_INVALID" if kind == "manifests" else "DIGEST_INVALID", str(error))
        except OSError as error:
            return _error(500, "UNKNOWN", f"the state directory failed: {error.strerror}")

    # ---- blobs -------------------------------------------------------------------------------------------------

    async def _upload(self, request: Request, name: str, upload: str) -> Answer:
        digest = parse_query(request.query).get("digest", [""])[0]
        if request.method == "POST" and not upload:
            self._images.repository(name)
            upload = await asyncio.to_thread(self._store.begin)
            # Who would mount a blob from another repository sends it again.
            if not digest:
                return _accepted(name, upload, 0)
            await asyncio.to_thread(self._store.append, upload, request.body)
            return await self._finish(name, upload, digest)
        if request.method == "GET" and upload:
            return 204, _progress(name, upload, self._store.received(upload)), b""
        if request.method == "PATCH" and upload:
            position = _RANGE.fullmatch(request.headers.get("content-range", ""))
            if position is not None and int(position[1]) != self._store.received(upload):
                status = _progress(name, upload, self._store.received(upload))
                return 416, status, b""
            size = await asyncio.to_thread(self._store.append, upload, request.body)
            return _accepted(name, upload, size)
        if request.method == "PUT" and upload:
            if request.body:
                await asyncio.to_thread(self._store.append, upload, request.body)
            return await self._finish(name, upload, digest)
        if request.method == "DELETE" and upload:
            await asyncio.to_thread(self._store.cancel, upload)
            return 204, {}, b""
        return _unsupported()

    async def _finish(self, name: str, upload: str, digest: str) -> Answer:
        if not is_digest(digest):
            raise BadImage(f"'{digest[:100]}' is no SHA-256 digest")
        await asyncio.to_thread(self._store.finish, upload, digest)
        self._images.arrived(name, digest)
        location = f"/v2/{name}/blobs/{digest}"
        return 201, {"Location": location, "Docker-Content-Digest": digest}, b""

    async def _blob(self, request: Request, name: str, digest: str) -> Answer:
        if not is_digest(digest):
            raise BadImage(f"'{digest[:100]}' is no SHA-256 digest")
        document = self._images.repository(name)
        has = await asyncio.to_thread(self._images.has_blob, name, document, digest)
        size = await asyncio.to_thread(self._store.touch, digest) if has else None
        if size is None:
            return _error(404, "BLOB_UNKNOWN", f"there is no blob {digest}")
        headers = {"Content-Type": _CONFIG_TYPE, "Docker-Content-Digest": digest, "Accept-Ranges": "bytes"}
        if request.method == "HEAD":
            return 200, {**headers, HEAD_LENGTH: str(size)}, b""
        if request.method != "GET":
            return _unsupported()
        wanted = _BYTES.fullmatch(request.headers.get("range", ""))
        if wanted is None:
            if size > _MAX_PIECE:
                return _error(416, "SIZE_INVALID", f"ask for at most {_MAX_PIECE} bytes of it with Range")
            return 200, headers, await asyncio.to_thread(self._store.read_part, digest, 0, size)
        start = int(wanted[1])
        end = min(int(wanted[2]) if wanted[2] else size - 1, size - 1, start + _MAX_PIECE - 1)
        if start > end:
            return 416, {"Content-Range": f"bytes */{size}"}, b""
        data = await asyncio.to_thread(self._store.read_part, digest, start, end - start + 1)
        return 206, {**headers, "Content-Range": f"bytes {start}-{end}/{size}"}, data

    # ---- manifests ---------------------------------------------------------------------------------------------

    async def _manifest(self, request: Request, name: str, reference: str) -> Answer:
        if not is_digest(reference) and not is_tag(reference):
            raise BadImage(f"'{reference[:200]}' is neither a tag nor a SHA-256 digest")
        if request.method == "PUT":
            return await self._put_manifest(request, name, reference)
        if request.method == "DELETE":
            if not await self._images.untag(name, reference):
                return _no_manifest(reference)
            return 202, {}, b""
        if request.method not in ("GET", "HEAD"):
            return _unsupported()
        digest = self._images.find(name, reference)
        if digest is None:
            return _no_manifest(reference)
        media_type = self._images.repository(name)["images"][digest]["type"]
        data = await asyncio.to_thread(self._store.read, digest)
        return 200, {"Content-Type": media_type, "Docker-Content-Digest": digest}, data

    async def _put_manifest(self, request: Request, name: str, reference: str) -> Answer:
        document = self._images.repository(name)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip()
        manifest = await asyncio.to_thread(self._images.check, name, document, request.body, media_type)
        digest = await asyncio.to_thread(self._store.put, request.body)
        if is_digest(reference) and reference != digest:
            raise BadImage(f"what was sent is {digest}")
        size = sum(layer.size for layer in manifest.layers)
        await self._images.tag(name, digest, "" if is_digest(reference) else reference, media_type, size)
        location = f"/v2/{name}/manifests/{digest}"
        return 201, {"Location": location, "Docker-Content-Digest": digest}, b""

    def _tags(self, request: Request, name: str, last: str) -> Answer:
        if last != "list" or request.method != "GET":
            return _unsupported()
        query = parse_query(request.query)
        count = query.get("n", [str(_MAX_TAGS)])[0]
        most = min(int(count), _MAX_TAGS) if count.isdecimal() and len(count) < 6 else _MAX_TAGS
        behind = query.get("last", [""])[0]
        tags = [tag for tag in sorted(self._images.repository(name)["tags"]) if tag > behind][:most]
        return 200, JSON, json.dumps({"name": name, "tags": tags}).encode()


def refused(error: ApiError) -> Answer:
    """What the API around says no to, in the registry's words."""
    if error.status >= 500:
        return _error(error.status, "UNKNOWN", error.message)
    return _error(error.status, "TOOMANYREQUESTS" if error.status == 429 else "DENIED", error.message)


def _accepted(name: str, upload: str, size: int) -> Answer:
    return 202, _progress(name, upload, size), b""


def _progress(name: str, upload: str, size: int) -> dict[str, str]:
    return {
        "Location": f"/v2/{name}/blobs/uploads/{upload}",
        "Docker-Upload-UUID": upload,
        "Range": f"0-{max(size - 1, 0)}",
    }


def _no_manifest(reference: str) -> Answer:
    return _error(404, "MANIFEST_UNKNOWN", f"there is no image {reference}")


def _unsupported() -> Answer:
    return _error(405, "UNSUPPORTED", "this is not supported")


def _error(status: int, code: str, message: str) -> Answer:
    return status, JSON, json.dumps({"errors": [{"code": code, "message": message}]}).encode()
