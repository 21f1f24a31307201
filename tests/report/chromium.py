"""A headless Chromium, driven over a pipe by its own protocol: no package, no port, no network."""

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import signal
import tempfile
import time
from pathlib import Path

# Debian's `chromium` is a shell script that needs programs of its own; the browser lies here.
PLACES = (
    "/usr/lib/chromium/chromium",
    "/usr/lib64/chromium-browser/chromium-browser",
    "/opt/google/chrome/chrome",
)
NAMES = ("chromium", "google-chrome", "chromium-browser")
DEADLINE = 60  # seconds without an answer


class NotStartedError(Exception):
    """A browser that is there and ends, or says nothing: a script without its browser, for one."""


def find_browser() -> str | None:
    """Returns the path of a Chromium; None where there is none."""
    found = (place for place in (os.environ.get("CHROMIUM"), *PLACES) if place and os.access(place, os.X_OK))
    return next(found, None) or next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """A browser with one page; a context manager.

    Attributes:
      messages: what the page wrote to the console or threw, and what the browser had to say of it.
      requests: the addresses that it asked for.

    Raises:
      NotStartedError: it doesn't start.
    """

    def __init__(self, path: str):
        self._home = tempfile.mkdtemp(prefix="chromium-")
        flags = [
            *(
                "--headless=new",
                "--remote-debugging-pipe",
                "--hide-scrollbars",
                "--no-sandbox",
                "--disable-gpu",
            ),
            *("--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"),
            *("--disable-extensions", f"--user-data-dir={self._home}/profile", "about:blank"),
        ]
        environment = {"HOME": self._home, "PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"}
        reads, self._out = os.pipe()
        self._in, writes = os.pipe()
        far = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (reads, writes)]
        quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        # The browser reads commands at 3 and answers at 4.
        pipes = [(os.POSIX_SPAWN_DUP2, fd, place) for fd, place in zip(far, (3, 4), strict=True)]
        unused = [(os.POSIX_SPAWN_CLOSE, fd) for fd in far]
        self._pid = os.posix_spawn(path, [path, *flags], environment, file_actions=[*quiet, *pipes, *unused])
        for fd in (reads, writes, *far):
            os.close(fd)
        self._ids, self._buffer, self._session = itertools.count(1), b"", None
        self.messages, self.requests = [], []
        try:
            self.call("Browser.getVersion")
        except (AssertionError, BrokenPipeError) as e:
            self.__exit__()
            raise NotStartedError(str(e)) from e

    def __enter__(self) -> "Chromium":
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._out)
        os.close(self._in)
        shutil.rmtree(self._home, ignore_errors=True)

    def call(self, method: str, **params):
        """Returns the result of a command of the protocol."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while (answer := self._read()).get("id") != number:
            self._note(answer)
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return answer["result"]

    def _read(self) -> dict:
        while b"\0" not in self._buffer:
            if not select.select([self._in], [], [], DEADLINE)[0]:
                raise AssertionError("the browser doesn't answer")
            chunk = os.read(self._in, 1 << 20)
            assert chunk, "the browser ended"
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(line)

    def _note(self, event: dict) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.messages.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.messages.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded":
            self.messages.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def evaluate(self, expression: str):
        """Returns the value of a JavaScript expression, of a promise when it is there."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"].get("exception", {}).get("description"))
        return found["result"].get("value")

    def open(
        self, path: Path, width: int = 1440, height: int = 900, dark: bool = False, drawn: bool = True
    ) -> float:
        """Opens a page, waits for all of its figures, and returns the seconds until its table stood."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)  # fmt: skip
        value = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])
        start = time.monotonic()
        self.call("Page.navigate", url=path.absolute().as_uri())
        self.wait("document.querySelector('#table tbody tr, #shown:not(:empty)') !== null")
        seconds = time.monotonic() - start
        if drawn:
            self.wait("document.body.dataset.drawn === 'all'")
        return seconds

    def wait(self, condition: str) -> None:
        """Waits until an expression holds; asks after each frame."""
        asked = (
            f"new Promise(found => (function ask() {{ {condition} ? found(true) : setTimeout(ask, 20) }})())"
        )
        for _ in range(20):  # a page that loads takes the promise with it
            try:
                if self.evaluate(asked):
                    return
            except AssertionError as error:
                if "context" not in str(error) and "navigated" not in str(error):
                    raise
        raise AssertionError(f"never: {condition}")

    def click(self, selector: str) -> None:
        """Scrolls to an element and clicks into its middle."""
        x, y = self.middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def hover(self, x: float, y: float) -> None:
        """Moves the mouse."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def middle(self, selector: str) -> tuple[float, float]:
        """Returns the place of an element's middle on the screen, after scrolling to it."""
        code = f"""(() => {{
          const found = document.querySelector({json.dumps(selector)});
          found.scrollIntoView({{block: "center"}});
          const box = found.getBoundingClientRect();
          return [box.x + box.width / 2, box.y + box.height / 2];
        }})()"""
        return tuple(self.evaluate(code))

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """Writes what is seen as PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))
