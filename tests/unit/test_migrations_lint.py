"""Migrations pass squawk: what locks a table of a running site, or breaks the code of the version before, is refused.

Code n runs on schema n and n+1: nothing is renamed, retyped or dropped while somebody still reads it.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared.store.migrations import LOCK_TIMEOUT, migrations_of

ROOT = Path(__file__).parents[2]
SQUAWK = Path(sys.executable).parent / "squawk"
MIGRATIONS = sorted(file for room in ("services", "shared") for file in (ROOT / room).glob("*/migrations/*.sql"))

# What squawk asks for and we do not do, each for a reason.
EXCLUDED = {
    "prefer-bigint-over-int": "sequences of one dossier and part counts stay far below",
    "prefer-bigint-over-smallint": "states, shards and part counts",
    "prefer-robust-stmts": "each migration runs in one transaction, once, with its checksum written down",
    "require-concurrent-index-creation": "not possible in a transaction; the runner's lock timeout bounds the wait for it",
    "require-concurrent-index-deletion": "the same",
    "require-lock-timeout": "the runner sets it for every migration",
    "require-statement-timeout": "an index on a large table takes its time; what it may not do is wait for locks",
}


def squawk(*files: Path) -> subprocess.CompletedProcess[str]:
    assert SQUAWK.exists() or shutil.which("squawk"), "make setup"
    return subprocess.run(
        [SQUAWK, "--pg-version", "15", "--exclude", ",".join(EXCLUDED), *files], capture_output=True, text=True
    )


def test_no_two_have_one_number() -> None:
    """Two that were written side by side: no service starts with them."""
    for folder in {migration.parent for migration in MIGRATIONS}:
        package = ".".join(folder.parent.relative_to(ROOT).parts)
        assert len(migrations_of(package)) == len(list(folder.glob("*.sql")))


def test_every_migration_is_safe_on_a_site_at_work() -> None:
    assert len(MIGRATIONS) >= 6
    done = squawk(*MIGRATIONS)
    assert done.returncode == 0, done.stdout


def test_the_numbers_of_every_package_are_read() -> None:
    """Two migrations that were begun beside each other do not have one number."""
    packages = {".".join(file.parent.parent.relative_to(ROOT).parts) for file in MIGRATIONS}
    assert sum(len(migrations_of(package)) for package in packages) == len(MIGRATIONS)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE intake.dossier RENAME COLUMN due_at TO due;",
        "ALTER TABLE intake.dossier ADD COLUMN colour text NOT NULL;",
        "ALTER TABLE intake.dossier ALTER COLUMN code TYPE varchar(10);",
        "ALTER TABLE intake.dossier DROP COLUMN due_at;",
        "ALTER TABLE intake.dossier ADD CONSTRAINT positive CHECK (sequence > 0);",
        "ALTER TABLE intake.dossier RENAME TO file;",
    ],
)
def test_what_would_break_or_hold_up_a_site_is_refused(statement: str, tmp_path: Path) -> None:
    file = tmp_path / "0009_bad.sql"
    file.write_text(statement + "\n")
    assert squawk(file).returncode != 0


def test_the_runner_waits_for_no_lock_longer_than_a_desk_would() -> None:
    assert LOCK_TIMEOUT == "10s"
