"""Commands of helm, kind, kubectl and skaffold in blocks of pages, all of which are run as they stand.

Most are by `test_documented_operations.py` on a real API server; those for one machine are by `tests/kind/test_one_machine.py`.
"""

from typing import Final

from tests.contract.command_lines import simple_commands
from tests.pages import CODES

#: The blocks that are run: page, and a text that only this block of it holds.
INSTALL: Final = ("docs/operations/install.md", "k8s/kafka-strimzi.yaml")
DEFINITIONS: Final = ("docs/operations/install.md", "create configmap our-features")
REMOVE: Final = ("docs/operations/install.md", "helm uninstall")
UPGRADE: Final = ("docs/operations/upgrade.md", "helm upgrade")
VOLUMES: Final = ("docs/operations/upgrade.md", "--cascade=orphan")
RESTORE_ENDS: Final = ("docs/operations/backup-and-restore.md", "kubectl -n headrace scale")
RESTORE_DECLARED: Final = ("docs/operations/backup-and-restore.md", "init.settings.restored")
ON_A_SERVER: Final = (INSTALL, DEFINITIONS, REMOVE, UPGRADE, VOLUMES, RESTORE_ENDS, RESTORE_DECLARED)
ONE_MACHINE: Final = ("docs/operations/install.md", "headrace-dev-stores")
FORWARDED: Final = ("docs/operations/install.md", "8080:8080")
USED: Final = ("docs/operations/install.md", "headrace simulate")
QUICK: Final = ("docs/operations/install.md", "attribution_window_ms")
DEVELOPED: Final = ("docs/operations/install.md", "skaffold dev")
DELETED: Final = ("docs/operations/install.md", "kind delete")
OWN_WORKFLOW: Final = ("docs/operations/upgrade.md", "headrace workflows apply")
ON_ONE_MACHINE: Final = (ONE_MACHINE, FORWARDED, USED, QUICK, DEVELOPED, DELETED, OWN_WORKFLOW)
_PROGRAMS: Final = ("helm ", "kind ", "kubectl ", "skaffold ")


def commands(block: tuple[str, str]) -> list[str]:
    """The commands of a block.

    Raises:
        LookupError: there is not exactly one such block.
    """
    page, text = block
    found = [code.text for code in CODES if (code.page, code.language) == (page, "sh") and text in code.text]
    if len(found) != 1:
        raise LookupError(f"{page} has {len(found)} blocks with {text!r}")
    return list(simple_commands(found[0]))


def shown() -> set[str]:
    """All commands of those programs that blocks of pages show."""
    told = {one for code in CODES if code.language == "sh" for one in simple_commands(code.text)}
    return {one for one in told if one.startswith(_PROGRAMS)}
