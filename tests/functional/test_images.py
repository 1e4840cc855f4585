"""Functions from container images: brought by `forklight images import`, made by a stock boto3 client, run in real sandboxes."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.deploy import OFTEN, ROLE, invoke, log_events, zip_of
from tests.support.images import (
    ARCHITECTURE,
    BuiltImage,
    Entry,
    compiled,
    folder,
    layer,
    program_image,
    symlink,
    tar_of,
)
from tests.support.patience import handler_timeout
from tests.support.server import Server, forklight_command
from tests.support.witness import until

ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
HOST = "x86_64" if ARCHITECTURE == "amd64" else "arm64"
PROGRAM = Path(__file__).parent.parent / "support" / "image_program.c"


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    made = server.client()
    yield made
    made.close()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return compiled(PROGRAM, tmp_path_factory.mktemp("program"))


def forklight(server: Server, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*forklight_command(), *words, "--state-dir", str(server.state_dir)], capture_output=True, text=True
    )


def bring(server: Server, path: Path, name: str) -> str:
    """The image's digest."""
    done = forklight(server, "images", "import", str(path), "--name", name, "--json")
    assert done.returncode == 0, done.stderr
    digest: str = json.loads(done.stdout)["digest"]
    return digest


def unused() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


@contextmanager
def imaged(client: Any, uri: str, **configuration: Any) -> Iterator[str]:
    """A function from an image, active; its name."""
    name = unused()
    client.create_function(
        FunctionName=name, PackageType="Image", Code={"ImageUri": uri}, Role=ROLE,
        **{"Timeout": handler_timeout(10), **configuration},
    )  # fmt: skip
    try:
        client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig=OFTEN)
        yield name
    finally:
        client.delete_function(FunctionName=name)


@pytest.fixture(scope="module")
def image(program: bytes) -> BuiltImage:
    return program_image(
        program,
        [
            Entry("app/data", b"of the image"),
            Entry("app/set-uid", b"x", 0o4755),
            symlink("app/out", "/etc/shadow"),
        ],
        Env=["PATH=/app", "COLOUR=red", "REGION_OF_IMAGE=yes"],
        Cmd=["app.handler"],
        WorkingDir="/app",
    )


@pytest.fixture(scope="module")
def uri(server: Server, image: BuiltImage, tmp_path_factory: pytest.TempPathFactory) -> str:
    name = f"{ECR}/my-lambda:latest"
    assert (
        bring(server, image.write_layout(tmp_path_factory.mktemp("layout") / "image"), name) == image.digest
    )
    return name


@pytest.fixture(scope="module")
def ran(client: Any, uri: str) -> Iterator[Callable[[str], str]]:
    """What a function of that image answers to a command."""
    with imaged(client, uri, Environment={"Variables": {"COLOUR": "blue"}}) as name:
        yield lambda command: str(invoke(client, name, command)[0])


def test_life_of_a_function(client: Any, uri: str, image: BuiltImage) -> None:
    name = unused()
    created = client.create_function(
        FunctionName=name, PackageType="Image", Code={"ImageUri": uri}, Role=ROLE, Timeout=60, MemorySize=512,
        ImageConfig={"Command": ["one", "two"], "WorkingDirectory": "/tmp"}, Architectures=[HOST],
    )  # fmt: skip
    try:
        sha256 = image.digest.removeprefix("sha256:")
        assert (created["State"], created["PackageType"], created["CodeSha256"]) == (
            "Pending",
            "Image",
            sha256,
        )
        assert created["CodeSize"] == 0 and {"Runtime", "Handler", "Layers"}.isdisjoint(created)
        said = {"Command": ["one", "two"], "WorkingDirectory": "/tmp"}
        assert created["ImageConfigResponse"] == {"ImageConfig": said}
        client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig=OFTEN)
        got = client.get_function(FunctionName=name)
        assert got["Code"] == {
            "RepositoryType": "ECR", "ImageUri": uri, "ResolvedImageUri": f"{ECR}/my-lambda@{image.digest}",
        }  # fmt: skip
        assert invoke(client, name, "argv")[0] == "/app/main\none\ntwo\n"
        assert invoke(client, name, "cwd")[0] == "/tmp\n"
        client.update_function_configuration(FunctionName=name, ImageConfig={"EntryPoint": ["main"]})
        client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig=OFTEN)
        assert invoke(client, name, "argv")[0] == "main\napp.handler\n"  # found by the image's PATH
        assert invoke(client, name, "cwd")[0] == "/app\n"
    finally:
        client.delete_function(FunctionName=name)


