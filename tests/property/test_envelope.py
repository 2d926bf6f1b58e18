"""The codec loses nothing, and whatever stands on a topic is an event, unreadable or invalid."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from shared.contracts.codes import format_dossier_code, normalise_agency, parse_dossier_code
from shared.contracts.envelope import Envelope, Invalid, Unreadable, decode, encode, parse
from shared.contracts.events import EVENTS, TOPICS, topic_of
from shared.directory.faults import BundleFault, Fault
from shared.directory.reading import parse_bundle

_ID: Final = UUID(int=7)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


instants = st.integers(0, 7 * 10**15).map(lambda micros: _EPOCH + timedelta(microseconds=micros))
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
agencies = st.from_regex(r"[A-Z][0-9]{2}(\.[0-9]{1,5}){0,4}", fullmatch=True)


@st.composite
def envelopes(draw: DrawFn) -> Envelope:
    short = draw(st.sampled_from(sorted(EVENTS)))
    return Envelope(
        topic=topic_of(short),
        id=draw(st.uuids()),
        source=draw(texts),
        type=short,
        subject=draw(texts),
        time=draw(instants),
        recorded=draw(instants),
        sequence=draw(st.integers(1, 10**18 - 1)),
        mode=draw(st.sampled_from(("live", "history"))),
        data=draw(st.none() | st.binary(max_size=60)),
        replay=draw(st.booleans()),
        traceparent=draw(st.none() | st.from_regex(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", fullmatch=True)),
    )


@given(envelopes())
def test_what_is_written_is_read_back(event: Envelope) -> None:
    key, value, headers = encode(event)
    assert decode(event.topic, key, value, headers) == event
    assert encode(decode(event.topic, key, value, headers)) == (key, value, headers)


@given(
    envelopes(),
    st.dictionaries(
        st.sampled_from(
            ["ce_id", "ce_source", "ce_type", "ce_specversion", "ce_subject", "ce_time", "ce_recordedtime",
             "ce_sequence", "ce_partitionkey", "ce_mode", "content-type", "traceparent", "ce_replay"]
        ),
        st.none() | st.binary(max_size=40),
    ),
    st.none() | st.binary(max_size=20),
)  # fmt: skip
def test_any_record_is_read_or_called_unreadable(
    event: Envelope, changes: dict[str, bytes | None], key: bytes | None
) -> None:
    _, value, headers = encode(event)
    try:
        reason = None
        decode(event.topic, key, value, list({**dict(headers), **changes}.items()))
    except Unreadable as refused:
        reason = refused.reason
    assert reason in {None, "no-key", "missing-header", "bad-header", "bad-key", "bad-content-type"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(TOPICS)), st.sampled_from(sorted(EVENTS)), st.binary(max_size=80))
def test_any_bytes_are_an_event_or_invalid(topic: str, short: str, data: bytes) -> None:
    now = datetime(2026, 10, 10, tzinfo=UTC)
    event = Envelope(topic, _ID, "/H55", short, "k", now, now, 1, "live", data)
    try:
        reason = None
        parse(event)
    except Invalid as refused:
        reason = refused.reason
    assert reason in {None, "not-json", "not-valid"}


@given(agencies, st.dates(date(2000, 1, 1), date(2099, 12, 31)), st.integers(1, 9_999_999))
def test_an_issued_code_says_what_it_was_issued_for(agency: str, day: date, number: int) -> None:
    code = format_dossier_code(agency, day, number)
    assert parse_dossier_code(code)[:3] == (agency, day, number)


@given(st.text(max_size=30) | st.from_regex(r"[0-9.]{9,12}\.[A-Z][0-9]{2}", fullmatch=True))
def test_a_normalised_agency_is_normal(code: str) -> None:
    try:
        once = normalise_agency(code)
    except ValueError:
        return
    assert normalise_agency(once) == once


_BASE: dict[str, Any] = {
    "site": {"code": "H55", "name": "T"},
    "agencies": [{"code": "H55", "name": "T", "level": "province"}],
    "procedures": [
        {
            "code": "1.1",
            "name": "P",
            "field": {"code": "G01", "name": "F"},
            "limit": {"value": 1, "unit": "days"},
            "route": [{"step": 1, "to": "H55", "limit": {"value": 0.5, "unit": "hours"}}],
        }
    ],
    "calendars": [{"agency": "H55", "version": 1, "shifts": {"mon": ["07:30-11:30"]}}],
    "providers": [{"name": "file", "kind": "file"}],
    "notices": [{"act": "received", "template": "received"}],
    "templates": [{"name": "received", "version": 1, "text": "{code}"}],
    "carriers": [{"name": "file", "kind": "file"}],
    "portals": [{"name": "p", "url": "http://x/", "unit": "H55"}],
    "quiet_hours": {"from": "22:00", "to": "07:00"},
}


def _paths(value: Any, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, each in inside for path in _paths(each, (*at, key)))]


def _put(document: Any, path: tuple[str | int, ...], value: Any) -> None:
    """Put a value where the path leads, if an earlier change left that place."""
    place = document
    try:
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value
    except (TypeError, LookupError):
        return


@settings(deadline=None)  # the national days of two centuries are looked up once
@given(st.lists(st.tuples(st.sampled_from(_paths(_BASE)[1:]), json_values), min_size=1, max_size=3))
def test_any_bundle_is_read_or_its_faults_point_into_it(
    changes: list[tuple[tuple[str | int, ...], Any]],
) -> None:
    document = json.loads(json.dumps(_BASE))
    for path, value in changes:
        _put(document, path, value)
    try:
        faults: tuple[Fault, ...] = ()
        parse_bundle(json.dumps(document), "b.json")
    except BundleFault as refused:
        faults = refused.faults or (Fault("?", "a refusal without a fault"),)
    assert all(fault.pointer == "" or fault.pointer.startswith("/") for fault in faults)
