"""All SQL of a service lies in its queries.sql, each statement under its name."""

import re
from importlib import resources

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


class Queries:
    """The named statements of one package's queries.sql: `queries["append"]`."""

    def __init__(self, package: str, schema: str) -> None:
        text = resources.files(package).joinpath("queries.sql").read_text(encoding="utf-8")
        parts = _NAME.split(text)
        self._statements = {
            name: body.strip().rstrip(";").replace("{schema}", schema)
            for name, body in zip(parts[1::2], parts[2::2], strict=True)
        }

    def __getitem__(self, name: str) -> str:
        return self._statements[name]

    def names(self) -> list[str]:
        return list(self._statements)