def test_what_a_program_sees(ran: Callable[[str], str]) -> None:
    seen = set(ran("list /").split())
    assert seen == {"app", "dev", "proc", "sys", "tmp", "etc"}
    assert ran("show /app/data") == "of the image"
    assert "127.0.0.1 localhost" in ran("show /etc/hosts")
    assert set(ran("list /dev").split()) == {
        "null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr", "shm",
    }  # fmt: skip
    env = dict(line.partition("=")[::2] for line in ran("env").splitlines())
    assert (env["COLOUR"], env["PATH"], env["REGION_OF_IMAGE"]) == ("blue", "/app", "yes")
    assert env["AWS_LAMBDA_RUNTIME_API"] == "127.0.0.1:9001" and env["AWS_REGION"]
    assert {"_HANDLER", "LAMBDA_TASK_ROOT", "AWS_EXECUTION_ENV", "PYTHONPATH"}.isdisjoint(env)
    assert not [name for name in env if "FORKLIGHT" in name]


def test_nothing_but_tmp_can_be_written(ran: Callable[[str], str]) -> None:
    assert ran("put /tmp/x") == "written\n" and ran("put /dev/shm/x") == "written\n"
    for place in ("/x", "/app/data", "/etc/hosts", "/dev/x", "/sys/x", "/proc/sys/kernel/core_pattern"):
        assert ran(f"put {place}") in ("errno 30\n", "errno 13\n"), place


def test_an_image_keeps_out_of_the_host(ran: Callable[[str], str]) -> None:
    assert ran("show /app/out") == "errno 2\n"  # the image's own root, which has no such file
    assert ran("list /usr") == "errno 2\n"
    uid, effective, mode = ran("ids /app/set-uid").split()
    assert uid == effective and int(mode, 8) & 0o7000 == 0
    mounts = ran("show /proc/self/mountinfo")
    assert not [line for line in mounts.splitlines() if " /usr" in line or "/var/task" in line]
    assert ran("show /proc/kcore") in ("", "errno 2\n") and "errno" in ran("list /proc/1/root/")


def test_deaths_limits_and_logs(server: Server, client: Any, uri: str) -> None:
    with imaged(client, uri) as name:
        answer, response = invoke(client, name, "exit 3", LogType="Tail")
        assert (answer["errorType"], response["FunctionError"]) == ("Runtime.ExitError", "Unhandled")
        assert "exit status 3" in answer["errorMessage"]
        assert "REPORT RequestId" in base64.b64decode(response["LogResult"]).decode()
        answer, _ = invoke(client, name, "memory 400")
        assert answer["errorType"] in ("Runtime.OutOfMemory", "Runtime.ExitError")
        assert invoke(client, name, "cwd")[0] == "/app\n"
        logs = server.client("logs")
        until(
            lambda: [
                event
                for event in log_events(logs, name)
                if event["message"].startswith("the image's program")
            ]
        )
        logs.close()


def test_a_slow_program_is_ended(client: Any, uri: str) -> None:
    with imaged(client, uri, Timeout=1) as name:
        answer, _ = invoke(client, name, "sleep 30")
        assert answer["errorType"] == "Sandbox.Timedout"


def test_an_image_that_cannot_start_says_why(client: Any, uri: str) -> None:
    for config, kind, words in (
        (
            {"EntryPoint": ["/nowhere"]},
            "Runtime.InvalidEntrypoint",
            "fork/exec /nowhere: no such file or directory",
        ),
        (
            {"WorkingDirectory": "/nowhere"},
            "Runtime.InvalidWorkingDir",
            "chdir /nowhere: no such file or directory",
        ),
    ):
        with imaged(client, uri, ImageConfig=config) as name:
            answer, response = invoke(client, name, "cwd")
            assert response["FunctionError"] == "Unhandled"
            assert answer["errorType"] == kind and words in answer["errorMessage"]


