"""What this host can enforce and what it cannot, said once, truthfully, wherever somebody asks: log, API, `forklight doctor`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["enforced", "degraded", "absent"]
Overall = Literal["full", "degraded", "none"]

# Everything that the word "full" promises. What is reported beyond these never makes a host "full" or not.
REQUIRED = (
    "pid",
    "mnt",
    "net",
    "ipc",
    "uts",
    "memory",
    "swap",
    "pids",
    "cpu",
    "kill",
    "uid-per-sandbox",
    "seccomp",
    "no-new-privs",
    "capabilities",
    "tmp-size",
)
# Without these there is nothing that could be called a sandbox.
ESSENTIAL = ("pid", "mnt", "no-new-privs", "capabilities")


@dataclass(frozen=True, slots=True)
class Feature:
    state: State
    why: str = ""


@dataclass(slots=True)
class IsolationReport:
    features: dict[str, Feature] = field(default_factory=dict)

    def enforced(self, name: str, why: str = "") -> None:
        self.features[name] = Feature("enforced", why)

    def degraded(self, name: str, why: str) -> None:
        self.features[name] = Feature("degraded", why)

    def absent(self, name: str, why: str) -> None:
        self.features[name] = Feature("absent", why)

    @property
    def overall(self) -> Overall:
        def state(name: str) -> State:
            feature = self.features.get(name)
            return feature.state if feature is not None else "absent"

        if any(state(name) == "absent" for name in ESSENTIAL):
            return "none"
        return "full" if all(state(name) == "enforced" for name in REQUIRED) else "degraded"

    def weak(self) -> dict[str, Feature]:
        """The required features that are not enforced."""
        return {
            name: self.features.get(name, Feature("absent", "unknown"))
            for name in REQUIRED
            if name not in self.features or self.features[name].state != "enforced"
        }

    def as_dict(self) -> dict[str, Any]:
        return {
            "overall": self.overall,
            "claim": CLAIM if self.overall != "none" else NO_CLAIM,
            "features": {
                name: {"state": feature.state, "why": feature.why}
                for name, feature in sorted(self.features.items())
            },
        }

    def summary_line(self) -> str:
        """One line for people: `full`, or what is weaker and why."""
        weak = self.weak()
        if not weak:
            return "full"
        by_reason: dict[tuple[str, str], list[str]] = {}
        for name, feature in weak.items():
            by_reason.setdefault((feature.state, feature.why), []).append(name)
        parts = [f"{', '.join(names)} {state} ({why})" for (state, why), names in by_reason.items()]
        return f"{self.overall}: {'; '.join(parts)}"


NO_CLAIM = "no function runs on this host: what cannot be isolated is not started"
CLAIM = (
    "hardened-container isolation on one kernel, for the functions of one organisation; kernel bugs and CPU side channels are out of "
    "scope; mutually hostile tenants need one Forklight each in a virtual machine of its own"
)
