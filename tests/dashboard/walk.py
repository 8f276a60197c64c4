"""Walks through the dashboard in a real browser, as somebody would who looks after a proxy.

Owns the proxy that it starts (`speedmimi demo`, and one with tokens), a little load for it, and the browser. Every step
waits for what it wants to see; none sleeps instead. Exits with 1 and the step's name if one fails.

    walk.py --speedmimi target/debug/speedmimi --chromium /usr/bin/chromium [--page URL] [--pictures DIR] [--only NAME]
"""

import argparse
import contextlib
import http.client
import json
import math
import pathlib
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.request

from playwright.sync_api import expect, sync_playwright

PATIENCE_MS = 20_000
# Colours of text and of what is behind it, WCAG 2.2, success criterion 1.4.3.
CONTRAST_MIN = 4.5

AUDIT = r"""
(least) => {
  const faults = [];
  const seen = (e) => e.checkVisibility({visibilityProperty: true}) && e.getClientRects().length > 0;
  const say = (e, what) => faults.push(`${what}: ${e.outerHTML.slice(0, 120)}`);
  const name = (e) => {
    const by = (e.getAttribute('aria-labelledby') || '').split(' ').filter(Boolean);
    if (by.length) return by.map((id) => document.getElementById(id)?.textContent || '').join(' ').trim();
    if (e.getAttribute('aria-label')) return e.getAttribute('aria-label').trim();
    if (e.labels && e.labels.length) return [...e.labels].map((l) => l.textContent).join(' ').trim();
    return e.textContent.trim();
  };
  for (const e of document.querySelectorAll('button, a[href], input, select, dialog[open], [role=img], nav, section')) {
    if (seen(e) && !name(e)) say(e, 'no name');
  }
  for (const e of document.querySelectorAll('img')) if (!e.hasAttribute('alt')) say(e, 'no alt');
  for (const e of document.querySelectorAll('th')) if (!e.getAttribute('scope')) say(e, 'no scope');
  for (const e of document.querySelectorAll('table')) if (!name(e)) say(e, 'no name');
  for (const e of document.querySelectorAll('[style*="url"], [onclick], [onload], script:not([src])')) say(e, 'inline');
  for (const e of document.querySelectorAll('[tabindex]')) if (e.tabIndex > 0) say(e, 'an order of its own');
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  for (const id of new Set(ids)) if (ids.filter((other) => other === id).length > 1) faults.push(`id twice: ${id}`);
  for (const attribute of ['aria-labelledby', 'aria-describedby', 'for']) {
    for (const e of document.querySelectorAll(`[${attribute}]`)) {
      for (const id of e.getAttribute(attribute).split(' ')) if (!document.getElementById(id)) say(e, `${attribute} leads nowhere`);
    }
  }
  if (document.querySelectorAll('h1').length !== 1) faults.push('not one h1');
  if (!document.querySelector('main') || !document.documentElement.lang) faults.push('no main, or no language');
  let level = 0;
  for (const e of document.querySelectorAll('h1, h2, h3, h4')) {
    const own = Number(e.tagName[1]);
    if (own > level + 1) say(e, `a heading of level ${own} after ${level}`);
    level = own;
  }
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((n, at) => at < 3 ? n : n / 255);
  };
  const over = (top, under) => [0, 1, 2].map((n) => top[n] * top[3] + under[n] * (1 - top[3])).concat(1);
  const behind = (e) => {
    const layers = [];
    for (let at = e; at; at = at.parentElement) {
      layers.push(rgba(getComputedStyle(at).backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]);
  };
  const light = ([r, g, b]) => [r, g, b].map((n) => n / 255).map((n) => n <= 0.04045 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4)
    .reduce((sum, n, at) => sum + n * [0.2126, 0.7152, 0.0722][at], 0);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let texts = 0;
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !seen(e) || e.closest('.unseen, .skip, option, noscript')) continue;
    if (document.querySelector('dialog[open]') && !e.closest('dialog')) continue;
    const ground = behind(e);
    const [a, b] = [light(over(rgba(getComputedStyle(e).color), ground)), light(ground)];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    texts += 1;
    if (contrast < least) say(e, `contrast ${contrast.toFixed(2)}`);
  }
  if (texts < 5) faults.push(`only ${texts} texts were looked at`);
  return [...new Set(faults)];
}
"""


