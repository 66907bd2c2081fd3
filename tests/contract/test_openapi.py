"""Both OpenAPI pages against the real services: what schemathesis makes of a page is answered as the page tells."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import httpx
import psycopg
import pytest
import schemathesis
from headrace_core.init.migrations import migrate
from headrace_core.web.keys import entry, new_key
from headrace_core.workflow import BatchTask, Workflow, event
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import checks
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks as openapi_checks

from load_tests.gateway.process import GatewayProcess
from tests.conftest import Stores
from tests.integration.control.process import ControlPlane

pytestmark = pytest.mark.stack

KEY: Final = new_key()
GUARDED: Final = {"HEADRACE_API_KEYS": entry("fuzz", ["admin"], KEY), "HEADRACE_API_KEY": KEY}
BEARING: Final = {"Authorization": f"Bearer {KEY}"}
CHECKS: Final = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]
#: Has no end.
LEFT_OUT: Final = {"/api/v1/stream"}

#: A case, before it is sent.
Prepare = Callable[[schemathesis.Case[Any]], None]


@pytest.fixture(scope="module")
def gateway(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process = GatewayProcess(stores.environment() | GUARDED, tmp_path_factory.mktemp("gateway"))
    process.start()
    yield process.url
    process.stop()


@pytest.fixture(scope="module")
def control(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A control plane with a database of its own, that knows a model, a workflow and its run."""
    with psycopg.connect(stores.postgres_dsn, autocommit=True) as connection:
        connection.execute("CREATE DATABASE fuzzed")
    dsn = stores.postgres_dsn.rsplit("/", 1)[0] + "/fuzzed"
    migrate(dsn)
    process = ControlPlane(
        stores.environment() | GUARDED | {"HEADRACE_POSTGRES": dsn}, tmp_path_factory.mktemp("control")
    )
    process.start()
    with Workflow("flow") as flow:
        BatchTask("t", run="true").start_on(event("k"), name="rule")
    with httpx.Client(base_url=f"{process.url}/api/v1", headers=BEARING, timeout=60) as http:
        for path, body in (
            ("/models/m/versions:reserve", None),
            ("/models/m/versions", {"version": 1, "artifact": "file:///a"}),
            ("/models/m/versions/1/metrics", {"items": [{"name": "auc", "value": 0.5, "time": 1}]}),
            ("/models/m/versions/1/stage", {"stage": "VALIDATED", "by": "b", "why": "w"}),
            ("/models/m/versions/1/stage", {"stage": "DEPLOYED", "by": "b", "why": "w"}),
            ("/workflows", flow.compile()),
            ("/events", {"key": "k", "value": "v", "type": "T"}),
            ("/workflows/flow/tasks/t/start", None),
        ):
            http.post(path, json=body).raise_for_status()
    yield process.url
    process.stop()
    with psycopg.connect(stores.postgres_dsn, autocommit=True) as connection:
        connection.execute("DROP DATABASE fuzzed WITH (FORCE)")


KNOWN: Final = {"model": "m", "version": 1, "workflow": "flow", "task": "t", "rule": "rule", "run_id": "flow.t.1"}


def for_control(case: schemathesis.Case[Any]) -> None:
    """Every other case is about what there is, and none waits for long."""
    if len(repr(case.path_parameters) + repr(case.query)) % 2:
        case.path_parameters = {name: KNOWN.get(name, told) for name, told in (case.path_parameters or {}).items()}
    if "wait_s" in (case.query or {}) and isinstance(case.query["wait_s"], int | float):
        case.query["wait_s"] = min(case.query["wait_s"], 0.01)


def words(fault: BaseException) -> str:
    if isinstance(fault, BaseExceptionGroup):
        return "\n".join(words(one) for one in fault.exceptions)
    return str(fault)


def fuzz(url: str, cases: int, prepare: Prepare = lambda _: None, *, same: bool = False) -> int:
    """Send so many cases, some of them against the schema, the same number to each operation; how many were sent.

    Args:
        url: of the service.
        cases: at least so many.
        prepare: changes a case before it is sent.
        same: the cases of every other time; else new ones.

    Raises:
        AssertionError: answers that the page does not tell; each operation's first.
    """
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    found = list(schema.get_all_operations())
    operations = [one.ok() for one in found if isinstance(one, Ok)]
    assert len(operations) == len(found)
    operations = [one for one in operations if one.path not in LEFT_OUT]
    asked = [one for one in operations if one.body or any(one.iter_parameters())]  # the rest can be asked in one way
    share = -(-cases // len(asked))
    sent, faults = 0, []
    for operation in operations:
        strategies = [operation.as_strategy(mode) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)]

        @given(strategies[0] | strategies[1])
        @settings(
            max_examples=share, deadline=None, derandomize=same, database=None,
            suppress_health_check=list(HealthCheck), phases=[Phase.generate],
        )  # fmt: skip
        def answered_as_told(case: schemathesis.Case[Any]) -> None:
            nonlocal sent
            prepare(case)
            case.headers.update(BEARING)
            sent += 1
            answer = case.call(timeout=60)
            case.validate_response(answer, checks=CHECKS)

        try:
            answered_as_told()
        except (AssertionError, BaseExceptionGroup) as fault:
            faults.append(f"{operation.method.upper()} {operation.path}: {words(fault)}")
    assert not faults, "\n\n".join(faults)
    return sent


def test_gateway_answers_as_its_page_tells(gateway: str) -> None:
    assert fuzz(gateway, 200, same=True) >= 200


def test_control_plane_answers_as_its_page_tells(control: str) -> None:
    assert fuzz(control, 300, for_control, same=True) >= 300


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_gateway_answers_a_thousand_cases_as_its_page_tells(gateway: str) -> None:
    assert fuzz(gateway, 1_000) >= 1_000


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_control_plane_answers_a_thousand_cases_as_its_page_tells(control: str) -> None:
    assert fuzz(control, 1_000, for_control) >= 1_000
