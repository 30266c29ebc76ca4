"""A headless Chromium, driven by its DevTools protocol: what the pages do when people use them."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FOUND = next(filter(None, map(shutil.which, NAMES)), None)
needs_browser = pytest.mark.skipif(FOUND is None, reason=f"no browser: install one of {', '.join(NAMES)}")
PATIENCE = 300  # seconds for one answer, on a machine that does other work


class Page:
    """One page: `run` evaluates JavaScript in it, `events` is what it has told of itself."""

    def __init__(self, socket, loop):
        self._socket, self._loop, self._numbers, self.events = socket, loop, itertools.count(1), []

    def call(self, method, **params):
        """The result of a method of the protocol."""
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, params), PATIENCE))

    async def _call(self, method, params):
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            said = json.loads((await self._socket.receive()).data)
            if said.get("id") == number:
                assert "error" not in said, said
                return said["result"]
            self.events.append(said)

    def run(self, script):
        """The value of an expression, a promise's when it is kept."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def open(self, path, width=1440, height=900, **media):
        """Open a file in a window of a size; `media` such as `prefers-color-scheme="dark"`, and `media="print"`."""
        self.events.clear()
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.resize(width, height)
        self.look(**media)
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.until("document.readyState === 'complete'")
        self.settle()

    def resize(self, width, height):
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )

    def look(self, media="", **features):
        """Light or dark, screen or print."""
        listed = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", media=media, features=listed)

    def settle(self):
        """Wait until the page has painted what it was told to."""
        self.run(
            "new Promise((done) => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done)), 400))"
        )

    def until(self, condition):
        end = time.monotonic() + PATIENCE
        while not self.run(condition):
            assert time.monotonic() < end, condition
            time.sleep(0.05)

    def press(self, key, text=""):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text if kind == "keyDown" else "",
                      windowsVirtualKeyCode=CODES.get(key, 0))  # fmt: skip

    def problems(self):
        """Errors in the console, exceptions, and requests for anything but the page itself and data in it."""
        found = []
        for event in self.events:
            params, kind = event.get("params", {}), event.get("method")
            if kind == "Runtime.exceptionThrown" or (kind == "Runtime.consoleAPICalled" and params["type"] == "error"):
                found.append(json.dumps(params)[:500])
            if kind == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(json.dumps(params["entry"])[:500])
            if kind == "Network.requestWillBeSent" and not params["request"]["url"].startswith(("file:", "data:")):
                found.append(params["request"]["url"])
        return found

    def shot(self, path, whole=False, **clip):
        """A picture of the window, of the whole page, or of a part of it."""
        options = {"captureBeyondViewport": True} if whole or clip else {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"]}
        if clip:
            options["clip"] = {"scale": 1, **clip}
        Path(path).write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **options)["data"]))


AXE = importlib.util.find_spec("axe_core_python")


def barriers(page):
    """What axe finds serious for some readers on an open page; skipped where it is not installed."""
    if AXE is None:
        pytest.skip("axe_core_python is not installed; it is in compseg[dev]")
    if not page.run("Boolean(window.axe)"):
        page.run(Path(AXE.submodule_search_locations[0], "axe.min.js").read_text(encoding="utf-8") + "; 0")
    told = "(v) => [v.impact, v.id, v.nodes[0].html.slice(0, 200), v.nodes[0].failureSummary.slice(0, 200)]"
    found = page.run(f"axe.run().then((all) => all.violations.map({told}))")
    return [each for each in found if each[0] in ("serious", "critical")]


CODES = {
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
    "Enter": 13,
    "Escape": 27,
    "Tab": 9,
    "Home": 36,
    "End": 35,
}


@contextmanager
def browser():
    """A page in a browser of its own, without a profile, closed at the end."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # Without its sandbox, which a container does not allow; only files of our own are opened.
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        options += ["--disable-dev-shm-usage", "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen([FOUND, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        loop = asyncio.new_event_loop()
        try:
            with _page(loop, Path(profile) / "DevToolsActivePort", process) as page:
                yield page
        finally:
            process.terminate()
            process.wait()
            loop.close()


@contextmanager
def _page(loop, port_file, process):
    end = time.monotonic() + PATIENCE
    while not (port_file.is_file() and port_file.read_text().count("\n")):
        assert process.poll() is None, "the browser ended"
        assert time.monotonic() < end, "the browser does not answer"
        time.sleep(0.05)
    port = port_file.read_text().split("\n")[0]

    async def start():
        session = aiohttp.ClientSession()
        async with session.put(f"http://127.0.0.1:{port}/json/new") as answer:
            address = json.loads(await answer.text())["webSocketDebuggerUrl"]
        return session, await session.ws_connect(address, max_msg_size=0)

    session, socket = loop.run_until_complete(start())
    try:
        yield Page(socket, loop)
    finally:
        loop.run_until_complete(socket.close())
        loop.run_until_complete(session.close())
