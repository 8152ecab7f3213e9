"""Clients whose history is kept for the checker, and traffic of them that survives what it is put
through: it reconnects, joins again and goes on, as a good client does."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import json
import os
import random
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol, Self

import websockets.exceptions

from tests.checker import Entry, check
from tests.harness import (
    LIMIT_S,
    Client,
    HasRooms,
    Message,
    holders_in_redis,
    unique,
    wait_until_async,
)

FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.05, 0.4
THINKING_S = 0.1
"""The longest that a client of the traffic thinks between two requests."""
REFUSALS = {"seat_taken", "not_holder", "limit_reached"}
"""What a request may be refused with that is in order itself."""


class Place(Protocol):
    """Where clients connect: an instance, or a balancer before several."""

    @property
    def url(self) -> str:
        """For WebSockets."""


class Lost(ConnectionError):
    """The connection was lost before the answer came."""


def seeded() -> random.Random:
    """A source of chance; its seed is printed, and SEATWS_TEST_SEED repeats it."""
    seed = os.environ.get("SEATWS_TEST_SEED") or str(random.SystemRandom().randrange(1_000_000))
    sys.stdout.write(f"SEATWS_TEST_SEED={seed}\n")
    return random.Random(seed)


class History:
    """What all clients asked and were told, in the order of its happening."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.slowest_s = 0.0
        """The longest that an answer took."""
        self.connections = 0

    def judge(
        self,
        room_id: str,
        redis: dict[str, str],
        lives: Sequence[str] = (),
        *,
        is_rollback: bool = False,
    ) -> None:
        """Fail if a promise was broken; for the arguments see `check`."""
        broken = check(self.entries, room_id, redis, lives, is_rollback=is_rollback)
        assert not broken, "\n".join(f"{rule}: {what}" for rule, what in broken[:10])

    def count(self, code: str) -> int:
        """How many requests were answered with an error of this code."""
        return sum(entry.message.get("code") == code for entry in self.entries)

    def maps(self) -> int:
        """How many maps were sent."""
        return sum(entry.message.get("type") == "current_selections" for entry in self.entries)

    def closed(self) -> int:
        """How many connections were lost or closed."""
        return sum(entry.kind == "closed" for entry in self.entries)


class RecordedClient(Client):
    """A client that writes down what it asks and is told."""

    url: str
    history: History
    number: int
    _asked: dict[str, tuple[int, list[Message], asyncio.Future[None]]]

    @classmethod
    @contextlib.asynccontextmanager
    async def recorded(
        cls, history: History, url: str, client_id: str | None = None
    ) -> AsyncIterator[Self]:
        """Connect, and close at the end."""
        async with cls.connect(url, client_id, compression=None) as client:
            assert isinstance(client, cls)
            history.connections += 1
            client.history, client.number, client.url = history, history.connections, url
            client._asked = {}
            client._reading.add_done_callback(client._end)
            yield client

    @property
    def reading(self) -> asyncio.Task[None]:
        """Done when the connection is."""
        return self._reading

    @property
    def is_closed(self) -> bool:
        """Whether nothing more will come."""
        return self._reading.done()

    def own(self, room_id: str) -> list[str]:
        """The seats that the client's map shows as its own."""
        shown = self.maps[room_id].items()
        return [seat for seat, holder in shown if holder == self.client_id]

    async def request(self, **message: Any) -> list[Message]:
        """Send a request and wait for all its answers: one, or one a seat.

        Raises:
            Lost: The connection ended first.
        """
        if self.is_closed:
            raise self._lost()
        loop = asyncio.get_running_loop()
        request_id, began = unique("q"), loop.time()
        answers: list[Message] = []
        whole: asyncio.Future[None] = loop.create_future()
        self._asked[request_id] = len(message.get("seat_ids", "1")), answers, whole
        try:
            await self.send(**message, request_id=request_id)
            async with asyncio.timeout(LIMIT_S):
                await whole
        except websockets.exceptions.ConnectionClosed as exc:
            raise self._lost() from exc
        finally:
            self._asked.pop(request_id, None)
            if whole.done() and not whole.cancelled():
                whole.exception()  # known by now, whichever way the loss was noticed first
        self.history.slowest_s = max(self.history.slowest_s, loop.time() - began)
        return answers

    async def ask(self, **message: Any) -> Message:
        """Send a request and wait for its answer, which may be an `error`."""
        return (await self.request(**message))[-1]

    async def act(self, room_id: str, seats: Sequence[str], chance: random.Random) -> set[str]:
        """Make some requests at once: nobody need wait for one answer to ask for the next.

        Returns:
            The answers' codes, with `done` for those that are no errors.

        Raises:
            Lost: The connection ended first.
        """
        own = self.own(room_id)
        requests = [random_request(chance, seats, own) for _ in range(chance.randint(1, 3))]
        answers = await asyncio.gather(
            *(self.request(room_id=room_id, **request) for request in requests)
        )
        return {answer.get("code", "done") for answer in itertools.chain(*answers)}

    async def send(self, **message: Any) -> None:
        """Send a message and wait for nothing."""
        self._note("asked", message)
        await self.socket.send(json.dumps(message))

    def _apply(self, message: Message) -> None:
        self._note("told", message)
        super()._apply(message)
        if asked := self._asked.get(message.get("request_id", "")):
            count, answers, whole = asked
            answers.append(message)
            if (len(answers) == count or message["type"] == "error") and not whole.done():
                whole.set_result(None)

    def _note(self, kind: Any, message: Message) -> None:
        self.history.entries.append(Entry(self.number, self.client_id, kind, message))

    def _end(self, reading: asyncio.Task[None]) -> None:
        del reading
        self._note("closed", {})
        for _, _, whole in self._asked.values():
            if not whole.done():
                whole.set_exception(self._lost())

    def _lost(self) -> Lost:
        return Lost(f"{self.client_id} at {self.url}: closed with {self.socket.close_code}")


