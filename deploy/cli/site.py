"""The site that a command acts on: found by its folder or by the settings, and asked over HTTP as an administrator."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from deploy.cli.errors import CommandFailed
from deploy.state import SERVICES, read_state
from shared.security.keys import load_keys
from shared.security.tokens import Role, Tokens
from shared.security.trust import trusted_for


@dataclass(frozen=True, slots=True)
class KnownSite:
    """Where a site is: its code, its services, its database, its bus and its keys."""

    code: str
    urls: Mapping[str, str]
    database: str
    bus: str
    keys: Path
    data: Path | None

    @property
    def start_hint(self) -> str:
        return f"start it with `lienthong up --data {self.data}`" if self.data else "start its services"

    def tokens(self) -> Tokens:
        """Raises CommandFailed when there are no keys: a command never makes a site's keys."""
        if not (self.keys / "site.pem").exists():
            raise CommandFailed(
                f"{self.keys} holds no keys: set LIENTHONG_KEYS_DIR, or name the site's folder by --data."
            )
        try:
            return Tokens(load_keys(self.keys), self.code)
        except PermissionError:
            raise CommandFailed(f"{self.keys} cannot be read: run this as the user that runs the services.") from None


def find_site(data: Path | None) -> KnownSite:
    """By the folder, else by the environment (LIENTHONG_SITE, …_KEYS_DIR, …_DATABASE_URL, …_INTAKE_URL, …).

    Raises CommandFailed with what to do when neither tells.
    """
    if data is not None:
        state = read_state(data)
        if state is None:
            raise CommandFailed(f"there is no site in {data}: start one with `lienthong up --data {data}`.")
        return KnownSite(state.site, state.services, state.database, state.bus, data / "keys", data)
    from shared.settings import Settings

    settings = Settings()
    if not settings.site:
        raise CommandFailed("which site? Name its folder by --data DIR, or set LIENTHONG_SITE and the other settings.")
    urls = {name: settings.url_of(name) for name in SERVICES}
    return KnownSite(settings.site, urls, settings.database_url, settings.bus_bootstrap, settings.keys_dir, None)


class SiteClient:
    """The services of a site over HTTP. What they refuse, and that they are away, is raised as CommandFailed."""

    def __init__(self, site: KnownSite, *, who: str, role: Role = Role.ADMIN, timeout: float = 60.0) -> None:
        self.site = site
        self._tokens, self._who, self._role = site.tokens(), who, role
        self._http = httpx.AsyncClient(timeout=timeout, trust_env=False, verify=trusted_for(site.urls.values()))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._http.aclose()

    async def ask(self, service: str, method: str, path: str, **request: Any) -> httpx.Response:
        """The answer as it came; CommandFailed only when there was none."""
        # A token for each call: a long command outlives any one of them, and making one takes 0.1 ms.
        token = self._tokens.issue(self._role, name=self._who, hours=0.25)
        headers = {"Authorization": f"Bearer {token}", **request.pop("headers", {})}
        try:
            return await self._http.request(method, self.site.urls[service] + path, headers=headers, **request)
        except httpx.HTTPError as error:
            raise ServiceAway(
                f"{service} does not answer on {self.site.urls[service]} ({type(error).__name__}): "
                f"{self.site.start_hint}."
            ) from None

    async def get(self, service: str, path: str, **params: Any) -> Any:
        """The JSON of a GET."""
        given = {name: value for name, value in params.items() if value is not None}
        return answered(service, await self.ask(service, "GET", path, params=given))

    async def post(self, service: str, path: str, body: Any) -> Any:
        """The JSON of a POST."""
        return answered(service, await self.ask(service, "POST", path, json=body))


class ServiceAway(CommandFailed):
    """A service gave no answer; it may come back."""


class ServiceRefused(CommandFailed):
    """A service answered with a problem."""

    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code


def answered(service: str, response: httpx.Response) -> Any:
    """The JSON of a good answer; a problem is raised as one sentence."""
    if response.is_success:
        return response.json()
    try:
        problem = response.json()
        what = problem.get("detail") or problem["title"]
        what += "".join(
            f"\n  {wrong['pointer'] or '/'}: {wrong['detail']}"
            for wrong in problem.get("errors", [])
            if "pointer" in wrong
        )
        code = f" ({problem['code']})"
    except (ValueError, KeyError, AttributeError, TypeError):
        what, code = response.text[:200], ""
    if response.status_code in (502, 503, 504):
        raise ServiceAway(f"{service} answered {response.status_code}: {what}")
    raise ServiceRefused(f"{service} refused{code}: {what}", response.status_code)
