"""`make test-kafka`: the integration suite, written once, on Apache Kafka instead of the embedded broker.

python -m tests.on_kafka [pytest's arguments]
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from tests.kafka import Kafka, KafkaUnavailable


async def run(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="lienthong-kafka-") as folder:
        kafka = Kafka(Path(folder))
        try:
            bootstrap = await kafka.start()
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "pytest", *arguments, env=os.environ | {"LIENTHONG_TEST_BUS": bootstrap}
            )
            return await process.wait()
        finally:
            await kafka.stop()


def main() -> int:
    try:
        return asyncio.run(run(sys.argv[1:] or ["tests/integration"]))
    except KafkaUnavailable as error:
        print(f"Apache Kafka cannot be started: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
