"""A headless Chromium, controlled through its own protocol: what the checks of pages need, with
Python's library only. The browser is `chromium`, or the program in L0_CHROMIUM."""

import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request


class Socket:
    """A WebSocket with the parts that the browser needs."""

    def __init__(self, url):
        host, path = url.removeprefix("ws://").split("/", 1)
        name, port = host.split(":")
        self.socket = socket.create_connection((name, int(port)), timeout=120)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            self.fill()
        self.buffer = self.buffer.split(b"\r\n\r\n", 1)[1]

    def fill(self):
        more = self.socket.recv(65536)
        if not more:
            raise EOFError("the browser has exited")
        self.buffer += more

    def take(self, count):
        while len(self.buffer) < count:
            self.fill()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def send(self, text):
        data, mask = text.encode(), os.urandom(4)
        length = len(data)
        head = b"\x81" + (
            bytes([0x80 | length]) if length < 126
            else b"\xfe" + struct.pack(">H", length) if length < 65536
            else b"\xff" + struct.pack(">Q", length)
        )
        repeated = (mask * (length // 4 + 1))[:length]
        masked = int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")
        self.socket.sendall(head + mask + masked.to_bytes(length, "big"))

    def receive(self):
        text = b""
        while True:
            first, length = self.take(2)
            length &= 0x7F
            if length == 126:
                (length,) = struct.unpack(">H", self.take(2))
            elif length == 127:
                (length,) = struct.unpack(">Q", self.take(8))
            data = self.take(length)
            if first & 0x0F in (0, 1):
                text += data
            if first & 0x80 and first & 0x0F in (0, 1):
                return text.decode()


class Tab:
    """A page in the browser. `faults` has the messages of its console and violations of its
    policy; `requests` has its requests."""

    def __init__(self, port, url):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT")
        self.socket = Socket(json.load(urllib.request.urlopen(request))["webSocketDebuggerUrl"])
        self.number, self.faults, self.requests = 0, [], []
        for domain in ("Page", "Runtime", "Log", "Audits", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=url)

    def call(self, method, **params):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.receive())
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self.hear(message)

    def hear(self, message):
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.faults.append(params["exceptionDetails"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.faults.append(params)
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.faults.append(params["entry"])
        elif method == "Audits.issueAdded":
            if params["issue"]["code"] == "ContentSecurityPolicyIssue":
                self.faults.append(params["issue"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def run(self, script):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"])
        return result["result"].get("value")

    def until(self, what, script, seconds=120):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = self.run(script)
            if value:
                print(f"  {what}: {value}")
                return value
            time.sleep(0.1)
        raise SystemExit(f"never: {what}")

    def key(self, name, code, **more):
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, **more)

    def point(self, x, y):
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def size(self, width, height, phone=False, dark=False, still=False, media=""):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=2 if phone else 1, mobile=phone)
        wishes = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"},
        ]
        self.call("Emulation.setEmulatedMedia", media=media, features=wishes)

    def picture(self, folder, name, whole=False):
        """Takes a picture of the visible part, or of the whole page; does nothing without a
        folder."""
        if folder:
            data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
            with open(os.path.join(folder, name), "wb") as file:
                file.write(base64.b64decode(data))


class Browser:
    """A headless Chromium with its own temporary profile."""

    def __enter__(self):
        chromium = os.environ.get("L0_CHROMIUM") or shutil.which("chromium")
        if not chromium:
            raise SystemExit("chromium is not installed")
        # Its processes can still write into the folder while it is removed.
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
             "--disable-backgrounding-occluded-windows", "--remote-debugging-port=0", "--no-first-run", f"--user-data-dir={self.profile.name}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port_file = os.path.join(self.profile.name, "DevToolsActivePort")
        end = time.monotonic() + 120
        while not os.path.exists(port_file) or not open(port_file).read().strip():
            if time.monotonic() > end:
                self.__exit__()
                raise SystemExit("the browser did not start")
            time.sleep(0.1)
        self.port = open(port_file).read().split()[0]
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.profile.cleanup()

    def tab(self, url):
        return Tab(self.port, url)


class Program:
    """A program that ends with this object. A server first prints its address."""

    def __init__(self, *command, serves=True, variables=None):
        # Without a key, programs talk to a model of this machine.
        keys = ("OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(keys)} | (variables or {})
        out = subprocess.PIPE if serves else subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=environment, text=True)
        self.host = self.process.stdout.readline().split()[-1].removeprefix("http://") if serves else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


class Services:
    """The example server, and the faulty model that it asks. The server waits so many seconds for a token, and
    calls a run stalled after a third of that."""

    def __init__(self, target, faults, stalls, token_timeout):
        self.model = Program(f"{target}/faulty_model", "--faults", str(faults), "--stalls", str(stalls))
        self.command = f"{target}/server"
        self.variables = {"OPENAI_BASE_URL": f"http://{self.model.host}", "TOKEN_TIMEOUT": str(token_timeout)}
        self.server = self.serve("127.0.0.1:0")
        self.host = self.server.host

    def serve(self, listen):
        return Program(self.command, variables=self.variables | {"LISTEN": listen})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for program in (self.server, self.model):
            program.__exit__()


def check(what, holds):
    if not holds:
        raise SystemExit(f"wrong: {what}")
    print(f"  {what}: ok")


def no_faults(tab):
    tab.run("0")
    check(f"no errors in the console and no policy violations: {len(tab.faults)} {tab.faults[:2]}", not tab.faults)


def axe(tab, where):
    """Has axe-core check the accessibility of the page, if L0_AXE names its `axe.min.js`."""
    path = os.environ.get("L0_AXE")
    if not path:
        print("  axe-core skipped: L0_AXE is not set")
        return
    with open(path) as file:
        tab.run(file.read() + ";0")
    found = tab.run("""axe.run(document, {resultTypes: ['violations']}).then((result) => result.violations
        .filter((found) => ['serious', 'critical'].includes(found.impact))
        .map((found) => found.id + ': ' + found.nodes.map((node) => node.target).slice(0, 3).join(' | ')))""")
    check(f"axe-core finds nothing serious ({where}): {found}", not found)
