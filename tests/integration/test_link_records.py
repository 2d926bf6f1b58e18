"""What comes over a link and is not good: refused with its reason, counted, and nothing of it is stored as fact.

Routing runs alone; the tests are the lower site, by hand, on the bus.
"""

import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from services.routing.carried import event_json
from services.routing.link import BEGIN, Place, chain_over
from services.routing.wire import (
    MAX_ENVELOPE,
    MAX_HOPS,
    Batch,
    Letter,
    Way,
    batch_record,
    control_record,
    letter,
    open_record,
)
from shared.contracts.codes import format_instant, local_day, uuid7
from shared.contracts.envelope import Envelope
from shared.contracts.events import DossierReceived, LimitData, TransferRequested, link_topics
from shared.security.keys import prepare, swap
from shared.security.peers import Identity, canonical, fingerprint
from shared.security.tokens import Role
from tests.harness import Backing, RunningSite, real_services, running_site

UPPER, LAND = "H55", "H55.24"
LOWER = "H55.9001"  # no bundle names it: its agency is whose dossiers it may speak of
DOWN = link_topics(LOWER)[1]


class Lower:
    """The lower site: signs, numbers and sends by hand."""

    def __init__(self, site: RunningSite, folder: Path, code: str = LOWER) -> None:
        self.site, self.folder, self.code = site, folder, code
        self.identity = Identity(code, folder)
        self.operator = site.client("routing", Role.OPERATOR)
        self.way = Way(code, "up", code, UPPER)
        self.up, self.down = link_topics(code)
        self.place, self.chain, self.tick = Place(1, 0), BEGIN, 0

    async def join(self) -> None:
        invited = await self.operator.post("/v1/links/invite", json={"site": self.code})
        assert invited.status_code == 200, invited.text
        content = {
            "kind": "lienthong-reply",
            "site": self.code,
            "name": "Xã Thử Nghiệm",
            "upper": UPPER,
            "keys": self.identity.announced,
            "ticket": invited.json()["ticket"],
        }
        text = orjson.dumps({**content, "jws": self.identity.sign(canonical(content))}).decode()
        confirmed = await self.operator.post("/v1/links/confirm", json={"text": text})
        assert confirmed.status_code == 200, confirmed.text

        async def answered() -> bool:
            return bool(await self.site.bus.records(self.down))

        assert await self.site.until(answered)  # both topics are there

    async def send(self, *values: bytes) -> None:
        await self.site.bus.send(*((self.up, None, value, []) for value in values))

    async def link(self) -> dict[str, Any]:
        items: list[dict[str, Any]] = (await self.operator.get("/v1/links")).json()["items"]
        return next(item for item in items if item["peer"] == self.code)

    def record(self, *texts: str, identity: Identity | None = None) -> bytes:
        """The next record, not counted as sent yet."""
        first = Place(self.place.epoch, self.place.number + 1)
        return batch_record(identity or self.identity, self.way, first, self.chain, texts)

    async def deliver(self, *texts: str) -> None:
        """Sends a good record and waits until it has been taken."""
        await self.send(self.record(*texts))
        self.chain = chain_over(self.chain, [sha256(text.encode()).hexdigest() for text in texts])[-1]
        self.place = Place(self.place.epoch, self.place.number + len(texts))

        async def there() -> bool:
            return bool((await self.link())["received"]["number"] == self.place.number)

        assert await self.site.until(there)

    def control(self, identity: Identity | None = None, tick: int | None = None, **more: Any) -> bytes:
        self.tick += 1
        said = {
            "seen": {"epoch": 1, "number": 0, "chain": BEGIN, "asks": False},
            "sent": list(self.place),
            "clock": format_instant(datetime.now(UTC)),
            "reaches": [],
            "complete": None,
            "digests": None,
            **more,
        }
        return control_record(identity or self.identity, self.way, self.tick if tick is None else tick, said)

    def letter(self, kind: str, body: dict[str, Any], **more: Any) -> Letter:
        given: dict[str, Any] = {"origin": self.code, "to": UPPER, "at": datetime.now(UTC), **more}
        return letter(kind, body, **given)

    def copy(self, number: int, **more: Any) -> str:
        """The copy of a dossier's first event."""
        return self.letter("copy", {"event": event_json(received(number, **more))}).text


