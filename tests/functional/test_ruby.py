"""Ruby functions with a stock boto3 client and real sandboxes: Lambda's rules for handlers, errors and logs."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.functional.test_runtimes import get
from tests.support.deploy import function, invoke, zip_of
from tests.support.patience import handler_timeout
from tests.support.server import Server
from tests.support.witness import until

CODE = r"""
require 'logger'
require 'stringio'

$count = 0
LOGGER = Logger.new($stdout)

def handler(event:, context:)
  case event['do']
  when 'raise' then raise ArgumentError, 'no'
  when 'name' then gone(1)
  when 'exit' then exit(5)
  when 'die' then exit!(5)
  when 'sleep' then sleep
  when 'large' then 'x' * event['bytes']
  when 'raw' then StringIO.new("\x00\xff".b)
  when 'logs'
    puts 'plain ä'
    LOGGER.info("two\nlines")
    LOGGER.debug('deep')
    nil
  else
    { event: event, id: context.aws_request_id, name: context.function_name, memory: context.memory_limit_in_mb,
      remaining: context.get_remaining_time_in_millis, custom: context.client_context&.fetch('custom'), env: ENV.to_h,
      ruby: RUBY_VERSION, count: $count += 1, cwd: Dir.pwd }
  end
end

module Deep
  class Down
    def self.handler(event:, context:)
      'deep'
    end
  end
