"""Images of other registries: a registry of the tests' own on loopback, honest and otherwise."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.model.image import BadImage, Reference
from gateway.storage import registry_client
from gateway.storage.images import ImageStore, NoRoom
from gateway.storage.registry_client import (
    NoImage,
    RegistryClient,
    RegistryDenied,
    check_registry,
    read_credentials,
)
from tests.support.image_registry import Registry, Reply
from tests.support.images import INDEX, MANIFEST, BuiltImage, Entry, layer

MIB = 1024 * 1024


@pytest.fixture
def registries() -> Iterator[tuple[Registry, Registry]]:
    both = Registry(), Registry()
    yield both
    for one in both:
        one.close()


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path, 64 * MIB, 64 * MIB)


@pytest.fixture
def image() -> BuiltImage:
    return BuiltImage([layer(Entry("a", b"a")), layer(Entry("b", b"b"))], {"Entrypoint": ["/a"]})


def pull(
    registry: Registry,
    store: ImageStore,
    allowed: tuple[str, ...] = (),
    name: str = "app:v1",
    login: str = "",
) -> str:
    logins = {registry.host: login} if login else {}
    client = RegistryClient(registry.url, (registry.url, *allowed), logins)
    reference = Reference.parse(f"{registry.host}/{name}")
    digest = client.manifest(reference, store)
    client.layers(reference, store.manifest(digest), store)
    return digest


def test_an_image_comes_whole_and_once(
    registries: tuple[Registry, Registry], store: ImageStore, image: BuiltImage, tmp_path: Path
) -> None:
    registry, _ = registries
    registry.serve(image)
    assert pull(registry, store) == image.digest == pull(registry, store, name=f"app@{image.digest}")
    assert len(registry.asked) == 3 + 2  # the second time only the manifest
    (tmp_path / "tree").mkdir()
    store.unpack(image.digest, tmp_path / "tree")
    assert (tmp_path / "tree" / "b").read_bytes() == b"b"


def with_token(realm: str, image: BuiltImage) -> Callable[[str, str | None], Reply]:
    contents = {f"/v2/app/blobs/{digest}": data for digest, data in image.blobs.items()}
    contents["/v2/app/manifests/v1"] = image.manifest

    def answer(path: str, authorization: str | None) -> Reply:
        if path.startswith("/token?"):
            return 200, {}, b'{"token": "let-me-in"}'
        if authorization != "Bearer let-me-in":
            return 401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'}, b""
        return 200, {}, contents[path]

    return answer


def test_a_token_is_asked_for_with_our_credentials(
    registries: tuple[Registry, Registry], store: ImageStore, image: BuiltImage
) -> None:
    registry, _ = registries
    registry.answer = with_token(f"{registry.url}/token", image)
    assert pull(registry, store, login="me:secret") == image.digest
    basic = "Basic " + base64.b64encode(b"me:secret").decode()
    assert ("/token?scope=repository%3Aapp%3Apull&service=s", basic) in registry.asked


def test_no_address_is_asked_that_was_not_named(
    registries: tuple[Registry, Registry], store: ImageStore, image: BuiltImage
) -> None:
    """Neither for a token, nor because a redirect says so; and where one is named, it never gets the registry's token."""
    registry, other = registries
    registry.answer = with_token(f"{other.url}/token", image)
    with pytest.raises(OSError, match="does not name"):
        pull(registry, store, login="me:secret")
    registry.answer = lambda path, _: (307, {"Location": f"{other.url}/elsewhere"}, b"")
    with pytest.raises(OSError, match="does not name"):
        pull(registry, store)
    for trick in (
        "http://169.254.169.254/latest",
        "file:///etc/passwd",
        f"http://{registry.host}@{other.host}/",
        "//[::1]:1/",
    ):
        registry.answer = lambda path, _, to=trick: (302, {"Location": to}, b"")  # type: ignore[misc]
        with pytest.raises(OSError):
            pull(registry, store)
    assert other.asked == []
    other.serve(image)
    registry.answer = lambda path, _: (307, {"Location": f"{other.url}{path}"}, b"")
    assert pull(registry, store, allowed=(other.url,)) == image.digest
    assert {authorization for _, authorization in other.asked} == {None}


