"""The page /docs, with assets of our own.

FastAPI's default page loads Swagger UI from a CDN, which a machine without internet can't, and which would let a third party's
script see every address tried on the page. The package fastapi-offline ships the same files; only these are used.
"""

from collections.abc import Callable
from importlib.resources import files
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from headrace_core.web.keys import SCOPES
from headrace_core.web.problem import ProblemError

_ASSETS: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
_CACHE: Final = {"cache-control": "public, max-age=86400"}


def add_docs(app: FastAPI) -> None:
    """Serve /docs and its assets."""
    contents = {name: files("fastapi_offline").joinpath("static", name).read_bytes() for name in _ASSETS}
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=app.title,
        swagger_js_url="/docs/swagger-ui-bundle.js",
        swagger_css_url="/docs/swagger-ui.css",
        swagger_favicon_url="/docs/favicon.png",
    )

    async def docs(_: Request) -> Response:
        return HTMLResponse(page.body)

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in contents:
            raise ProblemError(404, f"/docs/{name}: there is no such file")
        return Response(contents[name], media_type=_ASSETS[name], headers=_CACHE)

    app.router.routes += [Route("/docs", docs, methods=["GET"]), Route("/docs/{name}", asset, methods=["GET"])]


def add_keys(document: dict[str, Any], needed: Callable[[str, str], str | None]) -> None:
    """Write into an OpenAPI document which scope each operation needs.

    Args:
        document: to write into.
        needed: tells the scope by method and path; None for what is open.
    """
    document.setdefault("components", {})["securitySchemes"] = {
        "key": {
            "type": "http",
            "scheme": "bearer",
            "description": f"An API key with the scope that a call needs ({', '.join(SCOPES)}; admin holds the others). Needed "
            "only where keys are configured.",
        }
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            scope = needed(method.upper(), path)
            operation["security"] = [] if scope is None else [{"key": [scope]}]
