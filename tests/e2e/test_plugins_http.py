"""Signing in and permissions over HTTP: the same plugins, answered in HTTP's words."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Starter
from tests.fetch import fetch, json_of, problem_of
from tests.harness import Instance, Valkey, conf_with, holders_in_redis, unique
from tests.sample_plugins.running import TOKENS, bearer, good
from tests.sample_plugins.running import signed as signed

Request = tuple[str, str, Any]
"""Method, path, body."""


def requests_of(room: str, client_id: str | None) -> dict[str, Request]:
    """One for each action; `client_id` is who they say to be from."""
    query = "" if client_id is None else f"?client_id={client_id}"
    seat = f"/room/{room}/selections/A1"
    return {
        "stats": ("GET", f"/stats{query}", None),
        "read": ("GET", f"/room/{room}/selections{query}", None),
        "select": ("PUT", seat, {} if client_id is None else {"client_id": client_id}),
        "release": ("DELETE", f"{seat}{query}", None),
    }


ACTIONS = pytest.mark.parametrize("action", ["stats", "read", "select", "release"])


async def ask(server: Instance, request: Request, token: str | None = None) -> Any:
    method, path, body = request
    return await fetch(server.http + path, method, body, **(bearer(token) if token else {}))


@pytest.mark.gen_test(timeout=60)
@ACTIONS
async def test_without_a_good_token_nothing_is_answered(signed: Instance, action: str) -> None:
    """401 with `WWW-Authenticate`, whatever is wrong with it, and nothing of what that is."""
    name = unique("ann")
    request = requests_of(unique("room"), name)[action]
    kinds = ("bad", "unknown", "fails", "odd", "late")
    for token in (None, good(name, -2), *(good(name, kind=kind) for kind in kinds)):
        response = await ask(signed, request, token)
        problem = problem_of(response, 401, "unauthenticated")
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert name not in str(problem)
        assert response.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.gen_test(timeout=60)
@ACTIONS
async def test_who_can_not_be_told_yet_is_asked_to_come_back(signed: Instance, action: str) -> None:
    """503 with `Retry-After`."""
    name = unique("ann")
    request = requests_of(unique("room"), name)[action]
    response = await ask(signed, request, good(name, kind="unready"))
    problem_of(response, 503, "store_unavailable")
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.gen_test(timeout=60)
@ACTIONS
async def test_nobody_is_taken_for_another(signed: Instance, action: str) -> None:
    """403 with another client's good token."""
    name = unique("ann")
    request = requests_of(unique("room"), name)[action]
    problem_of(await ask(signed, request, good(f"{name}x")), 403, "forbidden")


@pytest.mark.gen_test(timeout=60)
@ACTIONS
async def test_who_may_not_learns_that_alone(signed: Instance, action: str) -> None:
    """403, with neither the reason nor the plugin."""
    name = unique("eve")
    request = requests_of(unique("no"), name)[action]
    problem = problem_of(await ask(signed, request, good(name)), 403, "forbidden")
    assert problem["detail"] == "not allowed"
    assert problem.keys() == {"type", "title", "status", "code", "detail"}


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("named", [True, False], ids=["named", "left out"])
async def test_a_good_token_says_who_one_is(signed: Instance, valkey: Valkey, named: bool) -> None:
    """`client_id` may be left out: the hold is the identity's then, too."""
    name, room = unique("ann"), unique("room")
    requests = requests_of(room, name if named else None)
    token = good(name)
    assert json_of(await ask(signed, requests["select"], token), 201)["client_id"] == name
    assert holders_in_redis(valkey, room) == {"A1": name}
    assert json_of(await ask(signed, requests["select"], token), 200)["client_id"] == name
    assert json_of(await ask(signed, requests["read"], token))["count"] == 1
    json_of(await ask(signed, requests["stats"], token))
    other = requests_of(room, None)["release"]
    problem_of(await ask(signed, other, good(f"{name}x")), 409, "not_holder")
    assert (await ask(signed, requests["release"], token)).code == 204
    assert holders_in_redis(valkey, room) == {}


@pytest.mark.gen_test(timeout=60)
async def test_a_token_may_stand_in_the_query(signed: Instance) -> None:
    """Where the plugin looks there: for a polling client as for a browser's WebSocket."""
    url = f"{signed.http}/room/{unique('room')}/selections"
    json_of(await fetch(f"{url}?token={good('ann')}"))
    problem_of(await fetch(f"{url}?token={good('ann', kind='bad')}"), 401, "unauthenticated")