def test_versions_keep_their_image(server: Server, client: Any, program: bytes, tmp_path: Path) -> None:
    name = f"localhost/{unused()}:latest"
    images = [
        program_image(program, [Entry("which", text)], Env=["PATH=/app"]) for text in (b"first", b"second")
    ]
    bring(server, tar_of(images[0].write_layout(tmp_path / "a"), tmp_path / "a.tar"), name)
    with imaged(client, name, Publish=True) as function:
        bring(server, images[1].write_docker_archive(tmp_path / "b.tar"), name)
        assert invoke(client, function, "show /which")[0] == "first"  # a tag is looked at once
        updated = client.update_function_code(FunctionName=function, ImageUri=name, Publish=True)
        assert updated["Version"] == "2"
        client.get_waiter("function_updated_v2").wait(FunctionName=function, WaiterConfig=OFTEN)
        client.get_waiter("function_active_v2").wait(FunctionName=function, Qualifier="2", WaiterConfig=OFTEN)
        repository = name.rpartition(":")[0]
        assert forklight(server, "images", "remove", "--yes", repository).returncode == 0
        for qualifier, text in (("1", "first"), ("2", "second"), ("$LATEST", "second")):
            assert invoke(client, function, "show /which", Qualifier=qualifier)[0] == text
        resolved = client.get_function(FunctionName=function, Qualifier="1")["Code"]["ResolvedImageUri"]
        assert resolved == f"{repository}@{images[0].digest}"
        with pytest.raises(ClientError, match="does not exist"):
            client.update_function_code(FunctionName=function, ImageUri=name)


def test_an_update_that_fails_leaves_what_ran(
    server: Server, client: Any, uri: str, program: bytes, tmp_path: Path
) -> None:
    bad = BuiltImage([layer(Entry("pipe", kind=b"6"))], {"Entrypoint": ["/app/main"]})
    name = f"localhost/{unused()}:latest"
    bring(server, bad.write_layout(tmp_path / "bad"), name)
    with imaged(client, uri) as function:
        client.update_function_code(FunctionName=function, ImageUri=name)

        def settled() -> Any:
            found = client.get_function_configuration(FunctionName=function)
            return found if found["LastUpdateStatus"] != "InProgress" else None

        found = until(settled)
        assert (found["LastUpdateStatus"], found["LastUpdateStatusReasonCode"]) == ("Failed", "InvalidImage")
        assert "'pipe' is a device or pipe" in found["LastUpdateStatusReason"]
        assert invoke(client, function, "show /app/data")[0] == "of the image"
        client.update_function_code(FunctionName=function, ImageUri=uri)
        client.get_waiter("function_updated_v2").wait(FunctionName=function, WaiterConfig=OFTEN)
        assert invoke(client, function, "show /app/data")[0] == "of the image"
    function = unused()
    client.create_function(FunctionName=function, PackageType="Image", Code={"ImageUri": name}, Role=ROLE)

    def failed() -> Any:
        found = client.get_function_configuration(FunctionName=function)
        return found if found["State"] != "Pending" else None

    found = until(failed)
    assert (found["State"], found["StateReasonCode"]) == ("Failed", "InvalidImage")
    client.delete_function(FunctionName=function)


def refusal(call: Callable[..., Any], **params: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**params)
    error = caught.value.response["Error"]
    assert error["Code"] == "InvalidParameterValueException"
    return str(error["Message"])