def code_of(number: int) -> str:
    return f"{LOWER}-261126-{number:04}"


def received(number: int, source: str = LOWER, sequence: int = 1) -> Envelope:
    now = datetime.now(UTC)
    data = DossierReceived(
        agency=LOWER, deciding_agency=LOWER, procedure="1.004873", field="G01-TP01", previous=None, state=2, due_at=now,
        paused=False, by="desk", confidential=False, channel="counter", return_by="counter", applicant_kind="citizen",
        limit=LimitData(value=3, unit="working_days"),
    )  # fmt: skip
    return Envelope(
        topic="lienthong.dossier.v1", id=uuid7(), source=f"/sites/{source}/intake", type=data.short,
        subject=code_of(number), time=now, recorded=now, sequence=sequence, mode="live", data=data.to_json(),
    )  # fmt: skip


@pytest.fixture(scope="module")
async def site(backing: Backing) -> AsyncIterator[RunningSite]:
    async with running_site(backing, *real_services("routing")) as running:
        yield running


@pytest.fixture(scope="module")
async def lower(site: RunningSite, tmp_path_factory: pytest.TempPathFactory) -> Lower:
    peer = Lower(site, tmp_path_factory.mktemp("lower"))
    await peer.join()
    return peer


async def stored(site: RunningSite) -> list[Any]:
    """All that a link's record may leave behind."""
    counts = [
        await site.value(f"SELECT count(*) FROM routing.{table}")
        for table in ("link_received", "dossier", "transfer", "copy", "document", "sealed", "event")
    ]
    places = "SELECT string_agg(peer || epoch || number || chain, ' ' ORDER BY peer) FROM routing.link_in"
    return [*counts, await site.value(places)]


async def refused(site: RunningSite, lower: Lower, value: bytes, reason: str) -> None:
    """It is refused for this reason, counted, seen on the metrics, and leaves nothing."""
    before, count = await stored(site), (await lower.link())["refused"].get(reason, 0)
    await lower.send(value)

    seen: list[Any] = []

    async def counted() -> bool:
        seen[:] = [(await lower.link())["refused"]]
        return bool(seen[0].get(reason, 0) == count + 1)

    await site.until(counted, what=lambda: f"{reason} is not counted: {seen}")
    assert await stored(site) == before
    async with httpx.AsyncClient(base_url=site.urls["routing"], trust_env=False) as reader:
        text = (await reader.get("/metrics")).text
    [line] = [
        each
        for each in text.splitlines()
        if "link_refused_total{" in each and f'"{lower.code}",reason="{reason}"' in each
    ]
    assert float(line.split()[-1]) == count + 1


async def test_what_is_not_good_is_refused_with_its_reason(
    site: RunningSite, lower: Lower, tmp_path_factory: pytest.TempPathFactory
) -> None:
    await lower.deliver(lower.copy(1))
    stranger = Identity(LOWER, tmp_path_factory.mktemp("stranger"))
    good = lower.record(lower.copy(2))
    await refused(site, lower, lower.record(lower.copy(2), identity=stranger), "unknown-key")
    await refused(site, lower, good.replace(b"1.004873", b"1.004874"), "bad-digest")
    await refused(site, lower, good.replace(rb"\"before\":\"", rb"\"before\":\"0"), "bad-signature")
    await refused(site, lower, good[:-30], "not-readable")
    value = orjson.loads(good)
    await refused(site, lower, orjson.dumps({**value, "envelopes": []}), "truncated")
    down = Way(LOWER, "down", LOWER, UPPER)
    await refused(site, lower, batch_record(lower.identity, down, Place(1, 2), lower.chain, ["x"]), "wrong-address")
    await refused(site, lower, lower.record("x" * (MAX_ENVELOPE + 1)), "oversize")
    text = lower.copy(3)
    once = lower.record(text)
    await lower.deliver(text)  # the link goes on
    await refused(site, lower, once, "duplicate")
    await refused(site, lower, good, "fork")  # another one under the number that was taken meanwhile


