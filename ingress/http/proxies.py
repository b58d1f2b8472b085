"""Who asks, where a proxy stands in front: what it says is believed if the settings name it, and
nobody else's word is.
"""

import ipaddress
from collections.abc import Sequence
from typing import Final

from aiohttp import web

FORWARDED_FOR: Final = "X-Forwarded-For"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(text: str) -> list[Network]:
    """Raises a ValueError that names what is no address and no network."""
    return [ipaddress.ip_network(each.strip()) for each in text.split(",") if each.strip()]


def seen_through(request: web.Request, proxies: Sequence[Network]) -> web.Request:
    """The request as its asker's, where it came by such a proxy: each names whom it heard, last,
    so the last who is none of them is who asks. What stands before may be made up."""
    peer = _address(request.remote or "")
    if peer is None or not _is_one(peer, proxies):
        return request
    asker = peer
    for hop in reversed(",".join(request.headers.getall(FORWARDED_FOR, ())).split(",")):
        heard = _address(hop.strip())
        if heard is None:
            break
        asker = heard
        if not _is_one(heard, proxies):
            break
    return request.clone(remote=str(asker))


def _address(text: str) -> Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv4Address):
        return found
    # One with a scope means something on its own machine alone, and Postgres knows none.
    return None if found.scope_id is not None else found.ipv4_mapped or found


def _is_one(address: Address, proxies: Sequence[Network]) -> bool:
    return any(address in each for each in proxies)
