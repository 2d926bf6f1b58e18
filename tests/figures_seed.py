"""Dossiers by the hundred thousand, made in the database: ten years of a province up to now.

Half are told act by act (three rectangles), half imported (two); one in fifty is open for three months.
"""

from datetime import datetime
from typing import Any

AGENCIES = 107
YEARS = 10

# What happens to dossier number i: when it came, how long it took (days), and whether it was told act by act.
_LIVES = """
    SELECT i, 'H55.' || (201 + i % {agencies}) AS agency, received, received + took AS ended, received + '7 days' AS due,
           i % 2 = 0 AS live, i % 3 = 0 AS online, CASE WHEN i % 3 = 0 THEN 'online' ELSE 'counter' END AS channel
    FROM (SELECT i, $2::timestamptz - interval '{years} years' + (interval '{years} years') * (i::float8 / $1) AS received,
                 CASE WHEN i % 50 = 7 THEN interval '90 days' ELSE interval '1 day' * (0.2 + (i::bigint * 7919 % 1000) / 90.0) END
                     AS took
          FROM generate_series(1, $1::int) AS i) r
"""
_FACTS = """
INSERT INTO stats.fact (code, valid_from, valid_to, known_from, known_to, agency, deciding, procedure, field, channel, phase,
    received_at, due_at, paused, pause_late, ended_at, outcome, elapsed, listed, digitised, reused, population, electronic,
    with_fee, paid_online, repeated)
SELECT agency || '-' || to_char(received, 'YYMMDD') || '-' || lpad(i::text, 7, '0'), valid_from, valid_to, known_from, known_to,
    agency, agency, 'p' || i % 40, 'f' || i % 8, channel, phase, received, due, false, false,
    CASE WHEN phase = 'ended' THEN ended END, CASE WHEN phase = 'ended' THEN CASE
        WHEN ended > due THEN 'late' WHEN ended::date < due::date THEN 'early' ELSE 'on_time' END END,
    CASE WHEN phase = 'ended' THEN (extract(epoch FROM ended - received) * 1000000)::bigint END,
    true, i % 4 = 0, false, false, false, false, false, false
FROM ({lives}) l CROSS JOIN LATERAL (VALUES
    ('pending', received, 'infinity'::timestamptz, received, ended, live OR ended > $2),
    ('pending', received, ended, CASE WHEN live THEN ended ELSE received END, 'infinity'::timestamptz, ended <= $2),
    ('ended', ended, 'infinity'::timestamptz, CASE WHEN live THEN ended ELSE received END, 'infinity'::timestamptz,
     ended <= $2)) AS r(phase, valid_from, valid_to, known_from, known_until, holds)
CROSS JOIN LATERAL (SELECT CASE WHEN known_until > $2 THEN 'infinity' ELSE known_until END AS known_to) k
WHERE holds
"""


def agencies() -> list[str]:
    return [f"H55.{201 + number}" for number in range(AGENCIES)]


async def seed(connection: Any, dossiers: int, now: datetime, timeout: float | None = None) -> None:
    """Fills stats.fact with ten years of dossiers up to `now`; `timeout` in seconds, of each of two statements."""
    lives = _LIVES.format(agencies=AGENCIES, years=YEARS)
    # PostgreSQL cannot tell the types of parameters inside these: they are put in as literals of our own.
    text = _FACTS.format(lives=lives).replace("$1", str(dossiers)).replace("$2", f"'{now.isoformat()}'::timestamptz")
    await connection.execute(text, timeout=timeout)
    await connection.execute("VACUUM (ANALYZE) stats.fact", timeout=timeout)
