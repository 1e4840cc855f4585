"""Whether what an event's outcome is to be told to can be reached from this host: what the operator has said."""

from __future__ import annotations

from gateway.control import function_rules as rules
from gateway.model.target import allowed_url, service_of
from gateway.settings import Settings


def check_dead_letters(settings: Settings, target: str) -> None:
    """Raises ApiError for a DeadLetterConfig's target that events cannot be sent to."""
    if service_of(target) not in ("sqs", "sns"):
        raise rules.invalid(f"The dead letter target {target} is no SQS queue and no SNS topic.")
    check_reachable(settings, target)


def check_reachable(settings: Settings, target: str) -> None:
    """Raises ApiError for a target that the operator has not made reachable."""
    service = service_of(target)
    if service == "http":
        if not allowed_url(target, settings.http_destinations):
            raise rules.invalid(
                f"The destination {target} is not below a URL that this host may send to (serve --http-destination)."
            )
    elif not (settings.sqs_endpoint if service == "sqs" else settings.sns_endpoint):
        raise rules.invalid(
            f"The target {target} cannot be reached: this host knows no endpoint of {service} (serve --{service}-endpoint)."
        )
