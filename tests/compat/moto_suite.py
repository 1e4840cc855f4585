"""moto's own tests of Lambda, EventBridge and Scheduler, from its source package, with Forklight in the place of moto's server.

`make test-compat ARGS=tests/test_awslambda/test_lambda_alias.py`: further arguments are pytest's. Exit status 1 for a failure that
moto_exceptions.toml does not list, and for one that it lists and that is none any more (kinds "missing" and "image": that is only said).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections import Counter
from pathlib import Path

from tests.support.aws_server import aws_server
from tests.support.server import Server

HERE = Path(__file__).parent
CACHE = HERE.parent.parent / ".cache" / "compat"
EXCEPTIONS = HERE / "moto_exceptions.toml"
# Services that this server has; clients of all others go to moto's.
SERVICES = "lambda,logs,events,scheduler"
FOLDERS = {
    "tests/test_awslambda": "Lambda",
    "tests/test_events": "EventBridge",
    "tests/test_scheduler": "EventBridge Scheduler",
}
# Of moto's own code for patterns: no request is made.
NOT_OURS = "tests/test_events/test_event_pattern.py"


def main() -> int:
    suite, packages = _suite(), _packages()
    with tempfile.TemporaryDirectory(prefix="forklight-compat-") as name:
        top = Path(name)
        top.chmod(0o755)
        results = top / "results.jsonl"
        # moto lets nobody read a bucket without a signature, and everybody with one.
        keys = top / "keys"
        keys.write_text("[default]\naws_access_key_id = compat\naws_secret_access_key = compat\n")
        with (
            aws_server(top / "aws.log") as aws,
            Server.start(
                top / "state",
                "--auth",
                "none",
                "--s3-endpoint",
                aws.url,
                "--s3-credentials",
                str(keys),
                "--sqs-endpoint",
                aws.url,
                "--sns-endpoint",
                aws.url,
                "--destination-credentials",
                str(keys),
            ) as server,
        ):
            environment = {
                **{key: value for key, value in os.environ.items() if not key.startswith("AWS_")},
                "TEST_SERVER_MODE": "true",
                "TEST_SERVER_MODE_ENDPOINT": server.url,
                "FORKLIGHT_COMPAT_SERVICES": SERVICES,
                "FORKLIGHT_COMPAT_REST_OF_AWS": aws.url,
                "FORKLIGHT_COMPAT_RESULTS": str(results),
                "FORKLIGHT_COMPAT_RUNTIME": f"python{sys.version_info[0]}.{sys.version_info[1]}",
                "PYTHONPATH": f"{HERE / 'moto_plugin'}:{packages}",
            }
            command = [
                sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(suite), "-p", "no:cacheprovider",
                "--ignore", NOT_OURS, "-p", "forklight_moto", "-q", "--tb=line", "--no-summary", *(sys.argv[1:] or FOLDERS),
            ]  # fmt: skip
            subprocess.run(command, cwd=suite, env=environment, check=False)
        return judge(results)


def judge(results: Path) -> int:
    """Compare what happened with what is listed, and say so."""
    reasons = {
        test: (entry["kind"], entry["reason"])
        for entry in tomllib.loads(EXCEPTIONS.read_text())["exceptions"]
        for test in entry["tests"]
    }
    outcomes: dict[str, dict[str, dict[str, str]]] = {folder: {} for folder in FOLDERS}
    for line in results.read_text().splitlines():
        record = json.loads(line)
        for folder, found in outcomes.items():
            if f"{folder}/" in record["test"]:
                found[record["test"].partition(f"{folder}/")[2]] = record
    return max(_judge(FOLDERS[folder], found, reasons) for folder, found in outcomes.items() if found)


def _judge(service: str, outcomes: dict[str, dict[str, str]], reasons: dict[str, tuple[str, str]]) -> int:
    """Of one service."""
    unlisted = [
        test for test, record in outcomes.items() if record["outcome"] == "failed" and test not in reasons
    ]
    mended = [test for test in reasons if outcomes.get(test, {}).get("outcome") == "passed"]
    for test in unlisted:
        print(f"FAILED and not listed: {test}\n    {outcomes[test]['why']}")
    for test in mended:
        print(f"passes, and is listed as an exception ({reasons[test][0]}): {test}")
    count = Counter(record["outcome"] for record in outcomes.values())
    kinds = Counter(
        reasons[test][0] for test in outcomes if outcomes[test]["outcome"] == "failed" and test in reasons
    )
    ours = count["passed"] + kinds["missing"] + len(unlisted)
    ran = count["passed"] + count["failed"]
    print(
        f"moto's tests of {service}: {count['passed']} of {ran} passed, {count['skipped']} skipped by moto itself;"
        f" exceptions: {', '.join(f'{number} {kind}' for kind, number in sorted(kinds.items())) or 'none'}"
    )
    if ours:
        share = 100 * count["passed"] / ours
        print(
            f"without these, but with what is missing (images apart): {count['passed']} of {ours}, {share:.1f} %"
        )
    stale = [test for test in mended if reasons[test][0] not in ("missing", "image")]
    return 1 if unlisted or stale or not count["passed"] else 0


def _suite() -> Path:
    """The unpacked source package."""
    requirement = HERE / "moto-source.txt"
    version = requirement.read_text().split("moto==")[1].split()[0]
    folder = CACHE / f"moto-{version}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        _pip(
            "download",
            "--no-deps",
            "--no-binary",
            ":all:",
            "--require-hashes",
            "-r",
            str(requirement),
            "-d",
            str(CACHE),
        )
        with tempfile.TemporaryDirectory(dir=CACHE) as unpacked, tarfile.open(f"{folder}.tar.gz") as archive:
            archive.extractall(unpacked, filter="data")
            (Path(unpacked) / folder.name).rename(folder)
    return folder


def _packages() -> Path:
    folder = CACHE / "packages"
    if not folder.exists():
        _pip(
            "install",
            "--no-deps",
            "--require-hashes",
            "-r",
            str(HERE / "requirements.txt"),
            "--target",
            str(folder),
        )
    return folder


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments], check=True)


if __name__ == "__main__":
    sys.exit(main())
