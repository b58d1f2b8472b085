"""The network address of a client, and the network that counts as one client.

Keeps the rule that `X-Forwarded-For` is trusted only if it comes from a proxy that the settings
name. It knows no route and no user.
"""

import ipaddress
from collections.abc import Sequence
from typing import Final

from aiohttp import web

FORWARDED_FOR: Final = "X-Forwarded-For"
# An IPv6 client can choose any address within such a prefix.
IPV6_PREFIX: Final = 64

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def address_of(request: web.Request) -> str | None:
    """Returns None if the connection has no network address."""
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
    the address of its peer. So the last address that is not a trusted proxy is the client;
    addresses before it may be forged."""
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
    # A scope id is meaningful only on one machine, and Postgres does not support it.
    return None if address.scope_id is not None else address.ipv4_mapped or address


def _contains(networks: Sequence[Network], address: Address) -> bool:
    return any(address in network for network in networks)
