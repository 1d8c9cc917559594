#!/usr/bin/env python3
"""Pictures by URL: off by default; with --allow-image-urls against a TLS server on loopback (reached through the hidden
--test-image-url-ca) that redirects, sends too much, too slowly, or no picture at all."""
import http.server
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time

import serving
from serving import HANG, Server, check, equal, finish, png, text, together, until

PICTURE = png(80, 40)
MAX = 200000
LONGEST = "600"                                          # seconds: what --image-url-timeout takes at most
asked = []
hold = threading.Event()                                 # while it is not set, /silent says nothing
later = {"sometimes": [503, 429, 200], "dead": [503], "removed": [404]}


class Site(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *a):
        pass

    def send(self, status, body=b"", **headers):
        self.send_response(status)
        for k, v in {"Content_Length": str(len(body)), **headers}.items():
            if v is not None:
                self.send_header(k.replace("_", "-"), v)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        asked.append((self.path, dict(self.headers)))
        try:
            self.answer(self.path.lstrip("/"))
        except OSError:
            pass                                         # the client has had enough
        self.close_connection = True

    def answer(self, name):
        port = self.server.server_port
        away = {"private": "https://10.0.0.1/x.png", "metadata": "https://169.254.169.254/latest/meta-data/",
                "mapped": f"https://[::ffff:127.0.0.1]:{port}/a.png", "loopback6": f"https://[::1]:{port}/a.png",
                "unlisted": "https://example.com/a.png", "plain": f"http://127.0.0.1:{port}/a.png",
                "file": "file:///etc/passwd", "same": "/a.png", "loop": "/to/loop"}
        if name.startswith("to/"):
            self.send(302, Location=away[name[3:]])
        elif name == "a.png":
            self.send(200, PICTURE, Content_Type="text/plain")      # the type is never believed
        elif name == "big":
            self.send(200, b"x" * (MAX + 1))
        elif name == "endless":
            self.send(200, Content_Length=None)
            for _ in range(100):
                self.wfile.write(b"x" * 10000)
        elif name == "drip":
            self.send(200, Content_Length="1000")
            for _ in range(50):
                self.wfile.write(b"x")
                time.sleep(0.1)
        elif name == "silent":
            hold.wait(HANG)
        elif name in later:                              # a good answer first, then those
            n = sum(path == self.path for path, _ in asked)
            status = ([200] + later[name])[min(n - 1, len(later[name]))]
            self.send(status, PICTURE if status == 200 else b"")
        elif name == "page":
            self.send(200, b"<html>no picture</html>" * 9, Content_Type="image/png")
        elif name == "empty":
            self.send(200)
        elif name == "cut":
            self.send(200, PICTURE[:-20], Content_Length=str(len(PICTURE)))
        else:
            self.send(404)


def site(folder):
    key, cert = os.path.join(folder, "key.pem"), os.path.join(folder, "cert.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
                    "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost"],
                   check=True, stderr=subprocess.DEVNULL)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.handle_error = lambda *a: None                # a client that does not like the certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port, cert


def by_url(u):
    return {"type": "image_url", "image_url": {"url": u}}


def refused(s, u, status, code, what, place="messages[0].content[1]"):
    got, r = s.chat([text("?"), by_url(u)])
    e = r.get("error", {})
    equal((got, e.get("code"), e.get("param")), (status, code, place), what)
    for secret in ("10.0.0", "::1", "refused", "Connection"):
        check(secret not in e.get("message", ""), f"{what}: the message tells nothing of the inside: {e}")


def off(port):
    with Server() as s:
        before = len(asked)
        for u in (f"https://127.0.0.1:{port}/a.png", "http://example.com/a.png", "HTTPS://example.com/a.png"):
            refused(s, u, 400, "remote_url", f"off by default: {u}")
        r = s.chat([by_url("https://example.com/a.png")])[1]["error"]["message"]
        check("--allow-image-urls" in r and "data: URL" in r, f"what to do is said: {r}")
        equal(s.json("POST", "/v1/preprocess", {"image": "https://example.com/a.png"})[1]["error"]["code"], "remote_url", "preprocess")
        check(not s.json("GET", "/props")[1]["features"]["remote_urls"] and len(asked) == before, "nothing was asked")


def without_the_switch(port):
    """An allowed name that leads to this machine: refused before a connection is made."""
    rule = f"127.0.0.1:{port},localhost:{port},10.0.0.1,[::1]:{port},169.254.169.254"
    with Server("--allow-image-urls", rule) as s:
        before = len(asked)
        for u in (f"https://127.0.0.1:{port}/a.png", f"https://localhost:{port}/a.png", "https://10.0.0.1/a.png",
                  f"https://[::1]:{port}/a.png", "https://169.254.169.254/latest/meta-data/"):
            refused(s, u, 400, "remote_url_blocked", f"not public: {u}")
        equal(len(asked), before, "nothing was asked")


