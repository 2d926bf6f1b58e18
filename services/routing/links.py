"""The lines: what lies in the ledgers is published, what arrives takes effect, and both sides tell each other where they are.

One loop for a bus: this site's own, which lower sites dial, and the upper site's, which this one dials. A line may be down
for days: everything waits in the ledgers and goes, in order, when the bus answers again.
"""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from typing import Any, Final

import asyncpg
import structlog

from services.routing.compared import UNLIKE, Ledger, Part, other, part_of, size_for, unlike_days, unlike_parts
from services.routing.crossing import Crossing
from services.routing.directories import Directories
from services.routing.link import BATCH, Outgoing, Place, Seen, chain_over, judge, next_asked
from services.routing.link_store import Incoming, Link, LinkStore, Side
from services.routing.settings import RoutingSettings
from services.routing.wire import (
    REASONS,
    Batch,
    Control,
    Letter,
    PublicKeys,
    Refused,
    batch_record,
    control_record,
    letter_of,
    open_record,
    read_letter,
)
from shared.bus.line import Arrived, Line, LineDown, Reading
from shared.contracts.codes import LOCAL_ZONE, format_instant, local_day, parse_instant
from shared.contracts.events import link_topics
from shared.observe.metrics import LINK_CLOCK, LINK_REFUSED, LINK_SILENT, LINK_WAITING, Metrics
from shared.security.peers import Identity, fingerprint
from shared.security.proofs import Certificate, certify
from shared.service import Service, age
from shared.store.pool import TRANSIENT_ERRORS, Connection, passes_by_itself

log = structlog.get_logger("lienthong.links")

RECORDS_AT_ONCE: Final = 8
RECORD_BYTES: Final = 2 << 20
SAY_EVERY: Final = 5.0  # seconds between control records on an idle link
SAY_SOON: Final = 0.3  # after something has moved
SUMS_AFTER: Final = 1.0  # in which nothing has moved
DIGEST_DAYS: Final = 40
DIGESTS_EVERY: Final = 10.0  # seconds between a link's sums while something moves on it
PARTS_AT_ONCE: Final = 3  # days
AT_ONCE: Final = 2  # links that are served side by side: half of the pool's connections, so that requests find one
WAIT: Final = 0.2  # seconds that a poll waits
UP_WITHIN: Final = 15.0  # seconds without a word after which a line counts as down


@dataclass(slots=True)
class Talk:
    """What this process remembers of the conversation on one link."""

    say_at: float = 0.0
    asks: bool = False
    want: Place | None = None  # a ledger is being restored: rows after this place are asked for
    published: Place | None = None  # up to where the peer has published
    confirmed: Place | None = None  # up to where the peer knows that its envelopes are here
    back: dict[str, Any] | None = None  # rows that the peer has asked for
    digests: dict[tuple[date, Ledger], tuple[str, int]] | None = None  # ours, each with how many envelopes
    digests_of: tuple[Place, Place] | None = None  # the places of both ledgers that they were made at
    digests_at: float = 0.0
    places: tuple[Place, Place] | None = None
    unlike: list[tuple[date, Ledger]] = field(default_factory=list)
    ids_checked: float = 0.0
    certified: list[dict[str, Any]] = field(default_factory=list)
    certified_of: tuple[str, ...] = ()

    def soon(self) -> None:
        self.say_at = min(self.say_at, time.monotonic() + SAY_SOON)


