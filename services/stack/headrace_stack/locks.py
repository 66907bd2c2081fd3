"""Writes locks/<service>.txt, what each service's image holds, out of locks/dev.txt: `python -m headrace_stack.locks`.

`make lock` runs it. Versions and hashes are those that the tests run with; what neither a service nor what it needs asks for is
left out.
"""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

from headrace_stack.layout import checkout

#: Services that have an image, by the name of the image.
IMAGES: Final = (
    "control-plane", "feature-worker", "gateway", "model-server", "model-validator", "sample-joiner", "trainer",
)  # fmt: skip
#: What makes our own distributions into wheels.
BUILD: Final = ("hatchling",)


def requirements(service: str, services: Path) -> list[str]:
    """What a service asks for and core does, by name and bounds; core itself is no package of a registry."""
    own = _project(services / service.replace("-", "_"))["dependencies"]
    core = _project(services / "core")
    extras = {
        extra for one in own if (match := re.match(r"headrace-core\[(.*?)\]", one)) for extra in match[1].split(",")
    }
    asked = [*own, *core["dependencies"], *(one for extra in extras for one in core["optional-dependencies"][extra])]
    return sorted({one for one in asked if not one.startswith("headrace-core")})


def _project(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def write(name: str, wanted: list[str], locks: Path) -> None:
    """Pin what is wanted and all that it needs, by uv.

    Raises:
        subprocess.CalledProcessError: uv found no such set.
    """
    subprocess.run(
        [Path(sys.executable).parent / "uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header",
         "--no-annotate", "--python-version", "3.11", "-", "--constraints", locks / "dev.txt", "-o", locks / f"{name}.txt"],
        input="\n".join(wanted), text=True, stdout=subprocess.DEVNULL, check=True, env=os.environ | {"UV_SYSTEM_CERTS": "1"},
    )  # fmt: skip


def main() -> None:
    """Entry point."""
    locks = checkout() / "locks"
    for service in IMAGES:
        write(service, requirements(service, checkout() / "services"), locks)
    write("build", list(BUILD), locks)


if __name__ == "__main__":
    main()
