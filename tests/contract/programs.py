"""What the programs that pages call would say to a command, as far as that can be known without a cluster.

Each function gives the fault of a command line, None when it has none.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import yaml

from tests.charts.helm import CHART, dev_stores, helm, rendered
from tests.contract.command_lines import parsed, simple_commands, written_out
from tests.pages import ROOT

BIN: Final = Path(sys.executable).parent
#: A file that a reader makes need not be there.
READERS_OWN: Final = re.compile(r"our-.*|my-.*|<.*>|/.*|\$.*")
_OURS: Final = re.compile(r"\.venv/bin/python -m (headrace_|load_tests|monitoring|docs)")
#: What a helm command stands for that writes `…` for release and chart.
_ANY_RELEASE: Final = ("headrace", "charts/headrace")
_VERBS: Final = {
    "apply",
    "create",
    "delete",
    "describe",
    "exec",
    "get",
    "logs",
    "port-forward",
    "rollout",
    "scale",
    "wait",
}
_KINDS: Final = {
    "deploy": "Deployment",
    "deployment": "Deployment",
    "job": "Job",
    "sts": "StatefulSet",
    "statefulset": "StatefulSet",
}


def headrace_fault(command: str) -> str | None:
    """By the real tree of commands, with what is optional left out and put in."""
    return next((call.fault for words in written_out(command) if (call := parsed(words[1:])).fault), None)


def make_fault(command: str) -> str | None:
    """The target is there, and so is what it would run of ours."""
    done = subprocess.run([*shlex.split(command), "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        return done.stderr
    for told in simple_commands(done.stdout):
        if told.startswith(".venv/bin/headrace ") and (fault := headrace_fault(told)):
            return fault
        if _OURS.match(told) and (fault := python_fault(told)):
            return fault
    return None


def python_fault(command: str) -> str | None:
    """The module is there, and so are the options."""
    _, _, module, *arguments = shlex.split(command)
    try:
        found = find_spec(module)
    except ModuleNotFoundError:
        found = None
    return _options_fault((sys.executable, "-m", module), arguments) if found else f"no module {module}"


def script_fault(command: str) -> str | None:
    """A service's own command, and its options."""
    program, *arguments = list(written_out(command))[-1]
    words = arguments[: next((n for n, word in enumerate(arguments) if word.startswith("-")), len(arguments))]
    return _options_fault((str(BIN / program), *words), arguments) if (BIN / program).exists() else f"no {program}"


def _options_fault(program: tuple[str, ...], arguments: Sequence[str]) -> str | None:
    named = [word.split("=")[0] for word in arguments if word.startswith("--")]
    missing = [option for option in named if not re.search(rf"{option}\b", _help(*program))]
    return f"no option {', '.join(missing)}" if missing else None


