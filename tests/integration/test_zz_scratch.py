import os, time, cProfile, pstats
from aiokafka import AIOKafkaProducer
from shared.contracts.envelope import encode
from tests.integration.test_notify import *


@pytest.fixture
async def slowpoll(backing, tmp_path):
    make = lambda settings: app.create(NotifySettings(**settings))
    async with running_site(
        backing, {"notify": make}, SCHEMAS, sent_file=tmp_path / "sent.ndjson", postal_file=tmp_path / "p.ndjson"
    ) as site:
        await load_bundle(site, quiet_hours=None)
        await site.reading()
        yield site


async def producer_of(site):
    p = AIOKafkaProducer(bootstrap_servers=site.backing.bootstrap, acks="all", linger_ms=1)
    await p.start()
    return p


async def put(p, site, *envs):
    for e in envs:
        k, v, h = encode(e)
        await p.send(site.backing.bus(site.prefix).topic(e.topic), value=v, key=k, headers=h)


async def test_latency(slowpoll):
    site = slowpoll
    async with gateway() as sms:
        at = {}

        async def behave(doc, call):
            code = [w for w in doc["text"].split() if w.startswith("H55")][0].rstrip(".:")
            at[code] = time.perf_counter()
            return OK

        sms.behave = behave
        await load_bundle(site, providers=[provider("a", sms.url)], quiet_hours=None)
        await asyncio.sleep(1)
        p = await producer_of(site)
        began = {}
        N = 1000
        RATE = float(os.environ.get("RATE", "200"))
        prof = cProfile.Profile()
        if os.environ.get("PROF"):
            prof.enable()
        t0 = time.perf_counter()
        c0 = time.process_time()
        for n in range(N):
            d = Intake(site, f"H55.242-301012-{n + 1:04}")
            c, r = d.contact(**CANARY), d.received()
            began[d.code] = time.perf_counter()
            await put(p, site, c, r)
            await asyncio.sleep(max(0, t0 + n / RATE - time.perf_counter()))
        await site.until(lambda: len(at) == N)
        print("cpu share", (time.process_time() - c0) / (time.perf_counter() - t0))
        await p.stop()
        if os.environ.get("PROF"):
            prof.disable()
            pstats.Stats(prof).sort_stats("tottime").print_stats(30)
            pstats.Stats(prof).sort_stats("cumtime").print_stats(60)
        await asyncio.sleep(3)
        for r in await site.fetch("""select percentile_cont(array[0.1,0.5,0.9,0.99]) within group (order by extract(epoch from planned_at-act_recorded)*1000) plan,
           percentile_cont(array[0.1,0.5,0.9,0.99]) within group (order by extract(epoch from sent_at-planned_at)*1000) sent from notify.notice"""):
            print("db", dict(r))
        delays = sorted((at[c] - began[c]) * 1000 for c in at)
        print("latency ms p50", delays[N // 2], "p99", delays[int(N * 0.99)], "max", delays[-1])
    assert 0


async def test_throughput(slowpoll):
    site = slowpoll
    p = await producer_of(site)
    N = 5000
    ds = [Intake(site, f"H55.242-301012-{n + 1:04}") for n in range(N)]
    envs = []
    for d in ds:
        envs += [d.contact(**CANARY), d.received()]
    for d in ds:
        envs += [d.started(), d.resolved()]
    records = envs
    t0 = time.perf_counter()
    prof = cProfile.Profile()
    if os.environ.get("PROF"):
        prof.enable()
    c0 = time.process_time()
    await put(p, site, *envs)
    print("put", time.perf_counter() - t0)

    async def done():
        await asyncio.sleep(0.2)
        return await site.value("select count(*) from notify.notice where state = 'sent'") == 2 * N

    await site.until(done, 120)
    print("cpu", time.process_time() - c0)
    took = time.perf_counter() - t0
    print("took", took, "dossiers/s", N / took)
    await p.stop()
    assert 0
