"""Images: each holds what its service needs, as it is locked, and runs as nobody."""

import fnmatch
import json
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Final

import pytest
from headrace_stack.locks import BUILD, IMAGES, requirements
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.charts.helm import ROOT, containers, rendered, workloads

LOCKS: Final = ROOT / "locks"
DOCKERFILE: Final = (ROOT / "Dockerfile").read_text(encoding="utf-8")
#: What only training and serving hold.
HEAVY: Final = {"tensorflow-cpu", "keras"}
#: Megabytes of a service's packages, without the interpreter's own.
MOST: Final = {
    "gateway": 150, "feature-worker": 105, "sample-joiner": 95, "model-validator": 130, "control-plane": 150,
    "trainer": 1_600, "model-server": 1_600,
}  # fmt: skip


def entries(lock: str) -> dict[str, str]:
    """What a lock pins, by name: version, marker and hashes as they are written."""
    text = (LOCKS / f"{lock}.txt").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=[a-z0-9])", text.strip()):
        name = entry.split("==")[0].split("[")[0]
        found[name] = found.get(name, "") + entry
    return found


def pinned(entry: str) -> set[str]:
    """Versions and hashes of an entry; markers may be simpler in a smaller lock."""
    return {*re.findall(r"==([^ ;\\]+)", entry), *re.findall(r"sha256:[0-9a-f]{64}", entry)}


def closure(wanted: list[str]) -> set[str]:
    """Names of the distributions that are needed, as what is installed tells it."""
    found: set[str] = set()
    waiting = [(Requirement(one), frozenset[str]()) for one in wanted]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        one, above = waiting.pop()
        if one.marker and not any(one.marker.evaluate({"extra": extra}) for extra in above or {""}):
            continue
        key = (canonicalize_name(one.name), frozenset(one.extras))
        if key in seen:
            continue
        seen.add(key)
        found.add(key[0])
        try:
            asked = requires(one.name) or []
        except PackageNotFoundError:
            continue
        waiting.extend((Requirement(part), key[1] | {""}) for part in asked)
    return found


@pytest.mark.parametrize("image", [*IMAGES, "build"])
def test_lock_pins_what_the_tests_run_with(image: str) -> None:
    tested = entries("dev")

    for name, entry in entries(image).items():
        assert pinned(entry) <= pinned(tested[name]), f"{name}: run `make lock`"
        assert "sha256:" in entry, name


@pytest.mark.parametrize("image", IMAGES)
def test_lock_holds_all_that_the_service_asks_for(image: str) -> None:
    assert closure(requirements(image, ROOT / "services")) <= set(entries(image)), "run `make lock`"


def test_tools_of_the_build_are_locked() -> None:
    assert closure(list(BUILD)) <= set(entries("build"))


@pytest.mark.parametrize("image", IMAGES)
def test_tensorflow_is_where_models_are_trained_or_served(image: str) -> None:
    assert bool(HEAVY & set(entries(image))) == (image in {"trainer", "model-server"})


def test_locks_hold_no_addresses() -> None:
    for lock in LOCKS.glob("*.txt"):
        text = lock.read_text(encoding="utf-8")
        assert "://" not in text, lock.name
        assert "index-url" not in text, lock.name


def test_every_service_of_the_chart_has_an_image_with_its_command() -> None:
    for name, workload in workloads(rendered()["default"]):
        container = containers(workload)[0]
        match = re.fullmatch(r"headrace/(.+):0\.1\.0", container["image"])
        assert match, name
        assert match[1] in IMAGES, name
        projects = [
            ROOT / "services" / match[1].replace("-", "_") / "pyproject.toml",
            ROOT / "services/core/pyproject.toml",
        ]
        scripts = "\n".join(project.read_text(encoding="utf-8") for project in projects)
        assert f"\n{container['command'][0]} = " in scripts, name


def test_images_that_runs_are_given_have_the_commands() -> None:
    from tests.charts.helm import job_template  # noqa: PLC0415  # only here

    images = json.loads(job_template(rendered()["default"])["metadata"]["annotations"]["headrace/images"])

    for command, image in images.items():
        service = image.removeprefix("headrace/").split(":")[0].replace("-", "_")
        text = (ROOT / "services" / service / "pyproject.toml").read_text(encoding="utf-8")
        assert f"\n{command} = " in text, command


def test_image_runs_as_nobody_and_installs_by_hash_alone() -> None:
    last = DOCKERFILE.rsplit("\nFROM ", 1)[1]

    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    for line in re.findall(r"pip [^&]*install[^&\n]*", DOCKERFILE):
        assert "--require-hashes" in line or "--no-index" in line, line
        assert "--no-deps" in line, line
    assert "apt-get" not in DOCKERFILE


def test_image_has_the_python_that_the_tests_run_with() -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"

    assert f"python:{version}-slim" in DOCKERFILE
    assert f"python{version}/site-packages" in DOCKERFILE


def taken(path: str) -> bool:
    """Whether the build is given a file; the last line of .dockerignore that matches decides."""
    given = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        parts = path.split("/")
        above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        if any(fnmatch.fnmatch(part, pattern.replace("**/", "*/")) for part in above):
            given = line.startswith("!")
    return given


def test_build_is_given_what_it_copies_and_nothing_else() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    roots = {path.split("/")[0] for path in tracked if taken(path)}

    assert roots == {"locks", "definitions", "services"}
    assert all(taken(f"locks/{image}.txt") for image in (*IMAGES, "build"))
    assert taken("services/gateway/headrace_gateway/__main__.py")
    assert not taken("services/stack/headrace_stack/__main__.py")
    assert not taken(".headrace/cache/kafka.jsa")
    assert not taken("locks/dev.txt")


def modules(package: Path) -> list[str]:
    """All modules of a package but those that run when they are imported."""
    return [
        ".".join([package.name, *file.relative_to(package).with_suffix("").parts]).removesuffix(".__init__")
        for file in sorted(package.rglob("*.py"))
    ]


@pytest.mark.long
@pytest.mark.parametrize("image", IMAGES)
def test_service_imports_with_its_lock_alone(image: str, tmp_path: Path) -> None:
    service = image.replace("-", "_")
    package = ROOT / "services" / service / f"headrace_{service}"
    uv, environment = Path(sys.executable).parent / "uv", os.environ | {"UV_SYSTEM_CERTS": "1"}
    python = tmp_path / "venv" / "bin" / "python"

    def run(*command: str | Path, cwd: Path = tmp_path) -> str:
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv")
    run(uv, "pip", "sync", "--quiet", "--require-hashes", "--python", python, LOCKS / f"{image}.txt")
    for folder in ("core", service):
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=ROOT / "services" / folder)
    run(uv, "pip", "install", "--quiet", "--no-index", "--no-deps", "--python", python, *tmp_path.glob("*.whl"))

    run(python, "-W", "error::ImportWarning", "-c", f"import {', '.join(modules(package))}")
    run(python, "-c", "import headrace_core.control.run")
    size = sum(file.stat().st_size for file in (tmp_path / "venv" / "lib").rglob("*") if file.is_file()) / 1e6
    assert size <= MOST[image]
