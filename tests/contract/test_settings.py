"""Settings: each is explained, written down once, and shown in the docs."""

import re
from pathlib import Path

import pytest
from headrace_core.settings import HeadraceSettings
from headrace_stack.reference import fields_by_class, packages, service_name, settings_classes, settings_page
from headrace_stack.services import PROFILES, SERVICES
from pydantic import SecretStr

ROOT = Path(__file__).resolve().parents[2]
CLASSES = settings_classes()


def test_every_service_that_runs_has_a_settings_class() -> None:
    assert set(SERVICES) | {"init"} <= set(CLASSES)
    run = {
        service_name(package)
        for package in packages()
        if list((ROOT / "services").glob(f"*/{package}/__main__.py")) and package != "headrace_stack"
    }
    assert run <= set(CLASSES)


@pytest.mark.parametrize(("service", "cls"), CLASSES.items(), ids=CLASSES)
def test_every_field_is_explained(service: str, cls: type[HeadraceSettings]) -> None:
    for name, field in cls.model_fields.items():
        assert field.description, f"{service}: {name}"
        assert field.description.endswith("."), f"{service}: {name}"


@pytest.mark.parametrize(("service", "cls"), CLASSES.items(), ids=CLASSES)
def test_every_field_is_in_the_docs(service: str, cls: type[HeadraceSettings]) -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")

    for name in cls.model_fields:
        assert f"| `HEADRACE_{name.upper()}` |" in page, service


def test_page_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == settings_page(), "run `make reference`"


def test_setting_is_written_down_once() -> None:
    names = [name for fields in fields_by_class(list(CLASSES.values())).values() for name in fields]

    assert len(names) == len(set(names))


@pytest.mark.parametrize(("service", "cls"), CLASSES.items(), ids=CLASSES)
def test_defaults_hold_their_own_bounds(service: str, cls: type[HeadraceSettings]) -> None:
    assert cls(), service


@pytest.mark.parametrize(("service", "cls"), CLASSES.items(), ids=CLASSES)
def test_addresses_that_may_hold_a_password_are_secret(service: str, cls: type[HeadraceSettings]) -> None:
    for name in {"postgres", "redis"} & set(cls.model_fields):
        assert cls.model_fields[name].annotation is SecretStr, f"{service}: {name}"


@pytest.mark.parametrize("profile", PROFILES)
def test_profile_sets_what_some_service_reads(profile: str) -> None:
    known = {f"HEADRACE_{name.upper()}" for cls in CLASSES.values() for name in cls.model_fields}

    assert set(PROFILES[profile]) <= known


def test_pages_of_the_docs_name_no_setting_that_is_not_there() -> None:
    known = {f"HEADRACE_{name.upper()}" for cls in CLASSES.values() for name in cls.model_fields}
    stack = {
        "HEADRACE_HOME",
        "HEADRACE_CHECKOUT",
        "HEADRACE_SECRETS_DIR",
        "HEADRACE_LAKE",
        "HEADRACE_MODELS",
        "HEADRACE_GATEWAY",
        "HEADRACE_DEMO_PATIENCE",
    }
    for page in (*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"):
        named = set(re.findall(r"HEADRACE_[A-Z0-9]+(?:_[A-Z0-9]+)*", page.read_text(encoding="utf-8")))
        ports = {name for name in named if name.startswith("HEADRACE_PORT")}
        assert named - known - stack - ports == set(), page
