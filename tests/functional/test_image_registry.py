"""The registry on the HTTP port and ECR beside it: what docker, skopeo and the AWS CLI send, and what strangers may not."""

from __future__ import annotations

import base64
import http.client
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from gateway.model import registry_token
from tests.support.deploy import ROLE
from tests.support.identities import Keys, allow
from tests.support.identities import client as client_of
from tests.support.images import INDEX, MANIFEST, BuiltImage, Entry, layer, sha256
from tests.support.server import Server

Answer = tuple[int, dict[str, str], bytes]


class Pusher:
    """A client of registries, with a password or none."""

    def __init__(self, server: Server, authorization: str | None) -> None:
        self._connection = http.client.HTTPConnection(server.http, timeout=60)
        self._headers = {"Authorization": authorization} if authorization else {}

    def __call__(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, path, body, {**self._headers, **sent})
        response = self._connection.getresponse()
        return (
            response.status,
            {name.lower(): value for name, value in response.getheaders()},
            response.read(),
        )

    def close(self) -> None:
        self._connection.close()

    def blob(self, repository: str, data: bytes) -> int:
        _, headers, _ = self("POST", f"/v2/{repository}/blobs/uploads/")
        return self("PUT", f"{headers['location']}?digest={sha256(data)}", data)[0]


def login(ecr: Any) -> str:
    """What `docker login --username AWS --password-stdin` makes of get-login-password."""
    token = ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
    assert base64.b64decode(token).startswith(b"AWS:")
    return f"Basic {token}"


@pytest.fixture(scope="module")
def ecr(server: Server) -> Iterator[Any]:
    made = server.client("ecr")
    yield made
    made.close()


@pytest.fixture(scope="module")
def push(server: Server, ecr: Any) -> Iterator[Pusher]:
    pusher = Pusher(server, login(ecr))
    yield pusher
    pusher.close()


@pytest.fixture
def repository(ecr: Any) -> Iterator[str]:
    name = f"team/t-{uuid.uuid4().hex[:12]}"
    ecr.create_repository(repositoryName=name)
    yield name
    ecr.delete_repository(repositoryName=name, force=True)


@pytest.fixture(scope="module")
def image() -> BuiltImage:
    return BuiltImage([layer(Entry("a", b"a"))], {"Entrypoint": ["/a"]})


def error(answer: Answer) -> tuple[int, str]:
    return answer[0], json.loads(answer[2])["errors"][0]["code"]


def test_a_push_as_docker_does_it(
    server: Server, ecr: Any, push: Pusher, repository: str, image: BuiltImage
) -> None:
    assert push("GET", "/v2/")[0] == 200
    for digest, data in image.blobs.items():
        assert push("HEAD", f"/v2/{repository}/blobs/{digest}")[0] in (200, 404)
        status, headers, _ = push("POST", f"/v2/{repository}/blobs/uploads/")
        assert status == 202
        half = len(data) // 2
        status, headers, _ = push(
            "PATCH", headers["location"], data[:half], Content_Type="application/octet-stream"
        )
        assert (status, headers["range"]) == (202, f"0-{half - 1}")
        assert push("PATCH", headers["location"], b"x", Content_Range=f"{half + 1}-{half + 1}")[0] == 416
        status, headers, _ = push(
            "PATCH", headers["location"], data[half:], Content_Range=f"{half}-{len(data) - 1}"
        )
        assert push("PUT", f"{headers['location']}?digest={digest}")[0] == 201
        status, headers, body = push("HEAD", f"/v2/{repository}/blobs/{digest}")
        assert (status, headers["content-length"], body) == (200, str(len(data)), b"")
        assert push("GET", f"/v2/{repository}/blobs/{digest}")[2] == data
        assert push("GET", f"/v2/{repository}/blobs/{digest}", Range="bytes=1-3")[::2] == (206, data[1:4])
    status, headers, _ = push("PUT", f"/v2/{repository}/manifests/v1", image.manifest, Content_Type=MANIFEST)
    assert (status, headers["docker-content-digest"]) == (201, image.digest)
    for reference in ("v1", image.digest):
        status, headers, body = push("GET", f"/v2/{repository}/manifests/{reference}")
        assert (status, headers["content-type"], body) == (200, MANIFEST, image.manifest)
    assert json.loads(push("GET", f"/v2/{repository}/tags/list")[2]) == {"name": repository, "tags": ["v1"]}
    detail = ecr.describe_images(repositoryName=repository)["imageDetails"][0]
    assert (detail["imageDigest"], detail["imageTags"]) == (image.digest, ["v1"])
    got = ecr.batch_get_image(repositoryName=repository, imageIds=[{"imageTag": "v1"}, {"imageTag": "v2"}])
    assert got["images"][0]["imageManifest"].encode() == image.manifest
    assert got["failures"][0]["failureCode"] == "ImageNotFound"
    assert ecr.describe_repositories(repositoryNames=[repository])["repositories"][0]["repositoryUri"] == (
        f"{server.http}/{repository}"
    )
    gone = ecr.batch_delete_image(repositoryName=repository, imageIds=[{"imageTag": "v1"}])
    assert gone["imageIds"][0]["imageDigest"] == image.digest
    assert error(push("GET", f"/v2/{repository}/manifests/v1")) == (404, "MANIFEST_UNKNOWN")