class Proxy:
    """A proxy of ours with its own ports."""

    def __init__(self, program, config=None):
        command = [program, "run", "--config", config] if config else [program, "demo", "--port", "0", "--management", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        found = {}
        lines = []
        # The demo tells its addresses by itself; otherwise the first line of the log does.
        wanted = {"proxy": r"proxy\s+http://([\d.:]+)/", "management": r"dashboard\s+http://([\d.:]+)/"}
        if config:
            wanted = {"proxy": r'listen="([\d.:]+)"', "management": r'management="http://([\d.:]+)/"'}
        for line in self.process.stdout:
            line = re.sub(r"\x1b\[[\d;]*m", "", line)
            lines.append(line)
            for name, pattern in wanted.items():
                if match := re.search(pattern, line):
                    found[name] = match[1]
            if len(found) == len(wanted):
                break
        else:
            raise RuntimeError("the proxy did not start:\n" + "".join(lines))
        self.proxy, self.management = found["proxy"], found["management"]
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def ask(self, method, path, body=None, token=None):
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = "Bearer " + token
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.management}{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Load:
    """Some requests a second over a few kept connections, until it is ended."""

    def __init__(self, addr, connections=3, pause=0.02):
        self.ended, self.pause = threading.Event(), pause
        self.threads = [threading.Thread(target=self.run, args=(addr,)) for _ in range(connections)]
        for thread in self.threads:
            thread.start()

    def run(self, addr):
        connection = http.client.HTTPConnection(addr, timeout=10)
        while not self.ended.wait(self.pause):
            try:
                connection.request("GET", "/")
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                connection.close()

    def end(self):
        self.ended.set()
        for thread in self.threads:
            thread.join()


class Walk:
    def __init__(self, options, browser):
        self.options, self.browser = options, browser
        self.proxy = Proxy(options.speedmimi)
        self.load = Load(self.proxy.proxy)
        self.complaints = []

    def end(self):
        self.load.end()
        self.proxy.end()

    @contextlib.contextmanager
    def page(self, width=1280, scheme="light", locale="en-US", proxy=None, stubs=None):
        """A fresh browser on the dashboard. What the console complains of fails the walk."""
        context = self.browser.new_context(viewport={"width": width, "height": 860}, color_scheme=scheme, locale=locale)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None)
        for path, answer in (stubs or {}).items():
            page.route("**" + path, answer)
        page.goto(self.options.page or f"http://{(proxy or self.proxy).management}/")
        try:
            yield page
        finally:
            context.close()

    def live(self, page):
        expect(page.locator("#status")).to_have_attribute("data-state", "live")

    def row(self, page, backend):
        return page.locator("#upstreams tbody tr").filter(has=page.locator(f"bdi.id:text-is('{backend}')"))

    def state(self, page, backend, *names):
        expect(self.row(page, backend).locator(".pill")).to_have_text(re.compile("|".join(names)))

    def audit(self, page, where):
        faults = page.evaluate(AUDIT, CONTRAST_MIN)
        assert not faults, f"{where}: " + "\n".join(faults)

    def fits(self, page, where):
        width, room = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width <= room, f"{where}: {width} px wide in {room}"

    def cell(self, page, backend, title):
        return self.row(page, backend).locator(f"[data-title='{title}']")

    # The steps, in this order.

    def step_numbers_move(self):
        with self.page() as page:
            self.live(page)
            total = page.locator(".tile-requests .facts > div").nth(3).locator("dd")
            for _ in range(2):
                before = total.inner_text()
                expect(total).not_to_have_text(before)
                after = total.inner_text()
                assert count(after) > count(before), f"{before} to {after}"
            expect(page.locator("#figure-requests")).to_have_text(re.compile(r"[1-9]"))
            expect(page.locator(".tile-requests .curve-1")).to_have_attribute("d", re.compile("L"))
            expect(page.locator(".tile-requests svg")).to_have_attribute("aria-label", re.compile("last 5 minutes"))
            expect(self.cell(page, "fast", "Share, 10 s")).to_have_text(re.compile(r"[1-9].*%"))
            expect(page.locator("#worker-table tbody tr").first).to_be_visible()
            page.locator(".tile-requests svg").hover()

    def step_drain_and_take_back(self):
        with self.page() as page:
            self.live(page)
            # Something that lasts, so that there is something to drain.
            streams = [self.events() for _ in range(6)]
            page.get_by_role("button", name="Drain fast", exact=True).click()
            dialog = page.get_by_role("dialog", name="Drain fast?")
            expect(dialog).to_contain_text("no new requests")
            expect(dialog).to_contain_text("2 others in use of demo")
            expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
            self.audit(page, "drain")
            dialog.get_by_role("button", name="Cancel").click()
            expect(dialog).to_have_count(0)
            self.state(page, "fast", "active")
            page.get_by_role("button", name="Drain fast", exact=True).click()
            dialog.get_by_role("button", name="Drain", exact=True).click()
            self.state(page, "fast", "draining", "disconnected")
            expect(page.locator(".toast")).to_contain_text("fast gets no new requests")
            expect(page.get_by_role("button", name="Take back fast")).to_be_focused()
            expect(self.row(page, "fast").locator("[data-title='Share, 10 s']")).to_have_text(re.compile(r"^0 %"))
            for stream in streams:
                stream.close()
            self.state(page, "fast", "disconnected")
            page.get_by_role("button", name="Take back fast").click()
            page.get_by_role("dialog").get_by_role("button", name="Take back", exact=True).click()
            self.state(page, "fast", "active")
            expect(page.locator("#change-table")).to_contain_text("took back backend demo/fast")

    def events(self):
        stream = socket.create_connection(tuple(self.proxy.proxy.split(":")), 10)
        stream.sendall(b"GET /events HTTP/1.1\r\nHost: demo\r\n\r\n")
        stream.recv(1)
        return stream

    def step_drain_by_force(self):
        with self.page() as page:
            self.live(page)
            streams = [self.events() for _ in range(6)]
            page.get_by_role("button", name="Drain steady", exact=True).click()
            dialog = page.get_by_role("dialog")
            dialog.get_by_role("checkbox", name="Cut what is still under way after").check()
            expect(dialog).to_contain_text("break off for their clients")
            dialog.get_by_role("spinbutton", name="Seconds until it is cut").fill("0")
            with page.expect_request("**/backends/disconnect*") as sent:
                dialog.get_by_role("button", name="Drain", exact=True).click()
            assert sent.value.post_data_json["force"] is True and sent.value.post_data_json["timeout"] == "0s"
            assert re.match(r'"[^"]+"$', sent.value.headers["if-match"]), sent.value.headers
            self.state(page, "steady", "disconnected")
            for stream in streams:
                stream.close()
            self.proxy.ask("POST", "/api/v1/backends/connect", {"upstream": "demo", "backend_id": "steady"})
            self.state(page, "steady", "active")

    def step_change_weight(self):
        with self.page() as page:
            self.live(page)
            page.get_by_role("button", name="Change weight and limit of steady").click()
            dialog = page.get_by_role("dialog")
            weight = dialog.get_by_role("spinbutton", name=re.compile("^Weight"))
            expect(weight).to_have_value("200")
            submit = dialog.get_by_role("button", name="Change", exact=True)
            submit.click()
            expect(dialog.get_by_role("alert")).to_contain_text("nothing to change")
            weight.fill("")
            submit.click()
            expect(dialog.get_by_role("alert")).to_contain_text("whole number")
            weight.fill("5000")
            submit.click()
            expect(dialog.get_by_role("alert")).to_contain_text("a value is not allowed")
            expect(dialog.get_by_role("alert")).to_contain_text("outside 1..=1000")
            self.audit(page, "a refused change")
            self.complaints[:] = [c for c in self.complaints if "400" not in c]
            weight.fill("250")
            dialog.get_by_role("spinbutton", name=re.compile("at once")).fill("40")
            submit.click()
            expect(self.cell(page, "steady", "Weight")).to_have_text("250")
            expect(self.cell(page, "steady", "In flight / max")).to_have_text(re.compile("/ 40$"))

    def step_stale_change(self):
        with self.page() as page:
            self.live(page)
            page.get_by_role("button", name="Change weight and limit of slow").click()
            dialog = page.get_by_role("dialog")
            # Somebody else is faster.
            self.proxy.ask("PUT", "/api/v1/backends/update", {"upstream": "demo", "backend": {"id": "slow", "weight": 77}})
            dialog.get_by_role("spinbutton", name=re.compile("^Weight")).fill("120")
            dialog.get_by_role("button", name="Change", exact=True).click()
            expect(dialog.get_by_role("alert")).to_contain_text("Somebody else changed the configuration")
            expect(dialog.get_by_role("alert")).to_contain_text("weight 77")
            self.complaints[:] = [c for c in self.complaints if "412" not in c]
            dialog.get_by_role("button", name="Do it all the same").click()
            expect(self.cell(page, "slow", "Weight")).to_have_text("120")

    def step_log_level(self):
        with self.page() as page:
            self.live(page)
            page.get_by_label("Log level").select_option("debug")
            dialog = page.get_by_role("dialog", name="Set the log level to debug?")
            dialog.get_by_role("button", name="Set").click()
            expect(page.locator(".toast")).to_contain_text("The log level is debug")
            expect(page.get_by_label("Log level")).to_have_value("debug")
            self.proxy.ask("PUT", "/api/v1/log/level", {"level": "info"})

    def step_languages(self):
        with self.page() as page:
            self.live(page)
            expect(page.locator("#backends-title")).to_have_text("Backends")
            page.get_by_label("Language").select_option("zh")
            expect(page.locator("#backends-title")).to_have_text("后端")
            expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
            expect(page.get_by_role("button", name="排空 fast", exact=True)).to_be_visible()
            page.reload()
            expect(page.locator("#backends-title")).to_have_text("后端")
            self.live(page)
            expect(page.locator("#status-text")).to_have_text("实时")
            page.get_by_role("button", name="排空 fast", exact=True).click()
            self.audit(page, "zh")
            page.keyboard.press("Escape")
            page.locator("#language").select_option("en")
            expect(page.locator("#backends-title")).to_have_text("Backends")
            missing = page.evaluate("""async () => {
                const {default: texts} = await import('/dashboard/texts.js');
                const shown = document.body.innerText;
                return Object.keys(texts.en).filter((key) => key.includes('_') && new RegExp('\\\\b' + key + '\\\\b').test(shown)
                    && !key.startsWith('reason_'));
            }""")
            assert not missing, f"keys in place of texts: {missing}"
        with self.page(locale="zh-CN") as page:
            expect(page.locator("#backends-title")).to_have_text("后端")

    def step_appearances(self):
        ground = "getComputedStyle(document.documentElement).backgroundColor"
        with self.page() as page:
            self.live(page)
            light = page.evaluate(ground)
            page.get_by_label("Appearance").select_option("dark")
            dark = page.evaluate(ground)
            assert light != dark
            self.audit(page, "dark, chosen")
            page.reload()
            self.live(page)
            assert page.evaluate(ground) == dark
            page.get_by_label("Appearance").select_option("auto")
            assert page.evaluate(ground) == light
            page.emulate_media(color_scheme="dark")
            # No wait_for_function: what it evaluates again and again is refused by the page's own policy, and rightly.
            expect(page.locator("html")).to_have_css("background-color", dark)
        for scheme in ("light", "dark"):
            with self.page(scheme=scheme) as page:
                self.live(page)
                self.row(page, "fast").wait_for()
                self.audit(page, scheme)

    def step_phone(self):
        for locale in ("en-US", "zh-CN"):
            with self.page(width=375, locale=locale, scheme="dark") as page:
                self.live(page)
                self.row(page, "fast").wait_for()
                self.fits(page, locale)
                self.audit(page, f"phone, {locale}")
                for button in self.row(page, "fast").get_by_role("button").all():
                    button.click()
                    self.fits(page, "a dialog")
                    box = page.get_by_role("dialog").bounding_box()
                    assert box["x"] >= 0 and box["x"] + box["width"] <= 375, box
                    page.keyboard.press("Escape")
                # A table to those who can't see that it looks like cards.
                table = page.get_by_role("table", name=re.compile("demo"))
                assert table.get_by_role("columnheader").count() == 10
                assert table.get_by_role("rowheader").count() == 3
            with self.page(width=320) as page:
                self.live(page)
                self.row(page, "fast").wait_for()
                self.fits(page, "320 px")

    def step_keyboard(self):
        with self.page() as page:
            self.live(page)
            self.row(page, "fast").wait_for()
            reached, seen = [], 0
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.className") == "skip"
            wanted = page.evaluate("""() => {
                const all = [...document.querySelectorAll('a[href], button, select, input')].filter((e) => e.checkVisibility());
                all.forEach((e, at) => e.dataset.stop = at);
                return all.length;
            }""")
            for _ in range(wanted + 5):
                stop, outline = page.evaluate("""() => {
                    const e = document.activeElement;
                    return [e.dataset.stop ?? null, getComputedStyle(e).outlineStyle];
                }""")
                if stop is None or stop in reached:
                    break
                assert outline != "none", f"stop {stop} does not show the focus"
                reached.append(stop)
                seen += 1
                page.keyboard.press("Tab")
            assert seen == wanted, f"{seen} of {wanted} controls were reached by Tab"
            # A whole change without a mouse.
            page.get_by_role("button", name="Change weight and limit of fast").focus()
            page.keyboard.press("Enter")
            dialog = page.get_by_role("dialog")
            expect(dialog.get_by_role("spinbutton").first).to_be_focused()
            for _ in range(12):
                page.keyboard.press("Tab")
                inside = page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
                assert inside, "the focus left the dialog"
            page.keyboard.press("Escape")
            expect(dialog).to_have_count(0)
            expect(page.get_by_role("button", name="Change weight and limit of fast")).to_be_focused()
            page.keyboard.press("Enter")
            page.keyboard.press("ControlOrMeta+A")
            page.keyboard.type("310")
            page.keyboard.press("Enter")
            expect(self.cell(page, "fast", "Weight")).to_have_text("310")

    def step_hostile_texts(self):
        evil = "<img src=x onerror='window.hit=1'><script>window.hit=1</script>\u202e\u0000"
        error = {"timestamp": int(time.time() * 1000), "request_id": evil, "reason": "no_backend", "status": 503, "route": evil,
                 "upstream": evil, "backend": evil, "client": evil, "method": "GET", "path": "/" + "a" * 3000 + evil,
                 "timer": evil, "detail": evil}
        odd = {"timestamp": 1, "reason": evil, "status": None, "route": None, "upstream": None, "backend": None, "client": None,
               "method": None, "path": None, "timer": None, "detail": None, "request_id": None}
        config = {"config": {"log": {"level": "info"}}, "restart_required": [evil], "file_refused": evil}
        changes = {"changes": [{"timestamp": 1, "who": evil, "from": evil, "what": evil, "changed": [evil], "refused": None},
                               {"timestamp": 2, "who": evil, "from": "", "what": "add backend to " + evil, "changed": [], "refused": evil}]}
        day = 24 * 60 * 60
        certificate = {"cert_file": evil, "key_file": evil, "used_for": ["clients", evil], "default": True, "names": [evil] * 5,
                       "state": "expired", "not_before": 0, "not_after": day, "days_left": -20000, "trouble": evil}
        valid = certificate | {"state": "valid", "trouble": None, "names": ["good.test"], "not_after": int(time.time()) + 90 * day,
                               "days_left": 90}
        tls = {"certificates": [valid, certificate], "troubles": [evil]}
        answers = {"/api/v1/errors": {"errors": [odd] + [error] * 30}, "/api/v1/config": config, "/api/v1/changes": changes,
                   "/api/v1/certificates": tls}
        stubs = {path: (lambda answer: lambda route: route.fulfill(json=answer))(answer) for path, answer in answers.items()}
        for width in (1280, 375):
            with self.page(width=width, stubs=stubs) as page:
                self.live(page)
                expect(page.locator("#error-table")).to_contain_text("<img src=x")
                expect(page.locator("#error-table")).to_contain_text("No backend was in use and healthy")
                expect(page.locator("#notices")).to_contain_text("only after a restart")
                expect(page.locator("#notices")).to_contain_text("was read and refused")
                expect(page.locator("#notices")).to_contain_text("Files of TLS are of no use")
                rows = page.locator("#certificate-table tbody tr")
                expect(rows.first).to_contain_text("expired")
                expect(rows.last).to_contain_text("90 days")
                expect(page.locator("#nav-certificates")).to_be_attached()
                expect(page.locator("#error-table tbody tr")).to_have_count(20)
                page.get_by_role("button", name="Show 11 more").click()
                expect(page.locator("#error-table tbody tr")).to_have_count(31)
                assert page.evaluate("window.hit === undefined && document.querySelectorAll('main img, main script').length === 0")
                self.fits(page, f"hostile texts at {width}")

    def step_remove(self):
        with self.page() as page:
            self.live(page)
            page.get_by_role("button", name="Remove slow").click()
            dialog = page.get_by_role("dialog")
            expect(dialog).to_contain_text("must be added again")
            dialog.get_by_role("button", name="Remove", exact=True).click()
            expect(self.row(page, "slow")).to_have_count(0)
            expect(page.locator(".toast")).to_contain_text("slow is removed")
            # The button is gone; the next Tab goes on from the heading.
            expect(page.locator("#backends-title")).to_be_focused()

    def step_own_answers(self):
        with self.page() as page:
            self.live(page)
            self.send_nonsense()
            line = page.locator("#reason-list li").filter(has_text="bad_request")
            expect(line).to_contain_text("malformed or ambiguous")
            expect(line).to_contain_text("To do:")
            # The last one in use: the dialog says what that means.
            self.proxy.ask("POST", "/api/v1/backends/disconnect", {"upstream": "demo", "backend_id": "fast"})
            self.state(page, "fast", "disconnected", "draining")
            page.get_by_role("button", name="Drain steady", exact=True).click()
            expect(page.get_by_role("dialog")).to_contain_text("the last one in use of demo")
            page.keyboard.press("Escape")
            self.proxy.ask("POST", "/api/v1/backends/connect", {"upstream": "demo", "backend_id": "fast"})

    def step_lost_and_found(self):
        with self.page() as page:
            self.live(page)
            is_broken = {"now": True}
            page.route("**/api/v1/**", lambda route: route.abort() if is_broken["now"] else route.fallback())
            # The running stream ends with its process' pause: it is dead after some seconds of silence.
            self.proxy.process.send_signal(19)
            try:
                expect(page.locator("#notices")).to_contain_text("The connection to SpeedMimi is lost")
                expect(page.locator("#status-text")).to_have_text("Not connected")
                expect(page.locator("#announce")).to_contain_text("is lost")
                expect(page.locator("#countdown")).to_have_text(re.compile("Next try in"))
                self.audit(page, "lost")
            finally:
                self.proxy.process.send_signal(18)
            is_broken["now"] = False
            self.live(page)
            expect(page.locator("#notices")).not_to_contain_text("is lost")
            expect(page.locator("#announce")).to_have_text("Connected again.")
            self.complaints[:] = [c for c in self.complaints if "ERR_FAILED" not in c]

    def step_token(self):
        if self.options.page:
            return
        with tempfile.TemporaryDirectory() as home:
            config = pathlib.Path(home, "config.yaml")
            config.write_text(
                "server: {host: 127.0.0.1, port: 0}\n"
                "grpc: {port: 0, token: a-token-of-some-length, read_token: one-that-only-reads}\n"
                "backends:\n  api:\n    - {id: one, host: 127.0.0.1, port: 1}\n"
                "routing:\n  all: {path: /, upstream: api}\n"
            )
            proxy = Proxy(self.options.speedmimi, str(config))
            try:
                self.walk_with_tokens(proxy)
            finally:
                proxy.end()
        self.complaints[:] = [c for c in self.complaints if "401" not in c and "403" not in c]

    def walk_with_tokens(self, proxy):
        with self.page(proxy=proxy) as page:
            dialog = page.get_by_role("dialog", name="Token")
            expect(dialog).to_contain_text("Management is protected")
            self.audit(page, "token")
            field = dialog.get_by_label("Token")
            expect(field).to_be_focused()
            page.keyboard.press("Escape")
            expect(page.locator("#notices")).to_contain_text("those with a token")
            page.get_by_role("button", name="Enter token").click()
            field.fill("wrong")
            page.keyboard.press("Enter")
            expect(dialog.get_by_role("alert")).to_contain_text("not valid")
            field.fill("a-token-of-some-length")
            page.keyboard.press("Enter")
            self.live(page)
            kept = page.evaluate("[JSON.stringify(sessionStorage), JSON.stringify(localStorage), document.cookie, location.href]")
            assert "a-token" in kept[0] and not any("a-token" in other for other in kept[1:]), kept
            page.reload()
            self.live(page)
            page.get_by_role("button", name="Forget token").click()
            expect(dialog).to_be_visible()
            assert "a-token" not in page.evaluate("JSON.stringify(sessionStorage)")
            field.fill("one-that-only-reads")
            page.keyboard.press("Enter")
            self.live(page)
            page.get_by_role("button", name="Drain one").click()
            drain = page.get_by_role("dialog", name="Drain one?")
            drain.get_by_role("button", name="Drain", exact=True).click()
            expect(drain.get_by_role("alert")).to_contain_text("may look, but not change")

    def pictures(self, folder):
        """For the README: five minutes of a small day at work, and what they look like at their end."""
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        seconds = self.options.minutes * 60
        with self.page() as wide, self.page(width=375, scheme="dark") as phone:
            for page in (wide, phone):
                self.live(page)
            idle = [http.client.HTTPConnection(self.proxy.proxy, timeout=10) for _ in range(40)]
            streams, began = [], time.monotonic()
            while (passed := time.monotonic() - began) < seconds:
                part = passed / seconds
                self.load.pause = 0.012 / (1.1 + math.sin(part * 9) * (0.4 + part / 3))
                if part > 0.3 and idle[0].sock is None:
                    for connection in idle:
                        connection.request("GET", "/")
                        connection.getresponse().read()
                    self.change("weight", 150)
                if part > 0.5 and random.random() < 0.15:
                    self.send_nonsense()
                if part > 0.85 and not streams:
                    streams = [self.events() for _ in range(12)]
                    self.proxy.ask("POST", "/api/v1/backends/disconnect", {"upstream": "demo", "backend_id": "slow"})
                for backend, use in (("fast", 30), ("steady", 80)):
                    report = {"cpu_usage": use + 10 * math.sin(passed / 20), "memory_usage": 40}
                    self.proxy.ask("POST", "/api/v1/report", {"upstream": "demo", "backend_id": backend, "performance": report})
                time.sleep(1)
            wide.screenshot(path=folder / "dashboard.png", full_page=True)
            phone.screenshot(path=folder / "dashboard-dark-phone.png")
            for stream in streams:
                stream.close()

    def change(self, field, value):
        self.proxy.ask("PUT", "/api/v1/backends/update", {"upstream": "demo", "backend": {"id": "slow", field: value}})

    def send_nonsense(self):
        with socket.create_connection(tuple(self.proxy.proxy.split(":")), 10) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
            raw.recv(4096)

    def run(self):
        steps = [name for name in vars(Walk) if name.startswith("step_")]
        if self.options.only:
            steps = [name for name in steps if self.options.only in name]
        failures = 0
        for name in steps:
            began = time.monotonic()
            self.complaints.clear()
            try:
                getattr(self, name)()
                complaints = self.complaints
                assert not complaints, f"the console: {complaints}"
            except Exception as error:
                place = next(f for f in traceback.extract_tb(error.__traceback__)[::-1] if f.filename == __file__)
                print(f"{name[5:]}: failed in line {place.lineno}: {place.line}\n{str(error)[:2000]}", flush=True)
                failures += 1
            else:
                print(f"{name[5:]}: ok, {time.monotonic() - began:.1f} s", flush=True)
        return min(failures, 1)


def count(shown):
    """What a figure shows; less than any count where nothing has been told yet."""
    return int(shown.replace(",", "")) if shown.strip("–") else -1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--speedmimi", required=True)
    parser.add_argument("--chromium", required=True)
    parser.add_argument("--page", help="look at this address (a server of the files under work) instead of the proxy's own")
    parser.add_argument("--only", help="steps with this in their name")
    parser.add_argument("--pictures", help="take pictures into this folder instead of walking")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long the charts have been running on the pictures")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        expect.set_options(timeout=PATIENCE_MS)
        walk = Walk(options, browser)
        try:
            if options.pictures:
                walk.pictures(options.pictures)
                return 0
            return walk.run()
        finally:
            walk.end()
            browser.close()


if __name__ == "__main__":
    sys.exit(main())
