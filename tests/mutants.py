"""Takes one mechanism out of the code at a time and sees that the tests of its promise fail.

    python -m tests.mutants [--only 3] [--like link]

Each mutant is one exact change of one place, made in a copy of the checkout; the tests named beside it carry the promise's
number. A mutant that survives means that the promise has no test. Not part of `make test`: it takes some minutes.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
COPIED = ("services", "shared", "deploy", "tests", "pyproject.toml")
UNIT, PROPERTY, INTEGRATION = "tests/unit", "tests/property", "tests/integration"


@dataclass(frozen=True, slots=True)
class Mutant:
    """`before` stands once in `file` and becomes `after`; `test` (a file and the names in it) must then fail."""

    promise: int
    what: str
    file: str
    before: str
    after: str
    test: str
    named: str


MUTANTS = (
    Mutant(
        1, "commits do not wait for the disk", "shared/store/pool.py",
        '"synchronous_commit": "on"', '"synchronous_commit": "off"',
        f"{INTEGRATION}/test_writes.py", "promise_1",
    ),
    Mutant(
        2, "the outbox is emptied before the bus has confirmed", "shared/store/relay.py",
        "            await self._publish(envelopes)\n"
        '            await connection.execute(self._queries["published"], [row["position"] for row in rows])\n',
        '            await connection.execute(self._queries["published"], [row["position"] for row in rows])\n'
        "            await self._publish(envelopes)\n",
        f"{INTEGRATION}/test_relay.py", "promise_2",
    ),
    Mutant(
        2, "a relay publishes on without its lock", "shared/store/relay.py",
        "            if work is not None:\n                work.cancel()", "            pass",
        f"{INTEGRATION}/test_relay.py", "promise_2_the_standby",
    ),
    Mutant(
        3, "no sequence check: a duplicate is applied", "shared/store/inbox.py",
        "    if sequence <= place.sequence:\n        return Verdict.DUPLICATE\n", "",
        f"{INTEGRATION}/test_consumer.py", "promise_3_a_duplicate",
    ),
    Mutant(
        3, "what lies beyond a gap is applied", "shared/store/inbox.py",
        'place.waiting == "parked" or sequence > place.sequence + 1', 'place.waiting == "parked"',
        f"{INTEGRATION}/test_consumer.py", "promise_3_what_comes_out_of_order",
    ),
    Mutant(
        3, "nobody asks for a gap", "shared/bus/consumer.py",
        "                await self.close_gaps()\n", "                pass\n",
        f"{INTEGRATION}/test_consumer.py", "promise_3_a_gap_is_asked_for",
    ),
    Mutant(
        4, "what comes behind a parked event is applied", "shared/store/inbox.py",
        'if place.waiting == "parked" or sequence > place.sequence + 1', "if sequence > place.sequence + 1",
        f"{INTEGRATION}/test_consumer.py", "promise_4_later_events",
    ),
    Mutant(
        4, "no breaker", "shared/bus/consumer.py",
        "                self.breaker.check(len(outcome.parked), time.monotonic())\n", "                pass\n",
        f"{INTEGRATION}/test_consumer.py", "promise_4_too_many",
    ),
    Mutant(
        5, "the books are not compared", "deploy/cli/books.py",
        "all(hop.equal for hop in self.hops) and not self.parked", "not self.parked",
        "tests/acceptance/test_commands.py", "promise_5",
    ),
    Mutant(
        6, "an emptied bus is not noticed", "shared/store/relay.py",
        "if emptied := sorted((missing & set(self._ids)) | lower | other | self._emptied):",
        "if emptied := sorted((missing & set(self._ids)) - missing):",
        f"{INTEGRATION}/test_relay.py", "promise_6",
    ),
    Mutant(
        7, "a refused transfer has no next step", "services/routing/transfer.py",
        "reason=reason, next_steps=next_steps(refused, self.state))", "reason=reason, next_steps=())",
        f"{INTEGRATION}/test_routing.py", "promise_7",
    ),
    Mutant(
        7, "a receiver does not see that its sender was restored", "services/routing/link.py",
        '    if here != chain:\n        return Judgement("fork")\n', "",
        f"{PROPERTY}/test_link_machine.py", "TestRow",
    ),
    Mutant(
        7, "a link has no sequence: what lies beyond a gap is taken", "services/routing/link.py",
        '    if first.number > have.number + 1:\n        return Judgement("gap")\n', "",
        f"{PROPERTY}/test_link_machine.py", "TestRow",
    ),
    Mutant(
        7, "of a record that begins with what was taken all is taken", "services/routing/link.py",
        '    return Judgement("new", skip) if skip < len(digests)', '    return Judgement("new") if skip < len(digests)',
        f"{UNIT}/test_link.py", "goes_on_from",
    ),
    Mutant(
        7, "records of an epoch that is over are taken", "services/routing/link.py",
        '    if first.epoch < have.epoch:\n        return Judgement("duplicate")\n',
        '    if first.epoch < have.epoch:\n        return Judgement("new")\n',
        f"{UNIT}/test_link.py", "new_epoch",
    ),
    Mutant(
        7, "a new epoch need not continue the one before", "services/routing/link.py",
        'Judgement("new" if first.number == 1 and before == chain else "gap")', 'Judgement("new")',
        f"{UNIT}/test_link.py", "new_epoch",
    ),
    Mutant(
        7, "a restored site goes on in its old epoch: numbers are issued twice", "services/routing/link.py",
        "epoch = max(at.epoch, self.last.epoch) + 1", "epoch = max(at.epoch, self.last.epoch)",
        f"{PROPERTY}/test_link_machine.py", "TestRow",
    ),
    Mutant(
        7, "a sender does not see that it was restored itself", "services/routing/link.py",
        '        if ours != seen.chain:\n            return "recover"\n', "",
        f"{PROPERTY}/test_link_machine.py", "TestRow",
    ),
    Mutant(
        7, "what is asked for again is not sent again", "services/routing/link.py",
        '            self.sent = seen.place\n            return "resend"', '            return "resend"',
        f"{PROPERTY}/test_link_machine.py", "TestRow",
    ),
    Mutant(
        7, "what is sent again begins one too late", "services/routing/link.py",
        '            self.sent = seen.place\n            return "resend"',
        '            self.sent = Place(seen.place.epoch, seen.place.number + 1)\n            return "resend"',
        f"{PROPERTY}/test_link_machine.py", "TestRow",
    ),
    Mutant(
        7, "a receiver asks for nothing that it lacks", "services/routing/link.py",
        "    return seen < peer_last and", "    return False and",
        f"{PROPERTY}/test_link_machine.py", "TestRow",
    ),
    Mutant(
        7, "an envelope that comes again under another number has its effect again", "services/routing/crossing.py",
        "                if each.id in known:\n", "                if False:\n",
        f"{INTEGRATION}/test_link_records.py", "third_site",
    ),
    Mutant(
        7, "an envelope goes through a site twice", "services/routing/crossing.py",
        '            raise Refused("loop")\n', "            pass\n",
        f"{INTEGRATION}/test_link_records.py", "nothing_loops",
    ),
    Mutant(
        7, "an old word of the peer is heard again", "services/routing/queries.sql",
        "WHERE peer = $1 AND tick < $2 RETURNING peer", "WHERE peer = $1 AND $2 > 0 RETURNING peer",
        f"{INTEGRATION}/test_link_records.py", "an_old_word",
    ),
    Mutant(
        7, "an old record again is taken for one that its sender sends again", "services/routing/links.py",
        "            old = not batch.again and", "            old = False and",
        f"{INTEGRATION}/test_link_records.py", "is_a_replay",
    ),
    Mutant(
        7, "nobody looks who has signed a record", "services/routing/wire.py",
        "        verify(manifest, signature, keys, now)\n", "        pass\n",
        f"{UNIT}/test_wire.py", "forged",
    ),
    Mutant(
        7, "nobody looks to whom a record is addressed", "services/routing/wire.py",
        "    if address != (1, way.link, way.direction, way.sender, way.receiver):", "    if not address:",
        f"{UNIT}/test_wire.py", "wrongly_addressed",
    ),
    Mutant(
        7, "an envelope need not be the one that was signed", "services/routing/wire.py",
        "    if any(digest_of(text) != without.get(at, digests[at]) for at, text in enumerate(texts)):",
        "    if not digests:",
        f"{UNIT}/test_wire.py", "a_changed_byte",
    ),
    Mutant(
        7, "the digests of a day are not compared", "services/routing/links.py",
        '"equal": said == row["ours"] or (said is None and old),\n', '"equal": True,\n',
        f"{INTEGRATION}/test_link_records.py", "digests_of_a_day",
    ),
    Mutant(
        7, "of a day that is unlike nobody looks where", "services/routing/links.py",
        "            talk.unlike = unlike_days(", "            unlike_days(",
        f"{INTEGRATION}/test_link_records.py", "of_a_day_part",
    ),
    Mutant(
        7, "who was erased comes back with the next hand-over", "services/routing/crossing.py",
        'if person is not None and (each.origin, str(person["contact_ref"])) not in self._erased:', "if person is not None:",
        f"{INTEGRATION}/test_link_records.py", "erased_at_home_is_not",
    ),
    Mutant(
        7, "a transfer that arrives twice arrives anew", "services/routing/transfer.py",
        "        if transfer.id in self.transfers:\n            return False\n        now = max(now, transfer.asked_at)\n",
        "        now = max(now, transfer.asked_at)\n",
        f"{UNIT}/test_link_legs.py", "arrives_twice",
    ),
    Mutant(
        7, "a recall beats the completion that it meets on the wire", "services/routing/transfer.py",
        '            if gone_on or transfer.state != "recalled":\n                return "final"\n',
        '            return "final"\n',
        f"{UNIT}/test_link_legs.py", "a_recall_that_meets",
    ),
    Mutant(
        8, "a rebuild compares and replaces nothing", "services/stats/rebuild.py",
        "    if differing:\n", "    if not differing:\n",
        f"{INTEGRATION}/test_stats.py", "promise_8",
    ),
    Mutant(
        8, "an answer mixes the figures from before a switch with those from after", "services/stats/store.py",
        'isolation="repeatable_read", readonly=True', "readonly=True",
        f"{INTEGRATION}/test_stats.py", "nobody_sees_half",
    ),
    Mutant(
        8, "what is kept of months gone by is not read again when an event changes them", "services/stats/store.py",
        "        if months:\n            settled =", "        if not months:\n            settled =",
        f"{PROPERTY}/test_indicators.py", "months_gone_by",
    ),
    Mutant(
        9, "after a crash the file is not looked up", "services/notify/sender.py",
        'outcome = Taken() if row["id"] in in_file else NotTaken("not-written")', 'outcome = NotTaken("not-written")',
        f"{INTEGRATION}/test_notify.py", "promise_9",
    ),
    Mutant(
        10, "any role may do anything", "shared/web/app.py",
        "    if principal.role is not Role.ADMIN and principal.role not in roles:\n", "    if not roles:\n",
        f"{UNIT}/test_gate.py", "promise_10",
    ),
)  # fmt: skip


def failing(mutant: Mutant, checkout: Path) -> bool:
    """Whether the named tests fail on a checkout with the mutant in it. Raises ValueError when its place is not there."""
    file = checkout / mutant.file
    source = file.read_text(encoding="utf-8")
    if source.count(mutant.before) != 1:
        raise ValueError(f"{mutant.what}: its place stands {source.count(mutant.before)} times in {mutant.file}")
    file.write_text(source.replace(mutant.before, mutant.after), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "--timeout", "90", mutant.test, "-k", mutant.named],
            cwd=checkout,
            env={
                **os.environ,
                "PYTHONPATH": str(checkout),
                "PYTHONDONTWRITEBYTECODE": "1",
                "LIENTHONG_TEST_SHRINK": "0",  # that it fails is enough
            },
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        file.write_text(source, encoding="utf-8")
    if done.returncode not in (0, 1):
        raise ValueError(f"{mutant.what}: pytest ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return done.returncode == 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, help="the mutants of one promise")
    parser.add_argument("--like", default="", help="those that are described so, or whose test's file is named so")
    given = parser.parse_args()
    survived = 0
    with tempfile.TemporaryDirectory(prefix="lienthong-mutants-") as folder:
        checkout = Path(folder)
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, checkout / name)
        for mutant in MUTANTS:
            if given.only in (None, mutant.promise) and (given.like in mutant.what or given.like in mutant.test):
                found = failing(mutant, checkout)
                survived += not found
                print(f"promise {mutant.promise:>2}  {'found   ' if found else 'SURVIVED'}  {mutant.what}", flush=True)
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
