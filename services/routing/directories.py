"""Directories over links: downwards agencies, procedures, calendars, templates and public keys, upwards a site's own
agencies and keys; so that nobody loads a province's communes by hand."""

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from services.routing.link_store import Link, LinkStore
from services.routing.wire import Letter, Refused, letter
from shared.directory.adopt import adopt, offered
from shared.directory.store import lock_site, replace_site, stored_site
from shared.security.peers import Identity, Jwk, canonical
from shared.service import Service
from shared.store.pool import Connection

PART: Final = 300  # entries of one envelope


class Directories:
    """Sends and takes them, in the caller's transaction."""

    def __init__(self, service: Service, links: LinkStore, identity: Identity) -> None:
        self._service, self._links, self._identity = service, links, identity

    async def send(self, connection: Connection, link: Link, below: frozenset[str]) -> None:
        """Tells a neighbour what has changed since it was told last. `below`: this site and those that it reaches."""
        site = self._service.directory.current.site
        keys = await self._links.site_keys(connection)
        keys[self._identity.site] = self._identity.public["seal"]
        entries = offered(site, below if link.side == "upper" else None)
        told = sorted(keys) if link.side == "lower" else sorted(below & keys.keys())
        content = {"entries": entries, "keys": {name: keys[name] for name in told}}
        digest = sha256(canonical(content)).hexdigest()
        if digest == link.directory:
            return
        now = await self._service.log.now(connection)
        await self._links.append(connection, link.peer, _letters(self._identity.site, link.peer, content, now))
        await self._links.directory_sent(connection, link.peer, digest)

    async def take(self, connection: Connection, peer: Link, each: Letter) -> str:
        """Raises Refused (`bad-directory`)."""
        try:
            given = [(str(kind), dict(entry)) for kind, entry in each.body["entries"]]
            keys: Mapping[str, Jwk] = {str(site): dict(jwk) for site, jwk in each.body["keys"].items()}
            await lock_site(connection)
            version, current = await stored_site(connection)
            assert current is not None
            before = await self._links.adopted(connection, peer.peer)
            reaches = frozenset({peer.peer, *peer.reaches})
            below = reaches if peer.side == "lower" else None
            site, taken = adopt(current, given, before, below)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise Refused("bad-directory") from None
        if below is not None:
            keys = {name: jwk for name, jwk in keys.items() if name in below}
        await self._links.put_site_keys(connection, {n: k for n, k in keys.items() if n != self._identity.site})
        await self._links.put_adopted(connection, peer.peer, taken)
        if site is not current:
            await replace_site(connection, version, site, who=f"link {peer.peer}")
        return "applied"


def _letters(origin: str, to: str, content: dict[str, Any], at: datetime) -> list[Letter]:
    entries = content["entries"]
    parts = [entries[start : start + PART] for start in range(0, len(entries), PART)] or [[]]
    return [
        letter(
            "directory", {"entries": part, "keys": content["keys"] if number == 0 else {}}, origin=origin, to=to, at=at
        )
        for number, part in enumerate(parts)
    ]
