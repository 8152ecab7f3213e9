"""How often a client may ask."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seatws.web import rate
from seatws.web.rate import Bucket, Buckets

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
RATE, BURST = 10, 5


def test_a_burst_passes_and_the_next_is_refused() -> None:
    """After a silence as many at once as `burst`; then it is told how long to be silent."""
    bucket = Bucket(RATE, BURST, now=100.0)
    assert [bucket.take(100.0) for _ in range(5)] == [0] * 5
    assert bucket.take(100.0) > 0


def test_messages_at_the_rate_always_pass() -> None:
    """`messages_per_second` for ever, without a pause."""
    bucket = Bucket(RATE, BURST, now=0.0)
    assert all(bucket.take(number * 0.1001) == 0 for number in range(1000))


def test_who_waits_as_it_is_told_gets_on() -> None:
    """Who waits as it is told gets on: of the rate, one half passes and one half is refusals."""
    bucket, now, passed = Bucket(RATE, BURST, now=0.0), 0.0, 0
    while now < 10.0:
        wait_ms = bucket.take(now)
        passed += not wait_ms
        now += wait_ms / 1000
    assert 5 + 10 * 10 / 2 - 2 <= passed <= 5 + 10 * 10 / 2 + 2  # each refusal takes one, too


def test_silence_saves_no_more_than_a_burst() -> None:
    """A client that was away for an hour is no more entitled than a new one."""
    bucket = Bucket(RATE, BURST, now=0.0)
    assert [bucket.take(3600.0) == 0 for _ in range(6)] == [True] * 5 + [False]


def test_zero_is_no_limit() -> None:
    """And then nobody is ever in debt."""
    bucket = Bucket(0, 1, now=0.0)
    assert not any(bucket.take(0.0) for _ in range(10_000))
    assert not bucket.is_in_debt


def test_who_goes_on_all_the_same_gets_into_debt() -> None:
    """As many refusals as a burst, on top of the burst; waiting brings one out again."""
    bucket = Bucket(RATE, BURST, now=0.0)
    in_debt = []
    for _ in range(10):
        bucket.take(0.0)
        in_debt.append(bucket.is_in_debt)
    assert in_debt == [False] * 9 + [True]
    bucket.take(1.0)
    assert not bucket.is_in_debt


@unhurried
@given(
    rate_per_s=st.integers(1, 100_000),
    burst=st.integers(1, 1000),
    pauses=st.lists(st.floats(0, 2), max_size=50),
)
def test_the_silence_that_is_asked_for_is_enough_and_not_much_more(
    rate_per_s: int, burst: int, pauses: list[float]
) -> None:
    """After `retry_after_ms` the next passes; three milliseconds earlier it does not."""
    patient, hasty = (Bucket(rate_per_s, burst, now=0.0) for _ in range(2))
    now = 0.0
    for pause in [*pauses, *[0.0] * (burst + 1)]:
        now += pause
        wait_ms = patient.take(now)
        assert hasty.take(now) == wait_ms
    if wait_ms > 3:
        assert hasty.take(now + (wait_ms - 3) / 1000) > 0
    assert patient.take(now + wait_ms / 1000) == 0


def test_each_key_has_its_own_allowance() -> None:
    """One client's flood does not stop another's request."""
    buckets = Buckets(RATE, BURST)
    for _ in range(10):
        buckets.take(("10.0.0.1", "ann"), 0.0)
    assert buckets.take(("10.0.0.1", "ann"), 0.0) > 0
    assert buckets.take(("10.0.0.1", "bob"), 0.0) == 0
    assert buckets.take(("10.0.0.2", "ann"), 0.0) == 0


def test_keys_are_forgotten_by_their_last_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are never more than a few thousand, and who asks all the time is remembered."""
    monkeypatch.setattr(rate, "MAX_BUCKETS", 3)
    buckets = Buckets(RATE, BURST)
    for _ in range(6):
        buckets.take(("ip", "flood"), 0.0)
    for number in range(2):
        assert buckets.take(("ip", f"one{number}"), 0.0) == 0
        assert buckets.take(("ip", "flood"), 0.0) > 0
        assert buckets.take(("ip", f"two{number}"), 0.0) == 0
        assert buckets.take(("ip", "flood"), 0.0) > 0
    for number in range(3):
        buckets.take(("ip", f"three{number}"), 0.0)
    assert buckets.take(("ip", "flood"), 0.0) == 0  # forgotten, and so new again
