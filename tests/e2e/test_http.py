"""HTTP around the holds: health, figures, metrics, the page, and how a request is refused."""

from __future__ import annotations

import http.client
import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Starter
from tests.fetch import fetch, json_of, problem_of, until_connections
from tests.harness import Client, Instance, Valkey, unique, wait_until_async
from tests.ports import free_port


def is_healthy(server: Instance) -> bool:
    """What /health says; asked without a loop, so that `wait_until_async` can."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    finally:
        connection.close()


@pytest.mark.gen_test(timeout=60)
async def test_health_counts_connections_and_rooms(start: Starter, valkey: Valkey) -> None:
    """Connections of any kind; rooms that somebody is in, each once."""
    server, room = start(valkey.url), unique("room")
    async with Client.connect(server.url) as ann, Client.connect(server.url) as bob:
        await ann.join(room)
        await bob.join(room)
        async with Client.connect(server.url):
            assert json_of(await fetch(f"{server.http}/health")) == {
                "status": "healthy",
                "service": "websocket",
                "active_connections": 3,
                "active_rooms": 1,
                "redis_connected": True,
            }
    await until_connections(server, 0)
    assert json_of(await fetch(f"{server.http}/health"))["active_rooms"] == 0


@pytest.mark.gen_test(timeout=60)
async def test_without_redis_http_says_so(start: Starter, own_valkey: Valkey) -> None:
    """503 from /health and wherever Redis is needed, with `Retry-After`; 200 when it is back."""
    server, room = start(own_valkey.url), unique("room")
    own_valkey.kill()
    await wait_until_async(lambda: not is_healthy(server))
    response = await fetch(f"{server.http}/health")
    assert response.code == 503
    assert json.loads(response.body) == {
        "status": "unhealthy",
        "service": "websocket",
        "active_connections": 0,
        "active_rooms": 0,
        "redis_connected": False,
    }
    seat = f"{server.http}/room/{room}/selections/A1"
    for response in (
        await fetch(f"{server.http}/room/{room}/selections"),
        await fetch(seat, "PUT", {"client_id": "ann"}),
        await fetch(f"{seat}?client_id=ann", "DELETE"),
    ):
        problem_of(response, 503, "store_unavailable")
        assert int(response.headers["Retry-After"]) > 0
    json_of(await fetch(f"{server.http}/stats"))
    own_valkey.start()
    await wait_until_async(lambda: is_healthy(server))
    json_of(await fetch(seat, "PUT", {"client_id": "ann"}), 201)


@pytest.mark.gen_test(timeout=60)
async def test_stats_tell_figures_and_no_people(start: Starter, valkey: Valkey) -> None:
    """Rooms with their viewers and holds; neither who they are nor what they are called."""
    server, room = start(valkey.url), unique("room")
    async with Client.connect(server.url, unique("secret")) as ann:
        await ann.join(room)
        for seat in ("A1", "A2"):
            await ann.select(room, seat, user_info={"name": "Zacarías"})
        async with Client.connect(server.url, unique("secret")):
            response = await fetch(f"{server.http}/stats")
            stats = json_of(response)
    assert stats.pop("uptime_seconds") > 0
    assert stats == {
        "active_connections": 2,
        "active_rooms": 1,
        "temporary_selections": 2,
        "rooms": {room: {"connections": 1, "selections": 2}},
    }
    assert b"secret" not in response.body
    assert b"Zacar" not in response.body


@pytest.mark.gen_test(timeout=60)
async def test_metrics_are_what_prometheus_reads(start: Starter, valkey: Valkey) -> None:
    """The text parses with Prometheus's own parser, is true, and names nobody."""
    server, room = start(valkey.url), unique("room")
    async with Client.connect(server.url) as ann, Client.connect(server.url) as bob:
        await ann.join(room)
        await ann.select(room, "A1")
        assert (await bob.select(room, "A1"))["code"] == "seat_taken"
        response = await fetch(f"{server.http}/metrics")
    assert response.code == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    text = response.body.decode()
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert values["seatws_connections",] == 2
    assert values["seatws_rooms",] == 1
    assert values["seatws_holds",] == 1
    assert values["seatws_redis_up",] == 1
    assert values["seatws_connections_opened_total",] == 2
    assert values["seatws_messages_total", "select_seat"] == 2
    assert values["seatws_refusals_total", "seat_taken"] == 1
    assert room not in text
    assert ann.client_id not in text


@pytest.mark.gen_test(timeout=60)
async def test_metrics_may_have_a_port_of_their_own(start: Starter, valkey: Valkey) -> None:
    """Then they are nowhere else, and nothing else is there."""
    port = free_port()
    server = start(valkey.url, SEATWS_METRICS__PORT=str(port))
    problem_of(await fetch(f"{server.http}/metrics"), 404, "not_found")
    assert b"seatws_connections" in (await fetch(f"http://127.0.0.1:{port}/metrics")).body
    problem_of(await fetch(f"http://127.0.0.1:{port}/health"), 404, "not_found")