end
"""


@pytest.fixture(scope="module")
def ruby(server: Server) -> str:
    found = [name for name in get(server, "/forklight/v1/runtimes")["runtimes"] if name.startswith("ruby")]
    if not found:
        pytest.skip("this host has no Ruby")
    return str(found[-1])


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    made = server.client()
    yield made
    made.close()


@pytest.fixture(scope="module")
def deployed(client: Any, ruby: str) -> Iterator[str]:
    with make(client, ruby, {"index.rb": CODE}) as name:
        invoke(client, name, {})
        yield name


def make(client: Any, ruby: str, files: dict[str, str | bytes], **configuration: Any) -> Any:
    settings = {"MemorySize": 256, "Timeout": handler_timeout(20), **configuration}
    return function(client, "", files=files, Runtime=ruby, **settings)


def error_of(client: Any, name: str, event: Any) -> tuple[str, str]:
    answer, response = invoke(client, name, event)
    assert response["FunctionError"] == "Unhandled"
    return answer["errorType"], answer["errorMessage"]


def test_event_context_and_environment(client: Any, ruby: str, deployed: str) -> None:
    given = base64.b64encode(b'{"custom":{"k":"v"}}').decode()
    answer, response = invoke(client, deployed, {"a": [1, "ä", None]}, ClientContext=given)
    again, _ = invoke(client, deployed, {})
    assert again["count"] == answer["count"] + 1
    assert answer["event"] == {"a": [1, "ä", None]}
    assert answer["id"] == response["ResponseMetadata"]["RequestId"]
    assert (answer["name"], answer["memory"], answer["custom"]) == (deployed, "256", {"k": "v"})
    assert answer["ruby"].startswith(ruby.removeprefix("ruby") + ".")
    assert answer["env"]["AWS_EXECUTION_ENV"] == f"AWS_Lambda_{ruby}"
    assert answer["env"]["GEM_PATH"].startswith("/var/task/vendor/bundle/ruby/")
    assert 0 < answer["remaining"] <= handler_timeout(20) * 1000


def test_errors(client: Any, deployed: str) -> None:
    answer, response = invoke(client, deployed, {"do": "raise"}, LogType="Tail")
    assert list(answer) == ["errorMessage", "errorType", "stackTrace"]
    assert (answer["errorMessage"], answer["errorType"]) == ("no", "Function<ArgumentError>")
    assert len(answer["stackTrace"]) == 1 and "/var/task/index.rb:10:in" in answer["stackTrace"][0]
    tail = base64.b64decode(response["LogResult"]).decode()
    logged = re.search(r"Error raised from handler method\n(\{.*?\n\})", tail, re.DOTALL)
    assert logged and json.loads(logged[1]) == answer
    large = {"do": "large", "bytes": 6_291_556}
    assert error_of(client, deployed, large)[0] == "Function.ResponseSizeTooLarge"
    # These end the process, and the next event has a new one.
    for do, expected in (
        ("name", "Function<NoMethodError>"),
        ("exit", "Function<SystemExit>"),
        ("die", "Runtime.ExitError"),
    ):
        assert error_of(client, deployed, {"do": do})[0] == expected
        until(lambda: "count" in invoke(client, deployed, {})[0], every_s=0)


def test_answers_that_are_not_json(client: Any, deployed: str) -> None:
    response = client.invoke(FunctionName=deployed, Payload=b'{"do":"raw"}')
    assert response["Payload"].read() == b"\x00\xff"


def test_a_timeout(client: Any, ruby: str) -> None:
    with make(client, ruby, {"index.rb": CODE}, Timeout=1) as name:
        until(lambda: "count" in invoke(client, name, {})[0], every_s=0)
        assert error_of(client, name, {"do": "sleep"})[0] == "Sandbox.Timedout"


def test_logs(client: Any, ruby: str, deployed: str) -> None:
    _, response = invoke(client, deployed, {"do": "logs"}, LogType="Tail")
    tail = base64.b64decode(response["LogResult"]).decode()
    request_id = response["ResponseMetadata"]["RequestId"]
    assert "plain ä\n" in tail
    assert re.search(rf"^I, \[\S+ #\d+\]  INFO {request_id} -- : two\nlines$", tail, re.MULTILINE)
    assert "DEBUG" in tail
    levels = {"LogFormat": "JSON", "ApplicationLogLevel": "INFO"}
    with make(client, ruby, {"index.rb": CODE}, LoggingConfig=levels) as name:
        _, response = invoke(client, name, {"do": "logs"}, LogType="Tail")
        lines = base64.b64decode(response["LogResult"]).decode().splitlines()
        records = [json.loads(line) for line in lines if '"level"' in line]
        assert [(each["level"], each["message"]) for each in records] == [("INFO", "two\nlines")]


@pytest.mark.parametrize(
    ("files", "handler", "expected"),
    [
        ({"index.rb": CODE}, "index.Deep::Down.handler", "deep"),
        ({"a/b.rb": "def go(event:, context:) = require_relative('c') && C", "a/c.rb": "C = 1"}, "a/b.go", 1),
        ({}, "gone.handler", "Init<LoadError>"),
        ({"index.rb": "raise 'at load'"}, "index.handler", "Init<RuntimeError>"),
        ({"index.rb": "def handler("}, "index.handler", "Init<SyntaxError>"),
        ({"index.rb": CODE}, "index", "Init<ArgumentError>"),
    ],
)  # fmt: skip
def test_finding_the_handler(
    client: Any, ruby: str, files: dict[str, str | bytes], handler: str, expected: Any
) -> None:
    with make(client, ruby, files, Handler=handler) as name:
        answer, response = invoke(client, name, {})
        assert (answer["errorType"] if "FunctionError" in response else answer) == expected


def test_gems_of_a_layer(client: Any, ruby: str) -> None:
    version = ruby.removeprefix("ruby") + ".0"
    gem = f"ruby/gems/{version}"
    members = {"name": "mine", "version": "1.0", "summary": "m", "authors": ["a"], "files": ["lib/mine.rb"]}
    specification = f"Gem::Specification.new {{ |s| {'; '.join(f's.{key} = {value!r}' for key, value in members.items())} }}"
    layer = client.publish_layer_version(
        LayerName="ruby-layer",
        Content={"ZipFile": zip_of({
            f"{gem}/specifications/mine-1.0.gemspec": specification, f"{gem}/gems/mine-1.0/lib/mine.rb": "MINE = 'gem'",
            "ruby/lib/other.rb": "OTHER = 'file'",
        })},
    )  # fmt: skip
    source = "require 'mine'\nrequire 'other'\ndef handler(event:, context:) = [MINE, OTHER]\n"
    with make(client, ruby, {"index.rb": source}, Layers=[layer["LayerVersionArn"]]) as name:
        assert invoke(client, name)[0] == ["gem", "file"]
    client.delete_layer_version(LayerName="ruby-layer", VersionNumber=layer["Version"])
