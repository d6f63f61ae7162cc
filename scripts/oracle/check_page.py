#!/usr/bin/env python3
"""Drives the page of `lesion-gpu serve` in a headless Chromium.

    lesion-gpu serve runs/resnet18-001 runs/unet-small-001 &
    scripts/oracle/check_page.py photo.jpg [--url http://127.0.0.1:8080] [--axe axe.min.js] [--shots DIR] [--chromium FILE]

On a desktop and two phones, light and dark: a picture is chosen, dropped and pasted; bars, map, slider, outline and its measures,
another class, an error, the history, the guide, the report and the colours are looked at; nothing may be asked of others than the server, written
to the console, or wider than the screen. With --axe (npm pack axe-core) each view is checked for accessibility; --shots keeps
pictures of them. The server must have a model that classifies and one that segments. Needs playwright.
"""

import argparse
import base64
import json
import pathlib
import sys
import time
import urllib.request

from playwright.sync_api import sync_playwright

SCREENS = [(1280, 900, "light"), (390, 844, "dark"), (360, 740, "light")]
AXE = """;axe.run(document, {resultTypes: ['violations']}).then((found) => JSON.stringify(found.violations.map((v) =>
    `${v.id} (${v.impact}): ${v.nodes[0].target.join(' ')}`)))"""
GIVE = """([data, kind]) => {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const files = new DataTransfer();
    files.items.add(new File([bytes], `${kind}.jpg`, { type: 'image/jpeg' }));
    const event = kind === 'drop'
        ? new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer: files })
        : new ClipboardEvent('paste', { bubbles: true, clipboardData: files });
    document.getElementById('drop').dispatchEvent(event);
}"""

BACK = {"light": "rgb(246, 247, 247)", "dark": "rgb(16, 22, 21)", "print": "rgb(255, 255, 255)"}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("picture", type=pathlib.Path)
parser.add_argument("--url", default="http://127.0.0.1:8080")
parser.add_argument("--axe", type=pathlib.Path)
parser.add_argument("--shots", type=pathlib.Path)
parser.add_argument("--chromium")
args = parser.parse_args()
failed = []


def check(holds, what):
    print("ok   " if holds else "FAIL ", what)
    if not holds:
        failed.append(what)


