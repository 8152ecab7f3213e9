"""Asking a server by HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPResponse

from tests.harness import LIMIT_S, Instance


async def fetch(url: str, method: str = "GET", body: Any = None, **headers: str) -> HTTPResponse:
    """Ask, whatever the answer.

    Args:
        url: Sent as it stands.
        method: Any.
        body: Bytes, or what becomes JSON.
        headers: More headers, `_` for `-`.
    """
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    client = AsyncHTTPClient(force_instance=True)
    try:
        return await client.fetch(
            url,
            method=method,
            body=body,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
            allow_nonstandard_methods=True,
            follow_redirects=False,
            connect_timeout=LIMIT_S,
            request_timeout=LIMIT_S,
            decompress_response=False,
            raise_error=False,
        )
    finally:
        client.close()


def json_of(response: HTTPResponse, status: int = 200) -> Any:
    """The body, which must be JSON and come with this status."""
    assert response.code == status, (response.code, response.body)
    assert response.headers["Content-Type"] == "application/json"
    return json.loads(response.body)


def problem_of(response: HTTPResponse, status: int, code: str) -> dict[str, Any]:
    """The body, which must be a problem (RFC 9457) with this status and code."""
    assert response.code == status, (response.code, response.body)
    assert response.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = json.loads(response.body)
    assert problem["status"] == status
    assert problem["code"] == code
    assert {"type", "title", "detail"} <= problem.keys()
    assert problem["detail"]
    return problem


async def until_connections(server: Instance, count: int) -> None:
    """Wait until so many are connected to the server."""
    async with asyncio.timeout(LIMIT_S):
        while json_of(await fetch(f"{server.http}/health"))["active_connections"] != count:
            pass


async def until_health_says(code: int, instances: Sequence[Instance]) -> None:
    """Wait until it does, everywhere."""
    async with asyncio.timeout(LIMIT_S):
        for instance in instances:
            while (await fetch(f"{instance.http}/health")).code != code:
                pass
