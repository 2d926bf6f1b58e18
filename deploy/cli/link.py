"""`lienthong link`: two sites that pass dossiers on to each other."""

import asyncio
import json
import secrets
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.cli.console import print_json, say, table
from deploy.cli.errors import CommandFailed, WrongUse
from deploy.cli.options import AsJson, Data
from deploy.cli.site import SiteClient, find_site

EQUAL_WITHIN = 10.0  # seconds in which two sites that have nothing left to send tell each other their digests

Name = Annotated[
    str | None, typer.Argument(metavar="[LINK]", help="The lower site's code, or the peer's; without it the only link.")
]

app = typer.Typer(
    help="Links to other sites: invite, join, confirm; then watch.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def link() -> None:
    """Links to other sites: the upper one invites, the lower one joins, the upper one confirms."""


@app.command()
def invite(
    site: Annotated[str, typer.Option("--site", metavar="CODE", help="The lower site's code.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The invitation; it is worth a key.")],
    bus: Annotated[
        str | None,
        typer.Option(
            "--bus", metavar="HOST:PORT", help="Where the lower site reaches this site's bus, if not as we do."
        ),
    ] = None,
    security: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", help="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL there; SASL asks for a login (link login)."
        ),
    ] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Invite the site below. The file goes to its operator, by a way that both trust.

    \b
    Examples:
      lienthong link invite --site H55.242 --out invitation.json --data ./data/province
      lienthong link invite --site H55.242 --bus bus.province.example:9092 --out invitation.json --data ./data/province
      lienthong link invite --site H55.242 --bus bus.province.example:9093 --security SASL_SSL --out invitation.json
    """
    answer = asyncio.run(_post(data, "/v1/links/invite", {"site": site, "bus": bus, "security": security}))
    _write(out, answer)
    _tell(as_json, {"link": answer["lower"], "file": str(out)}, f"{answer['lower']} is invited: {out}")


@app.command()
def login(
    site: Annotated[str, typer.Argument(metavar="CODE", help="The lower site's code.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where its settings are written; it holds a secret.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the login away.")] = False,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Give the site below a login of its own on this site's bus (Apache Kafka): its two topics, nothing else.

    FILE has the settings that the lower site's routing starts with. Done again, the password of before no longer holds.

    \b
    Examples:
      lienthong link login H55.242 --out commune.env
      lienthong link login H55.242 --remove
    """
    if (out is None) is not remove:
        raise WrongUse("either --out FILE or --remove.")
    user = asyncio.run(_login(data, site, out))
    sentence = (
        f"{user} logs in no more." if out is None else f"{user} may log in: {out} goes to the operator of {site}."
    )
    _tell(as_json, {"site": site, "user": user, "file": str(out) if out else None, "removed": remove}, sentence)


