"""Records of a link: what is good, and what is refused with which reason."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from services.routing.link import Place
from services.routing.links_api import BusAddress
from services.routing.wire import (
    MAX_RECORD,
    Batch,
    Control,
    Refused,
    Way,
    batch_record,
    control_record,
    letter,
    letter_of,
    open_record,
    read_letter,
)
from shared.bus.connection import BusSettings
from shared.security.keys import prepare, swap
from shared.security.peers import Identity, PeerRefused, fingerprint, wrap_to

UP = Way("H55.242", "up", "H55.242", "H55")
NOW = datetime(2026, 11, 2, 1, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def commune(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return Identity("H55.242", tmp_path_factory.mktemp("commune"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return Identity("H55.242", tmp_path_factory.mktemp("stranger"))


def keys(identity: Identity) -> dict[str, Any]:
    return {fingerprint(identity.public["sign"]): identity.public["sign"]}


def texts(count: int = 3) -> list[str]:
    return [letter("copy", {"n": n}, origin="H55.242", to="H55", at=NOW).text for n in range(count)]


def record(identity: Identity, way: Way = UP) -> dict[str, Any]:
    value: dict[str, Any] = orjson.loads(batch_record(identity, way, Place(1, 7), "before", texts()))
    return value


def reason(value: bytes | None, identity: Identity, way: Way = UP) -> str:
    with pytest.raises(Refused) as refused:
        open_record(value, way, keys(identity), NOW)
    return refused.value.reason


def test_what_is_sent_is_read(commune: Identity) -> None:
    sent = texts()
    good = open_record(batch_record(commune, UP, Place(1, 7), "before", sent), UP, keys(commune), NOW)
    assert isinstance(good, Batch)
    assert (good.first, good.before, good.texts) == (Place(1, 7), "before", tuple(sent))
    assert [read_letter(text).body["n"] for text in good.texts] == [0, 1, 2]
    said = open_record(control_record(commune, UP, 5, {"a": 1}), UP, keys(commune), NOW)
    assert said == Control(5, {"a": 1})


def test_a_changed_byte_is_found(commune: Identity) -> None:
    value = record(commune)
    value["envelopes"][1] = value["envelopes"][1].replace('"n":1', '"n":9')
    assert reason(orjson.dumps(value), commune) == "bad-digest"
    value = record(commune)
    value["manifest"] = value["manifest"].replace('"first":7', '"first":8')
    assert reason(orjson.dumps(value), commune) == "bad-signature"


def test_a_person_goes_out_of_an_envelope_and_the_ledger_stays_what_was_signed(commune: Identity) -> None:
    sealed = {"contact_ref": "c-1", "nonce": "n", "ciphertext": "c", "wrapped": "the key"}
    ask = letter("ask", {"sealed": sealed, "n": 7}, origin="H55.242", to="H55", at=NOW)
    gone = ask.without_person()
    assert (ask.person, gone.person, gone.digest, gone.id) == ("c-1", None, ask.digest, ask.id)
    assert "the key" not in gone.text
    assert gone.without_person() == gone
    sent = [*texts(1), gone.text]
    signed = [read_letter(sent[0]).digest, ask.digest]
    value = batch_record(commune, UP, Place(1, 7), "before", sent, (), signed)
    good = open_record(value, UP, keys(commune), NOW)
    assert isinstance(good, Batch)
    assert good.digests == tuple(signed)  # hence the chain and the day's digest
    assert letter_of(good.texts[1], good.digests[1], NOW) == gone
    # Nobody else takes a person out, or another person in.
    whole = orjson.loads(batch_record(commune, UP, Place(1, 7), "before", [sent[0], ask.text]))
    assert reason(orjson.dumps(whole | {"envelopes": sent}), commune) == "bad-digest"
    other = gone.text.replace('"sealed":null', '"sealed":{}')
    assert reason(orjson.dumps(orjson.loads(value) | {"envelopes": [sent[0], other]}), commune) == "bad-digest"


def test_a_truncated_record_is_refused(commune: Identity) -> None:
    value = record(commune)
    value["envelopes"].pop()
    assert reason(orjson.dumps(value), commune) == "truncated"
    assert reason(orjson.dumps(value)[:-20], commune) == "not-readable"
    assert reason(None, commune) == "not-readable"


def test_a_forged_record_is_refused(commune: Identity, stranger: Identity) -> None:
    assert reason(orjson.dumps(record(stranger)), commune) == "unknown-key"
    forged = record(stranger)
    forged["jws"] = record(commune)["jws"].rpartition(".")[0] + "." + forged["jws"].rpartition(".")[2]
    assert reason(orjson.dumps(forged), commune) == "bad-signature"


@pytest.mark.parametrize(
    "way",
    [
        Way("H55.242", "down", "H55.242", "H55"),
        Way("H55.241", "up", "H55.242", "H55"),
        Way("H55.242", "up", "H55.242", "H56"),
        Way("H55.242", "up", "H55.241", "H55"),
    ],
)
def test_a_wrongly_addressed_record_is_refused(commune: Identity, way: Way) -> None:
    assert reason(orjson.dumps(record(commune, way)), commune) == "wrong-address"


def test_an_oversize_record_is_refused(commune: Identity) -> None:
    assert reason(b" " * (MAX_RECORD + 1), commune) == "oversize"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id": "x"}', '{"id":"00000000-0000-7000-8000-000000000000"}'])
def test_what_is_no_envelope_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="bad-envelope"):
        read_letter(text)


def test_a_data_key_opens_at_its_site_alone(commune: Identity, stranger: Identity) -> None:
    wrapped = wrap_to(b"k" * 32, commune.public["seal"])
    assert commune.open(wrapped) == b"k" * 32
    with pytest.raises(PeerRefused, match="not-wrapped-to-us"):
        stranger.open(wrapped)


def test_a_rotation_waits_for_no_line_and_ends_the_old_keys_time(tmp_path: Path) -> None:
    """Until the peer knows the new key the old one signs; what it signed is good for 30 days more, and then refused."""
    before = Identity("H55.242", tmp_path)
    told = {fingerprint(jwk): jwk for jwk in before.announced["sign"]}
    wrapped = wrap_to(b"k" * 32, before.public["seal"])
    prepare(tmp_path, ("link", "seal"), NOW)
    assert Identity("H55.242", tmp_path).public == before.public  # what is to come is announced, not used
    swap(tmp_path, NOW, timedelta(hours=1))
    after = Identity("H55.242", tmp_path)
    assert after.public["sign"] != before.public["sign"]
    assert after.open(wrapped) == after.open(wrap_to(b"k" * 32, after.public["seal"])) == b"k" * 32
    open_record(control_record(after, UP, 1, {}, told), UP, told, NOW)
    with pytest.raises(Refused, match="unknown-key"):
        open_record(control_record(after, UP, 1, {}), UP, told, NOW)
    told = {fingerprint(jwk): jwk for jwk in after.announced["sign"]}
    old, new = control_record(before, UP, 2, {}), control_record(after, UP, 2, {}, told)
    late = NOW + timedelta(days=30)
    open_record(old, UP, told, late - timedelta(seconds=1))
    with pytest.raises(Refused, match="expired-key"):
        open_record(old, UP, told, late)
    open_record(new, UP, told, late)


def test_the_keys_are_made_once(tmp_path: Path) -> None:
    assert Identity("H55", tmp_path).public == Identity("H55", tmp_path).public


@pytest.mark.parametrize(
    ("bootstrap", "prefix", "same"),
    [
        ("kafka-1:9092,kafka-2:9092", "", True),
        ("kafka-2:9092", "", True),
        ("kafka-2:9092", "province.", False),
        ("kafka-9:9092", "", False),
    ],
)
def test_two_sites_that_would_write_the_same_topics_are_told(bootstrap: str, prefix: str, same: bool) -> None:
    own = BusSettings("kafka-2:9092,kafka-3:9092", prefix="")
    assert BusAddress(bootstrap=bootstrap, prefix=prefix).same_names(own) is same
