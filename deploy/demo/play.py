"""Plays the steps of a live day over HTTP: chains of steps that wait for each other one by one, the chains side by side."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import httpx

from deploy.cli.site import KnownSite
from deploy.demo.day import Step, desks_of
from shared.security.tokens import Role

AT_ONCE = 8  # chains; a few desks and offices that work at the same time
TRAVELS_WITHIN = 60.0  # seconds that an event is given to reach who waits for it
LOOK_EVERY = 0.05

_NAME = re.compile(r"\{([^{}]+)\}")
_ABSENT = object()


@dataclass(slots=True)
class Played:
    """How the day went: the steps that were answered as planned, and what went wrong with the others."""

    steps: int = 0
    dossiers: int = 0
    moves: int = 0
    transfers: int = 0
    saved: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


async def play(
    steps: Sequence[Step], sites: Mapping[str, KnownSite], known: Mapping[str, Any] = MappingProxyType({})
) -> Played:
    """Asks for every step of the day. A step that goes wrong ends its chain; the others go on.

    `known`: what earlier steps have saved.
    """
    tokens = {code: site.tokens() for code, site in sites.items()}
    bearers = {
        (site, role, agency): tokens[site].issue(Role(role), agency=agency, name=f"demo {role} {agency or 'site'}")
        for site, role, agency in desks_of(steps)
    }
    played, at_once = Played(), asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(timeout=30.0, trust_env=False) as http:

        async def follow(chain: Sequence[Step]) -> None:
            saved = dict(known)
            async with at_once:
                for step in chain:
                    token = bearers[step.site, step.role, step.agency]
                    if why := await _ask(http, sites[step.site].urls[step.service], step, token, saved):
                        played.wrong.append(f"{step.name}: {why}")
                        return
                    _count(played, step)
            played.saved |= saved

        free, chains = chains_of(steps)
        await asyncio.gather(*(follow(chain) for chain in chains))
        await follow(free)
    return played


def chains_of(steps: Sequence[Step]) -> tuple[list[Step], list[list[Step]]]:
    """The steps that name nothing of another's, to be asked last, and the chains of those that do, each in its order."""
    free: list[Step] = []
    chains: list[tuple[set[str], list[Step]]] = []
    for step in steps:
        names = set(step.saves) | set(_NAME.findall(step.path))
        if not names:
            free.append(step)
            continue
        for known, chain in chains:
            if known & names:
                known |= names
                chain.append(step)
                break
        else:
            chains.append((names, [step]))
    return free, [chain for _, chain in chains]


def _count(played: Played, step: Step) -> None:
    played.steps += 1
    if step.method == "POST":
        played.dossiers += step.path in ("/v1/dossiers", "/v1/submissions")
        played.moves += step.path.startswith("/v1/dossiers/")
        played.transfers += step.path.startswith("/v1/transfers/")


async def _ask(http: httpx.AsyncClient, url: str, step: Step, token: str, saved: dict[str, Any]) -> str | None:
    """Asks once, or until the answer is what it becomes when the events have travelled; why it went wrong, if it did."""
    path = _NAME.sub(lambda found: str(saved[found[1]]), step.path)
    loop = asyncio.get_running_loop()
    until = loop.time() + TRAVELS_WITHIN
    while True:
        response = await http.request(
            step.method, url + path, json=step.body, headers={"Authorization": f"Bearer {token}"}
        )
        if response.status_code != step.expect:
            return f"{response.status_code} {response.text[:300]}"
        answer = response.json()
        found = {pointer: resolve(answer, pointer) for pointer in (*step.saves.values(), *step.eventually)}
        unlike = [
            pointer for pointer in found
            if found[pointer] is _ABSENT or (pointer in step.eventually and found[pointer] != step.eventually[pointer])
        ]  # fmt: skip
        if not unlike:
            saved |= {name: found[pointer] for name, pointer in step.saves.items()}
            return None
        if step.method == "POST" or loop.time() > until:
            shown = {pointer: None if found[pointer] is _ABSENT else found[pointer] for pointer in unlike}
            return f"the answer has {shown} after {TRAVELS_WITHIN:.0f} s"
        await asyncio.sleep(LOOK_EVERY)


def resolve(document: Any, pointer: str) -> Any:
    """The value at a JSON Pointer (RFC 6901); a mark of its own when there is none."""
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(document, list) and name.isdecimal() and int(name) < len(document):
            document = document[int(name)]
        elif isinstance(document, dict) and name in document:
            document = document[name]
        else:
            return _ABSENT
    return document