@app.command()
def join(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The invitation.")],
    reply: Annotated[Path, typer.Option("--out", metavar="REPLY", help="What the upper site is to confirm.")],
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Join the site above with its invitation. The reply goes back to its operator.

    \b
    Example:
      lienthong link join invitation.json --out reply.json --data ./data/commune
    """
    answer = asyncio.run(_post(data, "/v1/links/join", {"text": _read(file)}))
    _write(reply, answer)
    _tell(as_json, {"link": answer["site"], "file": str(reply)}, f"{answer['upper']} must confirm: {reply}")


@app.command()
def confirm(
    reply: Annotated[Path, typer.Argument(metavar="REPLY", help="What the lower site has written.")],
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Confirm the lower site's reply: the link is in use, without a restart of either site.

    \b
    Example:
      lienthong link confirm reply.json --data ./data/province
    """
    answer = asyncio.run(_post(data, "/v1/links/confirm", {"text": _read(reply)}))
    _tell(as_json, answer, f"the link {answer['link']} is in use.")


@app.command()
def status(data: Data = None, as_json: AsJson = False) -> None:
    """Show each link: whether it is up, and how many envelopes wait. A line that is down is no error.

    \b
    Example:
      lienthong link status --data ./data/commune
    """
    items = asyncio.run(_items(data, "/v1/links"))
    if as_json:
        print_json(items)
    elif not items:
        say("This site has no links: lienthong link invite, or join.")
    else:
        table(
            "Links",
            ("link", "peer", "state", "line", "waiting", "confirmed", "received", "missing", "heard", "refused"),
            [
                (
                    item["link"],
                    item["peer"],
                    item["state"],
                    "up" if item["up"] else "down",
                    item["waiting"],
                    f"{item['confirmed']['epoch']}/{item['confirmed']['number']}",
                    f"{item['received']['epoch']}/{item['received']['number']}",
                    _gap(item.get("missing")),
                    item["heard_at"] or "never",
                    ", ".join(f"{reason} {count}" for reason, count in sorted(item["refused"].items())),
                )
                for item in items
            ],
        )


@app.command()
def digest(data: Data = None, as_json: AsJson = False) -> None:
    """Compare both ledgers, day by day and direction by direction, and name the envelopes (epoch/number) in which they are
    unlike. Exit 1 if one differs.

    \b
    Example:
      lienthong link digest --data ./data/commune
    """
    items = asyncio.run(_digests(data))
    if as_json:
        print_json(items)
    elif items:
        table(
            "Digests",
            ("link", "day", "direction", "envelopes", "ours", "theirs", "equal"),
            [
                (
                    item["link"],
                    item["day"],
                    item["direction"],
                    item["envelopes"],
                    item["ours"][:16],
                    (item["theirs"] or "unknown")[:16],
                    "yes" if item["equal"] else "NO",
                )
                for item in items
            ],
        )
    else:
        say("Nothing has been sent yet.")
    for item in items:
        if item.get("differs") and not as_json:
            say(f"{item['link']} {item['day']} {item['direction']}: unlike at {', '.join(item['differs'])}")
    if not all(item["equal"] for item in items):
        raise typer.Exit(1)


@app.command()
def resend(
    name: Name = None,
    after: Annotated[int, typer.Option("--after", metavar="NUMBER", min=0, help="All behind this number.")] = 0,
    epoch: Annotated[int | None, typer.Option("--epoch", metavar="EPOCH", min=1)] = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Publish again what was sent, however long ago. The peer takes what it lacks; what it has is dropped there.

    \b
    Example:
      lienthong link resend H55.242 --after 1200 --data ./data/commune
    """
    answer = asyncio.run(_on(data, name, "resend", {"after": after, "epoch": epoch}))
    _tell(as_json, answer, f"{answer['link']}: {answer['envelopes']} envelopes are sent again.")


@app.command()
def pause(name: Name = None, data: Data = None, as_json: AsJson = False) -> None:
    """Send and take nothing on a link until it is resumed; envelopes wait in order.

    \b
    Example:
      lienthong link pause H55.242 --data ./data/province
    """
    answer = asyncio.run(_on(data, name, "pause", {}))
    _tell(as_json, answer, f"{answer['link']} is paused.")


@app.command()
def resume(name: Name = None, data: Data = None, as_json: AsJson = False) -> None:
    """Go on with a paused link.

    \b
    Example:
      lienthong link resume H55.242 --data ./data/province
    """
    answer = asyncio.run(_on(data, name, "resume", {}))
    _tell(as_json, answer, f"{answer['link']} goes on.")


async def _post(data: Path | None, path: str, body: dict[str, Any]) -> Any:
    async with SiteClient(find_site(data), who="link") as client:
        return await client.post("routing", path, body)


def _gap(missing: Any) -> str:
    """What the other site has published and is not here, by the numbers of its ledger."""
    if not missing:
        return ""
    after, upto = missing["after"], missing["upto"]
    return f"{after['epoch']}/{after['number'] + 1} to {upto['epoch']}/{upto['number']}"


async def _items(data: Path | None, path: str) -> list[dict[str, Any]]:
    async with SiteClient(find_site(data), who="link") as client:
        items: list[dict[str, Any]] = (await client.get("routing", path))["items"]
        return items


async def _digests(data: Path | None) -> list[dict[str, Any]]:
    async with SiteClient(find_site(data), who="link digest") as client:
        return await digests_of(client)


async def digests_of(client: SiteClient, within: float = EQUAL_WITHIN) -> list[dict[str, Any]]:
    """Waits a moment, in seconds, for digests that are on their way; not for a line that is down."""
    end = time.monotonic() + within
    while True:
        items: list[dict[str, Any]] = (await client.get("routing", "/v1/links/digests"))["items"]
        differing = {item["link"] for item in items if not item["equal"]}
        links = (await client.get("routing", "/v1/links"))["items"]
        on_the_way = [each for each in links if each["link"] in differing and each["up"]]
        if not on_the_way or time.monotonic() > end:
            return items
        await asyncio.sleep(0.2)


async def _on(data: Path | None, name: str | None, verb: str, body: dict[str, Any]) -> Any:
    async with SiteClient(find_site(data), who=f"link {verb}") as client:
        if name is None:
            known = [item["link"] for item in (await client.get("routing", "/v1/links"))["items"]]
            if len(known) != 1:
                raise WrongUse(f"name the link: {', '.join(known) or 'this site has none'}.")
            name = known[0]
        return await client.post("routing", f"/v1/links/{name}/{verb}", body)


async def _login(data: Path | None, code: str, out: Path | None) -> str:
    """Makes or takes away the lower site's user on the bus; its name."""
    from deploy.cli.topics import bus_of, with_admin
    from deploy.kafka.plan import link_acls, link_user
    from deploy.kafka.protocol import Admin, NoAccessControl
    from shared.contracts.codes import normalise_agency

    try:
        code = normalise_agency(code)
    except ValueError as error:
        raise CommandFailed(str(error)) from None
    bus, user, password = bus_of(find_site(data)), link_user(code), secrets.token_urlsafe(32)

    async def work(admin: Admin) -> None:
        known = {acl for acl in await admin.acls(f"User:{user}") if acl.name.startswith(bus.prefix)}
        if out is None:
            await admin.disallow(known)
            await admin.forget_password(user)
        else:
            await admin.allow(link_acls(bus, code))
            await admin.set_password(user, password)

    try:
        await with_admin(bus, work)
    except NoAccessControl:
        raise CommandFailed(
            f"the bus on {bus.bootstrap} has no access control: a lower site dials it without a login."
        ) from None
    if out is not None:
        _write_text(out, f"LIENTHONG_LINK_BUS_USERNAME={user}\nLIENTHONG_LINK_BUS_PASSWORD={password}\n")
    return user


def _write(file: Path, content: Any) -> None:
    _write_text(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _write_text(file: Path, text: str) -> None:
    """Readable by its owner alone: what a link begins with is secret."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandFailed(f"{file} cannot be written: {error.strerror}.") from None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{file} cannot be read: {getattr(error, 'strerror', 'it is no text')}.") from None


def _tell(as_json: bool, answer: Any, sentence: str) -> None:
    if as_json:
        print_json(answer)
    else:
        say(sentence)
