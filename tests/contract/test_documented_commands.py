"""Every command that a page shows exists, and takes what the page gives it.

Blocks of ```bash and ```python are run as they stand, by the modules that tests/pages.py names. What not every machine can run (it
needs a cluster, or is what sets up and starts the tests) stands in blocks of ```sh or within a line: it is looked at here, each
command of `headrace` among it is called by some test, and blocks of helm, kubectl, kind and skaffold are run on a real API server
or a real cluster by the modules that tests/pages.py names, where there is Go to build them.
"""

import re
from collections.abc import Iterator
from typing import Final

import pytest

from tests.charts.helm import CHART, DEV_STORES
from tests.cluster import documented
from tests.contract.command_lines import parsed, simple_commands, written_out
from tests.contract.programs import FAULT_OF, fault_of
from tests.pages import CODES, ROOT, RUN, RUN_BY, RUN_BY_ONE, RUN_ON_KUBERNETES, RUN_ON_NODES, Code

#: Languages of blocks that hold no commands of a shell. Those of SQL are run by the same modules.
NO_SHELL: Final = {"json", "mermaid", "promql", "sql", "text", "yaml"}


def commands() -> Iterator[tuple[Code, str, str]]:
    """What is not run as it stands: (where, program, command)."""
    for code in CODES:
        if code.language not in {None, "sh"}:
            continue
        for told in simple_commands(code.text):
            command = told.removeprefix(".venv/bin/")
            if code.column == "command" and not command.startswith("headrace "):
                command = f"headrace {command}"
            program = command.split()[0]
            called = (program in FAULT_OF or program.startswith("headrace-")) and " " in command
            if called or code.language == "sh":
                yield code, program, command


COMMANDS: Final = [*commands()]


@pytest.mark.parametrize(
    ("where", "program", "command"),
    COMMANDS,
    ids=[f"{where.page}:{where.line} {command}"[:90] for where, _, command in COMMANDS],
)
def test_command_is_taken_as_the_page_writes_it(where: Code, program: str, command: str) -> None:
    fault = fault_of(program, command)

    assert fault is None, f"{where.page}:{where.line}: {command}: {fault}"


def test_every_command_of_headrace_that_a_page_names_is_called_by_a_test() -> None:
    files = [file for part in ("e2e", "integration", "unit") for file in (ROOT / "tests" / part).rglob("*.py")]
    sources = [file.read_text(encoding="utf-8") for file in files]
    run = [code.text for code in CODES if code.language == "bash"]
    named = {parsed(words[1:]).command for _, p, c in COMMANDS if p == "headrace" for words in written_out(c)} - {()}

    def is_called(names: tuple[str, ...]) -> bool:
        in_python = re.compile(r'",\s*"'.join(map(re.escape, names)) + '"')
        in_bash = re.compile(rf"\bheadrace {re.escape(' '.join(names))}\b")
        return any(in_python.search(source) for source in sources) or any(in_bash.search(block) for block in run)

    assert [" ".join(names) for names in sorted(named) if not is_called(names)] == []


def test_each_command_of_a_cluster_is_run_by_the_module_that_has_its_block() -> None:
    blocks = {RUN_ON_KUBERNETES: documented.ON_A_SERVER, RUN_ON_NODES: documented.ON_ONE_MACHINE}
    run = {command for of in blocks.values() for block in of for command in documented.commands(block)}

    assert documented.shown() - run == set()
    for module, of in blocks.items():
        source = (ROOT / module).read_text(encoding="utf-8")
        assert [
            name for name, one in vars(documented).items() if one in of and f"documented.{name})" not in source
        ] == []


def test_each_block_is_run_or_looked_at() -> None:
    for code in CODES:
        if code.language in RUN:
            module = RUN_BY.get(code.page, RUN_BY_ONE)
            assert (ROOT / module).exists(), f"{code.page}:{code.line} is to be run by {module}"
        elif code.language is not None:
            assert code.language in {"sh", *NO_SHELL}, (
                f"{code.page}:{code.line}: the fence tells no language that is known"
            )


def test_charts_that_pages_install_are_those_that_there_are() -> None:
    words = {word for _, program, command in COMMANDS if program == "helm" for word in command.split()}

    assert {ROOT / word for word in words if (ROOT / word / "Chart.yaml").exists()} == {CHART, DEV_STORES}


@pytest.mark.parametrize(
    "command",
    [
        "headrace models ctr", "headrace models show ctr one", "headrace up --fast", "headrace rank USER [--page P]",
        "make nothing", "python -m load_tests.nothing", "python -m load_tests.gateway --fast", "headrace-nothing x",
        "headrace-train base --fast",
        "helm upgrade --fast headrace charts/headrace", "helm install headrace charts/nothing", "helm nothing headrace",
        "helm install headrace charts/headrace --set nothing=1", "kubectl apply -f k8s/nothing.yaml", "kubectl logs job/nothing",
        "kubectl create secret generic nothing --from-literal=a=b", "kind create cluster --config k8s/nothing.yaml",
        "skaffold run -p nothing", "curl http://127.0.0.1/",
    ],
)  # fmt: skip
def test_a_command_that_cannot_be_is_found(command: str) -> None:
    assert fault_of(command.split(maxsplit=1)[0], command) is not None