def wait(page, expression, seconds=60):
    """The page's policy forbids what playwright's own waiting does, so it is asked again and again."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        if time.monotonic() > end:
            sys.exit(f"timeout: {expression}")
        time.sleep(0.05)


def look(page, screen, view):
    """A screenshot, and what axe says."""
    if args.shots:
        args.shots.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=args.shots / f"{screen}-{view}.png", full_page=view != "error")
    if args.axe and view != "print":
        found = json.loads(page.evaluate(args.axe.read_text() + AXE))
        check(not found, f"{screen} {view}: axe finds {found or 'nothing'}")
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    check(wide <= 0, f"{screen} {view}: not wider than the screen")


def back(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def measured():
    """What the API says of the shape of the outline."""
    headers = {"Content-Type": "application/octet-stream"}
    request = urllib.request.Request(f"{args.url}/v1/segment", args.picture.read_bytes(), headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["images"][0]["shape"]


def visit(context, screen, scheme):
    page, errors, asked = context.new_page(), [], []
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("request", lambda r: asked.append(r.url))
    page.goto(args.url)
    wait(page, "document.getElementById('about').textContent.length > 0")
    check(back(page) == BACK[scheme], f"{screen}: colours as the system says")
    look(page, screen, "start")

    page.set_input_files("#file", args.picture)
    wait(page, "!document.getElementById('overlay').hidden && document.getElementById('overlay').naturalWidth > 0")
    time.sleep(0.5)
    bars = page.evaluate(
        "[...document.querySelectorAll('#classes tbody tr')].map((row) => [parseFloat(row.querySelector('.number').textContent),"
        "100 * row.querySelector('.fill').clientWidth / row.querySelector('.rail').clientWidth])"
    )
    check(len(bars) > 1 and all(abs(said - drawn) < 1.5 for said, drawn in bars), f"{screen}: {len(bars)} bars are as long as said")
    check(bars == sorted(bars, reverse=True), f"{screen}: the likeliest first")
    layers = page.evaluate(
        "['picture', 'overlay', 'contour'].map((id) => JSON.stringify(document.getElementById(id).getBoundingClientRect()))"
    )
    check(len(set(layers)) == 1, f"{screen}: map and outline lie on the picture")
    shape, said = measured(), page.locator("#shape-facts").inner_text()
    facts = [f"{shape['area']:,}\u00a0px²", f"{round(shape['diameter']):,}\u00a0px", f"{shape['border']:.2f}"] if shape else []
    check(all(fact in said for fact in facts) and page.locator("#shape").is_visible() == bool(shape), f"{screen}: measures: {facts}")
    page.locator("#opacity").focus()
    page.keyboard.press("Home")
    check(page.evaluate("getComputedStyle(document.getElementById('overlay')).opacity") == "0", f"{screen}: slider by keyboard")
    for _ in range(60):
        page.keyboard.press("ArrowRight")
    check("60" in page.locator("#opacity-value").inner_text(), f"{screen}: the slider says its value")
    look(page, screen, "result")

    other = page.evaluate("document.getElementById('explained').options[1].text")
    page.select_option("#explained", index=1)
    wait(page, f"document.getElementById('caption').textContent.includes({json.dumps(other)})")
    page.uncheck("#contour-on")
    check(page.locator("#contour").is_hidden(), f"{screen}: the outline can be hidden")
    page.check("#contour-on")
    page.set_input_files("#file", [{"name": "bad.png", "mimeType": "image/png", "buffer": b"nonsense"}])
    page.wait_for_selector("#error:not([hidden])")
    check("no known format" in page.locator("#error").inner_text(), f"{screen}: an error in words")
    look(page, screen, "error")
    errors[:] = [error for error in errors if "415" not in error]

    data = base64.b64encode(args.picture.read_bytes()).decode()
    for count, kind in [(2, "drop"), (3, "paste")]:
        page.evaluate(GIVE, [data, kind])
        wait(page, f"document.querySelectorAll('#visits li').length === {count}")
    page.locator("#visits button").last.click()
    check(page.locator("#result-title").inner_text() == args.picture.name, f"{screen}: the history leads back")
    look(page, screen, "history")
    page.emulate_media(media="print")
    check(page.locator("#drop").is_hidden() and page.locator(".banner").is_visible(), f"{screen}: the report has what belongs there")
    check(back(page) == BACK["print"], f"{screen}: paper is white")
    look(page, screen, "print")
    page.emulate_media(media="screen")

    page.goto(f"{args.url}/#guide")
    wait(page, "!document.getElementById('view-guide').hidden && document.querySelectorAll('#guides article').length > 0")
    check(page.locator("#guides article").count() == len(bars), f"{screen}: every class is in the guide")
    look(page, screen, "guide")
    for chosen in ["light", "dark"]:
        page.locator("#theme").click()
        check(back(page) == BACK[chosen], f"{screen}: {chosen} colours can be chosen")
        look(page, screen, f"guide-{chosen}")
    page.emulate_media(media="print")
    check(back(page) == BACK["print"], f"{screen}: paper is white, whatever was chosen")
    page.emulate_media(media="screen")
    page.locator("#theme").click()
    check(back(page) == BACK[scheme], f"{screen}: and the system's again")
    page.goto(f"{args.url}/docs")
    look(page, screen, "docs")
    foreign = [url for url in asked if not url.startswith((args.url, "blob:", "data:"))]
    check(not foreign, f"{screen}: asked of others: {foreign or 'nothing'}")
    check(not errors, f"{screen}: said to the console: {errors or 'nothing'}")


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=args.chromium, args=["--no-sandbox"])
    for width, height, scheme in SCREENS:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        visit(context, f"{width}-{scheme}", scheme)
        context.close()
    browser.close()
sys.exit(f"{len(failed)} failed" if failed else 0)
