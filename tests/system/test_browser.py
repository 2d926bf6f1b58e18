"""A counter day in Debian's Chromium, and a citizen on a small screen. Screenshots lie in build/screens, to be looked at."""

import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Page, async_playwright

from shared.security.tokens import Role
from tests.harness import RunningSite
from tests.integration.intake_site import HOME, LAND, site

__all__ = ["site"]

pytestmark = pytest.mark.system

SCREENS: Final = Path(os.environ.get("LIENTHONG_SCREENS", "build/screens"))
WIDE, SMALL = {"width": 1280, "height": 900}, {"width": 320, "height": 640}


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("Chromium is missing: apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        await browser.close()


async def page_of(chromium: Browser, size: dict[str, int] = WIDE, **more: Any) -> Page:
    """A page without scripts: nothing here may need one. It waits long on a busy machine."""
    context = await chromium.new_context(viewport=size, locale="vi-VN", java_script_enabled=True, **more)  # type: ignore[arg-type]
    context.set_default_timeout(30_000)
    page = await context.new_page()
    foreign: list[str] = []
    page.on("request", lambda request: foreign.append(request.url) if "127.0.0.1" not in request.url else None)
    page.on(
        "console", lambda message: foreign.append(message.text) if "Content Security Policy" in message.text else None
    )
    page.foreign = foreign  # type: ignore[attr-defined]
    return page


async def seen(page: Page, name: str) -> None:
    """A screenshot; nothing from elsewhere, nothing wider than the screen, every control named and large enough."""
    SCREENS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=SCREENS / f"{name}.png", full_page=True)
    assert page.foreign == [], page.foreign  # type: ignore[attr-defined]
    wide = await page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0, f"{name}: {wide} px too wide"
    assert await page.evaluate(_UNNAMED) == [], name
    assert await page.evaluate("document.documentElement.lang") in ("vi", "en")
    assert await page.locator("h1").count() == 1, name
    assert await page.evaluate(_FAINT) == [], name


_UNNAMED = """[...document.querySelectorAll('input:not([type=hidden]),select,textarea,button,a')]
  .filter(e => !(e.labels && e.labels.length) && !e.textContent.trim() && !e.getAttribute('aria-label'))
  .map(e => e.outerHTML)"""

# WCAG 1.4.3: text against the nearest background that is painted, at least 4.5 : 1.
_FAINT = """(() => {
  const lum = c => { const [r, g, b] = c.map(v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
    return .2126 * r + .7152 * g + .0722 * b; };
  const rgb = s => s.match(/[\\d.]+/g).map(Number);
  const ground = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c.slice(0, 3); } return [255, 255, 255]; };
  const bad = [];
  for (const e of document.querySelectorAll('main *, header *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    if (!e.checkVisibility()) continue;
    const a = lum(rgb(getComputedStyle(e).color).slice(0, 3)), b = lum(ground(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) bad.push(ratio.toFixed(2) + ' ' + e.outerHTML.slice(0, 80));
  }
  return bad; })()"""


async def log_in(page: Page, site: RunningSite, role: Role, agency: str = HOME) -> None:
    await page.goto(site.urls["intake"] + "/desk")
    await page.get_by_label("Mã truy cập").fill(site.services["intake"].tokens.issue(role, agency=agency))
    await page.get_by_role("button", name="Đăng nhập").click()
    await page.get_by_role("heading", name="Việc cần làm").wait_for()


async def press(page: Page, operation: str, opened: bool = False, **fields: str) -> None:
    """Does one operation on the dossier's page."""
    form = page.locator(f"form[action$='/{operation}']")
    if not await form.is_visible():
        await page.locator("details", has=form).locator("summary").click()
    for name, value in fields.items():
        field = form.locator(f"[name='{name}']")
        if await field.evaluate("e => e.tagName") == "SELECT":
            await field.select_option(value)
        else:
            await field.fill(value)
    await form.locator("button[type=submit]").click()
    await page.locator(".done").wait_for()


