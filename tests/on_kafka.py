"""`make test-kafka`: the integration and acceptance suites, written once, on Apache Kafka instead of the embedded broker,
and what only Kafka has (tests/kafka_only). The integration suite stands on Debian's PostgreSQL where that is installed, the
others on the wheel's.

python -m tests.on_kafka [pytest's arguments]
"""

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

from tests.debian_postgres import DebianPostgres, PostgresUnavailable
from tests.kafka import Kafka, KafkaUnavailable

SUITES = ["-m", "not demo and not system", "tests/integration", "tests/acceptance", "tests/kafka_only"]


async def run(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="lienthong-kafka-") as folder:
        kafka = Kafka(Path(folder), heap=768)
        postgres: DebianPostgres | None = None
        environment = dict(os.environ)
        try:
            environment["LIENTHONG_TEST_BUS"] = await kafka.start()
            if "LIENTHONG_TEST_DATABASE_URL" not in environment:
                try:
                    postgres = DebianPostgres(Path(folder))
                    environment["LIENTHONG_TEST_DATABASE_URL"] = await asyncio.to_thread(postgres.start)
                except PostgresUnavailable as missing:
                    print(f"{missing}: all suites use the wheel's.", file=sys.stderr)
            process = await asyncio.create_subprocess_exec(sys.executable, "-m", "pytest", *arguments, env=environment)
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, process.send_signal, signal.SIGINT)
            return await process.wait()
        finally:
            if postgres is not None:
                await asyncio.to_thread(postgres.stop)
            await kafka.stop()


def main() -> int:
    try:
        return asyncio.run(run(sys.argv[1:] or SUITES))
    except KafkaUnavailable as error:
        print(f"Apache Kafka cannot be started: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
