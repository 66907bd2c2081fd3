"""Builds the images of the services, prints their sizes as JSON: `python -m headrace_stack.images gateway trainer`."""

import argparse
import json
import re
import sys
from typing import Any, Final

from headrace_stack.images import debian
from headrace_stack.images.docker import docker, megabytes
from headrace_stack.layout import StackError, checkout
from headrace_stack.locks import IMAGES

#: Arguments of the Dockerfile that name where an image begins.
PYTHON: Final = "PYTHON"
BUILDER: Final = "BUILDER"


def official(argument: str) -> str:
    """The Dockerfile's own base."""
    match = re.search(rf"^ARG {argument}=(\S+)$", (checkout() / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        raise StackError(f"the Dockerfile has no ARG {argument} with a default")
    return match[1]


def build(service: str, image: str, base: str, builder: str, network: str) -> dict[str, Any]:
    """Build one; its name, and its megabytes by part.

    Args:
        service: which has a lock.
        image: the name that it gets.
        base: what the image begins with.
        builder: the same, with what the build needs.
        network: of the build's commands, as `docker build` knows them.

    Raises:
        StackError: it could not be built.
    """
    arguments = {"SERVICE": service, "PACKAGE": service.replace("-", "_"), PYTHON: base, BUILDER: builder}
    told = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
    docker("build", "--quiet", "--network", network, *told, "--tag", image, str(checkout()))
    whole, below = megabytes(image), megabytes(base)
    return {"image": image, "mb": whole, "base_mb": below, "own_mb": round(whole - below, 1)}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m headrace_stack.images", description=__doc__)
    parser.add_argument("services", nargs="*", metavar="SERVICE", help=f"of {', '.join(IMAGES)}; all without one")
    parser.add_argument("--base", choices=["official", "debian"], default="official",
                        help="python:3.11-slim of Docker's registry, or made here by root with debootstrap")  # fmt: skip
    parser.add_argument("--network", default="default", help="of the build's commands: default, host")
    parser.add_argument("--prefix", default="headrace/", help="of the images' names")
    parser.add_argument("--tag", default="0.1.0", help="of the images")
    told = parser.parse_args()
    if unknown := set(told.services) - set(IMAGES):
        parser.error(f"{', '.join(sorted(unknown))}: there are images of {', '.join(IMAGES)}")
    try:
        base, builder = debian.make() if told.base == "debian" else (official(PYTHON), official(BUILDER))
        if told.base == "official":
            docker("pull", "--quiet", base)
        print(json.dumps({
            service: build(service, f"{told.prefix}{service}:{told.tag}", base, builder, told.network)
            for service in told.services or IMAGES
        }, indent=1))  # fmt: skip
    except StackError as error:
        sys.exit(f"headrace: {error}")


if __name__ == "__main__":
    main()
