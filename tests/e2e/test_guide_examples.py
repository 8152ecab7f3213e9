"""docs/guide.md and docs/guia.md: messages, HTTP, shell and Python, tried on real servers."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest

from seatws.messages import Command
from tests.conftest import Starter
from tests.fetch import fetch
from tests.harness import LIMIT_S, Client, Instance, Valkey, conf_with, unique
from tests.test_guide_docs import GUIDES, KINDS, blocks, code, frames

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ROOM = "funcion_123"
ANN, MARIA = "user_1234567890", "user_9876543210"
SECRET = "a secret that no one outside of this test knows"


def assert_like(got: Any, shown: Any, what: str = "") -> None:
    """`got` is what the guide shows, field by field: the same kinds, and the same values.

    Times are times, and figures of running time are figures.
    """
    assert type(got) is type(shown), (what, got, shown)
    if isinstance(shown, dict):
        assert got.keys() == shown.keys(), (what, got, shown)
        for name, value in shown.items():
            assert_like(got[name], value, name)
    elif isinstance(shown, list):
        assert len(got) == len(shown), (what, got, shown)
        for one, other in zip(got, shown, strict=True):
            assert_like(one, other, what)
    elif isinstance(shown, str) and TIME.fullmatch(shown):
        assert TIME.fullmatch(got), (what, got)
    elif what != "uptime_seconds":
        assert got == shown, what


# ---------------------------------------------------------------- the examples of messages


@asynccontextmanager
async def cinema(server: Instance, name: str) -> AsyncIterator[tuple[Client, Client]]:
    """Ana and María, who holds a seat and is in the room already when all begins."""
    (hold,) = next(f for f in frames(name) if f["type"] == "current_selections")["selections"]
    async with Client.connect(server.url, ANN) as ann, Client.connect(server.url, MARIA) as maria:
        await maria.join(ROOM)
        wish = {field: hold[field] for field in ("seat_id", "user_info")}
        assert (await maria.select(ROOM, **wish))["type"] == "seat_selected"
        yield ann, maria


@pytest.fixture
def guided(start: Starter, valkey: Valkey) -> Instance:
    """A server in whose Redis the guide's rooms are nobody else's."""
    return start(valkey.url, SEATWS_REDIS__PREFIX=unique("guide"))


async def assert_hears(client: Client, seen: int, shown: list[Any]) -> None:
    """From the message of that number on, the client gets what is shown and nothing else."""
    await client.until(lambda: len(client.received) >= seen + len(shown))
    assert_like(client.received[seen:], shown)


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("name", GUIDES)
async def test_each_request_gets_the_answers_shown_below_it(name: str, guided: Instance) -> None:
    """Word for word; and the others' news are what the chapter on broadcasts shows."""
    exchanges: list[tuple[Any, list[Any]]] = []
    text = GUIDES[name]
    chapters = re.split(
        r"^### ", text[text.index("\n#### 1.") : text.index("\n#### 7.")], flags=re.M
    )
    assert len(chapters) == 1
    for _, block in blocks(chapters[0]):
        frame = json.loads(block)
        if issubclass(KINDS[frame["type"]], Command):
            exchanges.append((frame, []))
        else:
            exchanges[-1][1].append(frame)
    assert {request["type"] for request, _ in exchanges} == message_requests() - {"auth"}
    exchanges.sort(key=lambda exchange: exchange[0]["type"] == "leave_room")
    news = broadcasts(name)
    async with cinema(guided, name) as (ann, maria):
        for request, answers in exchanges:
            assert answers, request
            if request["type"] == "leave_room":
                selected, released = news
                seen = len(ann.received)
                await maria.select(ROOM, selected["seat_id"], user_info=selected["user_info"])
                await maria.release(ROOM, released["seat_id"])
                await assert_hears(ann, seen, news)
            seen = len(ann.received)
            await ann.send(**request)
            await assert_hears(ann, seen, answers)
        assert (await ann.ask(type="ping"))["type"] == "pong"  # nothing else had come before


def message_requests() -> set[str]:
    """The types that a client may send."""
    return {kind for kind, struct in KINDS.items() if issubclass(struct, Command)}


