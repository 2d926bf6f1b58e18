"""HTTP of links, for operators: `lienthong link` is a client of these routes."""

import secrets
from hashlib import sha256
from hmac import compare_digest
from typing import Annotated, Any, Literal, TypeVar

import asyncpg
import orjson
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.routing.link_store import Link, LinkStore
from services.routing.links import Links
from services.routing.wire import PublicKeys
from shared.bus.connection import BusSecurity, BusSettings
from shared.contracts.codes import AgencyCode, Name
from shared.security.peers import Identity, PeerRefused, canonical, fingerprint, verify
from shared.security.tokens import Principal, Role
from shared.service import Service
from shared.web.app import Asking, Body, allow, router
from shared.web.problem import Problem, invalid, not_found

OPERATORS = (Role.OPERATOR, Role.SERVICE)
File_ = TypeVar("File_", "Invitation", "Reply")


class BusAddress(BaseModel):
    """Where the lower site dials. `single`: one broker, dialled by this address whatever it says of itself."""

    model_config = ConfigDict(extra="forbid")

    bootstrap: Name
    prefix: Annotated[str, Field(max_length=200)] = ""
    security: BusSecurity = "PLAINTEXT"
    single: bool = False

    def same_names(self, own: BusSettings) -> bool:
        """Whether a site on this bus, and one on `own`, would write the same topics."""
        shared = set(self.bootstrap.split(",")) & set(own.bootstrap.split(","))
        return bool(shared) and self.prefix == own.prefix


class Invitation(BaseModel):
    """What `invite` writes; `jws` is the inviting site's over the rest, so that a change on the way is seen."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["lienthong-invitation"]
    site: AgencyCode
    name: Name
    lower: AgencyCode
    bus: BusAddress
    keys: PublicKeys
    ticket: Annotated[str, Field(min_length=32, max_length=100)]
    jws: str


class Reply(BaseModel):
    """What `join` writes, signed by the joining site."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["lienthong-reply"]
    site: AgencyCode
    name: Name
    upper: AgencyCode
    keys: PublicKeys
    ticket: Annotated[str, Field(min_length=32, max_length=100)]
    jws: str


class Invite(Body):
    """`bus`: another address for the lower site than ours; `security`: how it is dialled there. Unset, that is as we do at our
    own address; at another one in clear or by TLS as we do, without a login."""

    site: AgencyCode
    bus: Annotated[str, Field(pattern=r"^.{1,255}:[0-9]{1,5}$")] | None = None
    security: BusSecurity | None = None


class File(Body):
    """The text of an invitation or a reply."""

    text: Annotated[str, Field(min_length=2, max_length=100_000)]


class Resend(Body):
    after: Annotated[int, Field(ge=0, lt=1 << 62)] = 0
    epoch: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None


