"""Failed logins: how many, for how long, of how many addresses."""

from shared.web.throttle import MOST_KNOWN, Throttle


def test_after_so_many_failures_an_address_waits_until_the_first_is_old() -> None:
    throttle = Throttle(3, 60)
    for second in (0, 10, 20):
        assert throttle.wait("a", second) == 0
        throttle.fail("a", second)
    assert throttle.wait("a", 20) == 40
    assert throttle.wait("b", 20) == 0
    assert throttle.wait("a", 60) == 0  # the first is a window old
    throttle.fail("a", 60)
    assert throttle.wait("a", 60) == 10
    assert throttle.wait("a", 1000) == 0


def test_what_is_remembered_is_bounded() -> None:
    throttle = Throttle(1, 60)
    for number in range(MOST_KNOWN + 1):
        throttle.fail(str(number), 0)
    assert throttle.wait("0", 1) == 0
    assert throttle.wait(str(MOST_KNOWN), 1) == 59
