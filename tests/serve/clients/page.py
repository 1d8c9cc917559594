#!/usr/bin/env python3
"""The web page in a real browser: drops a picture, asks in Chinese, watches the answer stream, sees a
box drawn; in light and dark, at desktop and phone width. Screenshots go to the folder named last.

usage: page.py URL SCREENSHOT_FOLDER   (needs the playwright package and a chromium)
"""
import base64
import json
import os
import shutil
import struct
import sys
import zlib

from playwright.sync_api import sync_playwright

passed = failed = 0


def check(ok, what):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print("FAIL", what)


def png(w, h):
    row = b"\0" + bytes((220, 40, 40)) * (w // 2) + bytes((30, 60, 200)) * (w - w // 2)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(row * h)) + chunk(b"IEND", b""))


def until(page, expression, seconds):
    """wait_for_function would need eval, which the page's security policy forbids."""
    for _ in range(int(seconds * 10)):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    check(False, f"in {seconds} s: {expression}")


# A drop as a person makes one: a DataTransfer with a file, given to the document.
DROP = """async ([b64, name]) => {
  const bytes = Uint8Array.from(atob(b64), c => c.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, {type: 'image/png'}));
  for (const kind of ['dragenter', 'dragover', 'drop'])
    document.dispatchEvent(new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true}));
}"""

# What the server would send for a box, so that drawing is tested with any model.
BOX = [{"type": "box", "relative": [100, 200, 500, 700], "pixels": [32, 48, 160, 168], "image": 0,
        "label": "red"}]


def add_box(route):
    """Lets the real answer pass and adds a box to its last chunk."""
    answer = route.fetch()
    lines = answer.text().split("\n\n")
    for i, line in enumerate(lines):
        if '"finish_reason":"' in line:
            chunk = json.loads(line[6:])
            chunk["x_grounding"] = BOX
            lines[i] = "data: " + json.dumps(chunk)
    route.fulfill(status=answer.status, headers=answer.headers, body="\n\n".join(lines))


def ask(page, question, width):
    page.evaluate(DROP, [base64.b64encode(png(320, 240)).decode(), "two-colours.png"])
    page.wait_for_selector("#pictures li", timeout=10000)
    until(page, "document.querySelector('#estimate').textContent.includes('token')", 20)
    page.fill("#question", question)
    page.keyboard.press("Enter")
    page.wait_for_selector(".message.assistant", timeout=10000)
    page.wait_for_selector(".message.assistant .tools", timeout=120000)
    check(page.locator(".message.user").last.inner_text().find(question) >= 0, f"question shown ({width})")
    check(len(page.locator(".message.assistant .body").last.inner_text()) > 0, f"answer shown ({width})")
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    check(overflow <= 0, f"no sideways scrolling ({width}): {overflow}")


def visit(browser, url, out, name, width, height, scheme, locale, question, box):
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, locale=locale)
    page = context.new_page()
    errors, requests = [], []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("request", lambda r: requests.append(r.url))
    page.goto(url)
    until(page, "document.querySelector('#notice').textContent.length > 20", 20)
    page.screenshot(path=os.path.join(out, f"{name}-start.png"))
    if box:
        page.route("**/v1/chat/completions", add_box)
    page.fill("#max-tokens", "40")
    ask(page, question, name)
    if box:
        check(page.locator(".boxes svg rect").count() == 1, f"box drawn ({name})")
        frame = page.locator(".boxes svg rect").bounding_box()
        image = page.locator(".boxes img").bounding_box()
        left = (frame["x"] + frame["width"] / 2 - image["x"]) / image["width"]
        check(abs(left - (32 + 160) / 2 / 320) < 0.03, f"box in the right place ({name}): {left}")
    page.locator("details summary").first.click()
    page.screenshot(path=os.path.join(out, f"{name}.png"))
    check(page.locator(".bar span").count() > 0, f"stage bar ({name})")
    page.locator(".tools button[aria-pressed]").click()
    check(page.locator(".tok").count() > 0, f"token probabilities ({name})")
    page.locator(".tok").first.focus()
    page.keyboard.press("ArrowRight")
    check(" %" in page.locator(".body .note").inner_text(), f"a token's alternatives by keyboard ({name})")
    page.screenshot(path=os.path.join(out, f"{name}-tokens.png"))
    page.click("#history-toggle")
    page.wait_for_selector("#history-list li")
    page.screenshot(path=os.path.join(out, f"{name}-history.png"))
    check(page.locator("#history-list li").count() == 1, f"history ({name})")
    before = page.locator("#send").inner_text() if page.locator("#send").is_visible() else ""
    page.evaluate("document.querySelector('#language').click()")
    check(page.locator("#send").inner_text() != before, f"language switches ({name})")
    check(all(r.startswith(url) or r.startswith(("data:", "blob:")) for r in requests), f"nothing from elsewhere ({name})")
    check(not errors, f"no errors in the console ({name}): {errors[:3]}")
    unnamed = page.evaluate("""[...document.querySelectorAll('button, input:not([hidden]), select, textarea')]
        .filter(e => e.offsetParent && !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).length""")
    check(unnamed == 0, f"every control has a name ({name}): {unnamed}")
    context.close()


