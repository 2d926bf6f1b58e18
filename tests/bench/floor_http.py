"""P1's floor: the same framework checking the same token and body, and answering, without storing anything."""

import asyncio
import signal
import sys
from datetime import UTC, datetime

import uvloop
from starlette.requests import Request
from starlette.responses import Response

from deploy.serving import HttpServer, listen
from services.intake import acts
from shared.security.keys import load_keys
from shared.security.tokens import Role, Tokens
from shared.settings import Settings
from shared.web.app import Asking, allow, make_app, router
from shared.web.gate import Gate
from shared.web.writes import Answer


async def serve(port: int) -> None:
    settings = Settings()
    app = make_app("floor", "answers without storing")
    api = router()

    @api.post("/v1/dossiers", status_code=201)
    async def receive_new(request: Request, who: Asking, body: acts.NewDossier) -> Response:
        allow(who, Role.DESK)
        now = datetime.now(UTC).isoformat()
        answer = {"code": f"{body.receiving_agency}-261123-0001", "state": 2, "received_at": now, "due_at": now}
        return Answer(201, answer | {"version": 1, "track_pin": "000000"}, {"ETag": '"1"'}).response()

    @api.get("/readyz")
    async def readyz() -> dict[str, str]:
        return {"status": "ready"}

    app.include_router(api)
    tokens = Tokens(load_keys(settings.keys_dir), settings.site)
    server = HttpServer(Gate(app, verify=tokens.verify), listen("floor", "127.0.0.1", port))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server.start()
    await stop.wait()
    await server.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
