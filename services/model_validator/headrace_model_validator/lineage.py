"""Whether a version descends from one whose fault it must have inherited."""

from typing import Final

from headrace_core.control.client import ControlClient, ModelVersion

from headrace_model_validator.findings import Finding

#: What a line of weights does not lose again by learning on: a sum with NaN is NaN. What is wrong with one artifact's files, or
#: with how good one moment's weights were, is not handed down: each version is looked at for that on its own.
_HANDED_DOWN: Final = frozenset({"finite_weights", "lineage"})
#: Rejected versions that are looked at, the newest.
_REJECTED: Final = 500


async def lineage(control: ControlClient, found: ModelVersion) -> Finding | None:
    """The finding that bars a version; None for one that may be validated.

    The line is followed from parent to parent: over versions that nobody decided on, up to one that was found good or to the base.

    Raises:
        ControlError: the control plane is away or refuses.
    """
    rejected = await control.versions(found.model, stage="REJECTED", limit=_REJECTED)
    barring = {v.version for v in rejected if _handed_down(v)}
    oldest, parent = min(barring, default=found.version), found.parent
    while parent is not None and parent.model == found.model and parent.version >= oldest:
        if parent.version in barring:
            note = f"descends from {parent.model} {parent.version}, whose weights were not finite"
            return Finding("lineage", passed=False, note=note)
        ancestor = await control.version(parent.model, parent.version)
        if any(step["stage"] == "VALIDATED" for step in ancestor.history):
            return None
        parent = ancestor.parent
    return None


def _handed_down(version: ModelVersion) -> bool:
    told = version.history[-1].get("details") or {}
    return any(f["check"] in _HANDED_DOWN and not f["passed"] for f in told.get("findings") or ())