@pytest.mark.gen_test(timeout=60)
async def test_in_open_mode_a_hold_needs_a_client_id(server: Instance) -> None:
    """There is no identity to take it from; a token changes nothing."""
    requests = requests_of(unique("room"), None)
    for action in ("select", "release"):
        problem = problem_of(
            await ask(server, requests[action], good("ann")), 400, "invalid_message"
        )
        assert problem["detail"] == "client_id: missing"
    for action in ("read", "stats"):
        json_of(await ask(server, requests[action]))


@pytest.mark.gen_test(timeout=60)
@ACTIONS
async def test_a_client_id_that_is_none_is_refused(
    signed: Instance, server: Instance, action: str
) -> None:
    """Before any plugin or the log sees it, with a token and in open mode."""
    for name in (
        "a%0A2024-01-15T10:30:00.000Z ERROR forged".replace(" ", "%20"),
        "a%20b",
        "",
        "a" * 65,
    ):
        method, path, body = requests_of(unique("room"), name)[action]
        if body is not None:
            body = {"client_id": name}
        for instance in (signed, server):
            response = await ask(instance, (method, path, body), good("ann"))
            assert "client_id" in problem_of(response, 400, "invalid_message")["detail"]
    assert "forged" not in signed.log + server.log


@pytest.mark.gen_test(timeout=60)
async def test_what_needs_no_token(signed: Instance) -> None:
    """Preflights, which carry none (Fetch, CORS), the page, `/health` and `/metrics`."""
    for path in ("/", "/static/main.js", "/health", "/metrics"):
        assert (await fetch(signed.http + path)).code == 200
    for _, path, _ in requests_of(unique("no"), None).values():
        response = await fetch(signed.http + path, "OPTIONS", Origin="https://cine.example")
        assert response.code == 204
        assert "Authorization" in response.headers["Access-Control-Allow-Headers"]


@pytest.mark.gen_test(timeout=60)
async def test_too_many_bad_tokens_are_told_to_wait(
    start: Starter, valkey: Valkey, tmp_path: Path
) -> None:
    """429 with `Retry-After`; who has a good token is served, who has none told so."""
    conf = conf_with(tmp_path / "conf", TOKENS)
    server = start(valkey.url, conf=conf, SEATWS_LIMITS__FAILED_SIGN_INS_PER_MINUTE="2")
    requests = list(requests_of(unique("room"), "ann").values())
    for request in requests[:2]:
        problem_of(await ask(server, request, good("ann", kind="bad")), 401, "unauthenticated")
    for request in requests:
        response = await ask(server, request, good("ann", kind="bad"))
        assert problem_of(response, 429, "rate_limited")["retry_after_ms"] > 0
        assert int(response.headers["Retry-After"]) > 0
        problem_of(await ask(server, request), 401, "unauthenticated")
        assert (await ask(server, request, good("ann"))).code in (200, 201, 204)


@pytest.mark.gen_test(timeout=60)
async def test_who_waits_is_answered_when_the_token_ends(signed: Instance) -> None:
    """401 then, its grace over, not when the seconds of the request have passed."""
    name = unique("ann")
    url = f"{signed.http}/room/{unique('room')}/selections"
    ends = time.time() + 1
    tag = (await fetch(url, **bearer(good(name)))).headers["ETag"]
    token = f"good:{name}:{ends}"
    response = await fetch(f"{url}?wait=60", If_None_Match=tag, **bearer(token))
    problem_of(response, 401, "unauthenticated")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert time.time() >= ends + 1


@pytest.mark.gen_test(timeout=60)
async def test_many_wait_for_one_plugin_and_others_are_served(
    start: Starter, valkey: Valkey, tmp_path: Path
) -> None:
    """Sign-ins that a plugin thinks about hold up nobody who is known already."""
    conf = conf_with(tmp_path / "conf", f'{TOKENS}\nfile = "go"\ndeadline_seconds = 30')
    server = start(valkey.url, conf=conf)
    request = requests_of(unique("room"), "ann")["read"]
    slow = [asyncio.create_task(ask(server, request, good("ann", kind="slow"))) for _ in range(20)]
    for _ in range(3):
        json_of(await ask(server, request, good("ann")))
    assert not any(task.done() for task in slow)
    (tmp_path / "conf/go").touch()
    assert {response.code for response in await asyncio.gather(*slow)} == {200}
