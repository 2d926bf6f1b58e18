"""One running site for the tests that need no other."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.command import Up, running


@pytest.fixture(scope="package")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A site with the sample province; it ends with this folder's tests: at rest it still costs a tenth of a core."""
    folder: Path = tmp_path_factory.mktemp("site") / "data"
    with running(folder) as site:
        yield site