def two_pictures(browser, url, out):
    """A box on each of two pictures, drawn on the right one; the answer's table as a file; nothing is lost by
    asking before the dry run has answered, nor by opening another conversation."""
    page = browser.new_context(viewport={"width": 1100, "height": 1200}, locale="en", accept_downloads=True).new_page()
    page.goto(url)
    asked = []
    table = "| name | sum |\n|---|---|\n| a, b | =1+1 |\n| c | -2 |"

    def fixed(route):
        asked.append(json.loads(route.request.post_data))
        boxes = [{"type": "box", "relative": [0, 0, 500, 500], "pixels": [0, 0, 160, 120], "image": 0, "image_by": "answer", "label": "one"},
                 {"type": "box", "relative": [500, 500, 1000, 1000], "pixels": [50, 100, 100, 200], "image": 1, "image_by": "answer", "label": "two"}]
        reports = [{"format": "png", "width": w, "height": h, "resized_width": w, "resized_height": h, "orientation": 1,
                    "tokens": 9, "warnings": []} for w, h in ((320, 240), (100, 200))]
        chunks = [{"choices": [{"index": 0, "delta": {"content": table}}], "x_image": reports},
                  {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "x_grounding": boxes}]
        route.fulfill(status=200, headers={"Content-Type": "text/event-stream"},
                      body="".join(f"data: {json.dumps(c)}\n\n" for c in chunks) + "data: [DONE]\n\n")
    page.route("**/v1/chat/completions", fixed)
    held = []
    page.route("**/v1/preprocess", lambda route: held.append(route))
    for i, size in enumerate(((320, 240), (100, 200))):
        page.evaluate(DROP, [base64.b64encode(png(*size)).decode(), f"picture-{i}.png"])
    page.wait_for_selector("#pictures li:nth-child(2)", timeout=10000)
    page.fill("#question", "Where are they?")
    page.keyboard.press("Enter")
    page.wait_for_selector(".message.assistant .tools", timeout=20000)
    for route in held:
        route.continue_()
    parts = asked[0]["messages"][0]["content"]
    check(len([p for p in parts if p["type"] == "image_url"]) == 2, "pictures that are still being measured are sent")
    places = page.evaluate("""[...document.querySelectorAll('.boxes')].map(b => {
      const i = b.querySelector('img').getBoundingClientRect(), r = b.querySelector('rect').getBoundingClientRect();
      return [b.querySelectorAll('rect').length, (r.x + r.width / 2 - i.x) / i.width, (r.y + r.height / 2 - i.y) / i.height]; })""")
    check(len(places) == 2 and all(p[0] == 1 and abs(p[1] - w) < .03 and abs(p[2] - w) < .03 for p, w in zip(places, (.25, .75))),
          f"a box on each of two pictures: {places}")
    page.screenshot(path=os.path.join(out, "two-pictures.png"))
    with page.expect_download() as got:
        page.get_by_role("button", name="CSV", exact=True).click()
    with open(got.value.path(), encoding="utf-8-sig", newline="") as f:
        check(f.read() == 'name,sum\r\n"a, b",\'=1+1\r\nc,-2', "the table as CSV")
    with page.expect_download() as got:
        page.get_by_role("button", name="Boxes as JSON", exact=True).click()
    with open(got.value.path(), encoding="utf-8") as f:
        boxes = json.load(f)
    want = [{"picture": "picture-0.png", "width": 320, "height": 240, "boxes": [{"label": "one", "box": [0, 0, 160, 120]}], "points": []},
            {"picture": "picture-1.png", "width": 100, "height": 200, "boxes": [{"label": "two", "box": [50, 100, 100, 200]}], "points": []}]
    check(boxes == want and got.value.suggested_filename == "boxes.json", f"the boxes as JSON: {boxes}")


