"""Reads a subscriber's topics: python consumer.py police.json [how many events, else for ever]

Needs `pip install aiokafka`. The file is the one that you were handed over. Each event is printed as one line of JSON.
An event may come twice; the last sequence of each key is kept, so that it counts once.
"""

import asyncio
import json
import ssl
import sys

from aiokafka import AIOKafkaConsumer


async def main(file: str, wanted: int) -> None:
    known = json.load(open(file))
    secured = known["security"].endswith("SSL")
    consumer = AIOKafkaConsumer(
        *known["topics"],
        bootstrap_servers=known["bootstrap"],
        security_protocol=known["security"],
        ssl_context=ssl.create_default_context(cafile=known.get("ca_file")) if secured else None,
        sasl_mechanism=known["mechanism"],
        sasl_plain_username=known["username"],
        sasl_plain_password=known["password"],
        group_id=known["group_prefix"] + "python",  # your groups begin with this
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    last = {}  # keep this in your database, in the transaction that stores the event
    await consumer.start()
    try:
        while wanted:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                for record in records:
                    headers = {name: value.decode() for name, value in record.headers}
                    place, sequence = (record.topic, record.key), int(headers["ce_sequence"])
                    if sequence <= last.get(place, 0) or not wanted:
                        continue  # known already, or more than was asked for
                    last[place] = sequence
                    said = {"type": headers["ce_type"], "key": record.key.decode(), "sequence": sequence}
                    print(json.dumps(said | {"data": json.loads(record.value)}, ensure_ascii=False), flush=True)
                    wanted -= 1
            await consumer.commit()  # after the events are stored, never before
    finally:
        await consumer.stop()


asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else -1))
