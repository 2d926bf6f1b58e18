async def test_x(toy):
    r = await toy.client("intake").post("/v1/things", json={"key": "a", "count": 3})
    assert r.status_code == 201, r.text
    await toy.until(lambda: count(toy, 3), 10)

async def count(toy, n):
    return await toy.value("select count(*) from routing.effect") == n