class Traffic:
    """Clients of one room, over several places, who select and release until they are to rest.

    An async context manager: entered, it flows.
    """

    def __init__(
        self, room_id: str, places: Sequence[Place], chance: random.Random, clients: int = 12
    ) -> None:
        self.room_id = room_id
        self.clients = clients
        self.history = History()
        self.viewers: dict[int, RecordedClient] = {}
        """Who is connected and in the room."""
        self.turned_away: list[Exception] = []
        """Why connections did not come to be."""
        self._seats = [f"A{number}" for number in range(clients)]
        self._places = places
        self._chances = [random.Random(chance.random()) for _ in range(clients)]
        self._going = asyncio.Event()
        self._resting: set[int] = set()
        self._done: collections.Counter[int] = collections.Counter()
        self._refused: collections.Counter[int] = collections.Counter()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._going.set()
        self._tasks = [asyncio.create_task(self._live(number)) for number in range(self.clients)]
        await self.flows()
        return self

    async def __aexit__(self, *failure: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def flows(self) -> None:
        """Wait until every client has got something done, from now on."""
        await self._each_counts(self._done)

    async def is_refused(self) -> None:
        """Wait until every client has been told `store_unavailable`, from now on."""
        await self._each_counts(self._refused)

    async def settle(self, has_rooms: HasRooms) -> dict[str, str]:
        """Let all clients rest, and wait until every one's map is what Redis has. Returns that."""
        self._going.clear()
        await self._until(lambda: len(self._resting) == self.clients)
        await self._until(lambda: self._all_see(holders_in_redis(has_rooms, self.room_id)))
        return holders_in_redis(has_rooms, self.room_id)

    def go_on(self) -> None:
        """End the rest."""
        self._going.set()

    async def _each_counts(self, counter: collections.Counter[int]) -> None:
        before = counter.copy()
        await self._until(lambda: all(counter[one] > before[one] for one in range(self.clients)))

    async def _until(self, is_so: Callable[[], bool]) -> None:
        def is_so_or_failed() -> bool:
            for task in self._tasks:
                if task.done():
                    task.result()
            return is_so()

        await wait_until_async(is_so_or_failed)

    def _all_see(self, holders: dict[str, str]) -> bool:
        return all(viewer.maps[self.room_id] == holders for viewer in self.viewers.values())

    async def _live(self, number: int) -> None:
        client_id, chance = unique("client"), self._chances[number]
        turn, backoff_s = number, FIRST_BACKOFF_S
        while True:
            url = self._places[turn % len(self._places)].url
            try:
                async with RecordedClient.recorded(self.history, url, client_id) as client:
                    await self._join(client)
                    self.viewers[number] = client
                    backoff_s = FIRST_BACKOFF_S
                    while True:
                        await self._rest_if_told(number, client)
                        await asyncio.sleep(chance.uniform(0, THINKING_S))
                        await self._act(number, client, chance)
            except (Lost, websockets.exceptions.ConnectionClosed):
                pass
            except (OSError, websockets.exceptions.WebSocketException) as failure:
                self.turned_away.append(failure)
            finally:
                self.viewers.pop(number, None)
            turn += 1
            await asyncio.sleep(backoff_s * chance.uniform(0.5, 1))
            backoff_s = min(backoff_s * 2, LAST_BACKOFF_S)

    async def _join(self, client: RecordedClient) -> None:
        while True:
            answer = await client.ask(type="join_room", room_id=self.room_id)
            if answer["type"] == "room_joined":
                break
            assert answer["code"] == "store_unavailable", answer
            await asyncio.sleep(FIRST_BACKOFF_S)
        await wait_until_async(lambda: self.room_id in client.maps or client.is_closed)

    async def _rest_if_told(self, number: int, client: RecordedClient) -> None:
        if self._going.is_set():
            return
        self._resting.add(number)
        going = asyncio.ensure_future(self._going.wait())
        try:
            await asyncio.wait({going, client.reading}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            going.cancel()
            self._resting.remove(number)

    async def _act(self, number: int, client: RecordedClient, chance: random.Random) -> None:
        for code in await client.act(self.room_id, self._seats, chance):
            assert code in {*REFUSALS, "done", "store_unavailable"}
            counter = self._refused if code == "store_unavailable" else self._done
            counter[number] += 1


def random_request(chance: random.Random, seats: Sequence[str], own: Sequence[str]) -> Message:
    """Something that a client may ask for, sensible or not, without its room."""
    what = chance.random()
    if own and what < 0.4:
        return {"type": "release_seat", "seat_id": chance.choice(own)}
    if own and what < 0.5:
        return {"type": "select_seat", "seat_id": chance.choice(own)}
    if what < 0.55:
        return {"type": "release_seat", "seat_id": chance.choice(seats)}
    if what < 0.7:
        return {"type": "select_seats", "seat_ids": chance.sample(seats, chance.randint(2, 3))}
    return {"type": "select_seat", "seat_id": chance.choice(seats)}
