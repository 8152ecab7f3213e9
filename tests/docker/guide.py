"""Every command of the guide, taken from its text, in the order in which they make sense."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shlex
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.docker.compose import Compose, check, docker, inspect, say, wait_for
from tests.docker.visitors import HTTP, WS, answers, connections_of, get, holders, put, scenario
from tests.harness import Client, unique

GUIDE = (Path(__file__).parent.parent / "data/guia-websocket.md").read_text()
SERVICES = ["balancer", "redis", "websocket"]


def commands() -> list[str]:
    """What the guide tells one to type, from "Comandos de Docker" to its end."""
    text = GUIDE[GUIDE.index("## Comandos de Docker") :]
    found = re.findall(r"((?:docker-compose|curl) [^`\n]+)", text)
    return sorted({one for one in found if one != "docker-compose.yml"})


async def up_websocket(compose: Compose, command: str) -> None:
    """Alone it brings what it needs, and the port answers."""
    with compose.following(command) as terminal:
        await asyncio.to_thread(answers)
        terminal.shows("listens on http://0.0.0.0:8001")
        for service in SERVICES:
            check(compose.ids(service), f"{service} runs, too")
        await scenario()
        (server,) = compose.ids("websocket")
    wait_for(lambda: not inspect(server)["State"]["Running"], "the server has stopped with it")
    code = inspect(server)["State"]["ExitCode"]
    if "Kill" in terminal.text:
        # Some v2 (2.26 for one) notice one Ctrl-C by two ways and may take it for two.
        say(f"    Compose took the Ctrl-C for two, and killed it: exit code {code}")
    else:
        check(code == 0, "and ended by itself, with 0")


async def up_all(compose: Compose, command: str) -> None:
    """In the background; the scenario works."""
    compose.run(shlex.split(command))
    for service in SERVICES:
        compose.healthy(service, 1)
    answers()
    await scenario()


async def follow_server(compose: Compose, command: str) -> None:
    """It shows what was, and then what comes."""
    with compose.following(command) as terminal:
        terminal.shows("listens on http://0.0.0.0:8001")
        check("reloaded" not in terminal.text, "it has not been told to reload")
        compose("kill", "-s", "HUP", "websocket")
        terminal.shows("reloaded")


async def show_server(compose: Compose, command: str) -> None:
    """The log, and back to the prompt."""
    check("listens on http://0.0.0.0:8001" in compose.run(shlex.split(command)), "it is the log")


async def follow_redis(compose: Compose, command: str) -> None:
    """The log of Redis."""
    with compose.following(command) as terminal:
        terminal.shows("Ready to accept connections")


async def restart(compose: Compose, command: str) -> None:
    """A viewer is told to come back, and finds its hold."""
    room = unique("funcion")
    async with Client.connect(WS) as viewer:
        await viewer.join(room)
        assert (await viewer.select(room, "A1"))["type"] == "seat_selected"
        await asyncio.to_thread(compose.run, shlex.split(command))
        goodbye = await viewer.heard(lambda message: message["type"] == "goodbye")
        check(
            await viewer.closed() == 1012 and goodbye["reconnect"], "a viewer was sent away: 1012"
        )
    await asyncio.to_thread(answers)
    async with Client.connect(WS, viewer.client_id) as again:
        await again.join(room)
        check(again.maps[room] == {"A1": viewer.client_id}, "it is back, and holds its seat")


async def scale(compose: Compose, command: str) -> None:
    """Three of them, all with visitors, and one room for all."""
    compose.run(shlex.split(command))
    replicas = compose.healthy("websocket", 3)
    answers()

    def have(each: int) -> bool:
        return connections_of(replicas) == [each] * 3

    await asyncio.to_thread(wait_for, lambda: have(0), "none has a connection yet")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(6):
            await stack.enter_async_context(Client.connect(WS))
        check(await asyncio.to_thread(have, 2), "of six visitors, each replica has two")
        await scenario(3)


async def ps(compose: Compose, command: str) -> None:
    """It lists all that runs."""
    shown = compose.run(shlex.split(command))
    for service in SERVICES:
        check(
            re.search(rf"{service}[-_]\d.*\bUp\b.*healthy", shown), f"{service} is up and healthy"
        )


async def curl(compose: Compose, command: str) -> None:
    """What the guide asks by HTTP."""
    shown = json.loads(compose.quietly(*shlex.split(command)))
    check({"active_connections", "active_rooms"} <= set(shown), f"it answers {shown}")


Check = Callable[[Compose, str], Awaitable[None]]
CHECKS: dict[str, Check] = {
    "docker-compose up websocket": up_websocket,
    "docker-compose up -d": up_all,
    "docker-compose ps": ps,
    "docker-compose logs -f websocket": follow_server,
    "docker-compose logs websocket": show_server,
    "docker-compose logs -f redis": follow_redis,
    "docker-compose restart websocket": restart,
    f"curl {HTTP}/stats": curl,
    f"curl {HTTP}/health": curl,
    "docker-compose up -d --scale websocket=3": scale,
}


async def every_command(compose: Compose) -> None:
    """All of them; afterwards three replicas run."""
    check(commands() == sorted(CHECKS), f"the guide has {len(CHECKS)} commands, all of them here")
    for command, looks in CHECKS.items():
        await looks(compose, command.replace("docker-compose", str(compose)))
    # Scaled, the rest of them once more.
    for command in ("docker-compose ps", "docker-compose logs websocket", f"curl {HTTP}/health"):
        await CHECKS[command](compose, command.replace("docker-compose", str(compose)))
    await restart(compose, f"{compose} restart websocket")
    compose.healthy("websocket", 3)


async def what_is_open(compose: Compose) -> None:
    """No port but the balancer's, no root, nothing to write on, no figures for everybody."""
    for service in SERVICES:
        for container in compose.ids(service):
            known = inspect(container)
            bound = [port for port, hosts in known["NetworkSettings"]["Ports"].items() if hosts]
            wanted = ["8001/tcp"] if service == "balancer" else []
            check(bound == wanted, f"{service} has these ports of the host: {bound}")
            who = docker("exec", container, "id", "-u").strip()
            check(who != "0", f"{service} runs as user {who}")
            writes = docker("exec", container, "sh", "-c", "touch /x 2>&1 || true")
            check("Read-only" in writes, f"{service} can't write on its file system")
    check(get("/metrics") is None, "metrics are not for visitors")


async def data_stays(compose: Compose) -> None:
    """Holds outlive Redis's restart, and all containers."""
    room = unique("funcion")
    assert put(room, "A1", "ann") == 201
    compose("restart", "redis")
    wait_for(lambda: holders(room) == {"A1": "ann"}, "the hold has outlived a restart of Redis")
    compose("down")
    compose("up", "-d")
    compose.healthy("websocket", 1)
    wait_for(lambda: holders(room) == {"A1": "ann"}, "and `down` and `up`")
    say("    (it is in the volume; `down --volumes` takes it away)")
