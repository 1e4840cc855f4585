"""`forklight images`: container images of the server's own registry. `import` is a push without a container engine."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.cli import image_source, output
from gateway.cli.client import Client
from gateway.cli.credentials import find_credentials
from gateway.cli.errors import FAILED, ApiFailure, CommandError
from gateway.cli.image_source import Blob, Image
from gateway.model.image import BadImage, Reference, is_digest, is_repository, is_tag

_TARGET = "AmazonEC2ContainerRegistry_V20150921"


def import_image(arguments: argparse.Namespace) -> int:
    """Raises CommandError."""
    try:
        reference = Reference.parse(
            arguments.name if "/" in arguments.name else f"localhost/{arguments.name}"
        )
    except BadImage as error:
        raise CommandError(f"--name: {error}") from None
    if reference.digest:
        raise CommandError("--name: an image is imported under a tag")
    image = image_source.read(Path(arguments.path), arguments.platform)
    client = Client(find_credentials(arguments.state_dir))
    try:
        _create(client, reference.repository)
        for blob in image.blobs:
            _send(client, reference.repository, blob)
        digest = _finish(client, reference, image)
    except OSError as error:
        raise CommandError(f"{arguments.path}: {error.strerror or error}") from None
    finally:
        client.close()
    resolved = reference.resolved(digest)
    if arguments.json:
        output.print_json({"uri": arguments.name, "digest": digest, "resolved": resolved})
    else:
        print(f"{output.paint(arguments.name, 'bold')} is {digest}")
    return 0


def list_images(arguments: argparse.Namespace) -> int:
    """Raises CommandError."""
    client = Client(find_credentials(arguments.state_dir))
    try:
        rows = [
            {
                "repository": repository["repositoryName"],
                "tags": image["imageTags"],
                "digest": image["imageDigest"],
                "size": image["imageSizeInBytes"],
            }
            for repository in _all(client, "DescribeRepositories", {}, "repositories")
            for image in _all(
                client, "DescribeImages", {"repositoryName": repository["repositoryName"]}, "imageDetails"
            )
        ]
    finally:
        client.close()
    if arguments.json:
        output.print_json(rows)
    elif rows:
        table = [
            [
                row["repository"],
                ", ".join(row["tags"]) or "-",
                row["digest"][:19],
                f"{row['size'] / 1e6:.1f} MB",
            ]
            for row in rows
        ]
        output.print_table(["REPOSITORY", "TAGS", "DIGEST", "SIZE"], table)
    else:
        output.note("no images; bring one with: forklight images import PATH --name NAME:TAG")
    return 0


def remove(arguments: argparse.Namespace) -> int:
    """Raises CommandError."""
    if not arguments.yes and sys.stdin.isatty():
        output.note(f"Remove {', '.join(arguments.names)}? [y/N] ")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            output.note("nothing removed")
            return FAILED
    client = Client(find_credentials(arguments.state_dir))
    try:
        for name in arguments.names:
            _remove(client, name)
            print(f"{output.paint(name, 'bold')} removed")
    finally:
        client.close()
    return 0


def _remove(client: Client, name: str) -> None:
    """REPOSITORY with all it has, REPOSITORY:TAG or REPOSITORY@DIGEST; with a host before it or without."""
    rest, at, digest = name.partition("@")
    head, _, last = rest.rpartition("/")
    last, colon, tag = last.partition(":")
    repository = f"{head}/{last}" if head else last
    first, slash, inner = repository.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        repository = inner
    if not is_repository(repository) or (at and not is_digest(digest)) or (colon and not is_tag(tag)):
        raise CommandError(f"{name}: no REPOSITORY[:TAG|@DIGEST]")
    if not at and not colon:
        _call(client, "DeleteRepository", {"repositoryName": repository, "force": True})
        return
    image = {"imageDigest": digest} if at else {"imageTag": tag}
    answer = _call(client, "BatchDeleteImage", {"repositoryName": repository, "imageIds": [image]})
    if answer.get("failures"):
        raise CommandError(f"{name}: there is no such image")


def _create(client: Client, repository: str) -> None:
    try:
        _call(client, "CreateRepository", {"repositoryName": repository})
    except ApiFailure as failure:
        if failure.code != "RepositoryAlreadyExistsException":
            raise


def _send(client: Client, repository: str, blob: Blob) -> None:
    """Unless it is there: in pieces."""
    try:
        client.request("HEAD", f"/v2/{repository}/blobs/{blob.digest}", service="ecr")
        return
    except ApiFailure as failure:
        if failure.http_status != 404:
            raise
    place = client.request("POST", f"/v2/{repository}/blobs/uploads/", service="ecr").headers["location"]
    sent = 0
    with blob.open() as file:
        for piece in image_source.pieces(file):
            headers = {
                "content-type": "application/octet-stream", "content-range": f"{sent}-{sent + len(piece) - 1}"
            }  # fmt: skip
            place = client.request("PATCH", place, piece, service="ecr", headers=headers).headers["location"]
            sent += len(piece)
    client.request("PUT", place, service="ecr", query={"digest": blob.digest})


def _finish(client: Client, reference: Reference, image: Image) -> str:
    path = f"/v2/{reference.repository}/manifests/{reference.tag}"
    headers = {"content-type": image.media_type}
    answer = client.request("PUT", path, image.manifest, service="ecr", headers=headers)
    return answer.headers["docker-content-digest"]


def _all(client: Client, operation: str, params: dict[str, Any], member: str) -> Iterator[dict[str, Any]]:
    """Every page."""
    marker: dict[str, Any] = {}
    while True:
        page = _call(client, operation, {**params, **marker})
        yield from page[member]
        if not page.get("nextToken"):
            return
        marker = {"nextToken": page["nextToken"]}


def _call(client: Client, operation: str, params: dict[str, Any]) -> dict[str, Any]:
    headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": f"{_TARGET}.{operation}"}
    return client.request("POST", "/", json.dumps(params).encode(), service="ecr", headers=headers).document()
