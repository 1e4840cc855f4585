"""Where the code of a request is: inline, or in a bucket of the operator's S3 endpoint."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.control.function_rules import invalid
from gateway.model.errors import ApiError, service_unavailable
from gateway.model.quotas import MAX_ZIPPED
from gateway.storage.objects import ObjectError, ObjectStore, ObjectTooLarge
from gateway.web.apis.lambda_requests import not_implemented

Params = dict[str, Any]

# A package of 50 MB takes as much memory on its way to disk.
_AT_ONCE = 3
_IN_S3 = ("S3Bucket", "S3Key", "S3ObjectVersion")
_ELSEWHERE = {
    "SourceKMSKeyArn": "customer managed keys are not implemented",
}


class Packages:
    """``objects``: None where the operator has named no endpoint."""

    def __init__(self, objects: ObjectStore | None) -> None:
        self._objects = objects
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def of(self, region: str, code: Params) -> bytes | None:
        """The package that a FunctionCode, or LayerVersionContentInput, means; None: it names none.  Raises ApiError."""
        for member, why in _ELSEWHERE.items():
            if code.get(member):
                raise not_implemented(member, why)
        inline = code.get("ZipFile")
        if code.get("ImageUri") and any(code.get(member) for member in _IN_S3):
            raise invalid("Please do not provide ImageUri and a package for function code.")
        if not any(code.get(member) for member in _IN_S3):
            return inline if isinstance(inline, bytes) and inline else None
        if inline:
            raise invalid("Please do not provide other FunctionCode parameters when providing a ZipFile.")
        bucket, key = code.get("S3Bucket"), code.get("S3Key")
        if not bucket or not key:
            raise invalid("Code in S3 is named by both S3Bucket and S3Key.")
        if self._objects is None:
            raise not_implemented("S3Bucket", "this host knows no S3 endpoint (serve --s3-endpoint)")
        return await self._fetch(self._objects, region, bucket, key, code.get("S3ObjectVersion"))

    async def _fetch(
        self, objects: ObjectStore, region: str, bucket: str, key: str, version: str | None
    ) -> bytes:
        try:
            async with self._places:
                return await asyncio.to_thread(objects.get, region, bucket, key, version, MAX_ZIPPED)
        except ObjectError as error:
            raise invalid(
                f"Error occurred while GetObject. S3 Error Code: {error.code}. S3 Error Message: {error.message}"
            ) from None
        except ObjectTooLarge:
            raise ApiError(
                "RequestEntityTooLargeException", f"Zipped size must be smaller than {MAX_ZIPPED} bytes"
            ) from None
        except OSError as error:
            raise service_unavailable(f"The S3 endpoint of this host does not answer: {error}") from error