def on(port, cert):
    base = f"https://127.0.0.1:{port}"
    rule = f"127.0.0.1:{port},10.0.0.1,169.254.169.254,[::ffff:127.0.0.1]:{port},[::1]:{port},*.example.org"
    with Server("--allow-image-urls", rule, "--image-url-timeout", "1.5", "--max-image-bytes", str(MAX),
                "--test-image-url-ca", cert) as s:
        check("for tests only" in s.logs(), "the hidden switch is logged")
        check(s.json("GET", "/props")[1]["features"]["remote_urls"], "/props says that URLs are on")
        status, r = s.chat([by_url(base + "/a.png"), text("?")])
        equal((status, r["x_image"][0]["width"], r["x_image"][0]["format"]), (200, 80, "png"), "a picture by URL")
        equal(asked[-1][0], "/a.png", "one request for it")
        sent = {k.lower() for k in asked[-1][1]}
        check(not sent & {"cookie", "authorization", "accept-encoding", "referer"}, f"only plain headers: {sent}")
        equal(s.json("POST", "/v1/preprocess", {"image": base + "/a.png"})[1].get("width"), 80, "preprocess by URL")
        status, r = s.chat([by_url(base + "/to/same"), text("?")], cache=False)
        equal((status, r.get("x_image", [{}])[0].get("width")), (200, 80), "a redirect on the same host")
        for where in ("private", "metadata", "mapped", "loopback6"):
            refused(s, f"{base}/to/{where}", 400, "remote_url_blocked", f"a redirect to {where}")
        for where in ("unlisted", "plain", "file"):
            refused(s, f"{base}/to/{where}", 400, "remote_url_not_allowed", f"a redirect to {where}")
        refused(s, f"{base}/to/loop", 400, "remote_url_failed", "a redirect for ever")
        for u in (f"http://127.0.0.1:{port}/a.png", "https://example.com/a.png", "https://127.0.0.1/a.png",
                  f"https://user:secret@127.0.0.1:{port}/a.png", "https://example.org/a.png",
                  f"https://127.0.0.1:{port}@example.com/a.png", f"https://127.0.0.1.example.com:{port}/a.png"):
            refused(s, u, 400, "remote_url_not_allowed", f"not on the list: {u}")
        for u in ("https://", "https://a b/", f"{base}/\u00e9.png", f"{base}/\na.png", base + "/" + "a" * 3000):
            refused(s, u, 400, "invalid_image_url", f"no URL: {u[:40]!r}")
        refused(s, base + "/big", 413, "image_too_large", "a body over the limit")
        refused(s, base + "/endless", 413, "image_too_large", "a body over the limit, of no stated length")
        refused(s, base + "/none", 400, "remote_url_failed", "404")
        refused(s, base + "/empty", 400, "remote_url_failed", "an empty body")
        refused(s, base + "/cut", 400, "remote_url_failed", "a body cut short")
        status, r = s.chat([text("?"), by_url(base + "/page")])
        check(status in (400, 415) and r["error"]["param"] == "messages[0].content[1]", f"no picture: {status} {r}")
        slow(s, base)
        for result in ("ok", "remote_url_blocked", "remote_url_timeout"):
            check(f'vitreous_image_fetches_total{{result="{result}"}}' in s.get("/metrics")[2].decode(), f"metric {result}")
        check("/a.png" not in s.logs(), "no URL in the logs")


def slow(s, base):
    """Slow sites end in a 504, one deadline over all pictures, and disturb nobody else. (/silent never answers.)"""
    hold.clear()

    def three():
        return s.chat([by_url(f"{base}/{x}") for x in ("drip", "drip", "silent")] + [text("?")])

    def others():
        time.sleep(0.3)
        return [s.chat("hi", cache=False, max_tokens=2)[0] for _ in range(2)] + [s.get("/health")[0]]
    a, b, c = together([three, lambda: s.chat([by_url(base + "/silent"), text("?")]), others])
    for status, r in (a, b):
        equal((status, r["error"]["code"], r["error"]["param"]), (504, "remote_url_timeout", "messages[0].content[0]"), "too slow")
    equal(c, [200, 200, 200], "others are served meanwhile")
    hold.set()


