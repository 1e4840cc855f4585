"""`forklight keys`: access keys of users, and what these may do."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from gateway.cli import output
from gateway.cli.client import Client
from gateway.cli.credentials import find_credentials
from gateway.cli.errors import FAILED, ApiFailure, CommandError
from gateway.model.bearer import bearer_token

INLINE = "forklight-keys"  # name of the policy that --policy of a file puts


def create(arguments: argparse.Namespace) -> int:
    """Raises CommandError."""
    user, policy = arguments.user, arguments.policy
    document = _read(policy[1:]) if policy and policy.startswith("@") else None
    client = Client(find_credentials(arguments.state_dir))
    try:
        try:
            client.iam("CreateUser", UserName=user)
        except ApiFailure as failure:
            if failure.code != "EntityAlreadyExists":
                raise
        if document is not None:
            client.iam("PutUserPolicy", UserName=user, PolicyName=INLINE, PolicyDocument=document)
        elif policy:
            client.iam("AttachUserPolicy", UserName=user, PolicyArn=_arn(policy))
        made = client.iam("CreateAccessKey", UserName=user)
    finally:
        client.close()
    key_id, secret = (
        made.findtext("AccessKey/AccessKeyId", ""),
        made.findtext("AccessKey/SecretAccessKey", ""),
    )
    token = bearer_token(key_id, secret)
    if arguments.json:
        output.print_json(
            {"user": user, "access_key_id": key_id, "secret_access_key": secret, "token": token}
        )
        return 0
    print(f"export AWS_ACCESS_KEY_ID={key_id}")
    print(f"export AWS_SECRET_ACCESS_KEY={secret}")
    print(f"export FORKLIGHT_TOKEN={token}")
    if not policy:
        output.note(f"{user} may do what policies allow; --policy, or any IAM client, gives some")
    return 0


def list_keys(arguments: argparse.Namespace) -> int:
    """Raises CommandError."""
    client = Client(find_credentials(arguments.state_dir))
    try:
        rows = [
            {
                "user": user,
                "access_key_id": key.findtext("AccessKeyId", ""),
                "status": key.findtext("Status", ""),
                "created": key.findtext("CreateDate", ""),
            }
            for user in _users(client)
            for key in client.iam("ListAccessKeys", UserName=user).iterfind("AccessKeyMetadata/member")
        ]
    finally:
        client.close()
    if arguments.json:
        output.print_json(rows)
    elif rows:
        output.print_table(["USER", "ACCESS KEY", "STATUS", "CREATED"], [list(row.values()) for row in rows])
    else:
        output.note(
            "no users have keys; make one with: forklight keys create USER (the root key is in `forklight env`)"
        )
    return 0


def revoke(arguments: argparse.Namespace) -> int:
    """Raises CommandError."""
    if not arguments.yes and sys.stdin.isatty():
        output.note(f"Revoke {', '.join(arguments.keys)}? [y/N] ")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            output.note("nothing revoked")
            return FAILED
    client = Client(find_credentials(arguments.state_dir))
    try:
        owners = {
            key.findtext("AccessKeyId", ""): user
            for user in _users(client)
            for key in client.iam("ListAccessKeys", UserName=user).iterfind("AccessKeyMetadata/member")
        }
        for key_id in arguments.keys:
            if key_id not in owners:
                raise CommandError(f"no user has the access key {key_id}")
            client.iam("DeleteAccessKey", UserName=owners[key_id], AccessKeyId=key_id)
            print(f"{output.paint(key_id, 'bold')} of {owners[key_id]} revoked")
    finally:
        client.close()
    return 0


def _users(client: Client) -> Iterator[str]:
    """All pages."""
    marker: dict[str, str] = {}
    while True:
        page: Element = client.iam("ListUsers", **marker)
        for user in page.iterfind("Users/member"):
            yield user.findtext("UserName", "")
        if page.findtext("IsTruncated") != "true":
            return
        marker = {"Marker": page.findtext("Marker", "")}


def _arn(policy: str) -> str:
    """A name alone is one of AWS's own."""
    return policy if policy.startswith("arn:") else f"arn:aws:iam::aws:policy/{policy}"


def _read(name: str) -> str:
    try:
        return Path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{name}: {getattr(error, 'strerror', None) or error}") from None
