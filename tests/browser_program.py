"""Opens a page of `keras-mobilenets app web` in headless Chromium, and uses it as a person would.

Of tests/test_apps_browser.py, in the environment that tests/environments/run makes: `browser_program.py REQUEST`, a
JSON object {"page": folder, "pictures": [...], "camera": bool, "shots": folder or null}; prints what was seen, as JSON.
"""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import sys
import threading

from playwright.sync_api import sync_playwright

PHONE = {"width": 390, "height": 844}
SEEN = """() => ({
  names: [...document.querySelectorAll("#result li span")].map(one => one.textContent),
  scores: [...document.querySelectorAll("#result i")].map(one => Number(one.style.getPropertyValue("--share"))),
  status: document.querySelector("#status").textContent,
  bad: document.querySelector("#status").classList.contains("bad"),
  live: document.querySelector("#result").getAttribute("aria-live"),
  width: [document.documentElement.scrollWidth, innerWidth],
})"""
PIXELS = """async (address) => {
  const image = await import(new URL("image.js", document.baseURI).href);
  const about = await (await fetch("model.json")).json();
  const picture = await image.open(await (await fetch(address)).blob());
  return [...image.pixelsOf(picture, image.boxOf(image.sizeOf(picture), about.input, about.crops), about.input)];
}"""
FORGET = "document.querySelector('#status').textContent = ''"
KEPT = """async () => navigator.serviceWorker.controller
  && (await (await caches.open(location.pathname)).keys()).some(one => one.url.endsWith("model.tflite"))"""
ANSWER = """async (address) => {
  const module = one => import(new URL(one, document.baseURI).href);
  const [app, image] = [await module("app.js"), await module("image.js")];
  const answer = await app.analyse(await image.open(await (await fetch(address)).blob()));
  return JSON.parse(JSON.stringify(answer, (_, value) => ArrayBuffer.isView(value) ? [...value] : value));
}"""
CONSENT = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def until(page, condition, seconds=60):
    """Waits in Python: the page's policy lets nobody evaluate text inside of it, as Playwright's own waiting would."""
    for _ in range(seconds * 50):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    raise TimeoutError(condition)


def serve(folder):
    handler = functools.partial(Quiet, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def ask(page, path):
    """What the page says of a picture."""
    page.evaluate(FORGET)
    page.set_input_files("#file", path)
    until(page, "document.querySelector('#status').textContent")
    return page.evaluate(SEEN)


def by_keyboard(page):
    """The controls in the order in which the Tab key comes to them."""
    found = []
    for _ in range(3):
        page.keyboard.press("Tab")
        found.append(page.evaluate("document.activeElement.id"))
    return found


def camera(page):
    page.evaluate(FORGET)
    page.click("#camera")
    until(page, "/Model/.test(document.querySelector('#status').textContent)")
    on = page.evaluate(SEEN)
    page.click("#camera")
    return {"on": on, "off": page.evaluate(SEEN), "pressed": page.get_attribute("#camera", "aria-pressed")}


def shoot(page, folder, name):
    for kind, size in (("desktop", {"width": 1280, "height": 800}), ("phone", PHONE)):
        for scheme in ("light", "dark"):
            page.set_viewport_size(size)
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=f"{folder}/{name}-{kind}-{scheme}.png", full_page=True)


def main(request):
    server = serve(request["page"])
    address = f"http://127.0.0.1:{server.server_port}/"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", *CONSENT])
        page = browser.new_context(permissions=["camera"]).new_page()
        errors, hosts = [], set()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda one: hosts.add(one.url.split("/")[2]) if one.url.startswith("http") else None)
        page.goto(address)
        page.wait_for_selector("html[data-ready]", timeout=60_000)
        seen = {"keyboard": by_keyboard(page), "answers": [ask(page, path) for path in request["pictures"]]}
        seen["pixels"] = [page.evaluate(PIXELS, one) for one in request.get("pixels", ())]
        seen["decoded"] = [page.evaluate(ANSWER, one) for one in request.get("decoded", ())]
        page.set_viewport_size(PHONE)
        seen["phone"] = page.evaluate(SEEN)["width"]
        if request.get("shots"):
            shoot(page, request["shots"], "page")
        if request.get("camera"):
            seen["camera"] = camera(page)
        until(page, KEPT)
        server.shutdown()
        server.server_close()
        page.reload()
        page.wait_for_selector("html[data-ready]", timeout=60_000)
        seen["offline"] = ask(page, request["pictures"][0])
        page.goto(f"file://{request['page']}/index.html")
        seen["as_file"] = page.inner_text("#outdated") if page.is_visible("#outdated") else ""
        browser.close()
    print(json.dumps({**seen, "errors": errors, "foreign": sorted(hosts - {address.split("/")[2]})}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
