"""`headrace-init` on databases that it can't work with."""

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import psycopg
import pytest

from tests.conftest import Stores

pytestmark = pytest.mark.stack

MakeDatabase = Callable[[str], str]


@contextmanager
def database(server: str, options: str) -> Iterator[str]:
    """The DSN of a database that is gone afterwards."""
    name = f"init_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} {options}".encode())
        yield f"{server}/{name}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def make_database(stores: Stores) -> Iterator[MakeDatabase]:
    """Makes databases by these options of CREATE DATABASE."""
    server = stores.postgres_dsn.rpartition("/")[0]
    with ExitStack() as all_of_them:
        yield lambda options: all_of_them.enter_context(database(server, options))


def init(stores: Stores, dsn: str) -> tuple[int, str]:
    """Exit code and last message of a run on this database."""
    done = subprocess.run(
        [sys.executable, "-m", "headrace_core.init"],
        env=stores.environment() | {"HEADRACE_POSTGRES": dsn}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, str(json.loads(done.stderr.splitlines()[-1])["message"])


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_database_of_another_encoding_is_refused_with_the_next_step(
    stores: Stores, make_database: MakeDatabase, encoding: str
) -> None:
    dsn = make_database(f"ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")

    code, message = init(stores, dsn)

    name = dsn.rpartition("/")[2]
    assert code == 1
    assert message == (
        f"the database {name} has the encoding {encoding}, not UTF8: create it anew by "
        f"CREATE DATABASE \"{name}\" ENCODING 'UTF8' TEMPLATE template0"
    )


def test_database_that_the_refusal_names_is_taken(stores: Stores, make_database: MakeDatabase) -> None:
    code, message = init(stores, make_database("ENCODING 'UTF8' TEMPLATE template0"))

    assert (code, message) == (0, "initialised")
