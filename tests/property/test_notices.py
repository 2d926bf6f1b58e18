"""Notices, whatever comes: parts equal an independent counter's, and the same is decided in any order of the input."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.notify import text
from services.notify.notice import (
    NoAnswer,
    Notice,
    NotTaken,
    Outcome,
    Pauses,
    Person,
    Refused,
    Step,
    Taken,
    Wait,
    after_attempt,
    after_receipt,
    expired,
    held,
    planned,
    way_to_tell,
)
from shared.contracts.codes import uuid7
from shared.directory.bundle import NoticeRule

# GSM 03.38 as octets, written down apart from the code under test: the positions of the basic table, in their order.
BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENSION = {
    "\f": 0x0A,
    "^": 0x14,
    "{": 0x28,
    "}": 0x29,
    "\\": 0x2F,
    "[": 0x3C,
    "~": 0x3D,
    "]": 0x3E,
    "|": 0x40,
    "€": 0x65,
}
VIETNAMESE = "aăâbcdđeêghiklmnoôơpqrstuưvxyàằầèềìòồờùừỳáắấéếíóốớúứýạặậẹệịọộợụựỵ ,.:0123456789{}€^~[]|\\\f😀𝒳"


def units(written: str) -> list[bytes]:
    """Each character as what a phone counts: septets, escape included, or UTF-16 units."""
    if all(c != "\x1b" and (c in BASIC or c in EXTENSION) for c in written):
        return [bytes([0x1B, EXTENSION[c]]) if c in EXTENSION else bytes([BASIC.index(c)]) for c in written]
    return [c.encode("utf-16-be") for c in written]


def counted(written: str) -> tuple[str, int]:
    """The encoding and the parts, by cutting the message up as a phone would put it together."""
    cut = units(written)
    ucs2 = bool(cut) and any(len(each) > 2 or (len(each) == 2 and each[0] != 0x1B) for each in cut)
    whole, part = (140, 134) if ucs2 else (160, 153)
    if sum(map(len, cut)) <= whole:
        return ("ucs2" if ucs2 else "gsm7"), 1
    parts, room = 1, part
    for each in cut:
        if len(each) > room:
            parts, room = parts + 1, part
        room -= len(each)
    return ("ucs2" if ucs2 else "gsm7"), parts


@given(st.text(st.sampled_from(VIETNAMESE), max_size=700) | st.text(max_size=400))
def test_parts_equal_an_independent_counter(written: str) -> None:
    message = text.message(written)
    assert (message.encoding, message.parts) == counted(message.text)
    assert text.message(message.text) == message  # what is previewed is what is sent


@given(st.text(st.sampled_from(VIETNAMESE), max_size=400), st.integers(1, 4))
def test_tones_are_kept_while_they_fit(written: str, most: int) -> None:
    kept, dropped = text.message(written), text.message(written, "drop")
    chosen = text.message(written, "keep_within", most)
    assert chosen == (kept if kept.parts <= most else dropped)


RULES = st.builds(
    NoticeRule,
    act=st.just("received"),
    template=st.just("received"),
    by=st.sampled_from([("sms",), ("postal",), ("sms", "postal"), ("postal", "sms")]),
    required=st.sampled_from([None, True, False]),
)
PERSONS = st.builds(
    Person,
    name=st.just("A"),
    phone=st.sampled_from([None, "+84912345678", "+842083123456"]),
    address=st.sampled_from([None, "", "Xóm 1"]),
    erased=st.booleans(),
    wants=st.sampled_from([None, "sms", "postal", "required"]),
)


@given(RULES, st.none() | PERSONS, st.booleans())
def test_a_way_is_found_whenever_there_is_one(rule: NoticeRule, person: Person | None, opted_out: bool) -> None:
    waited = way_to_tell(rule, "c", person, waited=True, opted_out=opted_out)
    early = way_to_tell(rule, "c", person, waited=False, opted_out=opted_out)
    if person is None:
        assert (early, waited) == (Wait.FOR_CONTACT, "no-contact")
        return
    assert early == waited  # once the contact is here, when it came does not matter
    reachable = set[str]()
    if not person.erased:
        reachable |= {"sms"} if person.phone == "+84912345678" and not opted_out else set()
        reachable |= {"postal"} if person.address else set()
    possible = [way for way in rule.by if way in reachable]
    if person.wants == "required" and not rule.required and not person.erased:
        assert early == "not-wanted"
    elif possible:
        assert early == (person.wants if person.wants in possible else possible[0])
    else:
        assert early in ("erased", "unreachable", "opted-out")


NOW = datetime(2026, 10, 10, 3, tzinfo=UTC)
OUTCOMES: list[Outcome] = [Taken(), Refused("blocked"), NotTaken("status-500"), NoAnswer("no-answer")]


class Story:
    """A notice through whatever happens to it; the calls that may have told somebody are counted."""

    def __init__(self, dedupes: bool) -> None:
        self.dedupes = dedupes
        self.said: list[str] = []
        self.told: list[str] = []  # the providers that took it or may have
        self.notice = Notice(
            id=uuid7(), dossier="H55.242-261010-0001", agency="H55.242", act="received", event=uuid7(), act_recorded=NOW,
            recipient="c", channel="sms", state="planned", template="received", version=0, parts=1, planned_at=NOW,
            expires_at=NOW + timedelta(hours=24),
        )  # fmt: skip
        self.take(planned(self.notice))

    def take(self, step: Step) -> None:
        self.notice, events = step
        self.said += [event.short for event in events]

    def do(self, what: str, outcome: Outcome, provider: str) -> None:
        notice = self.notice
        match what:
            case "call" if notice.due:
                name = notice.provider if notice.bound and notice.provider else provider
                asked = notice.asked if name in notice.asked else (*notice.asked, name)
                self.notice = Notice(
                    **{
                        **{field: getattr(notice, field) for field in notice.__slots__},
                        "due": False,
                        "in_flight": True,
                        "state": "planned",
                        "provider": name,
                        "asked": asked,
                        "attempts": notice.attempts + 1,
                    }
                )
                if isinstance(outcome, Taken | NoAnswer) and not (self.dedupes and name in self.told):
                    self.told.append(name)
                step = after_attempt(
                    self.notice, name, outcome, dedupes=self.dedupes, providers=["a", "b"], now=NOW, pauses=Pauses()
                )
                self.take(step)
            case "wake" if notice.next_at is not None:
                self.notice = Notice(
                    **{
                        **{field: getattr(notice, field) for field in notice.__slots__},
                        "due": True,
                        "next_at": None,
                    }
                )
            case "hold":
                self.take(held(notice, NOW + timedelta(hours=8)))
            case "delivered" | "failed" if self.told:
                self.take(after_receipt(notice, self.told[-1], what, None, NOW))
            case "expire":
                self.take(expired(notice))


@given(
    st.booleans(),
    st.lists(
        st.tuples(
            st.sampled_from(["call", "call", "call", "wake", "wake", "hold", "delivered", "failed", "expire"]),
            st.sampled_from(OUTCOMES),
            st.sampled_from(["a", "b"]),
        ),
        max_size=30,
    ),
)
def test_told_once_whatever_happens(dedupes: bool, happenings: list[tuple[str, Outcome, str]]) -> None:
    story = Story(dedupes)
    for what, outcome, provider in happenings:
        delivered_before = story.notice.state == "delivered"
        story.do(what, outcome, provider)
        assert len(story.told) <= 1, (what, story.notice)  # promise 9
        assert not delivered_before or story.notice.state == "delivered"
    assert story.said.count("notice.planned") == 1
    assert story.said.count("notice.sent") <= 1
    if "notice.delivered" in story.said:
        assert story.said.index("notice.sent") < story.said.index("notice.delivered")
