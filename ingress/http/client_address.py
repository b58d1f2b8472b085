"""The network address of a client, and the network that counts as one client.

Keeps the rule that an `X-Forwarded-For` is believed only if it comes from a proxy that the settings
name. It knows no route and no user.
"""

import ipaddress
from collections.abc import Sequence
from typing import Final

from aiohttp import web

FORWARDED_FOR: Final = "X-Forwarded-For"
# What one IPv6 client can choose its address within.
IPV6_PREFIX: Final = 64

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def address_of(request: web.Request) -> str | None:
    """None: the connection has no network address."""
    address = _parse(request.remote or "")
    return None if address is None else str(address)


def network_of(address: str | None) -> str | None:
    """The network within which a client can change its address at no cost."""
    if address is None:
        return None
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed), IPV6_PREFIX), strict=False))
    return str(parsed)


def parse_networks(text: str) -> list[Network]:
    """Raises a ValueError that names the part which is neither an address nor a network."""
    return [ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip()]


def behind_proxies(request: web.Request, proxies: Sequence[Network]) -> web.Request:
    """The request with its client's address, if it came through trusted proxies. Each proxy appends
    the address that it received from, so the last one that is no trusted proxy is the client.
    Whatever stands before it may be invented."""
    peer = _parse(request.remote or "")
    if peer is None or not _contains(proxies, peer):
        return request
    client = peer
    for hop in reversed(",".join(request.headers.getall(FORWARDED_FOR, ())).split(",")):
        address = _parse(hop.strip())
        if address is None:
            break
        client = address
        if not _contains(proxies, address):
            break
    return request.clone(remote=str(client))


def _parse(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    # A scope has a meaning on its own machine only, and Postgres does not know scopes.
    return None if address.scope_id is not None else address.ipv4_mapped or address


def _contains(networks: Sequence[Network], address: Address) -> bool:
    return any(address in network for network in networks)
