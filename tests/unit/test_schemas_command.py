"""`lienthong schemas check`: the gate that every change of the events passes."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy.cli.errors import CommandFailed
from deploy.cli.main import app
from shared.contracts.compatibility import breaks
from shared.contracts.schema import FOLDER, read_schemas

PUBLISHED = FOLDER.parent / "published"


def check(*arguments: str) -> tuple[int, Any]:
    done = CliRunner().invoke(app, ["schemas", "check", "--json", *arguments])
    return done.exit_code, json.loads(done.stdout) if done.stdout else done.exception


def test_the_schemas_stand_with_every_version_that_was_published() -> None:
    status, answer = check()
    assert (status, answer["compatible"], answer["breaks"]) == (0, True, [])


def test_published_versions_are_compatible_with_each_other() -> None:
    versions = [read_schemas(folder) for folder in sorted(PUBLISHED.iterdir())]
    assert versions
    for earlier, later in itertools.pairwise(versions):
        assert breaks(earlier, later) == []


def test_a_change_that_breaks_readers_is_refused_and_named(tmp_path: Path) -> None:
    """An earlier version had a field that is gone, and a type that is gone."""
    for name, schema in read_schemas().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name == "dossier.received.v1.json":
            schema["properties"]["colour"] = {"type": "string", "x-sensitivity": "public"}
        (tmp_path / name).write_text(json.dumps(schema))
    (tmp_path / "dossier.lost.v1.json").write_text('{"properties": {}}')
    status, answer = check("--against", str(tmp_path))
    assert status == 1
    assert {(b["schema"], b["pointer"]) for b in answer["breaks"]} == {
        ("dossier.received.v1.json", "/properties/colour"),
        ("dossier.lost.v1.json", ""),
    }


def test_what_is_neither_folder_nor_commit_is_said() -> None:
    status, error = check("--against", "no-such-version")
    assert status == 1
    assert isinstance(error, CommandFailed)
    assert "no-such-version is neither a folder nor a commit here" in str(error)


@pytest.mark.parametrize("trick", ["--output=/tmp/x", "-h"])
def test_a_ref_is_never_taken_for_an_option(trick: str) -> None:
    status, _ = check("--against", trick)
    assert status != 0
