"""The dashboard in a browser: from a red number to the dossier behind it, and to the sheet with the same figures.

Needs Debian's Chromium (make test-system). LIENTHONG_SCREENSHOTS=folder keeps what it looks like.
"""

import asyncio
import io
import os
import shutil
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import openpyxl
import pytest
from playwright.async_api import Browser, Page, async_playwright

from shared.contracts.codes import LOCAL_ZONE
from shared.security.tokens import Role
from tests.harness import Backing, RunningSite, real_services, running_site
from tests.integration.test_stats import publish
from tests.property.indicator_register import register

pytestmark = pytest.mark.system
CHROMIUM = shutil.which("chromium")
SIZES = {"1440": (1440, 900), "320": (320, 800)}


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    assert CHROMIUM, "these tests drive Chromium: apt-get install chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.fixture
async def site(backing: Backing) -> AsyncIterator[RunningSite]:
    async with running_site(backing, *real_services("intake", "routing", "stats")) as site:
        await site.reading()
        await publish(site, register(7, 60))
        yield site


async def log_in(page: Page, site: RunningSite, role: Role, agency: str | None, subtree: bool = False) -> None:
    token = site.token(role, agency, subtree=subtree)["Authorization"].removeprefix("Bearer ")
    await page.goto(f"{site.urls['stats']}/session")
    await page.get_by_label("Mã truy cập").fill(token)
    await page.get_by_role("button", name="Đăng nhập").click()
    await page.wait_for_url(f"{site.urls['stats']}/")


async def keep(page: Page, name: str) -> None:
    if folder := os.environ.get("LIENTHONG_SCREENSHOTS"):
        await page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


async def test_from_a_red_number_to_its_dossiers_and_the_sheet(browser: Browser, site: RunningSite) -> None:
    page = await browser.new_page(viewport={"width": 1440, "height": 900})
    await page.goto(f"{site.urls['stats']}/")
    link = page.locator("section[aria-labelledby=b2] a", has_text="–").first
    await link.click()
    assert await page.get_by_label("Mã truy cập").is_visible()  # a number opens by right only

    await log_in(page, site, Role.LEADER, "H55", subtree=True)
    red = page.locator("section[aria-labelledby=b3] dl div.late a").last
    shown = int((await red.inner_text()).replace(".", ""))
    assert shown > 0
    address = str(await red.get_attribute("href"))
    await red.click()
    await page.wait_for_url("**/dossiers?*")
    rows = await page.locator("tbody tr").all()
    assert len(rows) == shown
    codes = {await row.locator("th").inner_text() for row in rows}
    question = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    asked = await site.client("stats").get("/v1/indicators/dossiers", params=question)
    assert codes == {item["code"] for item in asked.json()["items"]}
    await keep(page, "dossiers-1440")

    await page.goto(f"{site.urls['stats']}/")
    async with page.expect_download() as started:
        await page.get_by_role("link", name="Biểu II.06a").click()
    book = openpyxl.load_workbook(io.BytesIO(Path(await (await started.value).path()).read_bytes()), data_only=True)
    total = [cell.value for cell in list(book.worksheets[0].rows)[-1]][2:]
    month = datetime.now(LOCAL_ZONE)
    month_question = {"agency": "H55", "subtree": "true", "from": f"{month:%Y-%m}-01", "to": f"{month:%Y-%m-%d}"}
    figures = (await site.client("stats").get("/v1/indicators", params=month_question)).json()
    assert total[0] == figures["received"]["total"]
    assert total[3] == figures["received"]["carried_over"]
    assert total[4:8] == [figures["resolved"][part] for part in ("total", "early", "on_time", "late")]
    assert total[8:] == [figures["pending"][part] for part in ("total", "within", "overdue")]
    await page.close()


@pytest.mark.parametrize("size", SIZES)
async def test_it_fits_and_reads_at_every_width(browser: Browser, site: RunningSite, size: str) -> None:
    width, height = SIZES[size]
    page = await browser.new_page(viewport={"width": width, "height": height})
    for name, path in (("public", "/"), ("wall", "/?wall=true"), ("agency", "/?agency=H55.242")):
        await page.goto(site.urls["stats"] + path)
        await keep(page, f"{name}-{size}")
        await usable(page)
    await log_in(page, site, Role.LEADER, "H55", subtree=True)
    await keep(page, f"leader-{size}")
    await usable(page)
    await page.close()


async def usable(page: Page) -> None:
    """Of WCAG 2.2 AA what a program can see: nothing wider than the screen (1.4.10), names of what can be pressed (4.1.2),
    targets of 24 pixels (2.5.8), contrast of texts (1.4.3), one order of headings (1.3.1)."""
    found: dict[str, Any] = await page.evaluate(CHECKS)
    assert found["wide"] <= 0, f"{found['wide']} pixels wider than the screen"
    assert found["nameless"] == []
    assert found["small"] == []
    assert found["pale"] == []
    assert found["headings"] == sorted(found["headings"][:1]) + found["headings"][1:]
    assert found["headings"][0] == 1
    assert set(found["headings"][1:]) <= {2}
    assert found["lang"] == "vi"


CHECKS = """() => {
  const seen = (e) => e.getClientRects().length && getComputedStyle(e).visibility !== 'hidden';
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (e) => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  const pale = [];
  for (const e of document.querySelectorAll('body *')) {
    if (!seen(e) || ![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) pale.push(e.outerHTML.slice(0, 80));
  }
  const pressed = [...document.querySelectorAll('a[href], button, input:not([type=hidden])')].filter(seen);
  const inText = (e) => e.closest('p') && e.closest('p').textContent.trim() !== e.textContent.trim();
  const small = pressed.filter((e) => !inText(e) && !e.classList.contains('skip')).filter((e) => {
    const box = e.getBoundingClientRect(); return Math.min(box.width, box.height) < 24; });
  const named = (e) => e.getAttribute('aria-label') || e.textContent.trim() || (e.labels && e.labels.length);
  return {
    wide: document.documentElement.scrollWidth - innerWidth,
    nameless: pressed.filter((e) => !named(e)).map((e) => e.outerHTML.slice(0, 80)),
    small: small.map((e) => e.outerHTML.slice(0, 120)),
    pale,
    headings: [...document.querySelectorAll('h1, h2, h3')].map((e) => Number(e.tagName[1])),
    lang: document.documentElement.lang,
  };
}"""


async def test_it_is_live_with_scripts_and_whole_without(browser: Browser, site: RunningSite) -> None:
    without = await browser.new_context(java_script_enabled=False)
    still = await without.new_page()
    await still.goto(f"{site.urls['stats']}/")
    assert await still.get_by_role("heading", name="Năm nay").is_visible()

    page = await browser.new_page()
    await log_in(page, site, Role.LEADER, "H55", subtree=True)
    year = page.locator("section[aria-labelledby=b3] dl a").first
    before = int((await year.inner_text()).replace(".", ""))
    await page.evaluate("window.sameDocument = true")
    more = [(agency, list(events)) for agency, events in register(8, 90) if events[0].envelope.subject[-4:] > "0060"]
    await publish(site, more)
    async with asyncio.timeout(30):
        while int((await year.inner_text()).replace(".", "")) == before:
            await page.wait_for_timeout(50)
    assert await page.evaluate("window.sameDocument")  # figures came by themselves, the page was not loaded again
    await without.close()
    await page.close()