@pytest.mark.gen_test(timeout=60)
async def test_metrics_may_be_turned_off(start: Starter, valkey: Valkey) -> None:
    """`metrics.enabled = false`: there are none."""
    server = start(valkey.url, SEATWS_METRICS__ENABLED="false")
    problem_of(await fetch(f"{server.http}/metrics"), 404, "not_found")


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("path", ["/nothing", "/room", "/room/r", "/ws", "/ws/a/b", "/health/x"])
async def test_an_address_that_is_none_is_not_found(server: Instance, path: str) -> None:
    """404 `not_found`, whatever the method."""
    for method in ("GET", "PUT", "DELETE", "POST", "OPTIONS"):
        problem_of(await fetch(server.http + path, method), 404, "not_found")


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/health", "GET, HEAD, OPTIONS"),
        ("/stats", "GET, HEAD, OPTIONS"),
        ("/metrics", "GET, HEAD, OPTIONS"),
        ("/room/r/selections", "GET, HEAD, OPTIONS"),
        ("/room/r/selections/A1", "PUT, DELETE, OPTIONS"),
        ("/", "GET, HEAD"),
        ("/static/main.js", "GET, HEAD"),
        ("/ws/ann", "GET"),
    ],
)
async def test_another_method_is_told_which_there_are(
    server: Instance, path: str, allowed: str
) -> None:
    """405 `method_not_allowed`, with `Allow` (RFC 9110 15.5.6); and those allowed are."""
    for method in {"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST"} - set(allowed.split(", ")):
        response = await fetch(server.http + path, method)
        assert response.code == 405, method
        if method != "HEAD":
            problem_of(response, 405, "method_not_allowed")
        given = {one for one in response.headers.get("Allow", "").split(", ") if one != "OPTIONS"}
        assert given == set(allowed.split(", ")) - {"OPTIONS"}
    for method in allowed.split(", "):
        assert (await fetch(server.http + path, method)).code != 405, method


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("path", ["/health", "/stats", "/metrics", "/room/head/selections", "/"])
async def test_head_answers_as_get_without_a_body(server: Instance, path: str) -> None:
    """The same status and kind, and nothing after the headers."""
    get, head = await fetch(server.http + path), await fetch(server.http + path, "HEAD")
    assert head.code == get.code == 200
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    assert head.headers["Content-Length"] != "0"
    if "selections" in path:
        assert head.headers["ETag"] == get.headers["ETag"]
    assert head.body == b""


@pytest.mark.gen_test(timeout=60)
async def test_the_page_runs_no_script_but_its_own(server: Instance) -> None:
    """`/` and its files come with a Content-Security-Policy that allows no other source."""
    page = await fetch(f"{server.http}/")
    assert page.code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    for path, kind in [
        ("/", "text/html"),
        ("/static/main.js", "text/javascript"),
        ("/static/seat-selection-client.js", "text/javascript"),
        ("/static/seatmap.css", "text/css"),
    ]:
        response = await fetch(server.http + path)
        assert response.headers["Content-Type"].split(";")[0] == kind
        policy = response.headers["Content-Security-Policy"]
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        assert rules["default-src"] == "'none'"
        assert rules["script-src"] == rules["style-src"] == "'self'"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert path == "/" or path in page.body.decode()


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    "path",
    [
        "/static/../http.py",
        "/static/%2e%2e/http.py",
        "/static/..%2fhttp.py",
        "/static/..%5chttp.py",
        "/static/seat-selection-client.d.ts",
        "/static/../../../conf/seatws.toml",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/main.js%00.css",
        "/static/",
        "/static/nothing.js",
    ],
)
async def test_nothing_outside_of_static_is_served(server: Instance, path: str) -> None:
    """Whatever way out a path takes, the answer is a problem and no file."""
    response = await fetch(server.http + path)
    assert response.code in (400, 403, 404), (response.code, response.body)
    problem_of(response, response.code, json.loads(response.body)["code"])


OURS = '["https://cine.example", "https://*.cine.example:8443"]'


@pytest.mark.gen_test(timeout=60)
async def test_as_shipped_pages_from_anywhere_may_ask(server: Instance) -> None:
    """`["*"]`: the guide's pages open from a file, and may read the ETag; refusals, too."""
    for path in ("/health", "/stats", "/room/cors/selections", "/room/not ours/selections"):
        response = await fetch(server.http + path.replace(" ", "%20"), Origin="null")
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"ETag", "Retry-After"} <= set(exposed)


@pytest.mark.gen_test(timeout=60)
async def test_only_the_listed_origins_may_ask(start: Starter, valkey: Valkey) -> None:
    """Exact ones, and those of a `*.` for subdomains; caches are told that it depends."""
    server = start(valkey.url, SEATWS_SERVER__ALLOWED_ORIGINS=OURS)
    for origin, allowed in [
        ("https://cine.example", True),
        ("https://a.cine.example:8443", True),
        ("https://a.b.cine.example:8443", True),
        ("https://a.cine.example", False),
        ("https://cine.example:8443", False),
        ("http://cine.example", False),
        ("http://a.cine.example:8443", False),
        ("https://cine.example.evil.example", False),
        ("https://evilcine.example:8443", False),
        ("null", False),
    ]:
        response = await fetch(f"{server.http}/health", Origin=origin)
        assert response.code == 200
        assert response.headers["Vary"] == "Origin"
        given = response.headers.get("Access-Control-Allow-Origin")
        assert given == (origin if allowed else None), origin


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize(
    ("path", "methods"),
    [("/room/cors/selections", {"GET"}), ("/room/cors/selections/A1", {"PUT", "DELETE"})],
)
async def test_a_preflight_is_answered(server: Instance, path: str, methods: set[str]) -> None:
    """With the methods of the address, and the headers that the API reads (Fetch, CORS)."""
    response = await fetch(
        server.http + path,
        "OPTIONS",
        Origin="https://cine.example",
        Access_Control_Request_Method="PUT",
        Access_Control_Request_Headers="content-type",
    )
    assert response.code == 204
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert methods <= set(response.headers["Access-Control-Allow-Methods"].split(", "))
    headers = response.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert {"if-none-match", "content-type", "authorization"} <= set(headers)
