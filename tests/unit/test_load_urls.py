"""Base URLs: what is understood, and the one line for what is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from aifbench.engines.settings import OpenAI
from aifbench.load.http import Target
from aifbench.load.urls import Address, UrlError, parse, shown


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://a:8000/v1", Address(False, "a", 8000, "/v1")),
        ("http://a", Address(False, "a", 80, "")),
        ("https://a/", Address(True, "a", 443, "")),
        ("HTTP://Upper.Example/V1//", Address(False, "upper.example", 80, "/V1")),
        ("http://a:", Address(False, "a", 80, "")),
        ("http://a.:08000", Address(False, "a.", 8000, "")),
        ("http://my_service-2:1/x", Address(False, "my_service-2", 1, "/x")),
        ("http://[::1]:80", Address(False, "::1", 80, "")),
        ("http://[FE80::1%25eth0]:8000/v1", Address(False, "fe80::1%eth0", 8000, "/v1")),
        ("http://[fe80::1%eth0]", Address(False, "fe80::1%eth0", 80, "")),
        ("http://h/pl\u00e4n/\u2603", Address(False, "h", 80, "/pl%C3%A4n/%E2%98%83")),
        ("http://h/a%20b/50%/<x>", Address(False, "h", 80, "/a%20b/50%/%3Cx%3E")),
        ("http://h/@me/a:b", Address(False, "h", 80, "/@me/a:b")),
    ],
)
def test_a_base_url_is_understood(url: str, address: Address) -> None:
    assert parse(url) == address


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://h:0", "port '0' is no number from 1 to 65535"),
        ("http://h:99999/v1", "port '99999'"),
        ("http://h:abc/v1", "port 'abc'"),
        ("http://h:-1", "port '-1'"),
        ("http://h:+80", "port '+80'"),
        ("http://h:\u0668\u0660", "port"),
        ("http://h:80" + "0" * 5000, "port"),
        ("localhost:8000/v1", "needs http:// or https:// at its front"),
        ("127.0.0.1", "needs http:// or https://"),
        ("//h/v1", "needs http:// or https://"),
        ("http:/h/v1", "needs http:// or https://"),
        ("http:h", "needs http:// or https://"),
        ("", "needs http:// or https://"),
        ("ftp://h", "not ftp://"),
        ("unix:///run/x.sock", "not unix://"),
        ("http://", "names no host"),
        ("http:///v1", "names no host"),
        ("http://:8000", "names no host"),
        ("http://::1:8000/v1", "stands in brackets"),
        ("http://[::1", "no IPv6 address"),
        ("http://[::g]:80", "no IPv6 address"),
        ("http://[127.0.0.1]:80", "no IPv6 address"),
        ("http://[::1]8000", "no IPv6 address"),
        ("http://[fe80::1%]", "no IPv6 address"),
        ("http://b\u00fccher.example", "xn--"),
        ("http://a..b", "no name of a host"),
        ("http://-a", "no name of a host"),
        ("http://a%20b", "no name of a host"),
        ("http://" + "a" * 64, "no name of a host"),
        ("http://" + "a." * 200, "no name of a host"),
        ("http://h/a b", "white space"),
        (" http://h", "white space"),
        ("http://h\n", "white space"),
        ("http://h/\r\nX: 1", "white space"),
        ("http://h/\x00", "control characters"),
        ("http://h/\u202e", "control characters"),
        ("http://h/\ud800", "control characters"),
        ("http://h\\@evil", "backslash"),
        ("http://h/v1#top", "`#`"),
        ("http://h/v1#", "`#`"),
        ("http://h/v1?api-version=2024-06-01&x=1", "goes into the engine's `query: {api-version: \u2026, x: \u2026}`"),
        ("http://h/v1?", "goes into the engine's `query: {name: value}`"),
        ("http://user:s3cret@h/v1", "name a variable"),
        ("http://s3cret@h/v1", "name a variable"),
        ("user:s3cret@h", "needs http://"),
        ("http://u:s3/cret@h", "name a variable"),
        ("http://h/v1?key=s3cret", "query"),
        ("http://h/v1?s3cret", "query"),
        ("http://h/v1#s3cret", "`#`"),
    ],
)
def test_what_is_none_is_one_line_without_a_secret(url: str, problem: str) -> None:
    with pytest.raises(UrlError) as caught:
        parse(url)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "s3" not in str(caught.value) + caught.value.shown


def test_a_message_keeps_what_is_no_secret() -> None:
    assert shown("http://h:1/v1") == "http://h:1/v1"
    assert shown("http://u:p@h/v1?k=v") == "http://***@h/v1?***"


def test_a_zone_is_this_machine_s_own_and_not_told_to_the_server() -> None:
    assert b"Host: [fe80::1]:8000\r\n" in Target.of("http://[fe80::1%25eth0]:8000").request("/x")


ODD_PARTS = st.sampled_from(
    ["http://", "https://", "h", ":", "80", "[", "]", "::1", "%", "@", "/", "?", "#", "\\", ".", "\u00e9", "\ud800"]
)


@given(text=st.one_of(st.text(), st.lists(st.one_of(ODD_PARTS, st.characters()), max_size=12).map("".join)))
def test_any_text_is_an_address_that_can_be_asked_or_one_line(text: str) -> None:
    for url in (text, f"http://{text}", f"http://h/{text}"):
        problem = problem_of(url)
        if problem is not None:
            assert problem.isprintable()
            continue
        target = Target.of(url)
        request = target.request("/x")
        assert request.isascii()
        assert (request.count(b"\r\n"), request.count(b" HTTP/1.1\r\nHost: ")) == (6, 1)
        assert 1 <= target.port <= 65535


def problem_of(url: str) -> str | None:
    try:
        OpenAI.model_validate({"kind": "openai", "model": "m", "url": url})
    except ValidationError as error:
        return str(error.errors()[0]["msg"])
    return None