def unwanted(port, cert):
    """A fetch ends with the request's time, its client, and the server; all while the site says nothing at all."""
    rule = ("--allow-image-urls", f"127.0.0.1:{port}", "--image-url-timeout", LONGEST, "--test-image-url-ca", cert)
    silent = [by_url(f"https://127.0.0.1:{port}/silent"), text("?")]
    hold.clear()
    with Server(*rule) as s:
        status, r = s.chat(silent, max_time=0.5)
        equal((status, r["error"]["code"], r["error"]["param"]), (408, "deadline_exceeded", "max_time"), "max_time")
        status, r = s.json("POST", "/v1/jobs", {"messages": [{"role": "user", "content": silent}], "max_time": 0.5})
        equal((status, r["error"]["code"]), (408, "deadline_exceeded"), "max_time of a job")
        for path, body in (("/v1/chat/completions", {"messages": [{"role": "user", "content": silent}], "stream": True}),
                           ("/v1/preprocess", {"image": silent[0]["image_url"]["url"]})):
            left, data, before = s.metric("image_fetches_total"), json.dumps(body).encode(), len(asked)
            with socket.create_connection(("127.0.0.1", s.port), timeout=HANG) as c:
                c.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                          % (path.encode(), len(data)) + data)
                until(lambda n=before: len(asked) > n, "the site is asked")
            until(lambda n=left: s.metric("image_fetches_total") > n, f"{path}: a client that goes away ends its fetch")
        check('result="client_closed"} 2' in s.get("/metrics")[2].decode(), "both counted as such")
        out = []
        t = threading.Thread(target=lambda: out.append(s.chat(silent)))
        before = len(asked)
        t.start()
        until(lambda: len(asked) > before, "the site is asked again")
        s.process.send_signal(signal.SIGTERM)
        t.join(HANG)
        check(out and out[0][0] == 503 and out[0][1]["error"]["code"] == "shutting_down", f"a server that stops: {out}")
    hold.set()


def tenants(port, cert):
    """One key's fetches leave places for the others."""
    one, two = {"Authorization": "Bearer key-number-one"}, {"Authorization": "Bearer key-number-two"}
    hold.clear()
    with Server("--allow-image-urls", f"127.0.0.1:{port}", "--image-url-timeout", LONGEST, "--test-image-url-ca", cert,
                "--api-key", "key-number-one", "--api-key", "key-number-two") as s:
        before, out = len(asked), []
        greedy = [threading.Thread(target=lambda: out.append(
            s.chat([by_url(f"https://127.0.0.1:{port}/silent"), text("?")], headers=one, max_time=HANG, timeout=HANG)))
            for _ in range(12)]
        for t in greedy:
            t.start()
        until(lambda: len(asked) == before + 4, "four of them are under way")
        status, r = s.chat([by_url(f"https://127.0.0.1:{port}/a.png"), text("?")], headers=two)
        equal((status, len(asked), len(out)), (200, before + 5, 0), f"another key is served meanwhile: {str(r)[:200]}")
        hold.set()
        for t in greedy:
            t.join(HANG)
        equal(len(out), 12, "and the rest when there is room")


def jobs(port, cert):
    """A passing failure of the site does not end a job; one that does not pass does, after four tries."""
    base = f"https://127.0.0.1:{port}/"
    with Server("--allow-image-urls", f"127.0.0.1:{port}", "--test-image-url-ca", cert) as s:
        ids = {}
        for name in later:
            body = {"messages": [{"role": "user", "content": [by_url(base + name), text("job")]}], "max_tokens": 2, "temperature": 0}
            status, j = s.json("POST", "/v1/jobs", body)
            equal((status, j.get("status"), j.get("tries")), (202, "queued", 0), f"accepted: {name}")
            ids[name] = j["id"]
        state = {}

        def ended():
            state.update({n: s.json("GET", "/v1/jobs/" + i)[1] for n, i in ids.items()})
            return all(j["status"] in ("done", "failed") for j in state.values())
        until(ended, "every job ends")
        for name, (end, tries) in {"sometimes": ("done", 3), "dead": ("failed", 4), "removed": ("failed", 1)}.items():
            j = state[name]
            equal((j["status"], j["tries"], sum(p == "/" + name for p, _ in asked)), (end, tries, tries + 1), f"{name}: {str(j)[:300]}")
        equal(state["dead"]["error"]["code"], "remote_url_failed", "the last error is kept")


def wrong_lists():
    for bad in ("", "*", "https://a", "a:0"):
        r = subprocess.run([serving.VITREOUS, "serve", "--allow-image-urls", bad],
                           capture_output=True, text=True)
        check(r.returncode == 2 and "allow-image-urls" in r.stderr, f"'{bad}' is no list: {r.returncode}")


def wrong_certificate(port, folder):
    other = os.path.join(folder, "other.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", os.devnull, "-out", other, "-days", "2",
                    "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, stderr=subprocess.DEVNULL)
    with Server("--allow-image-urls", f"127.0.0.1:{port}", "--test-image-url-ca", other) as s:
        before = len(asked)
        refused(s, f"https://127.0.0.1:{port}/a.png", 400, "remote_url_failed", "a certificate that nobody vouches for")
        equal(len(asked), before, "nothing was asked of it")


def main():
    if not shutil.which("openssl"):
        print("SKIP openssl is needed to make the test's certificate")
        serving.skipped += 1
        finish()
    with tempfile.TemporaryDirectory() as folder:
        port, cert = site(folder)
        off(port)
        without_the_switch(port)
        on(port, cert)
        unwanted(port, cert)
        tenants(port, cert)
        jobs(port, cert)
        wrong_certificate(port, folder)
        wrong_lists()
    finish()


main()