async def test_a_counter_day_and_a_citizen_on_a_small_screen(site: RunningSite, chromium: Browser) -> None:
    desk, officer = await page_of(chromium), await page_of(chromium)
    await desk.goto(site.urls["intake"] + "/desk")
    await seen(desk, "01-login")
    await log_in(desk, site, Role.DESK)
    await log_in(officer, site, Role.OFFICER)
    await seen(desk, "02-work-empty")

    # Received, by the keyboard alone.
    await desk.get_by_role("link", name="Tiếp nhận hồ sơ mới").press("Enter")
    await desk.get_by_label("Tên hoặc mã thủ tục").fill("tinh trang hon nhan")
    await desk.keyboard.press("Enter")
    await seen(desk, "03-choose")
    await desk.get_by_role("link", name="Cấp Giấy xác nhận tình trạng hôn nhân").press("Enter")
    await desk.get_by_label("Họ và tên, hoặc tên tổ chức").fill("Nguyễn Thị Bưởi")
    await desk.get_by_label("Số điện thoại").fill("12")
    await seen(desk, "04-receive")
    await desk.keyboard.press("Enter")
    await desk.locator("#phone-wrong").wait_for()
    await seen(desk, "05-receive-wrong")
    await desk.get_by_label("Số điện thoại").fill("0912 345 678")
    await desk.get_by_label("Địa chỉ").fill("Xóm 5, xã Trung Hội, tỉnh Thái Nguyên")
    await desk.get_by_role("button", name="Tiếp nhận hồ sơ").click()
    await desk.locator(".done").wait_for()
    await seen(desk, "06-received")
    code = re.search(r"/desk/dossiers/([^?]+)", desk.url)
    assert code is not None
    address = f"{site.urls['intake']}/desk/dossiers/{code[1]}"

    await desk.get_by_role("link", name="In: Giấy tiếp nhận").click()
    await seen(desk, "07-receipt")
    pin = await desk.locator(".follow strong").inner_text()
    assert re.fullmatch(r"\d{6}", pin)
    pdf = await desk.context.request.get(f"{address}/forms/receipt.pdf")
    assert (await pdf.body())[:5] == b"%PDF-"

    await officer.goto(address)
    await press(officer, "start")
    await desk.goto(address)
    await press(desk, "supplement-request", reason="Bản gốc giấy chứng minh nơi cư trú")
    await seen(desk, "08-supplement-requested")
    await desk.goto(f"{address}/forms/supplement")
    await seen(desk, "09-supplement-form")
    await desk.goto(site.urls["intake"] + "/desk")
    await seen(desk, "10-work")

    citizen = await page_of(chromium, SMALL)
    await citizen.goto(site.urls["intake"] + "/track")
    await seen(citizen, "11-track-look-small")
    await citizen.get_by_label("Mã hồ sơ trên giấy tiếp nhận").fill(code[1])
    await citizen.get_by_role("button", name="Tiếp tục").click()
    await citizen.get_by_label(re.compile("Mã tra cứu")).fill(pin)
    await citizen.get_by_role("button", name="Tra cứu").click()
    await citizen.get_by_text("Bản gốc giấy chứng minh nơi cư trú").wait_for()
    await citizen.get_by_text("Vì sao hẹn ngày này?").click()
    await seen(citizen, "12-track-supplement-small")

    await desk.goto(address)
    await press(desk, "supplement")
    await officer.goto(address)
    await press(officer, "resolution", result="granted")
    await desk.goto(address)
    await press(desk, "return", by="counter")
    await seen(desk, "13-returned")
    await desk.goto(f"{address}/forms/control")
    await seen(desk, "14-control-slip")

    await citizen.reload()
    await citizen.get_by_label("Rất hài lòng").check()
    await citizen.get_by_role("button", name="Gửi đánh giá").click()
    await citizen.get_by_text("Cảm ơn ông/bà đã đánh giá.").wait_for()
    await citizen.get_by_text("Ông/bà đã đánh giá: Rất hài lòng").wait_for()
    await seen(citizen, "15-track-rated-small")

    await desk.goto(site.urls["intake"] + "/desk/register")
    await seen(desk, "16-register")
    await desk.goto(address + "?lang=en")
    await seen(desk, "17-dossier-english")


