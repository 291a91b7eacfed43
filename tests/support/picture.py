"""The README's moving picture: ``python -m tests.support.picture`` records it anew.

It is a recording: the page in Chromium, on the service as people start it, with SmolLM2 and all-MiniLM-L6-v2 answering
as fast as this machine lets them. Nothing is drawn, left out or sped up, but that a moment in which nothing changes is
shown for two seconds at most. Frames hold what has changed since the one before.
"""

import base64
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from selenium import webdriver

from tests.page.browser import Page
from tests.page.conftest import FLAGS, find_chrome, find_driver
from tests.support.minilm import minilm
from tests.support.process import service
from tests.support.webp import Frame, animated

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "page.webp"
WIDTH, HEIGHT = 1000, 640
PAUSE, STILL = 0.12, 2.0
"""Seconds between two frames, and for which one is shown at most."""
LAST = 4.0
EMBEDDING = "sentence-transformers/all-MiniLM-L6-v2"

CHANGED = """
const [before, after, finish] = arguments;
(async () => {
  const bitmap = async (png) => createImageBitmap(await (await fetch("data:image/png;base64," + png)).blob());
  const now = await bitmap(after);
  const canvas = new OffscreenCanvas(now.width, now.height);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const pixels = (image) => {
    pen.drawImage(image, 0, 0);
    return new Uint32Array(pen.getImageData(0, 0, now.width, now.height).data.buffer);
  };
  const old = before ? pixels(await bitmap(before)) : null;
  const shown = pixels(now);
  let [left, top, right, bottom] = old ? [now.width, now.height, -1, -1] : [0, 0, now.width - 1, now.height - 1];
  if (old) for (let at = 0; at < shown.length; at += 1) {
    if (shown[at] === old[at]) continue;
    const x = at % now.width, y = (at - x) / now.width;
    left = Math.min(left, x); right = Math.max(right, x); top = Math.min(top, y); bottom = Math.max(bottom, y);
  }
  if (right < 0) return finish(null);
  left -= left % 2; top -= top % 2;
  const part = new OffscreenCanvas(right - left + 1, bottom - top + 1);
  part.getContext("2d").drawImage(now, -left, -top);
  const file = new Uint8Array(await (await part.convertToBlob({ type: "image/webp", quality: 1 })).arrayBuffer());
  let text = "";
  for (const byte of file) text += String.fromCharCode(byte);
  finish([btoa(text), left, top, part.width, part.height]);
})();
"""
"""What of a screenshot differs from the one before, as lossless WebP, and where it lies; null: nothing does."""


class Camera:
    """Takes a picture of a page again and again, on a thread of its own, beside whoever uses the page."""

    def __init__(self, page: Page) -> None:
        self.shots: list[tuple[float, str]] = []
        self._page = page
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def do(self, work: Any) -> Any:
        """Use the page between two pictures: a browser does one thing at a time."""
        with self._lock:
            return work()

    def wait(self, condition: Any, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.do(condition):
                return
            time.sleep(PAUSE)
        raise AssertionError("what was waited for did not show")

    def end(self) -> list[tuple[float, str]]:
        self._ended.set()
        self._thread.join()
        return self.shots

    def _run(self) -> None:
        while not self._ended.wait(PAUSE):
            with self._lock:
                self.shots.append((time.monotonic(), self._page.browser.get_screenshot_as_base64()))


def play(page: Page, camera: Camera) -> None:
    """What is seen: a question, the machine that answered it, texts compared by a second model beside it."""

    def type_into(selector: str, text: str) -> None:
        for sign in text:
            camera.do(lambda sign=sign: page.one(selector).send_keys(sign))
            time.sleep(0.04)

    def press(label: str, inside: str) -> None:
        camera.do(lambda: page.button(label, inside).click())

    time.sleep(1.0)
    type_into("#prompt", "What is the capital of France?")
    press("Send", ".composer")
    camera.wait(lambda: page.all(".turn:last-child .figures"))
    time.sleep(2.0)
    camera.do(lambda: page.one('a[href="#machine"]').click())
    time.sleep(2.5)
    camera.do(lambda: page.js("document.querySelector('.compare').scrollIntoView({block: 'center'})"))
    time.sleep(1.0)
    press("Compare", ".compare")
    camera.wait(lambda: len(page.all(".compare .alike")) == 9)
    time.sleep(2.5)
    camera.do(lambda: page.js("document.querySelector('.machine').scrollTo(0, 0)"))
    time.sleep(2.0)
    press("Settings", '[data-id="HuggingFaceTB/SmolLM2-135M-Instruct"]')
    time.sleep(2.5)
    camera.do(lambda: page.js("document.querySelector('.machine').scrollTo(0, 1e6)"))
    time.sleep(LAST)


def film(browser: Any, shots: list[tuple[float, str]]) -> list[Frame]:
    """The frames: what differs, for as long as it was so."""
    browser.get("about:blank")
    frames: list[Frame] = []
    kept: list[tuple[float, str]] = []
    for at, shot in shots:
        found = browser.execute_async_script(CHANGED, kept[-1][1] if kept else None, shot)
        if found is not None:
            image, x, y, width, height = found
            frames.append(Frame(base64.b64decode(image), x, y, width, height, 0))
            kept.append((at, shot))
    ends = [at for at, _ in kept[1:]] + [kept[-1][0] + LAST]
    spans = [min(end - at, LAST if end is ends[-1] else STILL) for (at, _), end in zip(kept, ends, strict=True)]
    return [
        Frame(it.image, it.x, it.y, it.width, it.height, round(1000 * span))
        for it, span in zip(frames, spans, strict=True)
    ]


def record() -> bytes:
    """The picture. Raises AssertionError where something does not show."""
    options = webdriver.ChromeOptions()
    options.binary_location = find_chrome() or ""
    with tempfile.TemporaryDirectory() as place:
        for flag in (*FLAGS, "--hide-scrollbars", f"--user-data-dir={place}/chrome"):
            options.add_argument(flag)
        model = Path(place) / "models" / EMBEDDING
        model.parent.mkdir(parents=True)
        model.symlink_to(minilm(), target_is_directory=True)
        cache = str(Path(place) / "cache")
        flags = ("--model-root", f"{place}/models", "--disk-cache", "0")
        with service(*flags, HF_HUB_CACHE=cache, SWITCHYARD_SPARE_PROCESS="true") as running:
            plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
            driver = webdriver.ChromeService(find_driver() or "", env=plain)
            browser = webdriver.Chrome(options=options, service=driver)
            try:
                screen = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
                browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
                page = Page(browser, running.url)
                page.says("[role=status]", "live")
                camera = Camera(page)
                try:
                    play(page, camera)
                finally:
                    shots = camera.end()
                frames = film(browser, shots)
            finally:
                browser.quit()
    return animated(frames, WIDTH, HEIGHT)


if __name__ == "__main__":
    PICTURE.write_bytes(picture := record())
    sys.stdout.write(f"{PICTURE}: {len(picture) / 1000:.0f} kB\n")
