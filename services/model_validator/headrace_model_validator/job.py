"""What a command line asks for."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn


@dataclass(frozen=True, slots=True)
class Job:
    """One version to be worked on.

    Attributes:
        model: its name.
        version: its number.
        token: of the run that this is; None outside of one.
    """

    model: str
    version: int
    token: str | None = None

    def told(self) -> dict[str, object]:
        """For logs."""
        return {"model": self.model, "version": self.version}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{self.prog}: {message}")


def parse_job(program: str, arguments: Sequence[str], token: str | None) -> Job:
    """The version that a command line names.

    Raises:
        ValueError: it names none.
    """
    parser = _Parser(
        prog=program, description=f"{program.removeprefix('headrace-').capitalize()}s a version of a model."
    )
    parser.add_argument("--model", required=True, help="name of the model")
    parser.add_argument("--version", required=True, type=int, help="number of the version")
    told = parser.parse_args(list(arguments))
    return Job(told.model, told.version, token)
