"""Amazon ECR, as much of it as comes before and after a push: repositories, images, and the password for `docker login`.

JSON 1.1: POST / with the operation in X-Amz-Target. Repositories are those of the registry beside it (registry.py), the same in every
region; a repository's URI is this host's address, where a push arrives.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gateway.control.images import UnknownRepository, repository_arn
from gateway.model import registry_token
from gateway.model.arn import ACCOUNT_ID
from gateway.model.authority import Who
from gateway.model.errors import ApiError
from gateway.model.image import BadImage, is_repository
from gateway.web.apis.access import Context
from gateway.web.apis.wire import Params, Request, parse_document

if TYPE_CHECKING:
    from gateway.control.server import ControlServer

_TARGET: Final = "AmazonEC2ContainerRegistry_V20150921."
_HEADERS: Final = {"Content-Type": "application/x-amz-json-1.1"}
_PAGE: Final = 100
_MOST: Final = 1000


@dataclass(frozen=True, slots=True)
class _Call:
    """`host` is this host as the caller has addressed it; `caller` whom the door has verified."""

    region: str
    params: Params
    host: str
    caller: dict[str, Any]


class EcrApi:
    def __init__(self, server: ControlServer) -> None:
        self._server = server
        self._images = server.images
        self._operations: dict[str, Callable[[_Call], Awaitable[Params]]] = {
            "GetAuthorizationToken": self._token,
            "CreateRepository": self._create,
            "DeleteRepository": self._delete,
            "DescribeRepositories": self._describe,
            "DescribeImages": self._describe_images,
            "ListImages": self._list_images,
            "BatchGetImage": self._get_images,
            "BatchDeleteImage": self._delete_images,
        }

    async def handle(
        self, region: str, request: Request, who: Who, context: Context, host: str, caller: dict[str, Any]
    ) -> tuple[int, dict[str, str], bytes]:
        """Raises ApiError."""
        target = request.headers.get("x-amz-target", "")
        name = target.removeprefix(_TARGET)
        operation = self._operations.get(name)
        if operation is None or not target.startswith(_TARGET):
            raise ApiError(
                "NotImplementedException", f"Operation {name[:100]} is not implemented by this host."
            )
        params = parse_document(request.body)
        authority = self._server.identities.authority
        if name == "DescribeRepositories":
            names = _texts(params, "repositoryNames") or ["*"]
        else:
            names = ["*"] if name == "GetAuthorizationToken" else [_repository(params)]
        for each in names:
            resource = "*" if name == "GetAuthorizationToken" else repository_arn(region, each)
            authority.check(who, f"ecr:{name}", resource, region, None, lambda: context)
        try:
            answer = await operation(_Call(region, params, host, caller))
        except UnknownRepository as error:
            raise _refused(
                "RepositoryNotFoundException",
                f"The repository with name '{error}' does not exist in the registry with id '{ACCOUNT_ID}'",
            ) from None
        return 200, dict(_HEADERS), json.dumps(answer).encode()

    async def _token(self, call: _Call) -> Params:
        key_id, session = str(call.caller.get("key") or ""), str(call.caller.get("token") or "")
        authority = self._server.identities.authority
        if call.caller.get("root"):
            # Where nobody has to sign, a password proves nothing: then or later.
            known = {key.key_id: key.secret for key in self._server.credentials.keys}
            secret = known.get(key_id) or secrets.token_hex(32)
        else:
            found = authority.session_secret(key_id, session) if session else authority.secrets().get(key_id)
            if found is None:
                raise ApiError(
                    "UnrecognizedClientException", "The security token included in the request is invalid."
                )
            secret = found
        now = time.time()
        password = registry_token.make(key_id, secret, session, now)
        token = base64.b64encode(f"{registry_token.USER}:{password}".encode()).decode()
        scheme = "https" if self._server.settings.tls_cert else "http"
        data = {
            "authorizationToken": token,
            "expiresAt": int(now) + registry_token.VALID_S,
            "proxyEndpoint": f"{scheme}://{call.host}",
        }
        return {"authorizationData": [data]}

    # ---- repositories ------------------------------------------------------------------------------------------

    async def _create(self, call: _Call) -> Params:
        name = _repository(call.params)
        document, new = await self._images.create(name)
        if not new:
            raise _refused(
                "RepositoryAlreadyExistsException",
                f"The repository with name '{name}' already exists in the registry with id '{ACCOUNT_ID}'",
            )
        return {"repository": _shown(call, name, document)}

    async def _delete(self, call: _Call) -> Params:
        name = _repository(call.params)
        document = self._images.repository(name)
        if document["images"] and not call.params.get("force"):
            raise _refused(
                "RepositoryNotEmptyException",
                f"The repository with name '{name}' in registry with id '{ACCOUNT_ID}' cannot be deleted because it still contains images",
            )
        await self._images.delete(name)
        return {"repository": _shown(call, name, document)}

    async def _describe(self, call: _Call) -> Params:
        named = _texts(call.params, "repositoryNames")
        found = self._images.repositories()
        names = named or sorted(found)
        names, marker = _page(call.params, names)
        shown = [_shown(call, name, self._images.repository(name)) for name in names]
        return {"repositories": shown} | ({"nextToken": marker} if marker else {})

    # ---- images ------------------------------------------------------------------------------------------------

    async def _describe_images(self, call: _Call) -> Params:
        name = _repository(call.params)
        document = self._images.repository(name)
        wanted = _image_ids(call.params)
        digests = [self._digest(name, one) for one in wanted] if wanted else sorted(document["images"])
        page, marker = _page(call.params, list(dict.fromkeys(digests)))
        details = [_detail(name, digest, document) for digest in page]
        return {"imageDetails": details} | ({"nextToken": marker} if marker else {})

    async def _list_images(self, call: _Call) -> Params:
        document = self._images.repository(_repository(call.params))
        found = [{"imageDigest": digest, "imageTag": tag} for tag, digest in sorted(document["tags"].items())]
        tagged = set(document["tags"].values())
        found += [{"imageDigest": digest} for digest in sorted(document["images"]) if digest not in tagged]
        status = (call.params.get("filter") or {}).get("tagStatus")
        if status in ("TAGGED", "UNTAGGED"):
            found = [one for one in found if ("imageTag" in one) == (status == "TAGGED")]
        return {"imageIds": found}

    async def _get_images(self, call: _Call) -> Params:
        name = _repository(call.params)
        document = self._images.repository(name)
        images, failures = [], []
        for one in _image_ids(call.params):
            digest = self._images.find(name, str(one.get("imageDigest") or one.get("imageTag") or ""))
            if digest is None:
                failures.append(_missing(one))
                continue
            try:
                data = await asyncio.to_thread(self._images.store.read, digest)
            except BadImage:
                failures.append(_missing(one))
                continue
            images.append(
                {
                    "registryId": ACCOUNT_ID,
                    "repositoryName": name,
                    "imageId": {**one, "imageDigest": digest},
                    "imageManifest": data.decode("utf-8", "replace"),
                    "imageManifestMediaType": document["images"][digest]["type"],
                }
            )
        return {"images": images, "failures": failures}

    async def _delete_images(self, call: _Call) -> Params:
        name = _repository(call.params)
        gone, failures = [], []
        for one in _image_ids(call.params):
            reference = str(one.get("imageTag") or one.get("imageDigest") or "")
            digest = self._images.find(name, reference)
            if digest is not None and await self._images.untag(name, reference):
                gone.append({**one, "imageDigest": digest})
            else:
                failures.append(_missing(one))
        return {"imageIds": gone, "failures": failures}

    def _digest(self, name: str, one: dict[str, Any]) -> str:
        digest = self._images.find(name, str(one.get("imageDigest") or one.get("imageTag") or ""))
        if digest is None:
            shown = (
                f"imageDigest:'{one.get('imageDigest', 'null')}', imageTag:'{one.get('imageTag', 'null')}'"
            )
            raise _refused(
                "ImageNotFoundException",
                f"The image with imageId {{{shown}}} does not exist within the repository with name '{name}' "
                f"in the registry with id '{ACCOUNT_ID}'",
            )
        return digest


def _shown(call: _Call, name: str, document: dict[str, Any]) -> Params:
    return {
        "repositoryArn": repository_arn(call.region, name),
        "registryId": ACCOUNT_ID,
        "repositoryName": name,
        "repositoryUri": f"{call.host}/{name}",
        "createdAt": int(document["created"]),
        "imageTagMutability": "MUTABLE",
        "imageScanningConfiguration": {"scanOnPush": False},
        "encryptionConfiguration": {"encryptionType": "AES256"},
    }


def _detail(name: str, digest: str, document: dict[str, Any]) -> Params:
    image = document["images"][digest]
    return {
        "registryId": ACCOUNT_ID,
        "repositoryName": name,
        "imageDigest": digest,
        "imageTags": [tag for tag, of in sorted(document["tags"].items()) if of == digest],
        "imageSizeInBytes": image["size"],
        "imagePushedAt": int(image["pushed"]),
        "imageManifestMediaType": image["type"],
    }


def _missing(one: dict[str, Any]) -> Params:
    return {"imageId": one, "failureCode": "ImageNotFound", "failureReason": "Requested image not found"}


def _repository(params: Params) -> str:
    name = params.get("repositoryName")
    if not isinstance(name, str) or not is_repository(name) or len(name) < 2:
        raise _refused(
            "InvalidParameterException",
            "Invalid parameter at 'repositoryName' failed to satisfy constraint: 'must satisfy regular expression "
            "'(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*''",
        )
    return name


def _image_ids(params: Params) -> list[dict[str, Any]]:
    found = params.get("imageIds") or []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found) or len(found) > _PAGE:
        raise _refused("InvalidParameterException", f"imageIds: a list of at most {_PAGE} images")
    return found


def _texts(params: Params, name: str) -> list[str]:
    found = params.get(name) or []
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise _refused("InvalidParameterException", f"{name}: a list of names")
    return found


def _page(params: Params, names: list[str]) -> tuple[list[str], str]:
    """The token is the last name of the page before."""
    most, after = params.get("maxResults"), params.get("nextToken")
    count = most if isinstance(most, int) and 0 < most <= _MOST else _PAGE
    if isinstance(after, str) and after:
        names = [name for name in names if name > after]
    return names[:count], names[count - 1] if len(names) > count else ""


def _refused(code: str, message: str) -> ApiError:
    return ApiError(code, message, status=400)
