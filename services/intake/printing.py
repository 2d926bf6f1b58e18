"""A paper form as a PDF (Typst), and the QR code that leads to the dossier's page (segno).

Typst is imported when the first PDF is asked for: most processes never make one. Its own font, Libertinus, knows
Vietnamese, so that a paper looks the same on every machine.
"""

import asyncio
import io
from dataclasses import asdict
from functools import cache
from importlib import resources

import orjson
import segno

from services.intake.paper import Paper

_ONE_AT_A_TIME = asyncio.Semaphore(1)  # a page is set in 20 ms; two at once only cost memory


def qr_svg(address: str) -> str:
    """The QR code of an address as an SVG element; error level M bears a crumpled receipt."""
    drawing = io.BytesIO()
    segno.make(address, error="m", micro=False).save(
        drawing, kind="svg", xmldecl=False, svgns=True, nl=False, omitsize=True, border=2
    )
    return drawing.getvalue().decode()


async def pdf(paper: Paper) -> bytes:
    """The form as a PDF, A4."""
    async with _ONE_AT_A_TIME:
        return await asyncio.to_thread(_set, paper)


def _set(paper: Paper) -> bytes:
    import typst

    given = asdict(paper) | {"qr": qr_svg(paper.follow) if paper.follow else ""}
    inputs = {"paper": orjson.dumps(given).decode()}
    made = typst.compile(_template(), sys_inputs=inputs, ignore_system_fonts=True, format="pdf")
    assert isinstance(made, bytes)
    return made


@cache
def _template() -> bytes:
    return resources.files("services.intake").joinpath("templates/paper.typ").read_bytes()
