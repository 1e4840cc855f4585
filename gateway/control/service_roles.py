"""Whether a service of this host may become a role: the role is there and its trust policy names the service."""

from __future__ import annotations

from gateway.control.identities import Identities
from gateway.model.access_conditions import MalformedPolicy
from gateway.model.access_policy import Caller, parse
from gateway.model.arn import ACCOUNT_ID
from gateway.model.authority import Who
from gateway.model.errors import ApiError


def may_become(identities: Identities, service: str, role_arn: str, region: str) -> bool:
    role = identities.authority.principal(role_arn)
    document = None if role is None else identities.find("role", role.name)
    if role is None or document is None:
        return False
    who = Who("", Caller("service", service, service), service)
    try:
        trust = parse(document["AssumeRolePolicyDocument"], "trust")
        identities.authority.check_trust(who, role, trust, region, {"aws:sourceaccount": [ACCOUNT_ID]})
    except (ApiError, MalformedPolicy):
        return False
    return True
