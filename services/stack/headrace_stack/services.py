"""The services of the stack: which there are, and what each is told."""

import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx
from headrace_core.control.bearer import BearerAuth
from headrace_core.settings import ServingSettings
from headrace_core.workflow import WorkflowError, compile_file

from headrace_stack.layout import Layout, StackError, checkout
from headrace_stack.part import LOOPBACK, Part

#: Settings that make a profile; anything in the caller's environment goes before it.
PROFILES: Final[dict[str, dict[str, str]]] = {
    "default": {},
    "demo": {
        "HEADRACE_ATTRIBUTION_WINDOW_MS": "20000",
        "HEADRACE_LATENESS_MS": "2000",
        "HEADRACE_IDLE_AFTER_MS": "500",
        "HEADRACE_JOINED_MARK_MS": "5000",
        "HEADRACE_TRAIN_EVERY_MS": "15000",
        "HEADRACE_VALIDATE_WINDOW_MS": "30000",
        "HEADRACE_EXPLORE": "0.1",
    },
}

#: Services in the order they are shown, each with its module.
SERVICES: Final = {
    "gateway": "headrace_gateway",
    "feature-worker": "headrace_feature_worker",
    "sample-joiner": "headrace_sample_joiner",
    "control-plane": "headrace_control_plane",
    "model-server": "headrace_model_server",
    "model-validator": "headrace_model_validator",
    "trainer": "headrace_trainer",
}

#: Services whose own HTTP port shows their metrics, too, with the setting that names it.
_HTTP_PORTS: Final = {"gateway": "HEADRACE_GATEWAY_PORT", "control-plane": "HEADRACE_CONTROL_PORT"}
#: Services that listen on a second port, with the setting that names it.
_SECOND_PORTS: Final = {"model-server": "HEADRACE_MODEL_SERVER_PORT"}

#: Variables that name a folder or file: services run elsewhere, so what is relative to the caller is made absolute.
_FOLDERS: Final = (
    "HEADRACE_DEFINITIONS",
    "HEADRACE_WORKFLOWS",
    "HEADRACE_SECRETS_DIR",
    "HEADRACE_API_KEYS_FILE",
    "HEADRACE_API_KEY_FILE",
)


def service_names(services: tuple[str, ...], workers: Mapping[str, int]) -> list[str]:
    """Names of the parts that make the services, e.g. sample-joiner-0 and sample-joiner-1."""
    return [f"{service}-{n}" for service in services for n in range(workers.get(service, 1))]


def second_port(name: str) -> str | None:
    """Name of the port beside the one of its metrics that a part listens on, e.g. model-server-0-api."""
    return f"{name}-api" if name.rpartition("-")[0] in _SECOND_PORTS else None


def addresses(layout: Layout, ports: Mapping[str, int], environment: Mapping[str, str]) -> dict[str, str]:
    """What stack.json tells, without processes; a store that the caller named is not ours."""
    found = {
        "kafka": environment.get("HEADRACE_KAFKA") or f"{LOOPBACK}:{ports['kafka']}",
        "postgres": environment.get("HEADRACE_POSTGRES")
        or f"postgresql://headrace@{LOOPBACK}:{ports['postgres']}/headrace",
        "redis": environment.get("HEADRACE_REDIS") or f"redis://{LOOPBACK}:{ports['valkey']}/0",
        "lake": environment.get("HEADRACE_LAKE") or (layout.data / "lake").as_uri(),
        "models": environment.get("HEADRACE_MODELS") or (layout.data / "models").as_uri(),
    }
    if "model-server-0-api" in ports:
        found = {"model_server": f"{LOOPBACK}:{ports['model-server-0-api']}", **found}
    if "control-plane-0" in ports:
        found = {"control": f"http://{LOOPBACK}:{ports['control-plane-0']}", **found}
    if "gateway-0" in ports:
        found = {"gateway": f"http://{LOOPBACK}:{ports['gateway-0']}", **found}
    return found


def settings(layout: Layout, profile: str, where: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """HEADRACE_… for every service: the profile, above it what the caller has set, and the stack's addresses and folders."""
    given = {k: v for k, v in environment.items() if k.startswith("HEADRACE_")}
    given |= {k: str(Path(given[k]).absolute()) for k in _FOLDERS if k in given}
    known = ("kafka", "postgres", "redis", "lake", "models", "control", "model_server")
    stores = {f"HEADRACE_{k.upper()}": where[k] for k in known if k in where}
    own = {
        "HEADRACE_DEFINITIONS": str(layout.definitions),
        "HEADRACE_TRAIN_STATE": str(layout.data / "trainer"),
        "HEADRACE_MODEL_SERVER_STATE": str(layout.data / "model-server"),
        "HEADRACE_RUNS": str(layout.runs),
        "HEADRACE_PROCESS_MANAGER": f"ipc://{layout.sockets}/control.sock",
        "HEADRACE_CONSOLE_TARGETS": str(layout.stack_file),
    }
    if "control" in where:
        own["HEADRACE_MODEL_SERVER_FOLLOWS"] = given.get(
            "HEADRACE_MODEL", ServingSettings.model_fields["model"].default
        )
    return own | PROFILES[profile] | given | stores


def lay_definitions(layout: Layout, profile: str) -> None:
    """The shipped definitions in the stack's folder, the profile's own laid over them, and over both what was applied."""
    shutil.rmtree(layout.definitions, ignore_errors=True)
    lay_beneath(layout.definitions, profile)
    if layout.applied.is_dir():
        shutil.copytree(layout.applied, layout.definitions, dirs_exist_ok=True)


def lay_beneath(folder: Path, profile: str) -> None:
    """What a stack has where nothing was applied, in a folder that is not there yet."""
    shipped = checkout() / "definitions"
    shutil.copytree(shipped, folder, ignore=shutil.ignore_patterns("profiles", "__pycache__"))
    if (own := shipped / "profiles" / profile).is_dir():
        shutil.copytree(own, folder, dirs_exist_ok=True)


def service_part(name: str, ports: Mapping[str, int], told: Mapping[str, str]) -> Part:
    """A service of ours, run by this interpreter."""
    service, _, replica = name.rpartition("-")
    port = ports[name]
    environment = dict(told) | {
        "HEADRACE_REPLICA": replica,
        "HEADRACE_METRICS_PORT": str(port),
        "PYTHONUNBUFFERED": "1",
    }
    if service in _HTTP_PORTS:
        environment |= {_HTTP_PORTS[service]: str(port)}
    if (second := second_port(name)) is not None:
        environment |= {_SECOND_PORTS[service]: str(ports[second])}
    command = [sys.executable, "-m", SERVICES[service]]
    return Part(name, service, int(replica), port, command, environment, metrics=f"http://{LOOPBACK}:{port}")


def apply_workflows(definitions: Path, control: str) -> None:
    """Upload the workflows of a folder; one that is there already in the same form stays as it is.

    Raises:
        StackError: a file is wrong, or the control plane refused it.
    """
    for file in sorted((definitions / "workflows").glob("*.py")):
        try:
            for document in compile_file(file):
                answer = httpx.post(
                    f"{control}/api/v1/workflows", json=document, timeout=30, auth=BearerAuth.from_environment()
                )
                answer.raise_for_status()
        except (WorkflowError, ValueError, httpx.HTTPError) as error:
            raise StackError(f"{file.name} could not be applied: {error}") from error


def ready(port: int) -> bool:
    """Whether /readyz says so."""
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/readyz", timeout=2) as answer:
            return int(answer.status) == 200
    except (OSError, urllib.error.URLError):
        return False