def broadcasts(name: str) -> list[Any]:
    """Of María: a seat selected, and the same released."""
    news = [
        frame
        for frame in frames(name)
        if frame.get("client_id") == MARIA and frame.get("reason") != "expired"
    ]
    assert [frame["type"] for frame in news] == ["seat_selected", "seat_released"]
    return news


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("name", GUIDES)
async def test_an_end_is_told_as_shown(name: str, start: Starter, valkey: Valkey) -> None:
    """A selection whose time is over, to everyone in the room."""
    (shown,) = (frame for frame in frames(name) if frame.get("reason") == "expired")
    server = start(valkey.url, SEATWS_REDIS__PREFIX=unique("guide"), SEATWS_HOLDS__SECONDS="5")
    async with cinema(server, name) as (ann, _):
        await ann.join(ROOM)
        got = await ann.heard(lambda message: message["type"] == "seat_released")
        assert_like(got | {"rev": shown["rev"]}, shown)


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("name", GUIDES)
async def test_signing_in_is_answered_as_shown(
    name: str, start: Starter, valkey: Valkey, tmp_path: Path
) -> None:
    """The guide's `auth`, with a token that is real."""
    (tmp_path / "secret").write_text(SECRET)
    conf = conf_with(
        tmp_path / "conf",
        'use = "plugins.jwt_auth"\nissuer = "*"\naudience = "*"\nwarn_seconds = 3600\n'
        f'[[plugin.keys]]\nalgorithms = ["HS256"]\nsecret_file = "{tmp_path / "secret"}"',
    )
    server = start(valkey.url, conf=conf)
    shown = {frame["type"]: frame for frame in frames(name) if frame["type"].startswith("auth")}
    assert shown.keys() == {"auth", "auth_ok", "auth_expiring"}
    token = jwt.encode({"sub": ANN, "exp": 2_000_000_000}, SECRET, "HS256")
    short = jwt.encode({"sub": ANN, "exp": int(time.time()) + 600}, SECRET, "HS256")
    async with Client.connect(server.url, ANN) as ann:
        await ann.send(**shown["auth"] | {"token": token})
        await assert_hears(ann, 0, [shown["auth_ok"]])
        await ann.send(**shown["auth"] | {"token": short})
        await assert_hears(ann, 1, [shown["auth_ok"], shown["auth_expiring"]])


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("name", GUIDES)
async def test_the_goodbye_is_like_the_one_shown(name: str, guided: Instance) -> None:
    """When the server goes down: the same fields, and the same words."""
    (shown,) = (frame for frame in frames(name) if frame["type"] == "goodbye")
    async with Client.connect(guided.url, ANN) as ann:
        await ann.join(ROOM)
        assert guided.process is not None
        guided.process.terminate()
        got = await ann.heard(lambda message: message["type"] == "goodbye")
        assert_like(got | {"retry_after_ms": shown["retry_after_ms"]}, shown)
        assert await ann.closed() == shown["code"]


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("name", GUIDES)
async def test_a_limit_is_told_as_shown(name: str, start: Starter, valkey: Valkey) -> None:
    """The example of an error, from a client that asks too much."""
    (shown,) = (frame for frame in frames(name) if frame.get("code") == "rate_limited")
    server = start(valkey.url, SEATWS_LIMITS__MESSAGES_PER_SECOND="1", SEATWS_LIMITS__BURST="5")
    async with Client.connect(server.url, ANN) as ann:
        for _ in range(6):
            await ann.send(type="ping")
        got = await ann.heard(lambda message: message["type"] == "error")
        assert_like(got | {"retry_after_ms": shown["retry_after_ms"]}, shown)


# ---------------------------------------------------------------- HTTP, shell and Python


def curls(block: str) -> list[list[str]]:
    """The words of each curl command of a shell block."""
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("curl ")]


async def curl(server: Instance, words: list[str]) -> Any:
    """Do what curl would, as far as the guide uses it; the body, parsed."""
    method, body, headers, url = "", None, {}, ""
    words = list(words)
    while words:
        match words.pop(0):
            case "-X":
                method = words.pop(0)
            case "-d":
                body = words.pop(0).encode()
            case "-H":
                name, value = words.pop(0).split(": ")
                headers[name] = value
            case "-i":
                pass
            case word:
                assert not word.startswith("-"), word
                url = word
    assert "localhost:8001" in url
    url = url.replace("localhost:8001", f"127.0.0.1:{server.port}")
    url = url if "://" in url else f"http://{url}"
    method = method or ("GET" if body is None else "POST")
    answer = await fetch(url, method, body, **headers)
    return json.loads(answer.body) if answer.body else None


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("name", GUIDES)
async def test_each_curl_gets_the_answer_shown_below_it(name: str, guided: Instance) -> None:
    """In the guide's order; the one that shows none is answered, too."""
    shown = blocks(GUIDES[name])
    compared = 0
    async with cinema(guided, name) as (ann, _):
        await ann.join(ROOM)
        for number, (language, block) in enumerate(shown):
            for words in curls(block) if language == "sh" else ():
                answer = await curl(guided, words)
                following, expected = shown[number + 1]
                if following == "json" and len(curls(block)) == 1:
                    assert_like(answer, json.loads(expected))
                    compared += 1
    assert compared == 5


async def run_python(block: str, server: Instance, tmp_path: Path) -> asyncio.subprocess.Process:
    """Start a Python example on this server."""
    file = tmp_path / "example.py"
    file.write_text(block.replace("localhost:8001", f"127.0.0.1:{server.port}"))
    return await asyncio.create_subprocess_exec(
        sys.executable, str(file), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )


def python_block(name: str, file: str) -> str:
    """The example that says that it is this file."""
    (block,) = (block for block in code(name, "python") if block.startswith(f"# {file}: "))
    return block


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("name", GUIDES)
async def test_the_python_client_prints_what_happens(
    name: str, guided: Instance, tmp_path: Path
) -> None:
    """Ana takes a seat and gives it back, Luis sees both."""
    process = await run_python(python_block(name, "two_visitors.py"), guided, tmp_path)
    async with asyncio.timeout(LIMIT_S):
        output, _ = await process.communicate()
    first, second = output.decode().splitlines()
    assert re.fullmatch(rf"A1 [a-z ]+ Ana \w+ {TIME.pattern}", first), first
    assert second.startswith("A1 "), second
    assert second.endswith("released"), second
    assert process.returncode == 0


@pytest.mark.gen_test(timeout=60)
@pytest.mark.parametrize("wait", ["25", "0"], ids=["the change comes", "nothing changes at first"])
@pytest.mark.parametrize("name", GUIDES)
async def test_the_polling_example_follows_a_room(
    name: str, wait: str, guided: Instance, tmp_path: Path
) -> None:
    """Its first line is the map that is there, the second comes with the change."""
    example = python_block(name, "poll.py").replace("wait=25", f"wait={wait}")
    process = await run_python(example, guided, tmp_path)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(LIMIT_S), Client.connect(guided.url, MARIA) as maria:
            assert (await process.stdout.readline()).endswith(b": []\n")
            for _ in range(50):  # time for some 304 where it does not wait
                await maria.ask(type="ping")
            await maria.select(ROOM, "B5")
            assert (await process.stdout.readline()).endswith(b": ['B5']\n")
    finally:
        process.kill()
        await process.communicate()
