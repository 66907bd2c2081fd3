"""Answers of a real gateway against its own OpenAPI document."""

import re
from typing import Any

import httpx
import jsonschema


class Documented:
    """Checks every answer of a client: status, content type, headers and body are as documented.

    Args:
        document: the gateway's OpenAPI document.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._operations = [
            (
                re.compile(re.sub(r"\{\w+\}", ".*", re.escape(path).replace(r"\{", "{").replace(r"\}", "}"))),
                method,
                told,
            )
            for path, operations in document["paths"].items()
            for method, told in operations.items()
        ]

    async def check(self, answer: httpx.Response) -> None:
        """Fail on an answer that the document does not know; addresses that it does not know are passed over."""
        operation = self._operation(answer.request)
        if operation is None:
            return
        told = operation["responses"].get(str(answer.status_code))
        assert told is not None, f"{answer.request.url} is not documented to answer {answer.status_code}"
        (kind,) = told["content"]
        assert answer.headers["content-type"].split(";")[0] == kind
        assert all(name in answer.headers for name in told.get("headers", {}))
        await answer.aread()
        if kind.endswith("json"):
            schema = {**told["content"][kind]["schema"], "components": self._document["components"]}
            jsonschema.Draft202012Validator(schema).validate(answer.json())

    def _operation(self, request: httpx.Request) -> dict[str, Any] | None:
        fits = [
            told
            for pattern, method, told in self._operations
            if method == request.method.lower() and pattern.fullmatch(request.url.path)
        ]
        return fits[0] if fits else None
