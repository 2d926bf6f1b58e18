"""One direction of a link, step by step: what a receiver takes, and what its sender makes of the receiver's word."""

import pytest

from services.routing.link import BEGIN, Judgement, Outgoing, Place, Seen, chain_over, judge, next_asked

DIGESTS = ["a", "b", "c", "d", "e", "f", "g"]
CHAINS = [BEGIN, *chain_over(BEGIN, DIGESTS)]


def at(number: int, first: int, last: int, epoch: int = 1) -> Judgement:
    """What a receiver that has the first `number` says to a record with the envelopes `first` to `last`."""
    return judge(Place(1, number), CHAINS[number], Place(epoch, first), CHAINS[first - 1], DIGESTS[first - 1 : last])


@pytest.mark.parametrize(
    ("have", "first", "last", "judged"),
    [
        (0, 1, 3, Judgement("new", 0)),
        (3, 4, 6, Judgement("new", 0)),
        (3, 2, 6, Judgement("new", 2)),  # it begins with what is here
        (3, 1, 3, Judgement("duplicate")),
        (5, 2, 3, Judgement("duplicate")),
        (3, 5, 6, Judgement("gap")),
    ],
)
def test_a_record_is_taken_where_it_goes_on_from_what_is_here(
    have: int, first: int, last: int, judged: Judgement
) -> None:
    assert at(have, first, last) == judged


def test_other_envelopes_under_numbers_that_are_taken_are_a_fork() -> None:
    assert judge(Place(1, 3), CHAINS[3], Place(1, 3), CHAINS[2], ["x", "d"]) == Judgement("fork")
    assert judge(Place(1, 3), CHAINS[3], Place(1, 4), "another", ["d"]) == Judgement("fork")


def test_a_new_epoch_is_taken_by_who_has_the_whole_of_the_one_before() -> None:
    def said(have: int, before: int, first: int = 1) -> Judgement:
        return judge(Place(1, have), CHAINS[have], Place(2, first), CHAINS[before], ["x"])

    assert said(5, 5) == Judgement("new")
    assert said(4, 5) == Judgement("gap")  # the last one of the old epoch is on its way
    assert said(5, 5, first=2) == Judgement("gap")
    assert judge(Place(2, 1), "other", Place(1, 6), CHAINS[5], ["f"]) == Judgement("duplicate")  # an epoch that is over


def test_a_sender_learns_from_one_word_what_is_there_what_to_send_and_that_it_was_restored() -> None:
    out = Outgoing()
    out.number(DIGESTS)
    out.sent = out.last
    assert out.heard(Seen(Place(1, 4), CHAINS[4]), CHAINS[4]) == "fine"
    assert (out.confirmed, out.sent) == (Place(1, 4), Place(1, 7))
    assert out.heard(Seen(Place(1, 4), CHAINS[4], asks=True), CHAINS[4]) == "resend"
    assert out.sent == Place(1, 4)
    assert out.heard(Seen(Place(1, 9), "more"), None) == "recover"  # it has what this ledger has no more
    assert out.heard(Seen(Place(1, 5), "other"), CHAINS[5]) == "recover"
    assert out.confirmed == Place(1, 4)


def test_a_restored_ledger_goes_on_in_a_new_epoch_and_numbers_nothing_before() -> None:
    out = Outgoing(last=Place(3, 7), chain=CHAINS[7], recovering=True)
    with pytest.raises(ValueError, match="numbers nothing"):
        out.number(["x"])
    out.renew(Place(2, 9), "there")
    assert (out.last, out.chain, out.sent, out.confirmed) == (Place(4, 0), "there", Place(2, 9), Place(2, 9))
    assert [place for place, _ in out.number(["x", "y"])] == [Place(4, 1), Place(4, 2)]


@pytest.mark.parametrize(
    ("seen", "last", "lacks"),
    [
        (Place(1, 3), Place(1, 3), False),
        (Place(1, 3), Place(1, 4), True),
        (Place(1, 3), Place(2, 0), False),  # an epoch that has begun and says nothing yet
        (Place(1, 3), Place(2, 1), True),
        (Place(1, 3), Place(3, 0), True),
    ],
)
def test_a_receiver_knows_that_it_lacks_something(seen: Place, last: Place, lacks: bool) -> None:
    assert next_asked(seen, last) is lacks