def test_what_is_wrong_is_refused(push: Pusher, repository: str, image: BuiltImage) -> None:
    _, headers, _ = push("POST", f"/v2/{repository}/blobs/uploads/")
    place = headers["location"]
    assert error(push("PUT", f"{place}?digest={sha256(b'other')}", b"data")) == (400, "DIGEST_INVALID")
    assert error(push("PATCH", place, b"x")) == (404, "BLOB_UPLOAD_UNKNOWN")  # it is over
    _, headers, _ = push("POST", f"/v2/{repository}/blobs/uploads/")
    assert push("DELETE", headers["location"])[0] == 204
    manifests = f"/v2/{repository}/manifests"
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
    assert error(push("PUT", f"{manifests}/x", index, Content_Type=INDEX)) == (400, "MANIFEST_INVALID")
    assert error(push("PUT", f"{manifests}/x", index, Content_Type=MANIFEST)) == (400, "MANIFEST_INVALID")
    lonely = BuiltImage([layer(Entry(uuid.uuid4().hex))])
    assert error(push("PUT", f"{manifests}/x", lonely.manifest, Content_Type=MANIFEST)) == (
        400,
        "MANIFEST_INVALID",
    )
    for data in image.blobs.values():
        push.blob(repository, data)
    other = f"{manifests}/{sha256(b'other')}"
    assert error(push("PUT", other, image.manifest, Content_Type=MANIFEST)) == (400, "MANIFEST_INVALID")
    for path in (
        f"/v2/{repository}/blobs/sha256:../../forklight.db", f"/v2/../../etc/manifests/{image.digest}", "/v2/x/nothing",
        f"/v2/{repository}/manifests/a%2f..%2fb", f"/v2/{repository}/blobs/sha256:{'A' * 64}",
    ):  # fmt: skip
        assert error(push("GET", path))[0] in (400, 404), path
    assert error(push("POST", "/v2/none-such/blobs/uploads/")) == (404, "NAME_UNKNOWN")


def test_strangers_are_told_to_log_in(server: Server, ecr: Any) -> None:
    key, secret = server.access_key, server.secret_key
    good = registry_token.make(key, secret, "", 2e9)
    bad = [
        None, "Basic", "Basic !!!", f"Basic {base64.b64encode(f'me:{good}'.encode()).decode()}", "Bearer x",
        *(
            "Basic " + base64.b64encode(f"AWS:{password}".encode()).decode()
            for password in (
                "", secret, registry_token.make(key, "other", "", 2e9), registry_token.make("AKIANOBODY", "x", "", 2e9),
                registry_token.make(key, secret, "", 1.0), good[:-4],
            )
        ),
    ]  # fmt: skip
    for authorization in bad:
        stranger = Pusher(server, authorization)
        status, headers, _ = stranger("GET", "/v2/")
        if authorization == "Bearer x":
            assert status == 403  # no scheme that we have
        else:
            assert status == 401 and headers["www-authenticate"].startswith("Basic realm=")
        stranger.close()
    # A stranger's body is not even taken in.
    stranger = Pusher(server, None)
    assert stranger("PUT", "/v2/x/blobs/uploads/y", bytes(100_000))[0] == 403
    stranger.close()


def test_policies_hold_for_pushes(server: Server, repository: str, image: BuiltImage) -> None:
    iam = server.client("iam")
    user = f"pusher-{uuid.uuid4().hex[:8]}"
    iam.create_user(UserName=user)
    keys = Keys.of(iam.create_access_key(UserName=user)["AccessKey"])
    theirs = client_of(server, keys, "ecr")
    try:
        with pytest.raises(ClientError, match="ecr:GetAuthorizationToken"):
            theirs.get_authorization_token()
        arn = f"arn:aws:ecr:us-east-1:123456789012:repository/{repository}"
        may = allow(["ecr:UploadLayerPart", "ecr:BatchGetImage"], arn)
        iam.put_user_policy(UserName=user, PolicyName="some", PolicyDocument=may)
        iam.put_user_policy(
            UserName=user, PolicyName="login", PolicyDocument=allow("ecr:GetAuthorizationToken")
        )
        push = Pusher(server, login(theirs))
        assert all(push.blob(repository, data) == 201 for data in image.blobs.values())
        assert push("GET", f"/v2/{repository}/manifests/v1")[0] == 404
        for answer in (
            push("PUT", f"/v2/{repository}/manifests/v1", image.manifest, Content_Type=MANIFEST),
            push("POST", "/v2/other/blobs/uploads/"),
            push("GET", f"/v2/{repository}/blobs/{next(iter(image.blobs))}"),
            push("DELETE", f"/v2/{repository}/manifests/v1"),
        ):
            assert error(answer) == (403, "DENIED")
        with pytest.raises(ClientError, match="ecr:DeleteRepository"):
            theirs.delete_repository(repositoryName=repository, force=True)
        iam.delete_access_key(UserName=user, AccessKeyId=keys.id)
        assert push("GET", "/v2/")[0] == 401  # with the key goes what was made with it
        push.close()
    finally:
        for name in ("some", "login"):
            iam.delete_user_policy(UserName=user, PolicyName=name)
        iam.delete_user(UserName=user)
        iam.close()
        theirs.close()


