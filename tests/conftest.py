"""Fixtures of all tests."""

import gc
import signal
from collections.abc import AsyncIterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from shared.service import SERVICES
from tests.harness import Backing, RunningSite, backing_for_a_run, real_services, running_site, toy_services

structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)

# No test is judged by the clock of the machine that it runs on.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_configure() -> None:
    """Whoever ends a run, by Ctrl-C or as a system does, leaves no process behind: fixtures are taken down."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """All modules are there: what they have made is not searched for garbage after each test, which took a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
async def backing() -> AsyncIterator[Backing]:
    """The PostgreSQL and the bus of the whole run."""
    async with backing_for_a_run() as backing:
        yield backing


@pytest.fixture
async def toy(backing: Backing) -> AsyncIterator[RunningSite]:
    """The toy's two services: intake owns things, routing consumes them."""
    async with running_site(backing, *toy_services(), gap_wait=0.2) as site:
        await site.reading()
        yield site


@pytest.fixture
async def site(backing: Backing) -> AsyncIterator[RunningSite]:
    """The project's four services with the sample province."""
    async with running_site(backing, *real_services(*SERVICES)) as site:
        await site.reading()
        yield site