def test_what_is_refused_as_lambda_refuses_it(client: Any, uri: str) -> None:
    base = {"FunctionName": unused(), "Role": ROLE}
    image = {**base, "PackageType": "Image", "Code": {"ImageUri": uri}}
    create = client.create_function
    assert "Handler is not supported" in refusal(create, **image, Handler="a.b")
    assert "Runtime is not supported" in refusal(create, **image, Runtime="python3.11")
    layers = ["arn:aws:lambda:us-east-1:123456789012:layer:x:1"]
    assert "Layers is not supported" in refusal(create, **image, Layers=layers)
    assert refusal(create, **{**image, "Code": {"ZipFile": zip_of({"a.py": ""})}}) == (
        "Please provide ImageUri when creating a function with packageType Image."
    )
    assert "packageType Zip" in refusal(
        create, **base, Code={"ImageUri": uri}, Runtime="python3.11", Handler="a.b"
    )
    for wrong in (f"{ECR}/none-such:latest", f"{ECR}/my-lambda:other"):
        assert refusal(create, **{**image, "Code": {"ImageUri": wrong}}) == (
            f"Source image {wrong} does not exist. Provide a valid source image."
        )
    for wrong in ("my-lambda", "http://a/b:c", "169.254.169.254/latest/meta-data:x", "registry.example/x:y"):
        assert refusal(create, **{**image, "Code": {"ImageUri": wrong}}).startswith(
            f"Source image {wrong} is not valid. Provide a valid source image."
        )
    with imaged(client, uri) as name:
        zipped = zip_of({"a.py": ""})
        assert refusal(client.update_function_code, FunctionName=name, ZipFile=zipped) == (
            "Please provide ImageUri when updating a function with packageType Image."
        )
        assert "Handler" in refusal(client.update_function_configuration, FunctionName=name, Handler="a.b")


def test_an_image_for_another_machine_is_refused(
    server: Server, client: Any, program: bytes, tmp_path: Path
) -> None:
    other = BuiltImage([layer(folder("app"))], {}, architecture="s390x")
    name = f"localhost/{unused()}:latest"
    bring(server, other.write_layout(tmp_path / "other"), name)
    words = refusal(
        client.create_function, FunctionName=unused(), PackageType="Image", Code={"ImageUri": name}, Role=ROLE
    )
    assert "is for s390x" in words


def debian_python(program: Path, *modules: Path) -> list[Entry]:
    """Debian's interpreter and its library, and what it and some modules are linked with."""
    linked = subprocess.run(["ldd", program, *modules], capture_output=True, text=True, check=True).stdout
    files = [program, *{Path(word) for word in linked.split() if word.startswith("/") and word[-1] != ":"}]
    library = Path("/usr/lib") / program.name
    files += [
        path
        for path in library.rglob("*")
        if path.is_file() and not {"__pycache__", "test"} & set(path.parts)
    ]
    return [
        Entry(str(path), path.read_bytes(), 0o755 if os.access(path, os.X_OK) else 0o644) for path in files
    ]


@pytest.mark.slow
def test_awslambdaric_in_an_image(server: Server, client: Any, tmp_path: Path) -> None:
    """AWS's own client for Python, unchanged, as a Dockerfile for a base image of one's own has it."""
    program = Path("/usr/bin/python3").resolve()
    if not program.name.startswith("python3."):
        pytest.skip("the system's Python is not Debian's")
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tmp_path / "ric"), "--only-binary", ":all:",
        "--python-version", program.name.removeprefix("python"), "awslambdaric",
    ]  # fmt: skip
    if subprocess.run(command, timeout=100).returncode != 0:
        pytest.skip("awslambdaric cannot be installed here")
    task = [
        Entry(f"var/task/{path.relative_to(tmp_path / 'ric')}", path.read_bytes())
        for path in (tmp_path / "ric").rglob("*")
        if path.is_file()
    ]
    source = b"def handler(event, context):\n    return {'got': event, 'id': context.aws_request_id, 1: 1 / event}\n"
    built = BuiltImage(
        [
            layer(*debian_python(program, *(tmp_path / "ric").glob("*.so"))),
            layer(*task),
            layer(Entry("var/task/app.py", source)),
        ],
        {
            "Entrypoint": [str(program), "-m", "awslambdaric"],
            "Cmd": ["app.handler"],
            "WorkingDir": "/var/task",
        },
    )
    name = f"localhost/{unused()}:latest"
    bring(server, built.write_layout(tmp_path / "image"), name)
    with imaged(client, name, MemorySize=512) as function:
        answer, response = invoke(client, function, 2, LogType="Tail")
        log = base64.b64decode(response["LogResult"]).decode()
        assert answer == {"got": 2, "id": response["ResponseMetadata"]["RequestId"], "1": 0.5}, log
        failed, _ = invoke(client, function, 0)
        assert failed["errorType"] == "ZeroDivisionError" and "app.py" in failed["stackTrace"][0]
