"""What the gateway's OpenAPI page says, against what the gateway takes and gives."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import msgspec
import pytest
from headrace_gateway.parts import assemble
from headrace_gateway.ranking.in_force import InForce
from headrace_gateway.ranking.schema import RankedAnswer, RankedItem
from headrace_gateway.settings import GatewaySettings
from headrace_gateway.web.app import create_app
from headrace_gateway.web.openapi import ROUTES, HotRoute
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
CALLS = re.findall(r"(POST|PUT|GET) (/[\w/{}:]+)", (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8"))


@pytest.fixture
async def client() -> Any:
    """The application without its lifespan: nothing is connected."""
    settings = GatewaySettings()
    app = create_app(settings, assemble(settings, InForce(), None))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        yield client


@pytest.fixture
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get("/openapi.json")
    found: dict[str, Any] = answer.json()
    return found


def validator(document: dict[str, Any], schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**schema, "components": document["components"]})


def taken(document: dict[str, Any], route: HotRoute) -> jsonschema.Draft202012Validator:
    operation = document["paths"][route.path][route.method]
    return validator(document, operation["requestBody"]["content"]["application/json"]["schema"])


def given_back(document: dict[str, Any], route: HotRoute) -> jsonschema.Draft202012Validator:
    operation = document["paths"][route.path][route.method]
    return validator(document, operation["responses"][str(route.status)]["content"]["application/json"]["schema"])


SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**64), 2**64),
    st.floats(0.1, 0.9),
    st.text(st.characters(codec="utf-8"), max_size=5),
    st.sampled_from(
        ["", "x" * 256, "x" * 257, "x" * 4_097, "a\n", "\x7f", "click", "search", 2**63, 2**31, 100, 101, 500]
    ),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield at
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in pairs:
        yield from places(part, (*at, key))


@st.composite
def bodies(draw: st.DrawFn, route: HotRoute) -> Any:
    """The route's example with one thing changed, added or taken away."""
    schema = msgspec.json.schema(route.takes)["$defs"]
    names = sorted({name for part in schema.values() for name in part.get("properties", {})})
    body = json.loads(json.dumps(route.example))
    place = draw(st.sampled_from(list(places(body))))
    if not place:
        return draw(st.one_of(VALUES, st.just(body)))
    holder = body
    for key in place[:-1]:
        holder = holder[key]
    change = draw(st.sampled_from(["replace", "add", "remove"]))
    if change == "replace":
        holder[place[-1]] = draw(VALUES)
    elif change == "remove":
        del holder[place[-1]]
    elif isinstance(holder, dict):
        holder[draw(st.sampled_from(names) | st.text(max_size=5))] = draw(VALUES)
    else:
        holder.append(draw(VALUES))
    return body


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: r.operation)
async def test_schema_allows_exactly_what_is_read(document: dict[str, Any], route: HotRoute) -> None:
    schema = taken(document, route)
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(route.takes)
    lists = {
        n
        for n, p in msgspec.json.schema(route.takes)["$defs"][route.takes.__name__]["properties"].items()
        if "minItems" in p
    }

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(bodies(route))
    def agree(body: Any) -> None:
        try:
            read = decoder.decode(json.dumps(body).encode())
        except (msgspec.DecodeError, UnicodeDecodeError):
            assert not schema.is_valid(body)
        else:
            # A list without an entry is read, and refused with its own words.
            assert schema.is_valid(body) or any(not getattr(read, name) for name in lists)

    agree()


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: r.operation)
async def test_examples_are_true(document: dict[str, Any], route: HotRoute) -> None:
    taken(document, route).validate(route.example)
    given_back(document, route).validate(route.answer)
    msgspec.json.decode(json.dumps(route.example), type=route.takes)
    msgspec.json.decode(json.dumps(route.answer), type=route.gives)


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: r.operation)
async def test_answer_of_another_shape_is_noticed(document: dict[str, Any], route: HotRoute) -> None:
    assert not given_back(document, route).is_valid({})


async def test_encoded_answer_fits_its_schema(document: dict[str, Any]) -> None:
    answer = RankedAnswer("r", [RankedItem("i", 0.5, 0, "catalog")], "", 0, 1, ["no_model"])

    for route in ROUTES:
        if route.gives is RankedAnswer:
            given_back(document, route).validate(json.loads(msgspec.json.encode(answer)))


async def test_document_is_openapi_with_every_reference_resolved(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert references <= document["components"]["schemas"].keys()
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    operations = [o["operationId"] for path in document["paths"].values() for o in path.values()]
    assert len(operations) == len(set(operations))


async def test_every_call_of_the_contract_is_on_the_page_and_the_other_way_round(document: dict[str, Any]) -> None:
    told = {(method, path) for method, path in CALLS if path.startswith("/v1")}
    paths = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}

    assert told <= paths
    assert {p for p in paths if p[0] != "GET"} == {t for t in told if t[0] != "GET"}
    assert {("GET", f"/{name}") for name in ("healthz", "readyz", "metrics")} <= paths


async def test_every_failure_is_documented_as_a_problem(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                if status >= "400" and path.startswith("/v1"):
                    assert set(answer["content"]) == {"application/problem+json"}, (method, path, status)
                    assert ("headers" in answer) == (status in {"429", "503"}), (method, path, status)


class Assets(HTMLParser):
    """Addresses that a page loads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in {"src", "href"} and value]


async def test_docs_page_needs_nothing_from_outside(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")

    assert page.headers["content-type"].startswith("text/html")
    assert not re.findall(r"https?://", page.text)
    kinds = {"js": "text/javascript", "css": "text/css", "png": "image/png"}
    assets = Assets(page.text).found
    assert {a.rsplit(".", 1)[1] for a in assets} == kinds.keys()
    for asset in assets:
        answer = await client.get(asset)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kinds[asset.rsplit(".", 1)[1]])
        if asset.endswith("css"):
            assert set(re.findall(r"url\(['\"]?(\w+:)", answer.text)) <= {"data:"}
    assert "/openapi.json" in page.text


def test_every_setting_tells_its_meaning() -> None:
    for name, field in GatewaySettings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


async def test_settings_that_the_docs_name_exist(document: dict[str, Any]) -> None:
    text = json.dumps(document) + (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8").split("## PostgreSQL")[0]

    named = {name.lower() for name in re.findall(r"HEADRACE_([A-Z_]+[A-Z])", text)}

    assert "max_event_age" in named
    assert named <= GatewaySettings.model_fields.keys()