def test_what_a_registry_says_is_checked(
    registries: tuple[Registry, Registry], store: ImageStore, image: BuiltImage, tmp_path: Path
) -> None:
    registry, _ = registries
    cases: list[tuple[Reply, type[Exception]]] = [
        ((404, {}, b""), NoImage),
        ((403, {}, b""), RegistryDenied),
        ((401, {"WWW-Authenticate": "Negotiate"}, b""), RegistryDenied),
        ((500, {}, b""), OSError),
        ((200, {}, b"x" * (5 * MIB)), BadImage),
        ((200, {}, json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()), BadImage),
        ((302, {"Location": f"{registry.url}/v2/app/manifests/v1"}, b""), OSError),  # round and round
    ]
    for reply, kind in cases:
        registry.answer = lambda path, _, says=reply: says  # type: ignore[misc]
        with pytest.raises(kind):
            pull(registry, store)
    for wrong in (b"x", b"x" * 4096):  # other bytes than those of the digest, or more
        registry.answer = lambda path, _, data=wrong: (
            200,
            {},
            image.manifest if "manifests" in path else data,
        )  # type: ignore[misc]
        with pytest.raises(BadImage):
            pull(registry, store)
    with pytest.raises(BadImage, match="has sent"):
        pull(registry, store, name="app@sha256:" + "0" * 64)
    assert list((tmp_path / "images" / "uploads").iterdir()) == []


def test_there_is_room_for_so_much(
    registries: tuple[Registry, Registry], image: BuiltImage, tmp_path: Path
) -> None:
    registry, _ = registries
    registry.serve(image)
    small = ImageStore(tmp_path / "small", len(image.manifest) + 10, MIB)
    with pytest.raises(NoRoom):
        pull(registry, small)
    assert list((tmp_path / "small" / "images" / "uploads").iterdir()) == []


def test_what_an_operator_names(tmp_path: Path) -> None:
    assert check_registry("https://Registry.example:5000") == "registry.example:5000"
    for wrong in (
        "registry.example",
        "ftp://x",
        "https://x/path",
        "https://me@x",
        "https://x?y",
        "http://x:99999",
    ):
        with pytest.raises(ValueError):
            check_registry(wrong)
    auth = base64.b64encode(b"me:secret").decode()
    file = tmp_path / "config.json"
    file.write_text(
        json.dumps({"auths": {"https://a.example/v1/": {"auth": auth}, "B.example:1": {"auth": auth}}})
    )
    assert read_credentials(str(file)) == {"a.example": "me:secret", "b.example:1": "me:secret"}
    assert read_credentials(None) == {}


def test_blobs_that_nobody_needs_go(store: ImageStore, image: BuiltImage) -> None:
    digest = store.put(image.manifest)
    assert not store.remove_old(digest, 60.0)
    assert list(store.older_than(60.0)) == []
    assert store.remove_old(digest, -1.0) and store.size(digest) is None
    assert MANIFEST in image.manifest.decode()


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"])
def test_drops_are_no_answer(store: ImageStore, monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    """A byte now and then is never silence."""
    monkeypatch.setattr(registry_client, "SMALL_S", 0.3)
    cut = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            try:
                connection.recv(65_536)
                connection.sendall(head)
                for _ in range(1500):
                    connection.sendall(b"x")
                    if cut.wait(0.02):
                        break
            except OSError:
                pass
            cut.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        with pytest.raises(OSError):
            RegistryClient(url, [url], {}).manifest(Reference("h", "app", "v1", ""), store)
        assert cut.wait(20)  # by the other side: it has closed
        thread.join(30)


@pytest.mark.parametrize("place", ["http://127.0.0.1:99999999/x", "http://[/", "http://\u00e9/x"])
def test_an_address_that_is_none_is_refused(
    registries: tuple[Registry, Registry], store: ImageStore, place: str
) -> None:
    first, _ = registries
    first.answer = lambda path, _: (401, {"WWW-Authenticate": f'Bearer realm="{place}"'}, b"")
    with pytest.raises(OSError, match="refers to"):
        RegistryClient(first.url, [first.url], {}).manifest(Reference("h", "app", "v1", ""), store)
