"""Temporary credentials of functions' execution roles: who gets some, and newer ones from time to time.

A function has credentials when its role is one of ours and lets Lambda assume it. They are a session of that role, named like the function
(as AWS names it), and end with the role. The supervisor gives them to workers and replaces those that have had theirs too long
(sandbox/role_credentials.py); nothing here waits for that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from gateway.control.identities import Identities
from gateway.control.registry import Registry
from gateway.control.supervisor_link import SupervisorLink, SupervisorLost
from gateway.model.access_conditions import MalformedPolicy
from gateway.model.access_policy import Caller, Policy, parse
from gateway.model.arn import ACCOUNT_ID
from gateway.model.authority import Principal, Who
from gateway.model.errors import ApiError
from gateway.model.function import Function
from gateway.model.session_token import Session, issue

LAMBDA = "lambda.amazonaws.com"
_SERVICE = Who("", Caller("service", LAMBDA, LAMBDA), LAMBDA)
# So many times in their life credentials are replaced by newer ones: a worker's are nearly new when it is born.
_RENEWALS = 6
# Of thousands of functions some at a time: the supervisor has other things to do.
_AT_A_TIME, _PAUSE_S = 10, 0.05
_parsed = lru_cache(maxsize=1024)(parse)
_log = logging.getLogger(__name__)


class ExecutionRoles:
    """`lifetime_s`: of credentials. `start` once everything is loaded."""

    def __init__(
        self,
        registry: Registry,
        identities: Identities,
        link: Callable[[], SupervisorLink],
        lifetime_s: float,
    ) -> None:
        self._registry = registry
        self._identities = identities
        self._link = link
        self._lifetime_s = lifetime_s
        self._renewing: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._renewing = asyncio.create_task(self._renew_for_ever())

    def stop(self) -> None:
        """Idempotent."""
        if self._renewing is not None:
            self._renewing.cancel()

    def may_be_assumed(self, function: Function) -> bool | None:
        """Whether Lambda may assume the function's role; None: nobody here knows that role."""
        role = self._identities.authority.principal(function.role)
        document = None if role is None else self._identities.find("role", role.name)
        if role is None or document is None:
            return None
        return self._trusts(role, document["AssumeRolePolicyDocument"], function)

    def check(self, function: Function) -> None:
        """Raises ApiError, in Lambda's words, when the function's role is one of ours and does not let Lambda assume it."""
        if self.may_be_assumed(function) is False:
            raise ApiError(
                "InvalidParameterValueException",
                "The role defined for the function cannot be assumed by Lambda.",
            )

    def credentials(self, function: Function) -> dict[str, Any] | None:
        """New ones, as the supervisor takes them; None: the function gets none."""
        if not self.may_be_assumed(function):
            return None
        role = self._identities.authority.principal(function.role)
        assert role is not None
        now = int(time.time())
        session = Session(
            role.arn, role.id, function.name, now, int(now + self._lifetime_s), function=function.arn
        )
        key = issue(self._identities.seal, session)
        return {
            "role": role.id,
            "access_key_id": key.key_id,
            "secret_access_key": key.secret,
            "session_token": key.token,
            "issued": session.issued,
            "expires": session.expires,
        }

    def role_changed(self, arn: str) -> None:
        """It is new, another one, gone, or trusted by others: its functions' workers have what they may have from now on."""
        for function in self._functions():
            if function.role == arn:
                self._send(function)

    def _send(self, function: Function) -> None:
        try:
            self._link().renew(function.key, self.credentials(function))
        except SupervisorLost as error:
            _log.warning("credentials of %s are not renewed: %s", function.arn, error)

    def _trusts(self, role: Principal, document: str, function: Function) -> bool:
        context = {"aws:sourceaccount": [ACCOUNT_ID], "aws:sourcearn": [function.arn]}
        try:
            trust: Policy = _parsed(document, "trust")
            self._identities.authority.check_trust(_SERVICE, role, trust, function.region, context)
        except (ApiError, MalformedPolicy):
            return False
        return True

    def _functions(self) -> list[Function]:
        """Every revision that may run."""
        found = {}
        for entry in self._registry.every_version():
            found[entry.function.key] = entry.function
            found[entry.serving.key] = entry.serving
        return list(found.values())

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._lifetime_s / _RENEWALS)
            sent = 0
            for function in self._functions():
                if self._identities.authority.principal(function.role) is not None:
                    self._send(function)
                    sent += 1
                    if sent % _AT_A_TIME == 0:
                        await asyncio.sleep(_PAUSE_S)
