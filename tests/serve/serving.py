"""serving.py: a vitreous server for a test, and the few helpers its clients need (stdlib only).

    with Server("--queue", "4") as s:
        status, headers, body = s.post("/v1/chat/completions", {...})

The model is VL_TEST_MODEL, or random weights in the demo's shape, made once per test run.
"""
import base64
import contextlib
import fcntl
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("VL_BUILD", "build/release")
VITREOUS = os.environ.get("VITREOUS", os.path.join(ROOT, BUILD, "vitreous"))

# How many times slower than a release build the server may be: every patience here is multiplied by it.
SLOW = float(os.environ.get("VL_SLOW", "1"))

# No time is demanded of anything here; this is when a test says that what should happen never does.
HANG = 120 * SLOW

passed = failed = skipped = 0


def check(ok, what):
    global passed, failed
    if ok:
        passed += 1
    else:
        failed += 1
        print("FAIL", what, flush=True)
    return ok


def equal(got, want, what):
    return check(got == want, f"{what}: got {str(got)[:300]!r}, expected {str(want)[:300]!r}")


def until(ready, what):
    """Waits for ready(); a failure if it never is. Returns the seconds that it took."""
    start = time.monotonic()
    while not (got := ready()) and time.monotonic() - start < HANG:
        time.sleep(0.02)
    check(got, what)
    return time.monotonic() - start


def finish():
    tail = f", {skipped} skipped" if skipped else ""
    print(f"{passed} passed, {failed} failed{tail}")
    sys.exit(failed != 0)


def model_dir():
    if os.environ.get("VL_TEST_MODEL"):
        return os.environ["VL_TEST_MODEL"]
    folder = os.path.join(ROOT, BUILD, "tests", "serve")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "lock"), "w") as lock:     # several tests start at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = os.path.join(folder, "random-demo")
        if not os.path.exists(os.path.join(path, "model.safetensors")):
            subprocess.run([VITREOUS, "make-random", "--like", "demo", "--seed", "7", path], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return path


class Server:
    def __init__(self, *args, wait=60):
        self.args, self.wait = args, wait * SLOW
        keys = [b for a, b in zip(args, args[1:]) if a == "--api-key"]
        self.headers = {"Authorization": "Bearer " + keys[0]} if keys else {}

    def __enter__(self):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([VITREOUS, "serve", "-m", model_dir(), "--port", "0", *self.args],
                                        stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("no server: " + self.logs()[-500:])
        self.port = int(line.rsplit(":", 1)[1])
        for _ in range(int(self.wait * 20)):
            if self.get("/ready", headers=self.headers)[0] == 200:
                return self
            time.sleep(0.05)
        self.process.kill()
        raise RuntimeError("never ready: " + self.logs()[-500:])

    def __exit__(self, *exc):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(40 * SLOW)
            except subprocess.TimeoutExpired:
                self.process.kill()
                check(False, "the server stops after SIGTERM")
        self.process.stdout.close()
        reports = [x for x in self.logs().splitlines() if "Sanitizer" in x or "runtime error:" in x]
        check(not reports, f"a sanitizer's report: {self.logs()[-4000:] if reports else ''}")
        if exc[0] is None and self.process.returncode not in (0, -signal.SIGKILL, 1):
            check(False, f"exit code {self.process.returncode}: {self.logs()[-800:]}")

    def logs(self):
        self.log.seek(0)
        return self.log.read()

    def request(self, method, path, body=None, headers=None, timeout=60):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout * SLOW)
        headers = dict(headers or {})
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        try:
            c.request(method, path, body, headers)
            r = c.getresponse()
            return r.status, dict(r.getheaders()), r.read()
        finally:
            c.close()

    def get(self, path, **k):
        return self.request("GET", path, **k)

    def post(self, path, body, **k):
        return self.request("POST", path, body, **k)

    def json(self, method, path, body=None, **k):
        status, _, data = self.request(method, path, body, **k)
        return status, json.loads(data)

    def chat(self, content, timeout=120, headers=None, **fields):
        body = {"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 8, **fields}
        return self.json("POST", "/v1/chat/completions", body, timeout=timeout, headers=headers)

    def stream(self, content, headers=None, **fields):
        """All chunks of a streamed answer; the last is None if [DONE] came."""
        body = {"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 8,
                "stream": True, **fields}
        status, _, data = self.post("/v1/chat/completions", body, timeout=120, headers=headers)
        lines = [x for x in data.decode().split("\n\n") if x.startswith("data: ")]
        return status, [None if x == "data: [DONE]" else json.loads(x[6:]) for x in lines]

    def raw(self, data, timeout=20, pause=0):
        """Sends bytes as they are; everything that comes back until the end."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as s:
            out = b""
            with contextlib.suppress(OSError):
                if pause:
                    for i in range(len(data)):
                        s.sendall(data[i:i + 1])
                        time.sleep(pause)
                else:
                    s.sendall(data)
                while chunk := s.recv(65536):
                    out += chunk
            return out

    def metric(self, name):
        total = 0.0
        for line in self.get("/metrics")[2].decode().splitlines():
            if line.startswith("vitreous_" + name) and line[9 + len(name)] in " {":
                total += float(line.rsplit(" ", 1)[1])
        return total


def png(w=64, h=48, rgb=(220, 40, 40), exif=None):
    row = b"\0" + bytes(rgb) * w

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    turn = chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHHI", 0x112, 3, 1, exif, 0, 0)) if exif else b""
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)) + turn
            + chunk(b"IDAT", zlib.compress(row * h)) + chunk(b"IEND", b""))


def url(data):
    return "data:image/png;base64," + base64.b64encode(data).decode()


def image(data=None, **k):
    return {"type": "image_url", "image_url": {"url": url(data or png()), **k}}


def text(s):
    return {"type": "text", "text": s}


def together(jobs):
    """Runs callables in threads; their results in order."""
    out = [None] * len(jobs)

    def run(i):
        try:
            out[i] = jobs[i]()
        except Exception as e:      # noqa: BLE001: the caller looks at it
            out[i] = e
    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(jobs))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return out