class Links:
    """The loops of all links, and what is asked of them over HTTP."""

    def __init__(
        self,
        service: Service,
        settings: RoutingSettings,
        links: LinkStore,
        crossing: Crossing,
        directories: Directories,
        identity: Identity,
    ) -> None:
        self._service, self._settings, self._links, self._crossing = service, settings, links, crossing
        self._directories, self._identity = directories, identity
        self.site = service.settings.site
        self._talks: dict[str, Talk] = {}
        self._told: dict[str, object] = {}
        self.connected: dict[Side, bool] = {"upper": False, "lower": False}

    # -- the peers as they are

    async def refresh(self) -> None:
        """Reads the peers."""
        async with self._service.pool.acquire() as connection:
            self._crossing.peers = tuple(await self._links.links(connection))

    @property
    def peers(self) -> tuple[Link, ...]:
        return self._crossing.peers

    @property
    def reaches(self) -> frozenset[str]:
        """This site and all that lie below it."""
        below = {site for link in self._crossing.peers if link.side == "lower" and link.open for site in link.reaches}
        return frozenset({self.site} | below)

    def up(self, link: Link) -> bool:
        """Whether something good has come lately."""
        return link.heard is not None and (datetime.now(UTC) - link.heard).total_seconds() < UP_WITHIN

    async def keep(self) -> None:
        """The loop that keeps peers and directories up to date."""
        while True:
            self._service.beat("peers")
            try:
                await self.refresh()
                if self._service.directory.loaded:
                    for link in self._crossing.peers:
                        if link.state == "active" and not link.paused:
                            await self._tell_directory(link)
            except TRANSIENT_ERRORS as error:
                log.warning("links-not-read", error=type(error).__name__)
            await asyncio.sleep(0.5)

    async def _tell_directory(self, link: Link) -> None:
        version = self._service.directory.version
        told = (version, len(self._crossing.peers), self.reaches)
        if self._told.get(link.peer) == told:
            return
        async with self._service.pool.acquire() as connection, connection.transaction():
            await self._directories.send(connection, link, self.reaches)
        self._told[link.peer] = told

    # -- the loops

    async def run_own(self) -> None:
        await self._run("lower")

    async def run_upper(self) -> None:
        await self._run("upper")

    async def _run(self, side: Side) -> None:
        """Serves the links whose peers are on this side. Whatever breaks, it begins again with a new line."""
        line: Line | None = None

        async def hang_up() -> None:
            nonlocal line
            self.connected[side] = False
            if line is not None:
                ended, line = line, None
                await ended.close()

        try:
            dialled: object = None
            pause = 0.2
            name = f"links-{side}"
            while True:
                self._service.beat(name)
                peers = [p for p in self._crossing.peers if p.side == side and p.state != "invited" and not p.paused]
                where = peers[0].bus if peers and side == "upper" else None
                if line is not None and (not peers or where != dialled):
                    await hang_up()
                if not peers:
                    await asyncio.sleep(0.2)
                    continue
                try:
                    if line is None:
                        line, dialled = self._line(where), where
                    await line.open()
                    await self._turn(line, peers)
                    self.connected[side] = True
                    pause = 0.2
                except Exception as error:  # nothing that one record does may end the loop without closing its line
                    if isinstance(error, (LineDown, asyncpg.PostgresError, *TRANSIENT_ERRORS)):
                        log.info("line-down", side=side, error=str(error) or type(error).__name__)
                    else:
                        log.error("line-failed", side=side, exc_info=error)
                    await hang_up()
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, 2.0)
        finally:
            await hang_up()

    def _line(self, where: Any) -> Line:
        if where is None:
            return Line(self._service.settings.bus(), single=False)
        bus = self._settings.upper_bus(where)
        if bus.asks_for_login and not (bus.username and bus.password):
            raise LineDown("LIENTHONG_LINK_BUS_USERNAME and _PASSWORD are not set, and the site above asks for a login")
        return Line(bus, single=bool(where["single"]))

    async def _turn(self, line: Line, peers: Sequence[Link]) -> None:
        """Once around: read where we should, publish, talk, take what has come."""
        by_topic = {self._topic_in(link): link for link in peers}
        await self._look_at_topics(line, peers, by_topic)
        async with self._service.pool.acquire() as connection:
            states = {each.peer: each for each in await self._links.links(connection)}
        more = False
        for link in peers:
            more = await self._publish(line, states[link.peer]) or more
        # What is said on one link waits for no confirmation on another, and what comes on one for no effect on another.
        await side_by_side([self._say(line, link) for link in peers if time.monotonic() >= self._talk(link).say_at])
        arrived: dict[str, list[Arrived]] = {}
        for record in await line.poll(0.0 if more else WAIT):
            arrived.setdefault(record.topic, []).append(record)
        await side_by_side([self._take_all(by_topic[topic], records) for topic, records in arrived.items()])

    async def _take_all(self, link: Link, records: Sequence[Arrived]) -> None:
        for record in records:
            await self._take(link, record)

    def _talk(self, link: Link) -> Talk:
        return self._talks.setdefault(link.peer, Talk())

    def _topic_in(self, link: Link) -> str:
        return link_topics(link.name_on(self.site))[0 if link.incoming == "up" else 1]

    def _topic_out(self, link: Link) -> str:
        return link_topics(link.name_on(self.site))[0 if link.outgoing == "up" else 1]

    async def _look_at_topics(self, line: Line, peers: Sequence[Link], by_topic: dict[str, Link]) -> None:
        """Both topics exist, made by the upper site; a topic that was lost and made again is read from its beginning."""
        now = time.monotonic()
        talks = [self._talk(link) for link in peers]
        if line.reading == tuple(sorted(by_topic)) and all(now - talk.ids_checked < 2.0 for talk in talks):
            return
        wanted = sorted({*by_topic, *(self._topic_out(link) for link in peers)})
        ids = await line.ids(wanted)
        if missing := [topic for topic in wanted if topic not in ids]:
            if peers[0].side == "upper":
                raise LineDown("the upper site has not made the link's topics")
            await line.make(missing)
            ids = await line.ids(wanted)
        places: dict[str, Reading] = {}
        async with self._service.pool.acquire() as connection:
            for topic, link in by_topic.items():
                state = await self._links.read_in(connection, link.peer)
                if state.topic_id != ids.get(topic):
                    await self._links.moved(connection, link.peer, ids.get(topic), 0)
                    line.forget()
                places[topic] = Reading(ids.get(topic), state.next_offset if state.topic_id == ids.get(topic) else 0)
        await line.read(places, ids)
        for talk in talks:
            talk.ids_checked = now

    # -- out

    async def _publish(self, line: Line, link: Link) -> bool:
        """What lies in the ledger after what was sent; whether there may be more. `link` is as it was just read."""
        if link.recovering or link.sent >= link.last:
            return False
        async with self._service.pool.acquire() as connection:
            rows = await self._links.page(connection, link.peer, link.sent, BATCH * RECORDS_AT_ONCE)
            if not rows:
                return False
            before = await self._links.chain_at(connection, link.peer, link.sent, link.last)
        values: list[bytes] = []
        upto = link.sent
        chain = before or ""
        for batch in _batches(rows):
            first = Place(batch[0]["epoch"], batch[0]["number"])
            way = link.way_out(self.site)
            texts = [row["body"] for row in batch]
            digests = [row["digest"] for row in batch]
            upto = Place(batch[-1]["epoch"], batch[-1]["number"])
            again = upto <= link.confirmed
            values.append(batch_record(self._identity, way, first, chain, texts, link.knows, digests, again=again))
            chain = batch[-1]["chain"]
        await line.send(self._topic_out(link), values)
        async with self._service.pool.acquire() as connection:
            await self._links.published(connection, link.peer, link.sent, upto)
        self._talk(link).soon()
        return len(rows) == BATCH * RECORDS_AT_ONCE

    async def _say(self, line: Line, link: Link) -> None:
        """Where this side is; often while something moves, now and then while nothing does."""
        talk = self._talk(link)
        now = time.monotonic()
        async with self._service.pool.acquire() as connection:
            state = await self._links.link(connection, link.peer)
            place = await self._links.read_in(connection, link.peer)
            moment = await self._service.log.now(connection)
            places = (state.last, place.place)
            rests, talk.places = talk.places == places, places
            if talk.digests_of != places and (rests or now >= talk.digests_at):
                talk.digests = {
                    (row["day"], row["direction"]): (row["ours"], row["envelopes"])
                    for row in await self._links.digests(connection, link.peer, _since(moment))
                }
                talk.digests_of = places
                # A backlog must not wait for its own sums, nor forty links for each other's.
                talk.digests_at = now + max(DIGESTS_EVERY, 20 * (time.monotonic() - now))
            parts = await self._parts(connection, link, talk)
        said: dict[str, Any] = {
            "seen": {"epoch": place.place.epoch, "number": place.place.number, "chain": place.chain, "asks": talk.asks},
            "sent": list(state.sent),
            "confirmed": list(state.confirmed),
            "clock": format_instant(datetime.now(UTC)),
            "reaches": sorted(self.reaches) if link.side == "upper" else [],
            "complete": format_instant(moment) if state.sent == state.last and not state.recovering else None,
            "digests": [[day.isoformat(), way, text] for (day, way), (text, _) in (talk.digests or {}).items()],
            "digests_of": [list(each) for each in talk.digests_of or ()],
            "keys": self._identity.announced,
            "knows": sorted(state.signing_keys),
        }
        if link.side == "lower":
            said["certificates"] = self._certified(state)
        if parts:
            said["parts"] = parts
        if talk.want is not None:
            said["want"] = list(talk.want)
        if talk.back is not None:
            said["back"] = talk.back
        tick = time.time_ns() // 1000
        record = control_record(self._identity, link.way_out(self.site), tick, said, state.knows)
        await line.send(self._topic_out(link), [record])
        # When the line rests its sums are made, and told.
        wait = SAY_EVERY if talk.digests_of == places else SUMS_AFTER
        talk.say_at, talk.asks, talk.back = now + wait, False, None

    async def _parts(self, connection: Connection, link: Link, talk: Talk) -> list[dict[str, Any]]:
        """Of days on which the sides do not have the same: digests of their parts, for the peer to find where they part."""
        found = []
        for day, ledger in talk.unlike[:PARTS_AT_ONCE]:
            _, envelopes = (talk.digests or {}).get((day, ledger), ("", 0))
            size = size_for(envelopes)
            parts = await self._links.parts(connection, link.peer, ledger, day, size)
            found.append(
                {"day": day.isoformat(), "direction": ledger, "size": size, "parts": [p.to_json() for p in parts]}
            )
        talk.unlike = []
        return found

    def _certified(self, link: Link) -> list[dict[str, Any]]:
        """Our word on the peer's signing keys, and what leads from us to a root. Signed anew only when a key has changed."""
        talk, mine = self._talk(link), fingerprint(self._identity.public["sign"])
        of = (mine, *sorted(link.signing_keys))
        if talk.certified_of != of:
            talk.certified_of = of
            talk.certified = [certify(self._identity, link.peer, jwk) for jwk in link.signing_keys.values()]
        above = [dict(each) for peer in self._crossing.peers if peer.side == "upper" for each in peer.certificates]
        return talk.certified + above

    def certificates(self, peers: Sequence[Link]) -> list[dict[str, Any]]:
        """All that a proof of this site rests on: our own key, our word on the peers', and what leads to a root."""
        own = certify(self._identity, self.site, self._identity.public["sign"])
        theirs = [certify(self._identity, peer.peer, jwk) for peer in peers for jwk in peer.signing_keys.values()]
        above = [dict(each) for peer in peers if peer.side == "upper" for each in peer.certificates]
        return [own, *theirs, *above]

    # -- in

    async def _take(self, link: Link, record: Arrived) -> None:
        """One record, in one transaction: its effect, the ledger, and where the next one is read."""
        async with self._service.pool.acquire() as connection, connection.transaction():
            state = await self._links.lock_in(connection, link.peer)
            link = await self._links.link(connection, link.peer)  # with the keys as the record before has left them
            await self._links.moved(connection, link.peer, state.topic_id, record.offset + 1)
            try:
                good = open_record(record.value, link.way_in(self.site), link.signing_keys, datetime.now(UTC))
                if isinstance(good, Control):
                    await self._heard(connection, link, good)
                else:
                    await self._batch(connection, link, state, good)
                await self._links.activate(connection, link.peer)
            except Refused as refused:
                await self._links.refused(connection, link.peer, refused.reason)
                log.error("link-record-refused", link=link.name_on(self.site), reason=refused.reason)
        self._service.wake()

    async def _batch(self, connection: Connection, link: Link, state: Incoming, batch: Batch) -> None:
        talk = self._talk(link)
        talk.soon()
        if link.recovering:
            return  # it rests on what this site had said: all that is asked for again when that stands again
        verdict = judge(state.place, state.chain, batch.first, batch.before, batch.digests)
        if verdict.verdict == "duplicate":
            # What a sender knows to be here it sends again with that word: without it somebody else does.
            old = not batch.again and talk.confirmed is not None and batch.last <= talk.confirmed
            reason = "replayed" if old else "duplicate"
            await self._links.refused(connection, link.peer, reason)
            if old:
                log.error("link-record-refused", link=link.name_on(self.site), reason=reason)
            return
        if verdict.verdict != "new":
            if verdict.verdict == "fork":
                # Other envelopes under numbers that are taken: its ledger was restored, and it does not know it yet.
                await self._links.refused(connection, link.peer, "fork")
            talk.asks = True
            return
        now = await self._service.log.now(connection)
        signed_as = list(zip(batch.texts, batch.digests, strict=True))[verdict.skip :]
        letters = [letter_of(text, digest, now) for text, digest in signed_as]
        outcomes = await self._applied(connection, link, letters)
        first = Place(batch.first.epoch, batch.first.number + verdict.skip)
        chain = chain_over(state.chain, batch.digests[verdict.skip :])[-1]
        signed = (batch.manifest, batch.jws)
        await self._links.received(connection, link.peer, first, letters, outcomes, chain, signed)
        for each, outcome in zip(letters, outcomes, strict=True):
            if each.kind == "erased" and outcome in ("applied", "passed-on"):
                await self._links.forget(connection, each.origin, str(each.body.get("contact_ref")))

    async def _applied(self, connection: Connection, link: Link, letters: Sequence[Letter]) -> list[str]:
        """The outcomes of a batch; where it fails as a whole, its envelopes one by one: a bad one isolates itself alone."""
        try:
            async with connection.transaction():
                return await self._crossing.apply(connection, link, letters)
        except Exception as error:
            if passes_by_itself(error):
                raise
            if len(letters) > 1:
                return [outcome for each in letters for outcome in await self._applied(connection, link, [each])]
            await self._links.refused(connection, link.peer, "failed")
            log.error("link-envelope-failed", link=link.name_on(self.site), id=str(letters[0].id), exc_info=error)
            return ["failed"]

    async def _heard(self, connection: Connection, link: Link, control: Control) -> None:
        """What the peer says of itself. Raises Refused (`not-readable`)."""
        said, talk = control.said, self._talk(link)
        try:
            seen = Seen(
                Place(int(said["seen"]["epoch"]), int(said["seen"]["number"])),
                str(said["seen"]["chain"]),
                bool(said["seen"]["asks"]),
            )
            clock = parse_instant(said["clock"])
            complete = None if said["complete"] is None else parse_instant(said["complete"])
            reaches = {str(site) for site in said["reaches"]} | {link.peer}
            peer_sent = Place(*map(int, said["sent"]))
            digests = [(date.fromisoformat(day), other(way), str(text)) for day, way, text in said["digests"] or ()]
            digests_of = [Place(*map(int, each)) for each in said.get("digests_of", ())]
            parts = [
                (
                    date.fromisoformat(each["day"]),
                    other(each["direction"]),
                    int(each["size"]),
                    [*map(part_of, each["parts"])],
                )
                for each in said.get("parts", ())
            ]
            want = Place(*map(int, said["want"])) if "want" in said else None
            confirmed = Place(*map(int, said["confirmed"])) if "confirmed" in said else None
            keys = PublicKeys.model_validate(said["keys"]).model_dump() if "keys" in said else None
            knows = [str(name) for name in said.get("knows", ())]
            certificates = [Certificate.model_validate(each).model_dump() for each in said.get("certificates", ())]
        except (KeyError, TypeError, ValueError):
            raise Refused("not-readable") from None
        offset = round((clock - datetime.now(UTC)).total_seconds() * 1000)
        certified = certificates if link.side == "upper" else None
        values = (link.peer, control.tick, offset, complete, reaches, keys, knows, certified)
        if not await self._links.heard(connection, *values):
            await self._links.refused(connection, link.peer, "replayed")
            return
        talk.confirmed, talk.published = confirmed, peer_sent
        await self._links.put_theirs(connection, link.peer, digests)
        place = (await self._links.read_in(connection, link.peer)).place
        for each in parts:
            await self._part(connection, link, *each)
        if next_asked(place, peer_sent):
            talk.asks = True
            talk.soon()
        talk.back = await self._rows_after(connection, link, want, place) if want is not None else talk.back
        if want is not None:
            talk.soon()
        out = await self._links.lock_out(connection, link.peer)
        if "back" in said:
            await self._given_back(connection, link, out, said["back"])
        if digests_of == [place, out.last] and talk.digests is not None and talk.digests_of == (out.last, place):
            mine = {key: text for key, (text, _) in talk.digests.items()}
            talk.unlike = unlike_days(mine, {(day, ledger): text for day, ledger, text in digests})
            await self._links.agree(connection, link.peer, talk.unlike)
        ours = await self._links.chain_at(connection, link.peer, seen.place, out.last)
        match out.heard(seen, ours):
            case "recover":
                log.error("link-ledger-restored", link=link.name_on(self.site), at=list(out.confirmed))
                await self._links.begin_recovery(connection, link.peer, out, out.confirmed)
                talk.want = out.confirmed
                talk.soon()
            case "resend":
                log.info("link-resent", link=link.name_on(self.site), after=list(seen.place))
                await self._links.write_out(connection, link.peer, out)
            case _:
                await self._links.write_out(connection, link.peer, out)
        if out.recovering and talk.want is None:
            talk.want = out.confirmed  # this process has not asked yet
            talk.soon()

    async def _part(
        self, connection: Connection, link: Link, day: date, ledger: Ledger, size: int, theirs: list[Part]
    ) -> None:
        """The peer's parts of a day on which both do not have the same: it is named where they part."""
        names = unlike_parts(await self._links.parts(connection, link.peer, ledger, day, max(1, size)), theirs)
        if names and await self._links.put_differs(connection, link.peer, day, ledger, names):
            await self._links.refused(connection, link.peer, UNLIKE)
            log.error("link-digest-differs", link=link.name_on(self.site), day=day.isoformat(), at=names[:10])

    async def _rows_after(self, connection: Connection, link: Link, after: Place, have: Place) -> dict[str, Any]:
        """What this side has received after a place, for a peer whose own ledger was restored."""
        rows = await self._links.received_after(connection, link.peer, after, BATCH)
        first = _batches(rows)[0] if rows else []  # what one record holds; a new epoch's envelopes come next time
        texts = [[row["epoch"], row["number"], row["body"], row["digest"]] for row in first]
        return {"after": list(after), "rows": texts, "have": list(have)}

    async def _given_back(self, connection: Connection, link: Link, out: Outgoing, back: Any) -> None:
        talk = self._talk(link)
        try:
            after, have = Place(*map(int, back["after"])), Place(*map(int, back["have"]))
            rows = [
                (Place(int(epoch), int(number)), read_letter(str(text), *map(str, signed)))
                for epoch, number, text, *signed in back["rows"]
            ]
        except (KeyError, TypeError, ValueError):
            raise Refused("not-readable") from None
        if not out.recovering or after != out.confirmed:
            return
        if have < after:
            # The peer was restored, too, to before what we took for common: both begin from the first envelope.
            await self._links.begin_recovery(connection, link.peer, out, Place(1, 0))
        elif rows:
            await self._links.give_back(connection, link.peer, out, rows, self.site)
        if out.confirmed == have and await self._links.given_back(connection, link.peer):
            await self._links.end_recovery(connection, link.peer, out)
            talk.want = None
            log.info("link-epoch", link=link.name_on(self.site), epoch=out.last.epoch)
        else:
            talk.want = out.confirmed
        talk.soon()

    # -- what operators ask

    async def observe(self, connection: Connection) -> None:
        """How each line stands, as metrics; one that is paused is silent by intent."""
        for link in await self._links.links(connection):
            if link.state == "active":
                waiting = await self._links.waiting(connection, link.peer, link.confirmed)
                show_link(self._service.metrics, link, link.name_on(self.site), waiting)

    async def status(self) -> list[dict[str, Any]]:
        """Every link as it stands."""
        async with self._service.pool.acquire() as connection:
            peers = await self._links.links(connection)
            self._crossing.peers = tuple(peers)
            waiting = {each.peer: await self._links.waiting(connection, each.peer, each.confirmed) for each in peers}
            lost = {each.peer: await self._links.lost(connection, each.peer) for each in peers}
        return [self._status(link, waiting[link.peer], lost[link.peer]) for link in peers]

    def _status(self, link: Link, waiting: int, lost: Sequence[str]) -> dict[str, Any]:
        state = "paused" if link.paused and link.state == "active" else link.state
        return {
            "link": link.name_on(self.site),
            "peer": link.peer,
            "name": link.name,
            "side": link.side,
            "state": state,
            "up": self.up(link) and not link.paused,
            "waiting": waiting,
            "sent": {"epoch": link.last.epoch, "last": link.last.number, "published": list(link.sent)},
            "confirmed": {"epoch": link.confirmed.epoch, "number": link.confirmed.number},
            "received": {"epoch": link.received.epoch, "number": link.received.number},
            "missing": self._missing(link),
            "recovering": link.recovering,
            "lost": list(lost),
            "heard_at": None if link.heard is None else format_instant(link.heard),
            "complete_to": None if link.complete is None else format_instant(link.complete),
            "clock_offset_ms": link.offset_ms,
            "refused": dict(link.refused),
            "reaches": sorted(link.reaches),
        }

    def _missing(self, link: Link) -> dict[str, Any] | None:
        """What the peer has published and is not here: it is on its way, or was lost on it, and is asked for again."""
        published = self._talk(link).published
        if published is None or not next_asked(link.received, published):
            return None
        after, upto = link.received, published
        return {
            "after": {"epoch": after.epoch, "number": after.number},
            "upto": {"epoch": upto.epoch, "number": upto.number},
        }

    async def digests(self) -> list[dict[str, Any]]:
        """Of every link, day and direction: our digest and theirs."""
        items = []
        async with self._service.pool.acquire() as connection:
            for link in await self._links.links(connection):
                theirs = await self._links.theirs(connection, link.peer, date.min)
                for row in await self._links.digests(connection, link.peer, datetime(1970, 1, 1, tzinfo=UTC)):
                    said, differs = theirs.get((row["day"], row["direction"]), (None, []))
                    old = row["day"] < local_day(datetime.now(UTC)) - timedelta(days=DIGEST_DAYS)
                    items.append(
                        {
                            "link": link.name_on(self.site),
                            "day": row["day"].isoformat(),
                            "direction": link.outgoing if row["direction"] == "out" else link.incoming,
                            "envelopes": row["envelopes"],
                            "ours": row["ours"],
                            "theirs": said,
                            "equal": said == row["ours"] or (said is None and old),
                            "differs": differs,
                        }
                    )
        return items

    async def resend(self, peer: str, epoch: int, after: int) -> int:
        """Publishes again what lies after a number; how many envelopes that are. Raises KeyError."""
        async with self._service.pool.acquire() as connection, connection.transaction():
            out = await self._links.lock_out(connection, peer)
            place = Place(epoch, after)
            if place > out.sent or out.recovering:
                raise KeyError(peer)
            count = await self._links.waiting(connection, peer, place)
            out.sent = place
            await self._links.write_out(connection, peer, out)
        return count


