"""Sessions of the console: a key with the scope admin is shown once, then a signed cookie says that it was."""

import secrets
from typing import Final
from urllib.parse import parse_qs

from fastapi import FastAPI
from headrace_core.web.guard import Guard
from headrace_core.web.keyring import fingerprint_of
from headrace_core.web.keys import ADMIN
from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Scope

LOGIN: Final = "/login"
LOGOUT: Final = "/logout"
_COOKIE: Final = "headrace_console"
_SECONDS: Final = 12 * 3_600
_MOST_BYTES: Final = 2_000
_HEADERS: Final = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
}
_PAGE: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Headrace</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:24rem;margin:20vh auto;padding:0 1rem}}
input,button{{font:inherit;width:100%;box-sizing:border-box;padding:.5rem;margin:.25rem 0}}</style>
<h1>Headrace</h1><form method="post" action="/login"><label for="key">API key with the scope admin</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>
<button>Log in</button>{fault}</form></html>"""


class Sessions:
    """Makes and checks the cookies.

    Args:
        guard: knows the keys; a session ends with its key.
        secret: that signs; one of this process alone when it is empty.
    """

    def __init__(self, guard: Guard, secret: str) -> None:
        self._guard = guard
        self._signer = URLSafeTimedSerializer(secret or secrets.token_urlsafe(32), salt="headrace-console")

    def admits(self, scope: Scope) -> bool:
        """Whether a request belongs to a session, or no key is needed at all."""
        keyring = self._guard.keyring
        if keyring is None:
            return True
        try:
            told = HTTPConnection(scope).cookies.get(_COOKIE, "")
            name, fingerprint = self._signer.loads(told, max_age=_SECONDS)
        except (BadData, ValueError, TypeError):
            return False
        key = keyring.by_fingerprint(str(name), str(fingerprint))
        return key is not None and self._guard.is_good(key, ADMIN)

    def add_pages(self, app: FastAPI) -> None:
        """Add the pages that begin and end a session."""
        app.router.routes += [
            Route(LOGIN, self._login, methods=["GET", "POST"]),
            Route(LOGOUT, self._logout, methods=["POST"]),
        ]

    async def _login(self, request: Request) -> Response:
        if request.method != "POST":
            return _page()
        body = await request.body()
        told = parse_qs(body.decode("latin-1")).get("key", [""])[0] if len(body) <= _MOST_BYTES else ""
        key = self._guard.good(told.strip().encode("latin-1", "replace"), ADMIN)
        if key is None:
            return _page("No key with the scope admin, or it has expired.", 401)
        answer = RedirectResponse("/", 303, headers={"cache-control": "no-store"})
        answer.set_cookie(
            _COOKIE, str(self._signer.dumps([key.name, fingerprint_of(key)])), max_age=_SECONDS, httponly=True,
            samesite="lax", secure=_behind_tls(request),
        )  # fmt: skip
        return answer

    async def _logout(self, _: Request) -> Response:
        answer = RedirectResponse(LOGIN, 303)
        answer.delete_cookie(_COOKIE)
        return answer


def _behind_tls(request: Request) -> bool:
    """A header that a proxy adds; whoever lies with it only makes his own cookie stricter."""
    return "https" in {request.url.scheme, request.headers.get("x-forwarded-proto", "")}


def _page(fault: str = "", status: int = 200) -> Response:
    note = f'<p role="alert">{fault}</p>' if fault else ""
    return HTMLResponse(_PAGE.format(fault=note), status, headers=_HEADERS)
