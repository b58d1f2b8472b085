"""The address of a client: its connection's, or the one that a trusted proxy reports."""

import pytest
from aiohttp.test_utils import make_mocked_request

from ingress.http.client_address import behind_proxies, network_of, parse_networks
from ingress.settings import IngressSettings

PROXIES = "10.0.0.0/8, 192.0.2.1,2001:db8::/32"


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.1.2.3", ["203.0.113.9"], "203.0.113.9"),
        ("10.1.2.3", ["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        ("10.1.2.3", ["203.0.113.9, 192.0.2.1"], "203.0.113.9"),
        ("10.1.2.3", ["198.51.100.1", "203.0.113.9, 192.0.2.1"], "203.0.113.9"),
        ("2001:db8::1", ["2001:db9::7"], "2001:db9::7"),
        ("::ffff:10.1.2.3", ["::ffff:203.0.113.9"], "203.0.113.9"),
        # Ignore an invalid address and everything before it: it may be forged.
        ("10.1.2.3", ["203.0.113.9, unknown"], "10.1.2.3"),
        ("10.1.2.3", ["203.0.113.9:4711"], "10.1.2.3"),
        ("10.1.2.3", ["203.0.113.9, , 192.0.2.1"], "192.0.2.1"),
        ("10.1.2.3", ["2001:db9::7%x"], "10.1.2.3"),
        ("10.1.2.3", ["::ffff:203.0.113.9%x"], "10.1.2.3"),
        ("10.1.2.3", [""], "10.1.2.3"),
        ("10.1.2.3", [], "10.1.2.3"),
        ("10.1.2.3", ["10.9.9.9"], "10.9.9.9"),
        # The peer is not a trusted proxy.
        ("203.0.113.50", ["198.51.100.1"], "203.0.113.50"),
        ("127.0.0.1", ["198.51.100.1"], "127.0.0.1"),
    ],
)
def test_a_trusted_proxy_names_the_client(peer: str, forwarded: list[str], client: str) -> None:
    request = make_mocked_request("GET", "/").clone(
        remote=peer, headers=[("X-Forwarded-For", each) for each in forwarded]
    )
    assert behind_proxies(request, parse_networks(PROXIES)).remote == client
    assert behind_proxies(request, []).remote == peer


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        (None, None),
    ],
)
def test_the_addresses_that_a_client_can_choose_from_are_one_network(
    address: str | None, network: str | None
) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize(
    "text", ["10.0.0.1/8", "proxy.example", "10.0.0.0/33", "10.0.0.1 10.0.0.2"]
)
def test_a_proxy_is_named_by_its_address(text: str) -> None:
    settings = IngressSettings.model_validate({"TRUSTED_PROXIES": text})
    assert [each for each in settings.refusals() if each.startswith("TRUSTED_PROXIES")]
    assert parse_networks(" 10.0.0.1 ,, ::1, 10.0.0.0/8 ") and not parse_networks("")