def stop_and_again(browser, url):
    page = browser.new_context(viewport={"width": 1100, "height": 800}, locale="en").new_page()
    page.goto(url)
    page.fill("#max-tokens", "3500")

    def endless(route):                 # whatever the model: it goes on until it is stopped
        body = json.loads(route.request.post_data)
        route.continue_(post_data=json.dumps({**body, "ignore_eos": body["max_tokens"] > 100, "cache": False}))
    page.route("**/v1/chat/completions", endless)
    page.fill("#question", "Count to one thousand.")
    page.keyboard.press("Enter")
    page.wait_for_selector("#stop:not([hidden])", timeout=10000)
    page.click("#stop")
    page.wait_for_selector("#send:not([hidden])", timeout=10000)
    check(page.locator(".message.assistant .tools").count() == 1, "stop ends the answer")
    page.fill("#max-tokens", "5")
    page.locator(".tools button").first.click()
    page.wait_for_timeout(300)
    page.wait_for_selector(".message.assistant .tools", timeout=60000)
    check(page.locator(".message.assistant").count() == 1, "again replaces the answer")
    page.fill("#max-tokens", "3500")
    page.fill("#question", "Count on.")
    page.keyboard.press("Enter")
    page.wait_for_selector("#stop:not([hidden])", timeout=10000)
    page.click("#history-toggle")
    page.click("#new-chat")
    page.wait_for_selector("#send:not([hidden])", timeout=10000)
    page.wait_for_timeout(300)
    check(page.locator(".message").count() == 0, "a new conversation is empty although an answer was being written")
    check(page.locator("#history-list li").count() == 1, "... and the old one is in the history, once")
    page.locator("#history-list li button").first.click()
    check(page.locator(".message").count() == 4, "... with the answer that was cut off")


def hostile_markdown(browser, url):
    page = browser.new_page()
    page.goto(url)
    found = page.evaluate("""async () => {
      const m = await import('/web/markdown.js');
      const d = document.createElement('div');
      d.append(...m.markdown('<img src=x onerror=alert(1)> **b** [a](javascript:alert(1)) [k](https://e.org/)\\n'
        + '<script>alert(1)</script>\\n\\n| a | b |\\n|---|---|\\n| 1 | <b>2</b> |\\n\\n```\\n<i>\\n```\\n- x\\n- y'));
      return [d.querySelectorAll('img, script, i, b').length, d.querySelectorAll('a').length,
              d.querySelectorAll('td').length, d.querySelectorAll('li').length, d.querySelector('a').href]; }""")
    check(found == [0, 1, 2, 2, "https://e.org/"], f"Markdown is safe: {found}")


def main():
    url, out = sys.argv[1].rstrip("/"), sys.argv[2]
    os.makedirs(out, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        visit(browser, url, out, "desktop-light-zh", 1280, 860, "light", "zh-CN", "图片里有什么颜色？", True)
        visit(browser, url, out, "desktop-dark-en", 1280, 860, "dark", "en", "Which colours are there?", False)
        visit(browser, url, out, "phone-light-en", 390, 844, "light", "en", "Which colours are there?", True)
        visit(browser, url, out, "phone-dark-zh", 360, 740, "dark", "zh-CN", "图片里有什么颜色？", False)
        stop_and_again(browser, url)
        two_pictures(browser, url, out)
        hostile_markdown(browser, url)
        browser.close()
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
