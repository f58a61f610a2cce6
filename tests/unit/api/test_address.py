"""Which URLs are fetched: the spellings of addresses that others fell for, and their siblings."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.api.address import is_allowed, literal, parse_url, read_networks
from inferd.errors import UrlNotAllowed

NOT_PUBLIC = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200"),
    *("127.0.0.1", "127.255.255.254", "168.63.129.16", "169.254.169.254", "169.254.170.2"),
    *("172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1"),
    *("198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1"),
    "255.255.255.255",
    *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1"),
    *("64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001::1"),
    *("2001:db8::1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:a00:1::1", "3fff::1"),
    *("fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "5f00::1"),
]
PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0"),
    *("126.255.255.255", "128.0.0.0", "172.15.255.255", "172.32.0.0", "192.167.255.255"),
    *("192.169.0.0", "223.255.255.255", "2606:4700::1111", "2a00:1450:4001::200e"),
    *("::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"),
]
NOT_PLAIN = [
    # Not http.
    *("file:///etc/passwd", "gopher://example.com/", "ftp://example.com/", "unix:/run/x.sock"),
    *("httpx://example.com", "http:/example.com", "http:example.com", "//example.com", "http://"),
    *("http+unix://%2Frun%2Fx.sock/", "jar:http://example.com!/", "data:text/plain,hi", ""),
    *("http://http://example.com/", "javascript:alert(1)", "view-source:http://example.com"),
    # Two hosts in one text.
    *(r"http://good.com\@169.254.169.254/", r"http://good.com\.evil.com/", "http://a@b.com/"),
    *("http://good.com:80@evil.com/", "http://user:password@example.com/", "http://@example.com"),
    *("http://good.com&@evil.com#@x.com/", "http://good.com%2eevil.com", "http://good.com%00.x"),
    *("http://exa mple.com/", "http://example.com /", " http://example.com", "http://a.com/\n"),
    *("http://a.com/\r\nHost: evil", "http://a.com\t/", "http://a.com/\x00", "http://a.com/a b"),
    *("http://example.com:80:80/", "http://example.com:", "http://example.com:99999/"),
    *("http://example.com:0/", "http://example.com:-1/", "http://example.com:8o/"),
    *("http://[::1/", "http://::1/", "http://[::1]x/", "http://[fe80::1%25eth0]/", "http://[]/"),
    # Addresses in another spelling.
    *("http://2130706433/", "http://0x7f000001/", "http://017700000001/", "http://127.1/"),
    *("http://0x7f.0.0.1/", "http://0177.0.0.1/", "http://127.0.0.01/", "http://127.0.1/"),
    *("http://0/", "http://127.0.0.0x1/", "http://1.2.3.4.5/", "http://0x/", "http://256.1.1.1/"),
    # Letters that a lookup would fold into others.
    *("http://ⓔxample.com/", "http://１２７.0.0.1/", "http://127。0。0。1/", "http://exämple.com/"),
    *("http://example.com\u2028/", "http://\u00adlocalhost/", "http://ℓocalhost/"),
    # No names.
    *("http://-a.com/", "http://a-.com/", "http://a..com/", "http://.com/", "http://a.com../"),
    f"http://{'a' * 64}.com/",
    f"http://{'a.' * 127}com/",
    f"http://example.com/{'a' * 5000}",
]


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_refused(text: str) -> None:
    assert not is_allowed(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_allowed(text: str) -> None:
    assert is_allowed(ip_address(text))


@given(st.ip_addresses())
def test_what_python_calls_not_global_is_never_allowed(address: object) -> None:
    asked = ip_address(str(address))
    mapped = getattr(asked, "ipv4_mapped", None) or getattr(asked, "sixtofour", None)
    nat64 = asked.version == 6 and str(asked).startswith("64:ff9b::")
    if not asked.is_global and mapped is None and not nat64:
        assert not is_allowed(asked)


@given(st.ip_addresses(v=4))
def test_an_address_in_another_address_is_judged_as_itself(address: object) -> None:
    inner = ip_address(str(address))
    for prefix in ("::ffff:", "64:ff9b::"):
        assert is_allowed(ip_address(f"{prefix}{inner}")) is is_allowed(inner)


def test_networks_of_the_setting_are_allowed_and_nothing_beside_them() -> None:
    networks = read_networks("127.0.0.1/32, fd00::/8")
    assert is_allowed(ip_address("127.0.0.1"), networks)
    assert is_allowed(ip_address("::ffff:127.0.0.1"), networks)
    assert is_allowed(ip_address("fd12::1"), networks)
    assert not is_allowed(ip_address("127.0.0.2"), networks)
    assert not is_allowed(ip_address("10.0.0.1"), networks)
    assert not is_allowed(ip_address("::1"), networks)


@pytest.mark.parametrize("url", NOT_PLAIN)
def test_what_is_not_plain_is_refused(url: str) -> None:
    with pytest.raises(UrlNotAllowed) as caught:
        parse_url(url, "image")
    assert caught.value.param == "image"
    assert len(url) < 4 or url not in caught.value.message


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "authority"),
    [
        ("http://example.com", "example.com", 80, "/", "example.com"),
        ("HTTPS://Example.COM./A?b=C#d", "example.com", 443, "/A?b=C", "example.com"),
        ("https://example.com:8443/a", "example.com", 8443, "/a", "example.com:8443"),
        ("http://example.com?x=1", "example.com", 80, "/?x=1", "example.com"),
        ("http://a.b/é%20ü", "a.b", 80, "/%C3%A9%20%C3%BC", "a.b"),
        ("http://a.b/p/@user:x?y=http://c.d/", "a.b", 80, "/p/@user:x?y=http://c.d/", "a.b"),
        ("http://8.8.8.8:81/x", "8.8.8.8", 81, "/x", "8.8.8.8:81"),
        ("http://[2606:4700::1111]/", "2606:4700::1111", 80, "/", "[2606:4700::1111]"),
        ("http://[0:0:0:0:0:0:0:1]/", "::1", 80, "/", "[::1]"),
        ("http://xn--exmple-cua.com/", "xn--exmple-cua.com", 80, "/", "xn--exmple-cua.com"),
        ("http://localhost./", "localhost", 80, "/", "localhost"),
    ],
)
def test_a_plain_url_is_taken_apart(
    url: str, host: str, port: int, path: str, authority: str
) -> None:
    target = parse_url(url, "image")
    assert (target.host, target.port, target.path, target.authority) == (
        host,
        port,
        path,
        authority,
    )
    assert target.secure is url.lower().startswith("https")
    assert parse_url(target.url, "image") == target


@given(st.text(max_size=60), st.sampled_from(["", "http://", "https://", "http://a.com/"]))
def test_a_request_line_never_gets_a_second_line(text: str, start: str) -> None:
    try:
        target = parse_url(start + text, "image")
    except UrlNotAllowed:
        return
    line = f"{target.path}{target.authority}"
    assert line.isascii()
    assert line.isprintable()
    assert " " not in line
    assert target.path.startswith("/")


def test_a_name_is_no_address() -> None:
    assert literal("example.com") is None
    assert str(literal("::1")) == "::1"
