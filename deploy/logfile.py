"""Where a site's log lines go: one file for each service, rotated by size."""

import re
from contextlib import suppress
from io import TextIOBase
from pathlib import Path
from typing import IO

ROTATES_ABOVE = 16 * 1024 * 1024  # bytes; two older files are kept
_SERVICE = re.compile(r'"service":"(\w+)"')


class LogFolder(TextIOBase):
    """A stream of JSON lines that files each under the service it names, the others under `site`.

    A full disk loses log lines and nothing else: writing never raises.
    """

    def __init__(self, folder: Path, services: tuple[str, ...]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._services = folder, services
        self._files: dict[str, IO[str]] = {}
        self._line = ""

    def write(self, text: str) -> int:
        self._line += text
        if self._line.endswith("\n"):
            named = _SERVICE.search(self._line)
            name = named[1] if named and named[1] in self._services else "site"
            with suppress(OSError):
                self._file(name).write(self._line)
            self._line = ""
        return len(text)

    def _file(self, name: str) -> IO[str]:
        file = self._files.get(name)
        if file is None or file.tell() > ROTATES_ABOVE:
            path = self._folder / f"{name}.log"
            if file is not None:
                file.close()
                with suppress(FileNotFoundError):
                    path.with_suffix(".log.1").replace(path.with_suffix(".log.2"))
                path.replace(path.with_suffix(".log.1"))
            path.touch(mode=0o600)
            file = self._files[name] = path.open("a", encoding="utf-8", buffering=1)
        return file

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
