"""The command `docker`, whichever engine DOCKER_HOST names."""

import subprocess
from typing import Final

from headrace_stack.layout import StackError

#: What decimal megabytes are counted in, as `docker images` does.
_MEGABYTE: Final = 1_000_000


def docker(*arguments: str, cwd: str | None = None) -> str:
    """Run it; what it printed.

    Raises:
        StackError: it is not there, no engine answers, or the command failed.
    """
    try:
        done = subprocess.run(["docker", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise StackError("docker is missing: install a Docker engine and its command") from None
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise StackError(f"docker {' '.join(arguments[:2])} failed:\n{last}")
    return done.stdout


def exists(image: str) -> bool:
    """Whether the engine has an image."""
    return bool(docker("images", "--quiet", image).strip())


def megabytes(image: str) -> float:
    """Size of an image, with all its layers."""
    return round(int(docker("image", "inspect", "--format", "{{.Size}}", image)) / _MEGABYTE, 1)
