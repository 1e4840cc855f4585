"""Users and roles in the Principal element of stored policies: by their unique ids, so that whoever gets the name of one that was deleted
does not get its rights (IAM user guide, "AWS JSON policy elements: Principal"). Shown are ARNs, as long as there is somebody behind them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

# Of an ARN its id, or of an id its ARN; None: it stays what it is.
Names = Callable[[str], str | None]


def translated(statement: dict[str, Any], names: Names) -> dict[str, Any]:
    """The same statement if nothing of it is to be translated."""
    found = dict(statement)
    for element in ("Principal", "NotPrincipal"):
        principal = statement.get(element)
        if isinstance(principal, dict) and "AWS" in principal:
            values = principal["AWS"]
            chosen = (
                [names(value) or value for value in values]
                if isinstance(values, list)
                else names(values) or values
            )
            if chosen != values:
                found[element] = {**principal, "AWS": chosen}
    return found


def translated_document(text: str, names: Names) -> str:
    """Of a policy document that has been checked, JSON. Its very text if nothing of it is to be translated."""
    document = json.loads(text)
    listed = document["Statement"]
    statements = listed if isinstance(listed, list) else [listed]
    chosen = [translated(statement, names) for statement in statements]
    if chosen == statements:
        return text
    return json.dumps({**document, "Statement": chosen if isinstance(listed, list) else chosen[0]})
