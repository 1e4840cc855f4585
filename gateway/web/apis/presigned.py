"""URLs that bear their own signature (SigV4 in the query), so that a client can fetch a package without credentials.

The front doors check them as they check any presigned request; nothing about them is stored.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from gateway.storage.metadata import AccessKey

PACKAGE_PATH = "/forklight/v1/code"
LAYER_PATH = "/forklight/v1/layers"
_VALID_S = 600  # as long as Lambda's own


def package_url(key: AccessKey, region: str, base_url: str, name: str, sha256: str) -> str:
    """Where the package of a function can be fetched with GET for ten minutes."""
    return presign(key, region, base_url, f"{PACKAGE_PATH}/{name}/{sha256}.zip", datetime.now(UTC))


def layer_url(key: AccessKey, region: str, base_url: str, name: str, number: int) -> str:
    """The same for a layer version."""
    return presign(key, region, base_url, f"{LAYER_PATH}/{name}/{number}.zip", datetime.now(UTC))


def presign(key: AccessKey, region: str, base_url: str, path: str, now: datetime) -> str:
    day, moment = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{day}/{region}/lambda/aws4_request"
    query = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{key.key_id}/{scope}",
        "X-Amz-Date": moment,
        "X-Amz-Expires": str(_VALID_S),
        "X-Amz-SignedHeaders": "host",
    }
    canonical_query = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in sorted(query.items()))
    empty = hashlib.sha256(b"").hexdigest()
    host = urlsplit(base_url).netloc
    canonical = f"GET\n{quote(path, safe='/-_.~')}\n{canonical_query}\nhost:{host}\n\nhost\n{empty}"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"
    secret = f"AWS4{key.secret}".encode()
    for part in (day, region, "lambda", "aws4_request"):
        secret = hmac.digest(secret, part.encode(), "sha256")
    signature = hmac.digest(secret, to_sign.encode(), "sha256").hex()
    return f"{base_url}{quote(path, safe='/-_.~')}?{canonical_query}&X-Amz-Signature={signature}"
