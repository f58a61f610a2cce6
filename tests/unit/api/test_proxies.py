"""Where a client is: believed from trusted proxies alone, and from nobody else."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from inferd.api.proxies import Proxies, ProxyHeader, client_address

TRUSTED = tuple(ip_network(text) for text in ("10.0.0.0/8", "127.0.0.1/32", "fd00::/8"))
PROXY = "10.0.0.2"


def seen(peer: str, *lines: str, header: ProxyHeader = "x-forwarded-for") -> str:
    """The client's address, with these lines of the header."""
    headers = [(header.encode(), line.encode()) for line in lines]
    return client_address(peer, headers, TRUSTED, header)


def test_without_trusted_proxies_only_the_peer_counts() -> None:
    headers = [(b"x-forwarded-for", b"1.2.3.4"), (b"forwarded", b"for=1.2.3.4")]
    assert client_address("203.0.113.9", headers, ()) == "203.0.113.9"
    assert client_address("10.0.0.2", headers, ()) == "10.0.0.2"


class TestTheListIsReadFromTheRight:
    @pytest.mark.parametrize(
        ("lines", "address"),
        [
            (["198.51.100.7"], "198.51.100.7"),
            (["198.51.100.7, 10.9.9.9"], "198.51.100.7"),
            (["198.51.100.7:55123"], "198.51.100.7"),
            (["2001:db8::1"], "2001:db8::1"),
            (["[2001:db8::1]:443"], "2001:db8::1"),
            (["::ffff:198.51.100.7"], "198.51.100.7"),
            (["192.0.2.1", "198.51.100.7"], "198.51.100.7"),
            ([], PROXY),
        ],
    )
    def test_to_the_nearest_hop_that_is_not_trusted(self, lines: list[str], address: str) -> None:
        assert seen(PROXY, *lines) == address

    @pytest.mark.parametrize(
        "spoofed",
        [
            "127.0.0.1",
            "10.0.0.1",
            "127.0.0.1, 10.0.0.1",
            "unknown",
            '"127.0.0.1',
            "127.0.0.1, ",
            ", , ,",
            "::1, 127.0.0.1:80",
            "a" * 5000,
            "127.0.0.1," * 500 + "127.0.0.1",
        ],
    )
    def test_so_what_a_client_wrote_itself_is_never_reached(self, spoofed: str) -> None:
        assert seen(PROXY, f"{spoofed}, 198.51.100.7") == "198.51.100.7"
        assert seen(PROXY, spoofed, "198.51.100.7") == "198.51.100.7"
        assert seen("198.51.100.7", spoofed) == "198.51.100.7"

    def test_an_address_that_a_proxy_did_not_know_is_not_guessed(self) -> None:
        for value in ("unknown", "_hidden", "", "1.2.3", "127.0.0.1.evil", "0x7f.1", "１.2.3.4"):
            headers = [(b"x-forwarded-for", f"127.0.0.1, {value}".encode())]
            assert client_address(PROXY, headers, TRUSTED) == "", value

    def test_more_hops_than_anybody_has_are_nobodys(self) -> None:
        assert seen(PROXY, ", ".join(["10.0.0.1"] * 100)) == ""


class TestTheOtherHeader:
    def test_is_the_clients_and_is_not_read(self) -> None:
        headers = [(b"forwarded", b"for=127.0.0.1"), (b"x-forwarded-for", b"198.51.100.7")]
        assert client_address(PROXY, headers, TRUSTED, "x-forwarded-for") == "198.51.100.7"
        headers = [(b"x-forwarded-for", b"127.0.0.1"), (b"forwarded", b"for=198.51.100.7")]
        assert client_address(PROXY, headers, TRUSTED, "forwarded") == "198.51.100.7"

    @pytest.mark.parametrize(
        ("line", "address"),
        [
            ("for=198.51.100.7;proto=https", "198.51.100.7"),
            ("proto=https; For=198.51.100.7", "198.51.100.7"),
            ('for="[2001:db8::1]:4711"', "2001:db8::1"),
            ("for=127.0.0.1, for=198.51.100.7", "198.51.100.7"),
            ("for=127.0.0.1, proto=https", ""),
            ("for=127.0.0.1;for=198.51.100.7", ""),
            ('for="127.0.0.1, for=198.51.100.7', "198.51.100.7"),
        ],
    )
    def test_is_read_where_it_is_set(self, line: str, address: str) -> None:
        assert seen(PROXY, line, header="forwarded") == address


def test_a_request_over_a_unix_socket_has_no_address() -> None:
    assert Proxies(TRUSTED).client({"client": None, "headers": []}) == ""
    assert Proxies().client({"headers": []}) == ""


class TestHowAClientSeesUs:
    @pytest.mark.parametrize(
        ("peer", "scheme", "headers", "origin"),
        [
            (None, "http", {}, "http://127.0.0.1:8000"),
            ("203.0.113.9", "http", {"host": "a.test:81"}, "http://a.test:81"),
            ("203.0.113.9", "https", {"host": "a.test"}, "https://a.test"),
            (
                "203.0.113.9",
                "http",
                {"host": "a.test", "x-forwarded-proto": "https", "x-forwarded-host": "evil.test"},
                "http://a.test",
            ),
            (
                PROXY,
                "http",
                {"host": "inside:8000", "x-forwarded-proto": "HTTPS", "x-forwarded-host": "a.test"},
                "https://a.test",
            ),
            (PROXY, "https", {"host": "a.test", "x-forwarded-proto": "http"}, "http://a.test"),
            (
                PROXY,
                "http",
                {"host": "[::1]:8", "x-forwarded-host": "evil.test, b.test"},
                "http://b.test",
            ),
            (
                PROXY,
                "http",
                {"host": "a.test", "x-forwarded-proto": "ftp", "x-forwarded-host": 'a"b'},
                "http://a.test",
            ),
            (PROXY, "http", {"host": "a/b"}, "http://127.0.0.1:8000"),
        ],
    )
    def test_the_nearest_proxy_is_believed_and_nobody_else(
        self, peer: str | None, scheme: str, headers: dict[str, str], origin: str
    ) -> None:
        assert Proxies(TRUSTED).origin(scope(peer, scheme, headers)) == origin

    def test_only_the_header_that_the_proxies_write_is_read(self) -> None:
        headers = {
            "host": "inside",
            "x-forwarded-proto": "http",
            "x-forwarded-host": "evil.test",
            "forwarded": 'for=1.2.3.4;host=evil.test, for=10.1.1.1;proto=https;host="a.test:443"',
        }
        told = scope(PROXY, "http", headers)
        assert Proxies(TRUSTED, "forwarded").origin(told) == "https://a.test:443"


def scope(peer: str | None, scheme: str, headers: dict[str, str]) -> dict[str, object]:
    lines = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"client": peer and (peer, 1), "scheme": scheme, "headers": lines}
