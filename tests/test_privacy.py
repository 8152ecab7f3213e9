"""What of a visitor's `user_info` others may see."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seatws.privacy import UserInfoFilter

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
ANN = '{"name":"Ann","mail":"ann@example.com","seat":{"name":"inner","mail":"inner"},"ñ":"é"}'
SHARED = {
    "all of it": (["*"], ANN),
    "nothing": ([], "{}"),
    "one key": (["name"], '{"name":"Ann"}'),
    "two keys, in the visitor's order": (
        ["mail", "name"],
        '{"name":"Ann","mail":"ann@example.com"}',
    ),
    "an inner object whole": (["seat"], '{"seat":{"name":"inner","mail":"inner"}}'),
    "a key that is not there": (["phone"], "{}"),
    "a key beyond ASCII": (["ñ"], '{"ñ":"é"}'),
    "no key by its beginning": (["nam"], "{}"),
    "no key by another case": (["Name"], "{}"),
}
json_objects = st.dictionaries(
    st.text(),
    st.recursive(st.none() | st.integers() | st.text(), lambda one: st.lists(one)),
    max_size=5,
)


@pytest.mark.parametrize(("shared", "left"), SHARED.values(), ids=SHARED.keys())
def test_only_shared_keys_leave_the_server(shared: list[str], left: str) -> None:
    """Those listed, with their values as they came; `{}` when nothing is left."""
    assert UserInfoFilter(shared)(ANN) == left.encode()


@unhurried
@given(json_objects, st.sets(st.text(), max_size=3), st.data())
def test_whatever_a_visitor_says_no_other_key_gets_out(
    given_info: dict[str, Any], others: set[str], data: st.DataObject
) -> None:
    """What comes out is the shared keys with the very same values, and valid JSON."""
    named = data.draw(st.sets(st.sampled_from(sorted(given_info)))) if given_info else set()
    shared = (others | named) - {"*"}
    out = UserInfoFilter(sorted(shared))(json.dumps(given_info, ensure_ascii=False))
    kept = {key: value for key, value in given_info.items() if key in shared}
    assert json.loads(out) == kept
