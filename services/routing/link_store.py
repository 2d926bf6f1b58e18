"""SQL of links: peers, both directions' states and ledgers, digests.

Locks are taken in this order, so that nobody waits in a circle: a link's incoming state, dossiers by code, then outgoing
states by peer.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

import orjson

from services.routing.compared import Ledger, Part
from services.routing.link import BEGIN, Outgoing, Place, chain_over
from services.routing.wire import Direction, Letter, Way, read_letter
from shared.security.peers import Jwk, fingerprint
from shared.store.pool import Connection
from shared.store.queries import Queries

Side = Literal["upper", "lower"]


@dataclass(frozen=True, slots=True)
class Link:
    """A peer as the database knows it. `side` is the peer's; `bus`: where an upper peer's bus is dialled; `knows`: the
    signing keys of ours that it knows."""

    peer: str
    side: Side
    name: str
    state: Literal["invited", "joined", "active"]
    paused: bool
    bus: Mapping[str, Any] | None
    keys: Mapping[str, Any]
    ticket: str
    reaches: frozenset[str]
    heard: datetime | None
    tick: int
    offset_ms: int | None
    complete: datetime | None
    refused: Mapping[str, int]
    directory: str | None
    last: Place
    sent: Place
    confirmed: Place
    recovering: bool
    received: Place
    knows: frozenset[str] = frozenset()
    certificates: tuple[Mapping[str, Any], ...] = ()

    def name_on(self, site: str) -> str:
        """The link's name, the same at both ends: the lower site's code."""
        return self.peer if self.side == "lower" else site

    @property
    def outgoing(self) -> Direction:
        return "up" if self.side == "upper" else "down"

    @property
    def incoming(self) -> Direction:
        return "down" if self.side == "upper" else "up"

    def way_out(self, site: str) -> Way:
        return Way(self.name_on(site), self.outgoing, site, self.peer)

    def way_in(self, site: str) -> Way:
        return Way(self.name_on(site), self.incoming, self.peer, site)

    @property
    def signing_keys(self) -> dict[str, Jwk]:
        return {fingerprint(jwk): jwk for jwk in self.keys.get("sign", ())}

    @property
    def open(self) -> bool:
        """Whether envelopes are made for it; a paused one's wait."""
        return self.state != "invited"


def link_of(row: Any) -> Link:
    return Link(
        row["peer"],
        row["side"],
        row["name"],
        row["state"],
        row["paused"],
        row["bus"],
        row["keys"],
        row["ticket"],
        frozenset(row["reaches"]),
        row["heard"],
        row["tick"],
        row["offset_ms"],
        row["complete"],
        row["refused"],
        row["directory"],
        Place(row["epoch"], row["number"]),
        Place(row["sent_epoch"], row["sent_number"]),
        Place(row["confirmed_epoch"], row["confirmed_number"]),
        row["recovering"],
        Place(row["in_epoch"], row["in_number"]),
        frozenset(row["knows"]),
        tuple(row["certificates"]),
    )


def key_of(each: Letter) -> str | None:
    """The dossier that an envelope is about."""
    event = each.body.get("event")
    key = event.get("key") if isinstance(event, Mapping) else None
    return key if isinstance(key, str) else None


def effect_of(each: Letter, site: str) -> str | None:
    """What this site had said of itself in an envelope, and must stand again after a loss; None: nothing does."""
    if each.origin != site:
        return None
    if each.kind == "copy":
        topic = each.body.get("event", {}).get("topic")
        return {"lienthong.dossier.v1": "dossier", "lienthong.transfer.v1": "transfer"}.get(topic)
    return each.kind if each.kind in ("ask", "leg", "home", "document", "erased") else None


def receipt_for(each: Letter) -> str | None:
    """The dossier that an envelope is a receipt for. One with the person in it is none: a proof is for other eyes, and what
    was given away cannot be erased."""
    event = each.body.get("event")
    if each.kind not in ("ask", "leg", "home") or not isinstance(event, Mapping):
        return None
    if each.body.get("sealed") is not None or each.kept is not None:
        return None
    key = event.get("key")
    return key if isinstance(key, str) else None


