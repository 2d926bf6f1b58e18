"""P4 by quixstreams: the dossiers in each state, counted from the topic of dossiers with its state store."""

import json
import sys
import tempfile
import time

from quixstreams import Application
from quixstreams.models import TopicConfig


def main(_: str, bootstrap: str, topic: str, number: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        app = Application(
            broker_address=bootstrap,
            consumer_group=f"bench-quix-{time.time_ns()}",
            auto_offset_reset="earliest",
            state_dir=folder,
            loglevel="WARNING",
        )
        source = app.topic(topic, value_deserializer="json", config=TopicConfig(num_partitions=3, replication_factor=1))
        span: list[float] = []

        def count(event: dict[str, object], state: object) -> dict[str, object]:
            span.append(time.monotonic()) if len(span) < 2 else span.__setitem__(1, time.monotonic())
            agency = str(event.get("agency"))
            seen = state.get(agency, default=0)  # type: ignore[attr-defined]
            state.set(agency, seen + 1)  # type: ignore[attr-defined]
            return event

        app.dataframe(source).apply(count, stateful=True)
        app.run(count=number, timeout=60)
        print(json.dumps({"rate": number / (span[1] - span[0]), "events": number}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