def test_repositories_in_ecrs_words(ecr: Any, repository: str) -> None:
    def code(call: Callable[..., Any], **params: Any) -> str:
        with pytest.raises(ClientError) as caught:
            call(**params)
        return str(caught.value.response["Error"]["Code"])

    assert code(ecr.create_repository, repositoryName=repository) == "RepositoryAlreadyExistsException"
    assert code(ecr.create_repository, repositoryName="Not/Lower") == "InvalidParameterException"
    assert code(ecr.delete_repository, repositoryName="none-such") == "RepositoryNotFoundException"
    assert code(ecr.describe_repositories, repositoryNames=["none-such"]) == "RepositoryNotFoundException"
    missing = {"repositoryName": repository, "imageIds": [{"imageTag": "none"}]}
    assert code(ecr.describe_images, **missing) == "ImageNotFoundException"
    assert code(ecr.get_lifecycle_policy, repositoryName=repository) == "NotImplementedException"


def test_a_digest_is_no_right_to_read(server: Server, ecr: Any, push: Pusher, repository: str) -> None:
    """Blobs lie in one place for all repositories; who may read one repository reads nothing of another by it."""
    other = f"team/o-{uuid.uuid4().hex[:12]}"
    ecr.create_repository(repositoryName=other)
    secret = BuiltImage([layer(Entry(uuid.uuid4().hex, b"secret"))], {"Entrypoint": ["/a"]})
    try:
        for data in secret.blobs.values():
            assert push.blob(repository, data) == 201
        v1 = f"/v2/{repository}/manifests/v1"
        assert push("PUT", v1, secret.manifest, Content_Type=MANIFEST)[0] == 201
        for digest, data in secret.blobs.items():
            assert push("GET", f"/v2/{repository}/blobs/{digest}")[2] == data
            assert error(push("GET", f"/v2/{other}/blobs/{digest}")) == (404, "BLOB_UNKNOWN")
            assert push("HEAD", f"/v2/{other}/blobs/{digest}")[0] == 404
        stolen = push("PUT", f"/v2/{other}/manifests/v1", secret.manifest, Content_Type=MANIFEST)
        assert error(stolen) == (400, "MANIFEST_INVALID")
        assert error(push("GET", f"/v2/{other}/blobs/{secret.digest}")) == (404, "BLOB_UNKNOWN")
    finally:
        ecr.delete_repository(repositoryName=other, force=True)


def test_each_repository_and_image_that_is_named_is_asked_for(server: Server, repository: str) -> None:
    iam = server.client("iam")
    user = f"reader-{uuid.uuid4().hex[:8]}"
    iam.create_user(UserName=user)
    keys = Keys.of(iam.create_access_key(UserName=user)["AccessKey"])
    mine = "arn:aws:ecr:us-east-1:123456789012:repository/mine"
    actions = ["ecr:DescribeRepositories", "lambda:CreateFunction", "iam:PassRole"]
    policy = allow(actions, [mine, "arn:aws:lambda:*", "arn:aws:iam::*"])
    iam.put_user_policy(UserName=user, PolicyName="some", PolicyDocument=policy)
    lambda_, theirs = client_of(server, keys), client_of(server, keys, "ecr")
    # boto3 sends no member that an operation has not.
    theirs.meta.events.register(
        "before-call.ecr.DescribeRepositories",
        lambda params, **_: params.update(
            body=json.dumps({**json.loads(params["body"]), "repositoryName": "mine"}).encode()
        ),
    )
    try:
        with pytest.raises(ClientError, match="ecr:DescribeRepositories"):
            theirs.describe_repositories(repositoryNames=[repository])
        with pytest.raises(ClientError, match="ecr:BatchGetImage"):
            lambda_.create_function(
                FunctionName=f"f-{user}", PackageType="Image", Code={"ImageUri": f"localhost/{repository}:v1"}, Role=ROLE
            )  # fmt: skip
    finally:
        iam.delete_user_policy(UserName=user, PolicyName="some")
        iam.delete_access_key(UserName=user, AccessKeyId=keys.id)
        iam.delete_user(UserName=user)
        for made in (iam, lambda_, theirs):
            made.close()


def test_a_password_of_many_brackets_is_nobodys(server: Server) -> None:
    deep = base64.urlsafe_b64encode(bytes(32) + b"[" * 13_000).decode()
    stranger = Pusher(server, "Basic " + base64.b64encode(f"AWS:{deep}".encode()).decode())
    assert stranger("GET", "/v2/")[0] == 401
    stranger.close()
