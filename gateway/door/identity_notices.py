"""What control tells doors about identities, and what a door makes of it.

All of it, with the state: {"seal", "principals", "policies"}. Then what changes: {"change": "principal", "item"},
{"change": "principal_gone", "arn"}, {"change": "policies", "item"}. Items are those of gateway.model.authority.
"""

from __future__ import annotations

from typing import Any

from gateway.model.authority import Authority, Principal


def apply(notice: dict[str, Any], authority: Authority) -> None:
    """Raises ValueError for one that control does not send."""
    change = notice.get("change")
    if change is None:
        principals = [Principal.from_message(item) for item in notice["principals"]]
        authority.replace(bytes.fromhex(notice["seal"]), principals, notice["policies"])
    elif change == "principal":
        authority.put(Principal.from_message(notice["item"]))
    elif change == "principal_gone":
        authority.remove(notice["arn"])
    elif change == "policies":
        authority.set_function_policies(notice["item"])
    else:
        raise ValueError(f"identity: {change!r}")
