"""Writes what the docs and the chart tell of the code: `python -m headrace_stack.reference` (`make reference`).

These are docs/settings.md, docs/metrics.md, and the settings in charts/headrace/values.schema.json.

Services are looked at from outside, each in a process of its own, as they never share one.
"""

import importlib
import importlib.util
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from headrace_core.settings import HeadraceSettings
from prometheus_client import REGISTRY
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from headrace_stack import chart_schema
from headrace_stack.layout import checkout

CORE: Final = "headrace_core"
_NOTE: Final = "<!-- Written by `make reference` from the code; a test compares. -->"
_BOUNDS: Final = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_UNITS: Final = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms"))


def packages() -> list[str]:
    """Every package of the checkout's services, core first."""
    found = sorted(file.parent.name for file in checkout().glob("services/*/headrace_*/__init__.py"))
    return [CORE, *(name for name in found if name != CORE)]


def service_name(package: str) -> str:
    """`headrace_sample_joiner` as `sample-joiner`; core's own job is `init`."""
    return "init" if package == CORE else package.removeprefix("headrace_").replace("_", "-")


def settings_classes() -> dict[str, type[HeadraceSettings]]:
    """The settings class of each service, by service."""
    found = {}
    for package in packages():
        module = f"{package}.init.settings" if package == CORE else f"{package}.settings"
        if importlib.util.find_spec(module) is None:
            continue  # the command line has none: it reads what it hands on
        own = [
            c for _, c in inspect.getmembers(importlib.import_module(module), inspect.isclass)
            if issubclass(c, HeadraceSettings) and c.__module__ == module
        ]  # fmt: skip
        if len(own) != 1:
            raise ValueError(f"{module} has {len(own)} settings classes, want one")
        found[service_name(package)] = own[0]
    return found


def fields_by_class(classes: Sequence[type[HeadraceSettings]]) -> dict[type[HeadraceSettings], dict[str, FieldInfo]]:
    """Each field under the class that writes it down, in the order of inheritance, shared classes first."""
    found: dict[type[HeadraceSettings], dict[str, FieldInfo]] = {}
    for cls in classes:
        for base in cls.__mro__:
            if issubclass(base, HeadraceSettings) and base is not HeadraceSettings:
                own = {n: f for n, f in base.model_fields.items() if n in inspect.get_annotations(base)}
                if own:
                    found[base] = own
    return dict(sorted(found.items(), key=lambda item: item[0] in classes))


def settings_page() -> str:
    """Content of docs/settings.md."""
    classes = settings_classes()
    lines = [
        "# Settings", "", _NOTE, "",
        "Every service reads the environment variables below, or a file of that name in the folder `HEADRACE_SECRETS_DIR`.",
        "The embedded stack sets addresses and ports itself and hands on whatever else it finds in its environment.", "",
    ]  # fmt: skip
    for cls, fields in fields_by_class(list(classes.values())).items():
        users = [service for service, used in classes.items() if issubclass(used, cls)]
        title = users[0] if cls in classes.values() else cls.__name__.removesuffix("Settings")
        lines += [f"## {title}", "", (inspect.getdoc(cls) or "").splitlines()[0], ""]
        if cls not in classes.values():
            lines += [f"Read by {', '.join(users)}.", ""]
        lines += ["| variable | default | allowed | meaning |", "| --- | --- | --- | --- |"]
        lines += [
            f"| `HEADRACE_{name.upper()}` | {_default(field)} | {_allowed(field)} | {_text(field.description)} |"
            for name, field in fields.items()
        ]
        lines.append("")
    return "\n".join(lines)


def _text(words: str | None) -> str:
    return (words or "").replace("<", "\\<").replace("|", "\\|")


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None:
        return ""
    if isinstance(value, timedelta):
        ms = value // timedelta(milliseconds=1)
        size, unit = next((s, u) for s, u in _UNITS if ms % s == 0)
        return f"`{ms // size}{unit}`"
    return f"`{value.get_secret_value() if isinstance(value, SecretStr) else value}`"


def _allowed(field: FieldInfo) -> str:
    told = []
    for constraint in field.metadata:
        for name, sign in _BOUNDS.items():
            bound = getattr(constraint, name, None)
            if bound is not None:
                told.append(
                    f"{sign} {bound.total_seconds():g} s" if isinstance(bound, timedelta) else f"{sign} {bound:,}"
                )
        pattern = getattr(constraint, "pattern", None)
        if pattern:
            told.append(", ".join(pattern.strip("^()$").split("|")))
    return ", ".join(told)


def metrics_page() -> str:
    """Content of docs/metrics.md."""
    core = metrics_of(CORE)
    lines = [
        "# Metrics", "", _NOTE, "",
        "What `/metrics` of the services tells, observed per batch or request, never per message.",
        "A histogram has `_bucket`, `_sum` and `_count`.",
        "",
    ]  # fmt: skip
    for package in packages():
        found = core if package == CORE else [row for row in metrics_of(package) if row not in core]
        if not found:
            continue
        title = "every service, as far as it does the thing" if package == CORE else service_name(package)
        lines += [f"## {title}", "", "| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
        lines += [f"| `{name}` | {kind} | {labels} | {_text(text)} |" for name, kind, labels, text in found]
        lines.append("")
    return "\n".join(lines)


def metrics_of(package: str) -> list[list[str]]:
    """Name, type, labels and meaning of each metric that a package's modules make, asked in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "headrace_stack.reference", package], capture_output=True, text=True, check=True
    )
    rows: list[list[str]] = json.loads(done.stdout)
    return rows


def _registered(package: str) -> Iterator[list[str]]:
    """The same, of this process."""
    folder = Path(importlib.import_module(package).__file__ or "").parent
    for file in sorted(folder.rglob("*.py")):
        # Only what can make a metric: the other modules load half of the libraries there are.
        if "prometheus_client" in file.read_text(encoding="utf-8") and file.stem != "__main__":
            importlib.import_module(
                ".".join([package, *file.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__")
            )
    collectors: dict[Any, Any] = REGISTRY._collector_to_names  # noqa: SLF001  # the library tells labels nowhere else
    for collector in collectors:
        for metric in collector.describe() if hasattr(collector, "describe") else ():
            if metric.name.startswith("headrace_"):
                name = metric.name + ("_total" if metric.type == "counter" else "")
                yield [name, metric.type, ", ".join(getattr(collector, "_labelnames", ())), metric.documentation]


def write(folder: Path) -> None:
    """Write both pages."""
    (folder / "settings.md").write_text(settings_page(), encoding="utf-8")
    (folder / "metrics.md").write_text(metrics_page(), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(sorted(_registered(sys.argv[1]))))
    else:
        write(checkout() / "docs")
        chart_schema.write(checkout() / "charts" / "headrace" / "values.schema.json", settings_classes())
