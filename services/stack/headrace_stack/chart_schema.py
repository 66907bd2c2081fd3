"""Writes the settings that charts/headrace takes into its values.schema.json, from the settings classes.

`python -m headrace_stack.reference` (`make reference`) does it beside the docs. A setting that follows from the chart (an
address, a port, a secret) can't be set a second time, so it is left out.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from headrace_core.settings import HeadraceSettings

#: What the chart sets itself, for whichever service has it.
OWNED: Final = frozenset({
    "kafka", "kafka_security_protocol", "kafka_sasl_mechanism", "kafka_user", "kafka_ca_file", "kafka_certificate_file",
    "kafka_key_file", "control", "models", "model", "train_model", "model_server", "definitions", "replica",
    "log_level", "log_format", "metrics_host", "metrics_port",
    "gateway_host", "gateway_port", "control_host", "control_port", "model_server_host", "model_server_port",
    "model_server_state", "model_server_follows", "train_state", "runs", "workflows", "console_targets",
    "partitions", "replication", "api_keys_file", "api_key_file",
})  # fmt: skip
#: What has no meaning in a cluster.
_ELSEWHERE: Final = frozenset({"process_manager"})
_DURATION: Final = {"type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$"}
_KEPT: Final = (
    "type", "enum", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "description",
)  # fmt: skip


def definition_name(service: str) -> str:
    """Of a service's settings among the schema's definitions: featureWorkerSettings."""
    return re.sub(r"-(.)", lambda match: match[1].upper(), service) + "Settings"


def settings_schema(cls: type[HeadraceSettings]) -> dict[str, Any]:
    """What a service's settings may be: those that are neither secret nor the chart's own."""
    fields = {
        name: _field(schema)
        for name, schema in cls.model_json_schema()["properties"].items()
        if name not in OWNED | _ELSEWHERE and not _secret(schema)
    }
    return {"type": "object", "additionalProperties": False, "properties": fields}


def _secret(schema: Mapping[str, Any]) -> bool:
    return bool(schema.get("writeOnly"))


def _field(schema: Mapping[str, Any]) -> dict[str, Any]:
    allowed: dict[str, Any] = next((one for one in schema.get("anyOf", ()) if one.get("type") != "null"), {})
    whole = {**schema, **allowed}
    if whole.get("format") == "duration":
        return {**_DURATION, "description": schema["description"]}
    return {key: whole[key] for key in _KEPT if key in whole}


def page(current: str, classes: Mapping[str, type[HeadraceSettings]]) -> str:
    """The schema with the settings of these classes in place of those it has."""
    schema = json.loads(current)
    for service, cls in classes.items():
        schema["$defs"][definition_name(service)] = settings_schema(cls)
    return json.dumps(schema, indent=1) + "\n"


def write(file: Path, classes: Mapping[str, type[HeadraceSettings]]) -> None:
    """Bring the file up to date."""
    file.write_text(page(file.read_text(encoding="utf-8"), classes), encoding="utf-8")