async def side_by_side(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """All of them, few at a time; when one fails the others are ended, and its error is raised."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(work: Coroutine[Any, Any, None]) -> None:
        async with turn:
            await work

    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(one(work))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def _batches(rows: Sequence[Any]) -> list[list[Any]]:
    """Records: at most BATCH envelopes of one epoch, and not too large."""
    batches: list[list[Any]] = []
    size = 0
    for row in rows:
        text = len(row["body"])
        if (
            not batches
            or len(batches[-1]) == BATCH
            or size + text > RECORD_BYTES
            or batches[-1][-1]["epoch"] != row["epoch"]
        ):
            batches.append([])
            size = 0
        batches[-1].append(row)
        size += text
    return batches


def _since(moment: datetime) -> datetime:
    """The first instant of the days that are compared: whole ones, or both sides would cut the first one elsewhere."""
    return datetime.combine(local_day(moment) - timedelta(days=DIGEST_DAYS), clock.min, LOCAL_ZONE)


def show_link(metrics: Metrics, link: Link, name: str, waiting: int) -> None:
    if link.heard is not None:
        metrics.set(LINK_SILENT, 0.0 if link.paused else age(link.heard), name)
    metrics.set(LINK_WAITING, waiting, name, link.outgoing)
    if link.offset_ms is not None:
        metrics.set(LINK_CLOCK, link.offset_ms / 1000, name)
    # Each reason is there from the start: of a counter that begins with its first count nobody sees that it rose.
    for reason in (*REASONS, *link.refused):
        metrics.total(LINK_REFUSED, link.refused.get(reason, 0), name, reason)