def link_routes(service: Service, store: LinkStore, links: Links, identity: Identity) -> APIRouter:
    api = router()
    site = service.settings.site

    def signed(content: dict[str, Any]) -> dict[str, Any]:
        return {**content, "jws": identity.sign(canonical(content))}

    async def found(name: str) -> Link:
        """A link by its name, or by its peer's code."""
        await links.refresh()
        for link in links.peers:
            if name in (link.name_on(site), link.peer):
                return link
        raise not_found("This link")

    @api.get("/v1/links", tags=["links"])
    async def listed(
        who: Asking, cursor: Annotated[str | None, Query(pattern=r"^[0-9A-Z.]{1,64}$")] = None
    ) -> dict[str, Any]:
        """The sites that this one is linked to, as each link stands; `waiting`: envelopes that the peer has not confirmed."""
        allow(who, Role.OPERATOR, Role.AUDITOR, Role.SERVICE)
        return {"items": await links.status(), "next_cursor": None}

    @api.get("/v1/links/digests", tags=["links"])
    async def digests(who: Asking) -> dict[str, Any]:
        """For each link, day and direction one digest over its envelopes, ours and the peer's."""
        allow(who, Role.OPERATOR, Role.AUDITOR, Role.SERVICE)
        return {"items": await links.digests(), "next_cursor": None}

    @api.post("/v1/links/invite", tags=["links"])
    async def invite(who: Asking, body: Invite) -> dict[str, Any]:
        """Invites the site below: what is answered is the file that it joins with. Inviting again makes an earlier
        invitation void; a link that is in use stays as it is until the new one is confirmed."""
        allow(who, *OPERATORS)
        if body.site == site:
            raise invalid("A site is not linked to itself.", "/site")
        await links.refresh()
        known = next((link for link in links.peers if link.peer == body.site), None)
        if known is not None and (known.side == "upper" or known.state == "active"):
            raise Problem(409, "already-linked", "This site is linked already.")
        ticket = secrets.token_urlsafe(32)
        bus = service.settings.bus()
        own = bus.security_protocol if body.bus is None else bus.security_protocol.removeprefix("SASL_")
        async with service.pool.acquire() as connection, connection.transaction():
            digest = sha256(ticket.encode()).hexdigest()
            empty: dict[str, Any] = {"sign": [], "seal": {}}
            await store.put(connection, body.site, "lower", body.site, "invited", None, empty, digest)
        directory = service.directory.current
        return signed(
            {
                "kind": "lienthong-invitation",
                "site": site,
                "name": directory.site_name,
                "lower": body.site,
                "bus": {
                    "bootstrap": body.bus or bus.bootstrap,
                    "prefix": bus.prefix,
                    "security": body.security or own,
                    "single": not bus.groups,
                },
                "keys": identity.announced,
                "ticket": ticket,
            }
        )

    @api.post("/v1/links/join", tags=["links"])
    async def join(who: Asking, body: File) -> dict[str, Any]:
        """Takes an invitation: what is answered is the reply that the upper site confirms. From now on its bus is dialled."""
        allow(who, *OPERATORS)
        invitation = _read(body.text, Invitation)
        directory = service.directory.current
        if invitation.lower != site:
            raise invalid(f"This invitation is for {invitation.lower}; this is {site}.", "/text", "wrong-site")
        if directory.upper not in (None, invitation.site):
            raise invalid(f"The site above this one is {directory.upper}.", "/text", "wrong-upper")
        if invitation.bus.same_names(service.settings.bus()):
            detail = (
                "Both sites would write the same topics of one bus: give this one a LIENTHONG_BUS_PREFIX of its own."
            )
            raise invalid(detail, "/text", "same-topics")
        try:
            async with service.pool.acquire() as connection, connection.transaction():
                await store.put(
                    connection,
                    invitation.site,
                    "upper",
                    invitation.name,
                    "joined",
                    invitation.bus.model_dump(),
                    invitation.keys.model_dump(),
                    invitation.ticket,
                )
        except asyncpg.UniqueViolationError:
            raise Problem(409, "already-linked", "This site has joined another upper site.") from None
        await links.refresh()
        return signed(
            {
                "kind": "lienthong-reply",
                "site": site,
                "name": directory.site_name,
                "upper": invitation.site,
                "keys": identity.announced,
                "ticket": invitation.ticket,
            }
        )

    @api.post("/v1/links/confirm", tags=["links"])
    async def confirm(who: Asking, body: File) -> dict[str, Any]:
        """Takes the reply of a site that was invited: the link is in use."""
        allow(who, *OPERATORS)
        reply = _read(body.text, Reply)
        await links.refresh()
        known = next((link for link in links.peers if link.peer == reply.site and link.side == "lower"), None)
        if known is None or reply.upper != site:
            raise invalid("This site has not been invited here.", "/text", "not-invited")
        if not compare_digest(known.ticket, sha256(reply.ticket.encode()).hexdigest()):
            raise invalid("This is no reply to the newest invitation.", "/text", "wrong-ticket")
        async with service.pool.acquire() as connection, connection.transaction():
            await store.confirm(connection, reply.site, reply.name, reply.keys.model_dump())
        await links.refresh()
        return {"link": reply.site, "peer": reply.site, "state": "active"}

    @api.post("/v1/links/{name}/pause", tags=["links"])
    async def pause(who: Asking, name: str) -> dict[str, Any]:
        """Nothing is published or read on this link until it is resumed; envelopes wait."""
        return await stand(who, name, True)

    @api.post("/v1/links/{name}/resume", tags=["links"])
    async def resume(who: Asking, name: str) -> dict[str, Any]:
        return await stand(who, name, False)

    async def stand(who: Principal, name: str, paused: bool) -> dict[str, Any]:
        allow(who, *OPERATORS)
        link = await found(name)
        async with service.pool.acquire() as connection:
            await store.pause(connection, link.peer, paused)
        await links.refresh()
        return {"link": link.name_on(site), "peer": link.peer, "paused": paused}

    @api.post("/v1/links/{name}/resend", tags=["links"])
    async def resend(who: Asking, name: str, body: Resend) -> dict[str, Any]:
        """Publishes again all that lies after a number, however old; the peer takes what it lacks."""
        allow(who, *OPERATORS)
        link = await found(name)
        try:
            count = await links.resend(link.peer, body.epoch or link.sent.epoch, body.after)
        except KeyError:
            raise invalid("Nothing lies after this number.", "/after") from None
        return {"link": link.name_on(site), "peer": link.peer, "envelopes": count}

    return api


def _read(text: str, model: type[File_]) -> File_:
    """The file, signed by the key that it names: whom it comes from is told by the way it came."""
    try:
        value = orjson.loads(text)
        found = model.model_validate(value)
        jws = value.pop("jws")
        verify(canonical(value), jws, {fingerprint(jwk): jwk for jwk in found.keys.sign})
    except (ValueError, ValidationError, PeerRefused, AttributeError, TypeError, KeyError):
        raise invalid("This is no such file, or it was changed on the way.", "/text", "bad-file") from None
    return found
