"""docs/two-sites.md as a newcomer follows it: every block of the page, and then those of docs/subscribe.md, in one shell.

No command stands here that does not stand there. What a person reads off the screen is looked at in what the shell said.
"""

import json
import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.ports import base_port, free_port

pytestmark = [pytest.mark.system, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]
PORTS = ("POSTGRES", "PROMETHEUS", "KAFKA", "CONTROLLER", "LINKS")
TOOLS = {
    "java": "openjdk-17-jre-headless",
    "mvn": "maven",
    "pg_createcluster": "postgresql",
    "prometheus": "prometheus",
}
PATIENCE = 1200.0  # seconds: Maven may have to fetch Kafka first


def blocks(page: str) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)


def in_a_project_of_its_own(folder: Path) -> None:
    """The project's files as they stand, and its command: what a newcomer has after `git clone` and `make setup`."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for name in ("requirements-dev.txt", "pyproject.toml"):
        os.utime(folder / name, (0, 0))  # older than the command: `make setup` finds everything there
    (folder / ".venv").symlink_to(ROOT / ".venv")


def test_a_newcomer_brings_up_two_sites_and_a_subscriber_sees_its_first_event(tmp_path: Path) -> None:
    missing = sorted(package for tool, package in TOOLS.items() if shutil.which(tool) is None)
    assert not missing, f"apt-get install {' '.join(missing)}"
    assert os.geteuid() == 0, "the page makes a PostgreSQL cluster of Debian's: run this as root"
    in_a_project_of_its_own(tmp_path)
    *steps, away = blocks("two-sites.md")
    assert len(steps) > 10
    steps += blocks("subscribe.md")
    script = ["set -euo pipefail", f"away() {{ set +e\n{away}}}", "trap away EXIT"]
    script += [f"echo '-- block {number}'\n{step}" for number, step in enumerate(steps, 1)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIENTHONG_")}
    environment |= {name: str(free_port()) for name in PORTS}
    environment |= {"PROVINCE": str(base_port(4)), "COMMUNE": str(base_port(4))}
    with (tmp_path / "said").open("wb") as said:
        shell = subprocess.Popen(
            ["bash", "-c", "\n".join(script)],
            cwd=tmp_path,
            env=environment,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = shell.wait(PATIENCE)
        finally:
            if shell.poll() is None:
                shell.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    shell.wait(60)
            with suppress(ProcessLookupError):  # whatever the page's last block has left
                os.killpg(shell.pid, signal.SIGKILL)
    screen = (tmp_path / "said").read_text(encoding="utf-8", errors="replace")
    assert status == 0, screen[-6000:]

    received = json.loads(re.findall(r'^\{"code":[^{}]*\}', screen, re.MULTILINE)[0])
    assert received["state"] == 2
    assert f"block {len(steps)}" in screen
    events = [json.loads(line) for line in re.findall(r'^\{"type": .*\}$', screen, re.MULTILINE)]
    assert len(events) == 2  # one by each sample
    for event in events:
        assert (event["type"], event["sequence"]) == ("vn.lienthong.dossier.received.v1", 1)
        assert event["key"] == received["code"]
        assert "Nguyễn" not in json.dumps(event, ensure_ascii=False)