async def test_an_old_word_again_has_no_effect(site: RunningSite, lower: Lower) -> None:
    old = lower.control(reaches=["H55.9002"])
    await lower.send(old, lower.control(reaches=["H55.9003"]))

    async def reaches() -> bool:
        return bool((await lower.link())["reaches"] == [LOWER, "H55.9003"])

    assert await site.until(reaches)
    await refused(site, lower, old, "replayed")
    assert (await lower.link())["reaches"] == [LOWER, "H55.9003"]


async def test_an_old_record_again_is_a_replay_unless_its_sender_says_so(site: RunningSite, lower: Lower) -> None:
    old = lower.record(lower.copy(15))
    text = orjson.loads(old)["envelopes"][0]
    first, chain = Place(lower.place.epoch, lower.place.number + 1), lower.chain
    await lower.deliver(text)
    await refused(site, lower, old, "duplicate")  # its sender may not have heard that it came
    await lower.send(lower.control(confirmed=list(lower.place)))
    await refused(site, lower, old, "replayed")
    again = batch_record(lower.identity, lower.way, first, chain, [text], again=True)
    await refused(site, lower, again, "duplicate")


async def test_one_bad_envelope_isolates_only_itself(site: RunningSite, lower: Lower) -> None:
    first = lower.copy(11)
    texts = [
        first,
        "no envelope",
        lower.letter("poem", {}).text,
        lower.letter("copy", {"event": {"topic": "lienthong.dossier.v1"}}).text,
        lower.copy(12, source="H55.9002"),
        lower.copy(13, sequence=2),
        lower.copy(14),
        first,
        lower.letter("leg", {"event": event_json(received(11))}).text,
    ]
    await lower.deliver(*texts)
    rows = await site.fetch("SELECT outcome FROM routing.link_received ORDER BY number DESC LIMIT $1", len(texts))
    assert [row["outcome"] for row in reversed(rows)] == [
        "applied", "bad-envelope", "unknown-kind", "bad-event", "wrong-source", "out-of-order", "applied", "repeated",
        "not-ours",
    ]  # fmt: skip
    copies = await site.fetch(
        "SELECT code FROM routing.copy WHERE code = ANY ($1)", [code_of(n) for n in range(11, 15)]
    )
    assert {row["code"] for row in copies} == {code_of(11), code_of(14)}


async def test_an_envelope_that_breaks_the_batch_isolates_only_itself(site: RunningSite, lower: Lower) -> None:
    """What no check foresees: a text that PostgreSQL does not take."""
    bad = lower.letter("copy", {"event": {**event_json(received(21)), "key": f"{code_of(21)}\0"}}).text
    await lower.deliver(lower.copy(22), bad, lower.copy(23))
    rows = await site.fetch("SELECT outcome FROM routing.link_received ORDER BY number DESC LIMIT 3")
    assert [row["outcome"] for row in reversed(rows)][::2] == ["applied", "applied"]
    assert rows[1]["outcome"] != "applied"


async def test_a_gap_is_named_until_it_is_closed(site: RunningSite, lower: Lower) -> None:
    """Two records are under way, and the first is lost: it says so, asks, and takes nothing of the second before."""
    epoch, number = lower.place
    texts = [lower.copy(24), lower.copy(25)]
    chain = chain_over(lower.chain, [sha256(texts[0].encode()).hexdigest()])[-1]
    early = batch_record(lower.identity, lower.way, Place(epoch, number + 2), chain, texts[1:])
    await lower.send(early, lower.control(sent=[epoch, number + 2]))

    async def named() -> bool:
        missing = (await lower.link())["missing"]
        return bool(
            missing == {"after": {"epoch": epoch, "number": number}, "upto": {"epoch": epoch, "number": number + 2}}
        )

    assert await site.until(named)
    assert (await lower.link())["received"] == {"epoch": epoch, "number": number}
    await lower.deliver(*texts)
    assert (await lower.link())["missing"] is None


