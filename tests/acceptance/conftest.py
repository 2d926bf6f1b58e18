"""One running site for the tests that need no other."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.command import Up, running


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A site with the sample province."""
    folder: Path = tmp_path_factory.mktemp("site") / "data"
    with running(folder) as site:
        yield site
