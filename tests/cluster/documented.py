"""Commands of helm and kubectl in blocks of pages: those that `test_documented_operations.py` runs as they stand, and the rest."""

from typing import Final

from tests.contract.command_lines import simple_commands
from tests.pages import CODES

#: The blocks that are run: page, and a text that only this block of it holds.
INSTALL: Final = ("docs/operations/install.md", "k8s/kafka-strimzi.yaml")
DEFINITIONS: Final = ("docs/operations/install.md", "create configmap our-features")
ONE_MACHINE: Final = ("docs/operations/install.md", "headrace-dev-stores")
REMOVE: Final = ("docs/operations/install.md", "helm uninstall")
UPGRADE: Final = ("docs/operations/upgrade.md", "helm upgrade")
VOLUMES: Final = ("docs/operations/upgrade.md", "--cascade=orphan")
RESTORE_ENDS: Final = ("docs/operations/backup-and-restore.md", "kubectl -n headrace scale")
RESTORE_DECLARED: Final = ("docs/operations/backup-and-restore.md", "init.settings.restored")
RUN: Final = (INSTALL, DEFINITIONS, ONE_MACHINE, REMOVE, UPGRADE, VOLUMES, RESTORE_ENDS, RESTORE_DECLARED)
#: Commands that no test runs, by how they begin, and why.
NOT_RUN: Final = {
    "kind ": "it makes another cluster, by a container engine",
    "kubectl -n headrace port-forward": "there is no container to forward to",
}
_PROGRAMS: Final = ("helm ", "kind ", "kubectl ")


def commands(block: tuple[str, str]) -> list[str]:
    """The commands of a block, without those that are not run.

    Raises:
        LookupError: there is not exactly one such block.
    """
    page, text = block
    found = [code.text for code in CODES if (code.page, code.language) == (page, "sh") and text in code.text]
    if len(found) != 1:
        raise LookupError(f"{page} has {len(found)} blocks with {text!r}")
    return [one for one in simple_commands(found[0]) if not one.startswith(tuple(NOT_RUN))]


def shown() -> set[str]:
    """All commands of helm, kind and kubectl that blocks of pages show."""
    told = {one for code in CODES if code.language == "sh" for one in simple_commands(code.text)}
    return {one for one in told if one.startswith(_PROGRAMS)}