async def test_nothing_loops(site: RunningSite, lower: Lower) -> None:
    """What is for a third site goes on only where it has not been; our only other way leads back."""
    hops = [f"H{number}" for number in range(10, 10 + MAX_HOPS)]
    texts = [
        lower.letter("ask", {}, to="H77", hops=[LOWER, UPPER]).text,
        lower.letter("ask", {}, to="H77", hops=hops).text,
        lower.letter("ask", {}, to="H77", origin=UPPER).text,
        lower.letter("ask", {}, to="H77").text,
        lower.letter("ask", {}, to=LOWER).text,
    ]
    waiting = await site.value("SELECT count(*) FROM routing.link_sent WHERE kind = 'ask'")
    await lower.deliver(*texts)
    rows = await site.fetch("SELECT outcome FROM routing.link_received ORDER BY number DESC LIMIT 5")
    assert [row["outcome"] for row in reversed(rows)] == ["loop", "loop", "loop", "no-way", "no-way"]
    assert await site.value("SELECT count(*) FROM routing.link_sent WHERE kind = 'ask'") == waiting


async def test_what_is_for_a_third_site_goes_on_under_its_own_id(
    site: RunningSite, lower: Lower, tmp_path_factory: pytest.TempPathFactory
) -> None:
    third = Lower(site, tmp_path_factory.mktemp("third"), "H55.9009")
    await third.join()
    sent = lower.letter("ask", {"for": "the third"}, to=third.code)
    await lower.deliver(sent.text, sent.text)
    [row] = await site.fetch("SELECT id, body FROM routing.link_sent WHERE peer = $1 AND kind = 'ask'", third.code)
    passed = orjson.loads(row["body"])
    assert (row["id"], passed["from"], passed["to"], passed["hops"]) == (sent.id, LOWER, third.code, [UPPER])
    assert passed["body"] == sent.body
    # Back to where it came from it does not go, whatever way is left.
    await third.deliver(third.letter("ask", {}, to=LOWER, origin=LOWER, hops=[LOWER, UPPER]).text)
    [row] = await site.fetch("SELECT outcome FROM routing.link_received WHERE peer = $1", third.code)
    assert row["outcome"] == "loop"


