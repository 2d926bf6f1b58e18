import os, time, cProfile, pstats
from shared.contracts.envelope import parse
from shared.store.inbox import Received
from tests.integration.test_notify import *


@pytest.fixture
async def alone(backing, tmp_path):
    def make(settings):
        s = app.create(NotifySettings(**settings))
        s._loops = [l for l in s._loops if l[0] != "sender"] if os.environ.get("NOSEND") else s._loops
        s._consumed = ()
        s._apply_saved = s._apply
        s._apply = None
        return s

    async with running_site(
        backing, {"notify": make}, SCHEMAS, sent_file=tmp_path / "sent.ndjson", postal_file=tmp_path / "p.ndjson"
    ) as site:
        await load_bundle(site, quiet_hours=None)
        yield site


async def test_cpu(alone):
    site = alone
    service = site.services["notify"]
    N = 3000
    ds = [Intake(site, f"H55.242-301012-{n + 1:04}") for n in range(N)]
    envs = []
    for i in range(0, N, 100):
        for d in ds[i : i + 100]:
            envs += [d.contact(**CANARY), d.received()]
        for d in ds[i : i + 100]:
            envs += [d.started(), d.resolved()]
    rec = [Received(e, parse(e)) for e in envs]
    prof = cProfile.Profile()
    c0 = time.process_time()
    t0 = time.perf_counter()
    if os.environ.get("PROF"):
        prof.enable()
    for i in range(0, len(rec), 400):
        async with service.pool.acquire() as c, c.transaction():
            faults = await service._apply_saved(c, rec[i : i + 400])
            assert not faults
        service._applied()
    print("handlers cpu", time.process_time() - c0, "wall", time.perf_counter() - t0, "(concurrent with sender)")

    async def done():
        await asyncio.sleep(0.2)
        return await site.value("select count(*) from notify.notice where state = 'sent'") == 2 * N

    if not os.environ.get("NOSEND"):
        await site.until(done, 120)
    print("all cpu per dossier ms", (time.process_time() - c0) / N * 1000, "wall", time.perf_counter() - t0)
    if os.environ.get("PROF"):
        prof.disable()
        pstats.Stats(prof).sort_stats("cumtime").print_stats(70)
    assert 0
