"""The harness itself: a whole site in one process, and nothing of it left behind."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from shared.service import SERVICES
from tests.harness import RunningSite

ROOT = Path(__file__).parents[2]
STOPPED = """
import os
async def test_that_is_interrupted(toy):
    print("pids", *[p.pid for p in __import__("psutil").Process().children()], flush=True)
    os.kill(os.getpid(), int(os.environ["ENDED_BY"]))
    await __import__("asyncio").sleep(60)
"""


async def test_the_four_services_are_ready_with_the_sample_province(site: RunningSite) -> None:
    for name in SERVICES:
        answer = await site.client(name, None).get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (200, "ready"), name
        assert (await site.client(name).get("/v1/site")).json()["version"] == 1


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_run_leaves_no_process(tmp_path: Path, ended_by: signal.Signals) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import *")
    (tmp_path / "test_interrupted.py").write_text(STOPPED)
    # The embedded programs are what may be left behind: whatever this run stands on, that one stands on them.
    ours = {name: value for name, value in os.environ.items() if not name.startswith("LIENTHONG_TEST_")}
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-s", "-q", "-p", "no:cacheprovider"),
        *("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), str(tmp_path)),
        cwd=tmp_path,
        env=ours | {"PYTHONPATH": str(ROOT), "ENDED_BY": str(int(ended_by))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # A shell starts what runs in its background with SIGINT ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    output = (await run.communicate())[0].decode()
    assert run.returncode == pytest.ExitCode.INTERRUPTED, output
    pids = [int(pid) for pid in output.partition("pids ")[2].partition("\n")[0].split()]
    assert len(pids) >= 2, output
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