async def test_a_petition_from_the_desk_to_its_rating(site: RunningSite, chromium: Browser) -> None:
    desk, land = await page_of(chromium), await page_of(chromium)
    await log_in(desk, site, Role.DESK)
    await log_in(land, site, Role.DESK, LAND)
    await desk.get_by_role("link", name="Phản ánh", exact=True).click()
    await seen(desk, "50-petitions-empty")
    await desk.get_by_role("link", name="Ghi nhận phản ánh mới").press("Enter")
    await desk.get_by_label("Khiếu nại").check()
    await desk.get_by_label("Nội dung").fill("Thửa đất nhà tôi bị đo sai hai lần.\nXin đo lại.")
    await desk.get_by_label("Họ và tên").fill("Lý Thị Mận")
    await desk.get_by_label("Số điện thoại").fill("12")
    await desk.get_by_role("button", name="Ghi nhận").click()
    await desk.locator("#phone-wrong").wait_for()
    await seen(desk, "51-petition-wrong")
    await desk.get_by_label("Số điện thoại").fill("0912 000 111")
    await desk.get_by_role("button", name="Ghi nhận").click()
    await desk.locator(".done").wait_for()
    await seen(desk, "52-petition-filed")
    address = desk.url.partition("?")[0]
    await desk.set_viewport_size(SMALL)  # type: ignore[arg-type]
    await seen(desk, "53-petition-small")
    await desk.get_by_label("Chuyển đến").select_option(LAND)
    await desk.get_by_label("Lý do").fill("Thuộc thẩm quyền đăng ký đất đai")
    await desk.get_by_role("button", name="Chuyển").click()
    await desk.locator(".done").wait_for()
    await seen(desk, "54-petitions-small")

    await land.goto(site.urls["intake"] + "/desk/petitions")
    await land.locator(f"a[href='{address.removeprefix(site.urls['intake'])}']").click()
    await land.get_by_label("Nội dung trả lời").fill("Đã đo lại và sửa sổ; xin lỗi bà.")
    await land.get_by_role("button", name="Trả lời").click()
    await land.locator(".done").wait_for()
    await land.get_by_label("Người gửi hài lòng đến mức nào").select_option("satisfied")
    await land.get_by_role("button", name="Ghi đánh giá").click()
    await land.locator(".done").wait_for()
    await seen(land, "55-petition-rated")
    await land.goto(site.urls["intake"] + "/desk/petitions?show=answered")
    await seen(land, "56-petitions-answered")
    await land.get_by_role("link", name="English").click()
    await land.get_by_role("heading", name="Answered").wait_for()
    await seen(land, "57-petitions-answered-english")


async def test_every_page_is_readable_at_320_px(site: RunningSite, chromium: Browser) -> None:
    page = await page_of(chromium, SMALL)
    await log_in(page, site, Role.DESK)
    base = site.urls["intake"]
    await page.goto(f"{base}/desk/new/1.001193")
    await page.get_by_label("Họ và tên, hoặc tên tổ chức").fill("Trần Văn Cảnh")
    await seen(page, "20-receive-small")
    await page.get_by_role("button", name="Tiếp nhận hồ sơ").click()
    await page.locator(".done").wait_for()
    await seen(page, "21-dossier-small")
    await page.get_by_role("link", name="In: Giấy tiếp nhận").click()
    await seen(page, "22-receipt-small")
    for number, path in enumerate(
        (
            "/desk",
            "/desk/new",
            "/desk/register",
            "/desk/petitions/new",
            "/procedures",
            "/procedures/1.013978",
            "/agencies",
            "/track",
        ),
        23,
    ):
        await page.goto(base + path)
        await seen(page, f"{number}{path.replace('/', '-')}-small")


async def test_public_pages_in_the_dark_and_in_english(site: RunningSite, chromium: Browser) -> None:
    page = await page_of(chromium, WIDE, color_scheme="dark")
    base = site.urls["intake"]
    await page.goto(f"{base}/procedures?q=dat+dai")
    await seen(page, "40-procedures-dark")
    await page.get_by_role("link", name="Hòa giải tranh chấp đất đai").click()
    await seen(page, "41-procedure-dark")
    await page.goto(f"{base}/agencies?lang=en")
    await seen(page, "42-agencies-dark")
    await page.goto(f"{base}/desk")
    await seen(page, "43-login-dark-english")
