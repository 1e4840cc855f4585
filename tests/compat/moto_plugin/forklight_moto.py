"""pytest plugin for moto's own test suite in server mode: Forklight is the server, and moto's server is the rest of AWS.

moto sends every service to one endpoint and resets it between tests with a request of its own. Here clients of services that
Forklight does not have go to moto's server, and a reset also deletes what is in Forklight through Forklight's API.
Of each test that ran, one JSON line goes to FORKLIGHT_COMPAT_RESULTS: {"test", "outcome", "why"}.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.core.models import ServerModeMockAWS

OURS = frozenset(os.environ["FORKLIGHT_COMPAT_SERVICES"].split(","))
FORKLIGHT = os.environ["TEST_SERVER_MODE_ENDPOINT"]
REST_OF_AWS = os.environ["FORKLIGHT_COMPAT_REST_OF_AWS"]
RESULTS = Path(os.environ["FORKLIGHT_COMPAT_RESULTS"])
# The newest Python of this host: the suite names one that the host need not have.
RUNTIME = os.environ["FORKLIGHT_COMPAT_RUNTIME"]
_KEYS = {"aws_access_key_id": "compat", "aws_secret_access_key": "compat"}
_real = {"client": boto3.client, "resource": boto3.resource}
_regions = {"us-east-1"}


def pytest_configure(config: pytest.Config) -> None:
    for name in ("network", "requires_docker", "aws_verified"):
        config.addinivalue_line("markers", f"{name}: moto's own")
    RESULTS.unlink(missing_ok=True)
    for name, make in _real.items():
        setattr(boto3, name, _routed(make))
    ServerModeMockAWS.reset = reset
    for name in ("tests.test_awslambda.utilities", "tests.test_awslambda"):
        importlib.import_module(name).PYTHON_VERSION = RUNTIME


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of six targets of a rule one is taken away: AWS's quota is five."""
    for item in items:
        module = getattr(item, "module", None)
        if module is not None and module.__name__ == "tests.test_events.test_events":
            module.TARGETS["test-target-6"]["Rules"] = ["test3"]


def _routed(make: Any) -> Any:
    """boto3.client or boto3.resource, with the endpoint of the service's owner."""

    def routed(service: str, region_name: str | None = None, *args: Any, **options: Any) -> Any:
        if region_name:
            _regions.add(region_name)
        if options.get("endpoint_url") == FORKLIGHT and service not in OURS:
            options["endpoint_url"] = REST_OF_AWS
        made = make(service, region_name, *args, **options)
        if service == "sqs" and make is _real["client"]:
            made.meta.events.register("provide-client-params.sqs.ReceiveMessage", _patiently)
        return made

    return routed


def _patiently(params: dict[str, Any], **_: Any) -> None:
    """What a rule sends comes behind the answer of PutEvents, as on AWS; moto's comes before it."""
    params.setdefault("WaitTimeSeconds", 5)


def reset(_: object = None) -> None:
    """Nothing is left, here or there."""
    requests.post(f"{REST_OF_AWS}/moto-api/reset", timeout=30).raise_for_status()
    for region in sorted(_regions):
        _empty(region)


def _empty(region: str) -> None:
    def client(service: str) -> Any:
        config = Config(parameter_validation=False, retries={"total_max_attempts": 1})
        return _real["client"](service, region, endpoint_url=FORKLIGHT, config=config, **_KEYS)

    functions, logs = client("lambda"), client("logs")
    for mapping in _all(functions, "list_event_source_mappings", "EventSourceMappings"):
        functions.delete_event_source_mapping(UUID=mapping["UUID"])
    for function in _all(functions, "list_functions", "Functions"):
        functions.delete_function(FunctionName=function["FunctionName"])
    for layer in _all(functions, "list_layers", "Layers"):
        for version in _all(functions, "list_layer_versions", "LayerVersions", LayerName=layer["LayerName"]):
            functions.delete_layer_version(LayerName=layer["LayerName"], VersionNumber=version["Version"])
    for group in _all(logs, "describe_log_groups", "logGroups"):
        logs.delete_log_group(logGroupName=group["logGroupName"])
    _empty_buses(client("events"))
    scheduler = client("scheduler")
    for schedule in _all(scheduler, "list_schedules", "Schedules"):
        scheduler.delete_schedule(Name=schedule["Name"], GroupName=schedule["GroupName"])
    for found in _all(scheduler, "list_schedule_groups", "ScheduleGroups"):
        if found["Name"] != "default":
            scheduler.delete_schedule_group(Name=found["Name"])


def _empty_buses(events: Any) -> None:
    for bus in events.list_event_buses()["EventBuses"]:
        name = bus["Name"]
        for rule in _all(events, "list_rules", "Rules", EventBusName=name):
            where = {"Rule": rule["Name"], "EventBusName": name}
            targets = [one["Id"] for one in _all(events, "list_targets_by_rule", "Targets", **where)]
            if targets:
                events.remove_targets(Ids=targets, **where)
            events.delete_rule(Name=rule["Name"], EventBusName=name)
        if name != "default":
            events.delete_event_bus(Name=name)


def _all(client: Any, operation: str, member: str, **params: Any) -> Iterator[dict[str, Any]]:
    """Nothing, when this server does not have the operation."""
    try:
        for page in client.get_paginator(operation).paginate(**params):
            yield from page[member]
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("NotImplementedException", "UnknownOperationException"):
            raise


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """One line for each test: of its call, or of the phase that did not let it be called."""
    report = (yield).get_result()
    if call.when != "call" and report.outcome == "passed":
        return
    why = ""
    if report.outcome == "skipped":
        why = str(report.longrepr[2])
    elif report.outcome == "failed" and call.excinfo is not None:
        why = f"{call.excinfo.typename}: {call.excinfo.value}"[:400]
    with RESULTS.open("a") as file:
        file.write(json.dumps({"test": item.nodeid, "outcome": report.outcome, "why": why}) + "\n")
