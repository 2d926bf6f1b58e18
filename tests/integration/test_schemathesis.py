"""schemathesis with every check on over each service's interface: no 500, nothing that its document does not say."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from shared.security.tokens import Role
from shared.service import SERVICES
from tests.harness import RunningSite

EXAMPLES = os.environ.get("LIENTHONG_SCHEMATHESIS_EXAMPLES", "3")
SECONDS = os.environ.get("LIENTHONG_SCHEMATHESIS_SECONDS", "10")
"""Examples for each operation, and what all of them may take; more of both find rarer things, by hand now and then."""

WITHIN = 280.0

# What has the right form may still be refused: the contract answers 422 for a procedure that nobody knows, pauses out of
# order, a cursor that no page gave. All other checks stand as they are.
CONFIG = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 412, 422, 429, 503]
"""


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.timeout(320)
async def test_the_interface_does_what_its_document_says(site: RunningSite, name: str, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("st")), "run", f"{site.urls[name]}/openapi.json"),
        *(
            "--checks",
            "all",
            "--max-examples",
            EXAMPLES,
            "--max-time",
            SECONDS,
            "--seed",
            "1",
            "--no-color",
            "--no-shrink",
        ),
        *("--header", f"Authorization: {site.token(Role.ADMIN)['Authorization']}", "--request-timeout", "60"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
    )
    try:
        async with asyncio.timeout(WITHIN):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, output.decode()[-20_000:]