async def test_who_was_erased_at_home_stands_in_no_ledger_on_the_way(
    site: RunningSite, lower: Lower, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The word passes through, as the person did; what is sent again afterwards goes without, under the same numbers."""
    third = Lower(site, tmp_path_factory.mktemp("farther"), "H55.9010")
    await third.join()
    secret = {"contact_ref": "c-9", "nonce": "n", "ciphertext": "c", "wrapped": "the-wrapped-key"}
    asks = [lower.letter("ask", {"sealed": secret | {"contact_ref": ref}}, to=third.code) for ref in ("c-9", "c-8")]
    await lower.deliver(*(each.text for each in asks))
    ledgers = "SELECT id, digest, body FROM routing.link_{} WHERE id = ANY ($1::uuid[]) ORDER BY id"

    async def rows() -> list[Any]:
        ids = [each.id for each in asks]
        return [row for name in ("sent", "received") for row in await site.fetch(ledgers.format(name), ids)]

    before = await rows()
    assert [secret["wrapped"] in row["body"] for row in before] == [True] * 4
    strangers = third.letter(
        "erased", {"contact_ref": "c-8"}, to=LOWER
    )  # not its own: it says so of its own people alone
    await third.deliver(strangers.text)
    await lower.deliver(lower.letter("erased", {"contact_ref": "c-9"}, to=third.code).text)
    after = await rows()
    assert [secret["wrapped"] in row["body"] for row in after] == [False, True] * 2
    assert [(row["id"], row["digest"]) for row in after] == [(row["id"], row["digest"]) for row in before]

    way = Way(third.code, "down", UPPER, third.code)
    keys = {fingerprint(jwk): jwk for jwk in Identity(UPPER, site.backing.keys).announced["sign"]}

    async def passed_on(since: int) -> list[str] | None:
        """What the third was sent in its topic's records from the place `since` on, once all three envelopes are among them."""
        found = [
            open_record(r.value, way, keys, datetime.now(UTC)) for r in (await site.bus.records(third.down))[since:]
        ]
        texts = {orjson.loads(text)["id"]: text for each in found if isinstance(each, Batch) for text in each.texts}
        kinds = [orjson.loads(text)["kind"] for text in texts.values()]
        return list(texts.values()) if kinds.count("ask") == 2 and "erased" in kinds else None

    assert await site.until(lambda: passed_on(0))
    since = len(await site.bus.records(third.down))
    await lower.operator.post(f"/v1/links/{third.code}/resend", json={"after": 0})
    texts = [text for text in await site.until(lambda: passed_on(since)) if orjson.loads(text)["kind"] == "ask"]
    assert [secret["wrapped"] in text for text in texts] == [False, True]


def ask(lower: Lower, number: int, contact_ref: str) -> Letter:
    """A transfer of the lower site's to the upper one's land office, with a person."""
    now, which, code = datetime.now(UTC), uuid7(), code_of(number)
    data = TransferRequested(
        transfer=which, dossier=code, step=1, from_agency=LOWER, to=LAND, attempt=1, due_at=now, agency=LOWER
    )
    event = Envelope(
        topic="lienthong.transfer.v1", id=uuid7(), source=f"/sites/{LOWER}/routing", type=data.short,
        subject=code, time=now, recorded=now, sequence=1, mode="live", data=data.to_json(),
    )  # fmt: skip
    about = {
        "code": code, "state": 4, "agency": LOWER, "deciding_agency": LOWER, "procedure": "1.004873",
        "confidential": False, "due_at": format_instant(now),
    }  # fmt: skip
    person = {"contact_ref": contact_ref, "nonce": "n", "ciphertext": "c", "wrapped": "w"}
    asked = {"leg": str(which), "replaces": None}
    return lower.letter("ask", {"event": event_json(event), "transfer": asked, "dossier": about, "sealed": person})


async def test_who_was_erased_at_home_is_not_brought_back_by_what_comes_later(site: RunningSite, lower: Lower) -> None:
    await lower.deliver(ask(lower, 51, "c-51").text, ask(lower, 52, "c-52").text)
    people = "SELECT contact_ref FROM routing.sealed ORDER BY contact_ref"
    assert [row["contact_ref"] for row in await site.fetch(people)] == ["c-51", "c-52"]
    await lower.deliver(lower.letter("erased", {"contact_ref": "c-51"}).text)
    assert [row["contact_ref"] for row in await site.fetch(people)] == ["c-52"]
    await lower.deliver(ask(lower, 53, "c-51").text)
    assert [row["contact_ref"] for row in await site.fetch(people)] == ["c-52"]
    states = await site.fetch("SELECT state FROM routing.transfer WHERE dossier = $1", code_of(53))
    assert [row["state"] for row in states] == ["delivered"]  # the work is done all the same


async def test_the_digests_of_a_day_are_compared_and_the_day_is_named(site: RunningSite, lower: Lower) -> None:
    await lower.deliver(lower.copy(61))
    day = local_day(datetime.now(UTC)).isoformat()

    async def ours() -> dict[str, Any]:
        items: list[dict[str, Any]] = (await lower.operator.get("/v1/links/digests")).json()["items"]
        return next(i for i in items if (i["link"], i["day"], i["direction"]) == (LOWER, day, "up"))

    right = (await ours())["ours"]
    for said, equal in (("0" * 64, False), (right, True)):
        await lower.send(lower.control(digests=[[day, "out", said]]))

        async def told(said: str = said) -> bool:
            return bool((await ours())["theirs"] == said)

        assert await site.until(told)
        assert (await ours())["equal"] is equal


async def test_where_the_ledgers_of_a_day_part_is_named(site: RunningSite, lower: Lower) -> None:
    """Somebody has changed the database at one end: each side tells the other, and both name the envelope."""
    await lower.deliver(lower.copy(62))
    await lower.deliver(lower.copy(63))
    day = local_day(datetime.now(UTC)).isoformat()
    epoch, number = lower.place
    found = await site.fetch("SELECT number, digest FROM routing.link_received WHERE peer = $1 ORDER BY number", LOWER)
    digests = [row["digest"] for row in found]
    changed = [*digests[:-1], "f" * 64]  # the lower site's last one is another
    said = sha256("".join(changed).encode()).hexdigest()
    parts = [[epoch, n, n, sha256(digest.encode()).hexdigest()[:16]] for n, digest in enumerate(changed, start=1)]
    before = (await lower.link())["refused"].get("digest-differs", 0)
    since = len(await site.bus.records(DOWN))

    async def word() -> dict[str, Any] | None:
        """What the upper site says of the parts of that day, once it sees that the day is unlike."""
        sent = (await lower.link())["sent"]
        places = [list(lower.place), [sent["epoch"], sent["last"]]]
        await lower.send(lower.control(digests=[[day, "out", said]], digests_of=places))
        for record in (await site.bus.records(DOWN))[since:]:
            manifest = orjson.loads(orjson.loads(record.value or b"")["manifest"])
            for each in manifest.get("said", {}).get("parts", ()):
                if (each["day"], each["direction"]) == (day, "in"):
                    return dict(each)
        return None

    theirs = await site.until(word)
    unlike = [mine for mine, part in zip(parts, theirs["parts"], strict=True) if mine != part]
    assert (theirs["size"], unlike) == (1, [[epoch, number, number, parts[-1][3]]])

    async def named() -> bool:
        await lower.send(lower.control(parts=[{"day": day, "direction": "out", "size": 1, "parts": parts}]))
        items = (await lower.operator.get("/v1/links/digests")).json()["items"]
        item = next(i for i in items if (i["link"], i["day"], i["direction"]) == (LOWER, day, "up"))
        return bool(item["differs"] == [f"{epoch}/{number}"] and not item["equal"])

    assert await site.until(named)
    assert (await lower.link())["refused"]["digest-differs"] == before + 1  # once, however often it is said


async def test_a_key_whose_time_is_over_is_refused(site: RunningSite, lower: Lower, tmp_path: Path) -> None:
    """The lower site changes its keys after a theft: it says so with the old key, once; then that is good no more."""
    stolen = Identity(LOWER, Path(shutil.copytree(lower.folder, tmp_path / "stolen")))
    prepare(lower.folder, ("link", "seal"), datetime.now(UTC))
    swap(lower.folder, datetime.now(UTC), timedelta(0))
    lower.identity = Identity(LOWER, lower.folder)
    await lower.send(lower.control(identity=stolen, keys=lower.identity.announced))

    async def known() -> bool:
        rows = await site.fetch("SELECT keys FROM routing.link WHERE peer = $1", LOWER)
        return len(orjson.loads(rows[0]["keys"])["sign"]) == 2

    assert await site.until(known)
    await refused(site, lower, lower.record(lower.copy(31), identity=stolen), "expired-key")
    await lower.deliver(lower.copy(31))


async def test_what_was_sent_is_published_again_however_old(site: RunningSite, lower: Lower) -> None:
    """The downward ledger, from its first envelope on: the same envelopes under the same numbers."""

    async def sent() -> list[str]:
        found = []
        for record in await site.bus.records(DOWN):
            manifest = orjson.loads(orjson.loads(record.value or b"")["manifest"])
            if manifest["kind"] == "envelopes":
                found += [f"{manifest['epoch']}/{manifest['first'] + n} {d}" for n, d in enumerate(manifest["digests"])]
        return found

    before = await site.until(sent)
    again = await lower.operator.post(f"/v1/links/{LOWER}/resend", json={"after": 0})
    assert again.json()["envelopes"] == len(set(before))

    async def twice() -> bool:
        return len(await sent()) == len(before) + len(set(before))

    assert await site.until(twice)
    assert set(await sent()) == set(before)
    none = await lower.operator.post(f"/v1/links/{LOWER}/resend", json={"after": 10_000})
    assert (none.status_code, none.json()["errors"][0]["pointer"]) == (422, "/after")
