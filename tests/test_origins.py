"""Which web pages may use the server."""

from __future__ import annotations

import pytest

from seatws.web.origins import Origins

CASES = {
    "every page": (["*"], "https://anything.example", True),
    "a page opened from a file, with every page allowed": (["*"], "null", True),
    "a page opened from a file, otherwise": (["https://a.example"], "null", False),
    "the very page": (["https://a.example"], "https://a.example", True),
    "in capitals, as some programs write it": (["https://a.example"], "HTTPS://A.Example", True),
    "the second of the list": (["https://a.example", "http://b.example"], "http://b.example", True),
    "nobody": ([], "https://a.example", False),
    "another scheme": (["https://a.example"], "http://a.example", False),
    "another port": (["https://a.example"], "https://a.example:8443", False),
    "the port": (["https://a.example:8443"], "https://a.example:8443", True),
    "longer in front": (["https://a.example"], "https://xa.example", False),
    "longer behind": (["https://a.example"], "https://a.example.evil.net", False),
    "as user of another host": (["https://a.example"], "https://a.example@evil.net", False),
    "a subdomain": (["https://*.a.example"], "https://shop.a.example", True),
    "a subdomain of one": (["https://*.a.example"], "https://x.shop.a.example", True),
    "not the domain itself": (["https://*.a.example"], "https://a.example", False),
    "not an empty name": (["https://*.a.example"], "https://.a.example", False),
    "not a name that ends alike": (["https://*.a.example"], "https://eva.example", False),
    "not the domain in front": (["https://*.a.example"], "https://shop.a.example.evil.net", False),
    "not by another scheme": (["https://*.a.example"], "http://shop.a.example", False),
    "not by another port": (["https://*.a.example"], "https://shop.a.example:81", False),
    "a subdomain by its port": (["https://*.a.example:81"], "https://shop.a.example:81", True),
    "no origin worth the name": (["https://a.example"], "", False),
}


@pytest.mark.parametrize(("allowed", "origin", "may"), CASES.values(), ids=CASES.keys())
def test_a_page_may_connect_if_its_origin_is_listed(
    allowed: list[str], origin: str, may: bool
) -> None:
    """`*`, exact, or a subdomain; scheme and port count."""
    assert Origins(allowed).allows(origin) is may


def test_only_a_star_allows_all() -> None:
    """Then a page needs no cookie's protection, and CORS answers `*`."""
    assert Origins(["https://a.example", "*"]).allows_all
    assert not Origins(["https://*.a.example"]).allows_all