@cache
def _help(*program: str) -> str:
    done = subprocess.run([*program, "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout


def helm_fault(command: str) -> str | None:
    """Command and flags by its own help; chart and values by rendering them."""
    _, verb, *arguments = shlex.split(command)
    told = helm(verb, "--help").stdout
    if "Usage:" not in told or f"helm {verb}" not in told:
        return f"no such command: {verb}"
    if missing := _unknown_flags(arguments, told):
        return f"helm {verb} has no {', '.join(missing)}"
    if verb not in {"install", "upgrade", "template", "lint"} or len(arguments) < 2:
        return None
    if "…" in arguments:
        arguments[arguments.index("…") : arguments.index("…") + 1] = _ANY_RELEASE
    files = [
        str(ROOT / a) if a.startswith("charts/") else a for a in _without_readers_own(arguments) if a != "--install"
    ]
    done = helm(verb if verb == "lint" else "template", *files)
    return done.stdout + done.stderr if done.returncode else None


def _without_readers_own(arguments: Sequence[str]) -> list[str]:
    """Without `-f FILE` of files that a reader makes."""
    kept: list[str] = []
    for argument in arguments:
        if kept and kept[-1] == "-f" and READERS_OWN.fullmatch(argument):
            kept.pop()
        else:
            kept.append(argument)
    return kept


def kubectl_fault(command: str) -> str | None:
    """Verbs, files, and names of what the chart makes or wants; flags by kubectl's own help, where there is a kubectl."""
    words = shlex.split(command)[1:]
    verb, *arguments = words[2:] if words[:1] == ["-n"] else words
    if verb not in _VERBS:
        return f"no such command: {verb}"
    for flag, value in pairwise(arguments):
        if flag == "-f" and verb in {"apply", "create", "delete"} and not _is_there(value):
            return f"no file {value}"
    for argument in arguments:
        if (found := re.fullmatch(r"--from-file=(?:[^=]*=)?(.*)", argument)) and not _is_there(found[1]):
            return f"no file or folder {found[1]}"
        if (found := re.fullmatch(r"([a-z]+)/(.+)", argument)) and not _is_made(found[1], found[2]):
            return f"no chart makes {argument}"
    if arguments[:2] == ["secret", "generic"] and not _is_wanted(arguments[2]):
        return f"the chart wants no secret {arguments[2]}"
    return _kubectl_says(verb, arguments)


def _is_there(file: str) -> bool:
    return bool(READERS_OWN.fullmatch(file)) or (ROOT / file).exists()


def _is_made(kind: str, name: str) -> bool:
    """Whether a chart makes it; `…` stands for a part of the name, alone for one that only a cluster knows."""
    if kind not in _KINDS:
        return True
    pattern = re.compile(".*".join(map(re.escape, name.split("…"))))
    made = [*rendered()["default"], *dev_stores()]
    return name == "…" or any(m["kind"] == _KINDS[kind] and pattern.fullmatch(m["metadata"]["name"]) for m in made)


def _is_wanted(secret: str) -> bool:
    """Whether the chart's values name a secret."""

    def texts(value: Any) -> set[str]:
        return set().union(*map(texts, value.values())) if isinstance(value, dict) else {str(value)}

    return secret in texts(yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8")))


def _kubectl_says(verb: str, arguments: Sequence[str]) -> str | None:
    binary = shutil.which("kubectl")
    if binary is None or not any(word.startswith("-") for word in arguments):
        return None
    nouns = [word for word in arguments[:2] if not word.startswith("-")] if verb == "create" else []
    told = _help(binary, verb, *nouns) + _help(binary, "options")
    missing = _unknown_flags(arguments, told)
    return f"kubectl {verb} has no {', '.join(missing)}" if missing else None


def _unknown_flags(arguments: Sequence[str], told: str) -> list[str]:
    flags = [word.split("=")[0] for word in arguments if word.startswith("-") and word != "--"]
    return [flag for flag in flags if not re.search(rf"(^|[\s,]){flag}[\s=,:]", told)]


def kind_fault(command: str) -> str | None:
    """The uses that there are for kind, on the cluster that its file describes."""
    match = re.fullmatch(
        r"kind create cluster --config (\S+)|kind (?:delete cluster|load docker-image) --name (\S+)( .+)?", command
    )
    if match is None or not (ROOT / (match[1] or "")).exists():
        return "want kind create cluster --config FILE, kind load docker-image or kind delete cluster --name NAME"
    document = yaml.safe_load((ROOT / (match[1] or "k8s/kind.yaml")).read_text(encoding="utf-8"))
    return (
        None if document["kind"] == "Cluster" and match[2] in {None, document["name"]} else "there is no such cluster"
    )


def skaffold_fault(command: str) -> str | None:
    """Command and profile."""
    _, verb, *arguments = shlex.split(command)
    profiles = {p["name"] for p in yaml.safe_load((ROOT / "skaffold.yaml").read_text(encoding="utf-8"))["profiles"]}
    wanted = {name for flag, name in pairwise(arguments) if flag in {"-p", "--profile"}}
    if verb not in {"build", "delete", "dev", "render", "run"}:
        return f"no such command: {verb}"
    return f"no profile {wanted - profiles}" if wanted - profiles else None


def curl_fault(_: str) -> str | None:
    """None is good: it could be run, and is not."""
    return "a call of the API belongs into a block of ```bash, which is run"


def export_fault(command: str) -> str | None:
    """The variables are ones that the pages on settings or the command line tell of."""
    names = [word.partition("=")[0] for word in shlex.split(command)[1:]]
    told = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("settings.md", "cli.md"))
    return next((f"no page tells of {name}" for name in names if f"`{name}`" not in told), None)


FAULT_OF: Final[dict[str, Callable[[str], str | None]]] = {
    "headrace": headrace_fault, "make": make_fault, "python": python_fault, "helm": helm_fault, "kubectl": kubectl_fault,
    "kind": kind_fault, "skaffold": skaffold_fault, "curl": curl_fault, "export": export_fault,
}  # fmt: skip


def fault_of(program: str, command: str) -> str | None:
    """Of any of them.

    Raises:
        LookupError: nobody knows the program.
    """
    if re.fullmatch(r"headrace-[a-z-]+", program):
        return script_fault(command)
    if program not in FAULT_OF:
        raise LookupError(f"nobody knows how to look at {program}")
    return FAULT_OF[program](command)