@dataclass(frozen=True, slots=True)
class Incoming:
    """How far a direction was taken, and where it is read."""

    place: Place
    chain: str
    topic_id: str | None
    next_offset: int


class LinkStore:
    """Within the caller's transaction."""

    def __init__(self, schema: str) -> None:
        self._queries = Queries("services.routing", schema)

    # -- peers

    async def links(self, connection: Connection) -> list[Link]:
        """All of them, the upper one first."""
        return [link_of(row) for row in await connection.fetch(self._queries["links"], None)]

    async def link(self, connection: Connection, peer: str) -> Link:
        return link_of(await connection.fetchrow(self._queries["links"], peer))

    async def put(
        self,
        connection: Connection,
        peer: str,
        side: Side,
        name: str,
        state: str,
        bus: Mapping[str, Any] | None,
        keys: Mapping[str, Any],
        ticket: str,
    ) -> None:
        await connection.execute(self._queries["link_put"], peer, side, name, state, bus, keys, ticket, [peer])
        await connection.execute(self._queries["link_states_put"], peer)

    async def confirm(self, connection: Connection, peer: str, name: str, keys: Mapping[str, Any]) -> None:
        await connection.execute(self._queries["link_confirm"], peer, name, keys)

    async def activate(self, connection: Connection, peer: str) -> None:
        await connection.execute(self._queries["link_active"], peer)

    async def pause(self, connection: Connection, peer: str, paused: bool) -> bool:
        return await connection.fetchval(self._queries["link_pause"], peer, paused) is not None

    async def heard(
        self,
        connection: Connection,
        peer: str,
        tick: int,
        offset_ms: int,
        complete: datetime | None,
        reaches: Collection[str],
        keys: Mapping[str, Any] | None,
        knows: Collection[str],
        certificates: Sequence[Mapping[str, Any]] | None,
    ) -> bool:
        """False when a later control record was heard before. `keys`: the peer's, as it announces them now; `knows`: ours,
        `certificates`: on them."""
        values = (peer, tick, offset_ms, complete, sorted(reaches), keys, sorted(knows), certificates)
        return await connection.fetchval(self._queries["link_heard"], *values) is not None

    async def refused(self, connection: Connection, peer: str, reason: str, count: int = 1) -> None:
        await connection.execute(self._queries["link_refused"], peer, reason, count)

    async def directory_sent(self, connection: Connection, peer: str, digest: str) -> None:
        await connection.execute(self._queries["link_directory_sent"], peer, digest)

    # -- what goes out

    async def lock_out(self, connection: Connection, peer: str) -> Outgoing:
        row = await connection.fetchrow(self._queries["out_lock"], peer)
        assert row is not None
        return Outgoing(
            Place(row["epoch"], row["number"]),
            row["chain"],
            Place(row["sent_epoch"], row["sent_number"]),
            Place(row["confirmed_epoch"], row["confirmed_number"]),
            row["recovering"],
        )

    async def write_out(self, connection: Connection, peer: str, out: Outgoing) -> None:
        await connection.execute(
            self._queries["out_write"], peer, *out.last, out.chain, *out.sent, *out.confirmed, out.recovering
        )

    async def append(self, connection: Connection, peer: str, letters: Sequence[Letter]) -> None:
        """Stored means sent: the envelopes, numbered; in limbo while the ledger is being restored."""
        if not letters:
            return
        out = await self.lock_out(connection, peer)
        if out.recovering:
            await self._put_sent(connection, peer, letters, [(None, None, None)] * len(letters))
            return
        numbered = out.number([each.digest for each in letters])
        await self._put_sent(connection, peer, letters, [(*place, chain) for place, chain in numbered])
        await self.write_out(connection, peer, out)

    async def _put_sent(
        self,
        connection: Connection,
        peer: str,
        letters: Sequence[Letter],
        places: Sequence[tuple[int | None, int | None, str | None]],
    ) -> None:
        await connection.execute(
            self._queries["sent_put"],
            peer,
            [place[0] for place in places],
            [place[1] for place in places],
            [each.id for each in letters],
            [each.at for each in letters],
            [each.kind for each in letters],
            [each.digest for each in letters],
            [place[2] for place in places],
            [each.text for each in letters],
            [each.person for each in letters],
        )

    async def page(self, connection: Connection, peer: str, after: Place, limit: int) -> list[Any]:
        """What is to be published after a place, in order: rows of epoch, number, digest, chain, body."""
        return await connection.fetch(self._queries["sent_page"], peer, *after, limit)

    async def published(self, connection: Connection, peer: str, before: Place, upto: Place) -> None:
        await connection.execute(self._queries["sent_moved"], peer, *before, *upto)

    async def chain_at(self, connection: Connection, peer: str, place: Place, newest: Place) -> str | None:
        """The ledger's chain at a place; None when it has no such place."""
        if place.number == 0:
            if place.epoch > newest.epoch:
                return None
            return await connection.fetchval(self._queries["sent_chain_before_epoch"], peer, place.epoch) or BEGIN
        chain: str | None = await connection.fetchval(self._queries["sent_chain"], peer, *place)
        return chain

    async def begin_recovery(self, connection: Connection, peer: str, out: Outgoing, common: Place) -> None:
        """What lies behind the last place that both sides know is taken out of its numbers."""
        await connection.execute(self._queries["sent_to_limbo"], peer, *common)
        await connection.execute(self._queries["back_forget_all"], peer)
        await connection.execute(self._queries["back_whole"], peer, False)
        out.confirmed, out.sent, out.recovering = common, common, True
        out.chain = await self.chain_at(connection, peer, common, common) or BEGIN
        await self.write_out(connection, peer, out)

    async def give_back(
        self, connection: Connection, peer: str, out: Outgoing, rows: Sequence[tuple[Place, Letter]], site: str
    ) -> None:
        """Rows that the peer has and this ledger lacked, in their order; `site`: this one, whose own words they may be."""
        chains = chain_over(out.chain, [each.digest for _, each in rows])
        await connection.execute(self._queries["limbo_forget"], peer, [each.id for _, each in rows])
        letters = [each for _, each in rows]
        places = [(*place, chain) for (place, _), chain in zip(rows, chains, strict=True)]
        gone = await self.erased(
            connection, {(each.origin, each.person) for each in letters if each.person is not None}
        )
        kept = [each.without_person() if (each.origin, each.person) in gone else each for each in letters]
        await self._put_sent(connection, peer, kept, places)
        own = [(kind, each) for each in letters if (kind := effect_of(each, site)) is not None]
        await connection.execute(
            self._queries["back_put"],
            peer,
            [kind for kind, _ in own],
            [key_of(each) for _, each in own],
            [each.text for _, each in own],
            [each.digest for _, each in own],
        )
        out.chain, out.confirmed = chains[-1], rows[-1][0]

    async def end_recovery(self, connection: Connection, peer: str, out: Outgoing) -> None:
        """The ledger is complete again: what waits in limbo is numbered in a new epoch, in its order."""
        out.renew(out.confirmed, out.chain)
        await connection.execute(self._queries["back_whole"], peer, False)
        limbo = await connection.fetch(self._queries["limbo"], peer)
        numbered = out.number([row["digest"] for row in limbo])
        await connection.execute(
            self._queries["limbo_number"],
            [row["ord"] for row in limbo],
            [place.epoch for place, _ in numbered],
            [place.number for place, _ in numbered],
            [chain for _, chain in numbered],
        )

    # -- what was given back, until it stands again

    async def given_back(self, connection: Connection, peer: str) -> bool:
        """The peer has given back all it has; whether all that stands again."""
        await connection.execute(self._queries["back_whole"], peer, True)
        return not await connection.fetchval(self._queries["back_left"], peer)

    async def back_peers(self, connection: Connection) -> list[str]:
        """The peers whose rows are to be taken now."""
        return [row["peer"] for row in await connection.fetch(self._queries["back_peers"])]

    async def back_page(self, connection: Connection, peer: str, limit: int) -> list[Any]:
        """Rows of ord, kind, key, body, digest."""
        return await connection.fetch(self._queries["back_page"], peer, limit)

    async def back_taken(
        self, connection: Connection, taken: Sequence[int], later: Mapping[int, str | None] | None = None
    ) -> None:
        """`later`: these wait until the peer has asked for their legs once more, or has said again what came before; with
        the dossier or the document that they are about."""
        await connection.execute(self._queries["back_taken"], list(taken))
        if later:
            await connection.execute(self._queries["back_later"], list(later), list(later.values()))

    async def back_legs(self, connection: Connection, peer: str, codes: Collection[str]) -> list[tuple[int, Letter]]:
        """What this site had said of legs of these dossiers."""
        rows = await connection.fetch(self._queries["back_legs"], sorted(codes), peer)
        return [(row["ord"], read_letter(row["body"], row["digest"])) for row in rows]

    async def back_documents(self, connection: Connection, which: str) -> list[tuple[int, Letter]]:
        """What this site had said of a document after what is known here, in its order."""
        rows = await connection.fetch(self._queries["back_documents"], which)
        return [(row["ord"], read_letter(row["body"], row["digest"])) for row in rows]

    async def coming_back(self, connection: Connection, codes: Collection[str]) -> set[str]:
        """Those of the dossiers whose transfers are still to stand again."""
        rows = await connection.fetch(self._queries["back_transfers"], sorted(codes)) if codes else []
        return {row["key"] for row in rows}

    async def put_lost(self, connection: Connection, code: str, peer: str, at: datetime) -> None:
        await connection.execute(self._queries["lost_put"], code, peer, at)

    async def lost(self, connection: Connection, peer: str) -> list[str]:
        """Dossiers of this site that the peer has worked on and that nobody could give back."""
        return [row["code"] for row in await connection.fetch(self._queries["lost"], peer)]

    async def waiting(self, connection: Connection, peer: str, confirmed: Place) -> int:
        """Envelopes that the peer is not known to have."""
        count: int = await connection.fetchval(self._queries["waiting"], peer, *confirmed)
        return count

    # -- what comes in

    async def lock_in(self, connection: Connection, peer: str) -> Incoming:
        row = await connection.fetchrow(self._queries["in_lock"], peer)
        assert row is not None
        return Incoming(Place(row["epoch"], row["number"]), row["chain"], row["topic_id"], row["next_offset"])

    async def read_in(self, connection: Connection, peer: str) -> Incoming:
        row = await connection.fetchrow(self._queries["in_read"], peer)
        assert row is not None
        return Incoming(Place(row["epoch"], row["number"]), row["chain"], row["topic_id"], row["next_offset"])

    async def moved(self, connection: Connection, peer: str, topic_id: str | None, next_offset: int) -> None:
        await connection.execute(self._queries["in_moved"], peer, topic_id, next_offset)

    async def known(self, connection: Connection, peer: str, ids: Sequence[UUID]) -> set[UUID]:
        return {row["id"] for row in await connection.fetch(self._queries["received_ids"], peer, list(ids))}

    async def received(
        self,
        connection: Connection,
        peer: str,
        first: Place,
        letters: Sequence[Letter],
        outcomes: Sequence[str],
        chain: str,
        signed: tuple[str, str],
    ) -> None:
        """Envelopes are in the ledger, from `first` on; `chain` is the one after them, `signed` the manifest under which they
        came and its signature."""
        numbers = range(first.number, first.number + len(letters))
        await connection.execute(
            self._queries["received_put"],
            peer,
            first.epoch,
            list(numbers),
            [each.id for each in letters],
            [each.at for each in letters],
            [each.kind for each in letters],
            [each.digest for each in letters],
            [each.text for each in letters],
            list(outcomes),
            [receipt_for(each) for each in letters],
            [each.person for each in letters],
        )
        if any(receipt_for(each) for each in letters):
            await connection.execute(self._queries["record_put"], peer, *first, *signed)
        await connection.execute(self._queries["in_write"], peer, first.epoch, numbers[-1], chain)

    async def forget(self, connection: Connection, home: str, contact_ref: str) -> set[str]:
        """Takes a person of that home out of the ledgers of all links; the sites that the person was sealed to."""
        sites: set[str] = set()
        for row in await connection.fetch(self._queries["sent_with_person"], contact_ref):
            each = read_letter(row["body"], row["digest"])
            if each.origin == home:
                sites.add(each.to)
                await connection.execute(self._queries["sent_forget"], row["ord"], each.without_person().text)
        for row in await connection.fetch(self._queries["received_with_person"], contact_ref):
            each = read_letter(row["body"], row["digest"])
            if each.origin == home:
                where = (row["peer"], row["epoch"], row["number"])
                await connection.execute(self._queries["received_forget"], *where, each.without_person().text)
        return sites

    async def receipts(self, connection: Connection, code: str) -> list[Any]:
        """What peers have said of a dossier: rows of peer, kind, body, manifest, jws."""
        return await connection.fetch(self._queries["receipts"], code)

    async def erased_upto(self, connection: Connection, home: str) -> datetime | None:
        """When the newest of that home's erasures that is known here was made."""
        newest: datetime | None = await connection.fetchval(self._queries["erased_upto"], home)
        return newest

    async def put_erased(self, connection: Connection, home: str, contact_ref: str, at: datetime) -> bool:
        """False when it was known."""
        return await connection.fetchval(self._queries["erased_put"], home, contact_ref, at) is not None

    async def erased(self, connection: Connection, people: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """Which of these people, by home and contact_ref, have been erased."""
        if not people:
            return set()
        rows = await connection.fetch(self._queries["erased"], *map(list, zip(*sorted(people), strict=True)))
        return {(row["site"], row["contact_ref"]) for row in rows}

    async def received_after(self, connection: Connection, peer: str, place: Place, limit: int) -> list[Any]:
        return await connection.fetch(self._queries["received_after"], peer, *place, limit)

    # -- digests, keys, what was adopted

    async def digests(self, connection: Connection, peer: str, since: datetime) -> list[Any]:
        """Rows of direction, day, envelopes, ours."""
        return await connection.fetch(self._queries["digests"], peer, since)

    async def theirs(
        self, connection: Connection, peer: str, since: date
    ) -> dict[tuple[date, str], tuple[str, list[str]]]:
        """The peer's digests, and where both ledgers part, if they do."""
        rows = await connection.fetch(self._queries["digests_theirs"], peer, since)
        return {(row["day"], row["direction"]): (row["theirs"], list(row["differs"])) for row in rows}

    async def parts(self, connection: Connection, peer: str, ledger: Ledger, day: date, size: int) -> list[Part]:
        """A day's envelopes, so many at a time."""
        rows = await connection.fetch(self._queries["digest_parts"], peer, ledger, day, size)
        return [Part(Place(row["epoch"], row["first"]), row["last"], row["digest"]) for row in rows]

    async def put_differs(
        self, connection: Connection, peer: str, day: date, ledger: Ledger, names: Sequence[str]
    ) -> bool:
        """False when that was known."""
        query = self._queries["digests_differ"]
        return bool(await connection.fetchval(query, peer, day, ledger, list(names)))

    async def agree(self, connection: Connection, peer: str, but: Sequence[tuple[date, Ledger]]) -> None:
        """All days and ledgers but these are alike."""
        days, ledgers = [day for day, _ in but], [ledger for _, ledger in but]
        await connection.execute(self._queries["digests_agree"], peer, days, ledgers)

    async def put_theirs(self, connection: Connection, peer: str, said: Sequence[tuple[date, Ledger, str]]) -> None:
        if said:
            columns = zip(*said, strict=True)
            await connection.execute(self._queries["digests_put"], peer, *map(list, columns))

    async def site_keys(self, connection: Connection) -> dict[str, Jwk]:
        return {row["site"]: row["seal"] for row in await connection.fetch(self._queries["site_keys"])}

    async def put_site_keys(self, connection: Connection, keys: Mapping[str, Jwk]) -> None:
        if keys:
            values = [orjson.dumps(jwk).decode() for jwk in keys.values()]
            await connection.execute(self._queries["site_keys_put"], list(keys), values)

    async def adopted(self, connection: Connection, peer: str) -> dict[tuple[str, str], str]:
        rows = await connection.fetch(self._queries["adopted"], peer)
        return {(row["kind"], row["id"]): row["digest"] for row in rows}

    async def put_adopted(self, connection: Connection, peer: str, digests: Mapping[tuple[str, str], str]) -> None:
        if digests:
            await connection.execute(
                self._queries["adopted_put"],
                peer,
                [kind for kind, _ in digests],
                [name for _, name in digests],
                list(digests.values()),
            )
