#!/usr/bin/env python3
"""Clients that mean harm or die: smuggling, malformed requests, slow-loris, half-sent bodies, clients killed
at every stage, SIGTERM under load, SIGKILL with jobs queued. The server must answer, clean up and lose nothing.

VL_MALFORMED: how many malformed requests (default 10000). No time is demanded: HANG is when a test gives up, what
matters is which came first and how much was done; the times are printed."""
import json
import os
import random
import re
import signal
import socket
import sqlite3
import struct
import subprocess
import tempfile
import threading
import time
import zlib

import serving
from serving import HANG, ROOT, SLOW, VITREOUS, Server, check, equal, finish, image, model_dir, png, text, together, until

LONG = {"messages": [{"role": "user", "content": "tell me everything"}], "temperature": 0, "max_tokens": 2000,
        "ignore_eos": True, "cache": False}


QUICK = json.dumps({"messages": [{"role": "user", "content": "x"}], "max_tokens": 2})


def busy(s):
    """Until something runs; a fast engine may be done before it is seen, so not for ever."""
    for _ in range(500):
        if s.metric("inflight") > 0:
            return
        time.sleep(0.002)


def codes(answer):
    return [int(x) for x in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def smuggling(s):
    host = b"Host: 127.0.0.1\r\n"
    post = b"POST /tokenize HTTP/1.1\r\n" + host + b"Content-Type: application/json\r\n"
    inner = b"GET /v1/models HTTP/1.1\r\n" + host + b"\r\n"
    last = b"GET /health HTTP/1.1\r\n" + host + b"Connection: close\r\n\r\n"
    body = b'{"content":"x"}'
    one = {                       # name: bytes, of which at most one request may be answered with 200
        "CL and TE": post + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner,
        "two CL": post + b"Content-Length: 15\r\nContent-Length: 3\r\n\r\n" + body + inner,
        "two equal CL": post + b"Content-Length: 15\r\nContent-Length: 15\r\n\r\n" + body + inner,
        "CL list": post + b"Content-Length: 15, 15\r\n\r\n" + body + inner,
        "CL +": post + b"Content-Length: +15\r\n\r\n" + body + inner,
        "CL negative": post + b"Content-Length: -1\r\n\r\n" + body + inner,
        "CL hex": post + b"Content-Length: 0xf\r\n\r\n" + body + inner,
        "CL huge": post + b"Content-Length: 99999999999999999999\r\n\r\n" + body + inner,
        "TE gzip": post + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + inner,
        "TE space": post + b"Transfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + inner,
        "TE twice": post + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + inner,
        "chunk overflow": post + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n" + body + b"\r\n0\r\n\r\n" + inner,
        "chunk nonsense": post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + body + inner,
        "obs-fold": b"GET /health HTTP/1.1\r\n" + host + b"X: a\r\n b\r\nContent-Length: 3\r\n\r\nabc" + last,
        "NUL in a header": b"GET /v1/models HTTP/1.1\r\n" + host + b"X: a\0b\r\nContent-Length: 3\r\n\r\nabc" + last,
        "two Hosts": b"GET /v1/models HTTP/1.1\r\n" + host + b"Host: evil.example\r\n\r\n",
        "no Host": b"GET /v1/models HTTP/1.1\r\n\r\n",
        "TE in HTTP/1.0": b"POST /tokenize HTTP/1.0\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner,
    }
    for name, data in one.items():
        got = codes(s.raw(data, timeout=15))
        # libmicrohttpd unfolds a folded line and cuts a value at a NUL; the framing is not moved by it.
        check(got.count(200) == (2 if name in ("obs-fold", "NUL in a header") else 0), f"{name}: {got}")
    ok = b"GET /health HTTP/1.1\r\n" + host + b"\r\n"
    equal(codes(s.raw(ok * 5 + last)), [200] * 6, "pipelining")
    equal(codes(s.raw(last, pause=0.001)), [200], "one byte at a time")
    got = s.raw(post + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n" + body[:5] + b"\r\na\r\n" + body[5:] + b"\r\n0\r\n\r\n")
    equal(codes(got), [200], "chunks")
    got = s.raw(post + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: 15\r\n\r\n" + body)
    equal(codes(got)[-1:], [200], "Expect: 100-continue")
    got = s.raw(b"OPTIONS /v1/models HTTP/1.1\r\n" + host + b"Origin: http://e.example\r\nConnection: close\r\n\r\n")
    check(b"Access-Control" not in got and codes(got)[0] >= 400, "OPTIONS grants nothing")
    got = s.raw(b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\n" + host + b"\r\n")
    check(codes(got) and codes(got)[0] in (414, 431, 400), f"a URL of 40 kB: {codes(got)}")
    got = s.raw(b"GET /health HTTP/1.1\r\n" + host + b"".join(b"X-%d: y\r\n" % i for i in range(200)) + b"\r\n")
    equal(codes(got), [431], "200 headers")
    got = s.raw(post + b"Content-Length: 99999999\r\n\r\n")
    equal(codes(got), [413], "a body of 100 MB is refused before it is sent")
    for path in ("/web/../server.c", "/web/%2e%2e/x", "/web//etc/passwd", "/v1/files/..%2f..%2fetc", "/web/\x00"):
        check(s.raw(f"GET {path} HTTP/1.1\r\n".encode() + host + b"Connection: close\r\n\r\n").find(b"root:") < 0, path)


def malformed(s):
    rng = random.Random(11)
    n = int(os.environ.get("VL_MALFORMED", "10000"))
    good = [b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: 78\r\n\r\n" + b'{"messages":[{"role":"user","content":"hi"}],"max_tokens":1,"temperature":0   }'[:78]]
    bad = 0
    for i in range(n):
        data = bytearray(good[i % 2])
        for _ in range(rng.randint(1, 6)):
            kind, at = rng.randint(0, 3), rng.randrange(len(data))
            if kind == 0:
                data[at] = rng.randrange(256)
            elif kind == 1:
                del data[at:at + rng.randint(1, 20)]
            elif kind == 2:
                data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 8)))
            else:
                data[at:at] = rng.choice([b"\r\n", b"\n", b"\0", b"{", b"]", b'"', b"\xff\xfe", b"9" * 20, b"%00", b": "])
            data = data or bytearray(b"x")
        with socket.create_connection(("127.0.0.1", s.port), timeout=10) as c:
            c.sendall(bytes(data))
            c.shutdown(socket.SHUT_WR)
            out = b""
            try:
                while chunk := c.recv(65536):
                    out += chunk
            except ConnectionResetError:
                pass
            except TimeoutError:
                bad += 1
            if any(k >= 500 for k in codes(out)) and 501 not in codes(out) and 505 not in codes(out):
                bad += 1
                print(bytes(data), out[:300])
    equal(bad, 0, f"{n} malformed requests: hangs or 5xx")


def fuzz_json(s):
    """Well-formed HTTP, JSON of the wrong shape."""
    rng = random.Random(5)
    values = [None, True, -1, 1e308, "x", "\ud83d", [], {}, [[]], {"a": {}}, "data:,", 2 ** 70, "<|image_pad|>"]
    names = ["messages", "temperature", "stop", "n", "tools", "tool_choice", "response_format", "logit_bias", "stream_options",
             "max_tokens", "guided_regex", "guided_choice", "guided_json", "seed", "detail", "top_p"]
    bad = []
    for i in range(400):
        body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1, "max_time": 5}
        for _ in range(rng.randint(1, 3)):
            body[rng.choice(names)] = rng.choice(values)
        if rng.random() < 0.3:
            body["messages"] = [{"role": rng.choice(["user", 5, "tool"]), "content": rng.choice(values), "tool_calls": rng.choice(values)}]
        raw = json.dumps(body).encode()
        status = s.post("/v1/chat/completions", raw, headers={"Content-Type": "application/json"})[0]
        if status >= 500:
            bad.append((status, body))
    equal(bad[:2], [], "JSON of the wrong shape never gives 5xx")


def slow_clients():
    with Server("--header-timeout", "1", "--body-timeout", "1") as s:
        def loris(data):
            start = time.monotonic()
            with socket.create_connection(("127.0.0.1", s.port), timeout=20) as c:
                out = b""
                c.settimeout(0.2)
                for b in data:
                    try:
                        c.sendall(bytes([b]))
                        got = c.recv(4096)
                        if not got:
                            break
                        out += got
                    except TimeoutError:
                        continue
                    except OSError:
                        break
            return out, time.monotonic() - start
        head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100
        body = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n" + b" " * 80
        jobs = [lambda: loris(head)] * 20 + [lambda: loris(b"")] * 5
        health = []

        def ping():
            for _ in range(20):
                t = time.monotonic()
                equal(s.get("/health")[0], 200, "/health beside slow clients")
                health.append(time.monotonic() - t)
                time.sleep(0.05)
        results = together(jobs + [ping])[:20]
        check(all(b" 408 " in r[0] for r in results), f"slow headers end with 408: {results[:1]}")
        header, _, said = results[0][0].partition(b"\r\n\r\n")
        equal((b"Content-Length: %d\r\n" % len(said) in header + b"\r\n", json.loads(said)["error"]["code"]), (True, "timeout"), "whole")
        print(f"slow headers (--header-timeout 1): cut after {max(r[1] for r in results):.1f} s at most; "
              f"/health beside them {max(health) * 1e3:.0f} ms at most")
        with socket.create_connection(("127.0.0.1", s.port), timeout=10) as c:
            c.sendall(body)
            equal(codes(c.recv(4096)), [408], "a body that does not come ends with 408")
        with socket.create_connection(("127.0.0.1", s.port), timeout=HANG) as c:
            c.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            equal(codes(c.recv(4096)), [200], "a first request on a connection that is kept")
            c.sendall(head[:30])
            c.settimeout(30 * SLOW)
            try:
                got = codes(c.recv(4096))
            except TimeoutError:
                got = "nothing for 30 s"
            equal(got, [408], "the header of the second one has no more time than that of a first")


def deaths(s):
    """Clients that vanish at every stage; work for them must stop and others must not notice."""
    lone = s.chat("steady", max_tokens=24, cache=False)[1]["choices"][0]["message"]
    body = json.dumps({**LONG, "stream": True, "messages": [{"role": "user", "content": [
        image(png(320, 320, (3, 3, 3))), text("everything")]}]}).encode()
    request = (b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
               b"Content-Length: %d\r\n\r\n" % len(body)) + body

    def die(after_bytes, read, pause):
        with socket.create_connection(("127.0.0.1", s.port), timeout=10) as c:
            c.sendall(request[:after_bytes])
            if read:
                c.recv(read)
            time.sleep(pause)
            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")   # reset, not a polite end

    def steady():
        return s.chat("steady", max_tokens=24, cache=False)[1]["choices"][0]["message"]
    n = len(request)
    jobs = [lambda k=k: die(*k) for k in [(20, 0, 0), (n // 2, 0, 0), (n - 1, 0, 0), (n, 0, 0), (n, 0, .05), (n, 0, .3), (n, 1, 0),
                                          (n, 2000, .2), (n, 1, 1)]]
    results = together(jobs + [steady, steady])
    equal(results[-2:], [lone, lone], "answers beside dying clients are what they are alone")
    print(f"nothing runs for the dead after {idle(s):.2f} s")
    check(s.metric("cancelled_total") >= 4, "cancellations are counted")


def idle(s):
    """Waits until nothing runs; returns how long that took."""
    return until(lambda: s.metric("inflight") + s.metric("queue_depth") == 0, "what nobody waits for ends")


def many_pictures(s):
    """Eight that take long: for a client that has left, or whose time is over, not all of them are decoded."""
    def row(i):
        return b"\0" + bytes([i]) * 3900
    def flat(i):
        def chunk(kind, data):
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        return image(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 3900, 3900, 8, 0, 0, 0, 0)) +
                     chunk(b"IDAT", zlib.compress(row(i) * 3900)) + chunk(b"IEND", b""))
    body = {"messages": [{"role": "user", "content": [flat(i) for i in range(8)] + [text("x")]}], "max_tokens": 1}
    before = s.metric("image_format_total")
    status, r = s.json("POST", "/v1/chat/completions", {**body, "max_time": 0.05}, timeout=120)
    equal((status, r.get("error", {}).get("code")), (408, "deadline_exceeded"), "max_time holds for pictures too")
    decoded = s.metric("image_format_total") - before
    check(decoded < 8, f"{decoded} of 8 were decoded")
    data, gone = json.dumps(body).encode(), s.logs().count('"status":499')
    with socket.create_connection(("127.0.0.1", s.port), timeout=HANG) as c:
        c.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                  b"Content-Length: %d\r\n\r\n" % len(data) + data)
    until(lambda: s.logs().count('"status":499') > gone, "the request of a client that has left ends")
    decoded = s.metric("image_format_total") - before - decoded
    check(decoded < 8, f"{decoded} of 8 were decoded for nobody")


def helper_killed():
    """Without the process that decodes pictures none can be read: /health says so, and a restart helps."""
    with tempfile.TemporaryDirectory() as state, Server("--state", state) as s:
        with open(f"/proc/{s.process.pid}/task/{s.process.pid}/children") as f:
            children = f.read().split()
        for pid in children:
            with open(f"/proc/{pid}/comm") as f:
                check("vitreous-decode" in f.read(), "the one child")
            os.kill(int(pid), signal.SIGKILL)
        until(lambda: s.get("/health")[0] == 503, "/health says that the decoder is gone")
        equal([s.json("GET", p)[0] for p in ("/ready",)] + [s.json("GET", "/health")[1]["error"]["code"]], [503, "decoder_gone"], "and /ready")
        equal(s.metric("ready"), 0, "and the metric")
        status, r = s.chat([image(), text("x")])
        equal((status, r["error"]["code"]), (503, "system_failed"), f"a picture is not said to be at fault: {r}")
        equal(s.chat("x")[0], 200, "text is still answered")


def cancel(s):
    """An answer whose reader leaves is not generated to its end."""
    before = s.metric("cancelled_total")
    done = s.metric("tokens_total")
    body = json.dumps({**LONG, "max_tokens": 3500, "stream": True}).encode()
    with socket.create_connection(("127.0.0.1", s.port), timeout=HANG) as c:
        c.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                  b"Content-Length: %d\r\n\r\n" % len(body) + body)
        while b"content" not in c.recv(65536):
            continue
    print(f"an answer stops {idle(s) * 1e3:.0f} ms after its reader left")
    equal(s.metric("cancelled_total"), before + 1, "it was cancelled")
    check(s.metric("tokens_total") - done < 3500, "long before its end")
    # The next request has been sent already, and is waiting to be read: that must not hide that the client has gone.
    body = json.dumps({**LONG, "max_tokens": 3500, "detect_repetition": False}).encode()
    with socket.create_connection(("127.0.0.1", s.port), timeout=HANG) as c:
        c.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                  b"Content-Length: %d\r\n\r\n" % len(body) + body)
        until(lambda: s.metric("inflight") == 1, "a whole answer is being made")
        c.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.05)
    idle(s)
    equal(s.metric("cancelled_total"), before + 2, "it was cancelled too")


def overload():
    with Server("--batch", "2", "--queue", "2") as s:
        body = {**LONG, "max_tokens": 60}
        results = together([lambda: s.post("/v1/chat/completions", body, timeout=120)] * 12)
        kinds = sorted({r[0] for r in results})
        equal(kinds, [200, 429], "a full queue answers 429")
        check(all("Retry-After" in r[1] for r in results if r[0] == 429), "... with Retry-After")
        status, r = s.chat("x", max_time=0.05, max_tokens=2000, ignore_eos=True, cache=False)
        check(status in (200, 408) and (status != 200 or r["choices"][0]["finish_reason"] == "length"), f"max_time: {status}")


def deadlines():
    with Server("--batch", "1") as s:
        ahead = [threading.Thread(target=lambda: s.post("/v1/chat/completions", {**LONG, "max_time": 3}, timeout=60))
                 for _ in range(12)]  # one at a time: seconds of work in front, also on a fast machine
        for t in ahead:
            t.start()
        busy(s)
        time.sleep(0.1)  # all of them are in the queue
        start = time.monotonic()
        status, r = s.chat("x", max_time=0.3)
        took, waiting = time.monotonic() - start, sum(t.is_alive() for t in ahead)
        check(status == 408 and r["error"]["code"] == "deadline_exceeded", f"a deadline also holds in the queue: {status} {r}")
        check(waiting > 0, "it is told before those ahead of it are done")
        print(f"max_time 0.3 s in a queue: told after {took:.1f} s, {waiting} of {len(ahead)} ahead of it not done")
        for t in ahead:
            t.join()


def longest():
    """--max-time is a limit: a request may ask for less. What it cuts is an answer, and counted among the times of answers."""
    with Server("--max-time", str(0.2 * SLOW)) as s:
        before = s.metric("e2e_seconds_count")
        status, r = s.chat("x", max_time=100, max_tokens=3900, ignore_eos=True, cache=False)
        check(status == 200 and r["choices"][0]["finish_reason"] == "length" and r["usage"]["completion_tokens"] < 3900,
              f"no more than the server's: {status} {r.get('usage')}")
        check(any("max_time was lowered" in w for w in r.get("x_warnings", [])), f"and it says so: {r.get('x_warnings')}")
        equal(s.metric("e2e_seconds_count"), before + 1, "the metric knows of it")


def watchdog():
    """An engine that has work and gets no further makes /health say so. Every step takes longer than this limit."""
    with Server("--watchdog", "0.000001") as s:
        equal(s.get("/health")[0], 200, "without work all is well")
        t = threading.Thread(target=lambda: s.post("/v1/chat/completions", {**LONG, "max_tokens": 400}, timeout=HANG))
        t.start()
        until(lambda: s.get("/health")[0] == 503, "no progress is told")
        t.join()
        until(lambda: s.get("/health")[0] == 200, "and it is forgotten when there is some")


def drain():
    with Server("--shutdown-timeout", str(120 * SLOW)) as s:
        out = []
        t = threading.Thread(target=lambda: out.append(s.post("/v1/chat/completions", {**LONG, "max_tokens": int(3000 / SLOW)}, timeout=120)))
        t.start()
        busy(s)
        s.process.send_signal(signal.SIGTERM)
        t.join()
        equal(out[0][0] if out else None, 200, "SIGTERM lets a running answer finish")
        equal(s.process.wait(HANG), 0, "... and exits with 0")
    with Server("--shutdown-timeout", "0.1") as s:
        t = threading.Thread(target=lambda: out.append(s.post("/v1/chat/completions", {**LONG, "max_tokens": 3500, "n": 4}, timeout=60)))
        t.start()
        busy(s)
        start = time.monotonic()
        s.process.send_signal(signal.SIGTERM)
        equal(s.process.wait(HANG), 0, "the deadline of a shutdown")
        print(f"--shutdown-timeout 0.1: gone after {time.monotonic() - start:.1f} s")
        t.join()
        check(len(out) == 2 and out[1][0] in (200, 503), f"its client is told: {out[1:]}")
        if out[1][0] == 200:
            check(json.loads(out[1][2])["usage"]["completion_tokens"] < 4 * 3500, "and its answer was not waited for")
    with Server() as s:
        threading.Thread(target=lambda: together([lambda: s.post("/v1/chat/completions", LONG, timeout=60)]), daemon=True).start()
        busy(s)
        s.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        s.process.send_signal(signal.SIGTERM)
        check(s.process.wait(HANG) == 1, "a second signal ends it now")


def killed_jobs():
    with tempfile.TemporaryDirectory() as state:
        with Server("--state", state) as s:
            ids = []
            for i in range(6):
                status, j = s.json("POST", "/v1/jobs", {"messages": [{"role": "user", "content": f"job {i}"}], "temperature": 0,
                                                        "max_tokens": 30, "ignore_eos": True})
                check(status == 202 and j["durable"], "a durable job")
                ids.append(j["id"])
            s.process.kill()
            s.process.wait()
        file = os.path.join(state, "jobs.sqlite")
        rows(file, "UPDATE jobs SET status='running', tries=3, request=? WHERE id=?", QUICK, ids[5])  # as if it was killed at that moment
        os.chmod(file, 0o644)
        with Server("--state", state) as s:
            equal(oct(os.stat(file).st_mode & 0o777), "0o600", "a file that an earlier version left open is closed")

            def states():
                return [s.json("GET", f"/v1/jobs/{i}")[1].get("status") for i in ids]
            until(lambda: set(states()) == {"done"}, "jobs run after a restart")
            equal(states(), ["done"] * 6, "every job accepted before SIGKILL is done after it")
            j = s.json("GET", f"/v1/jobs/{ids[5]}")[1]
            equal((j["tries"], j["crashes"]), (3, 1), "a kill is no try, but is counted")


def old_jobs():
    """A file of the first version: no tries, no due, no crashes."""
    if sqlite3.sqlite_version_info < (3, 35):
        return                                               # cannot drop columns
    with tempfile.TemporaryDirectory() as state:
        file = os.path.join(state, "jobs.sqlite")
        with Server("--state", state) as s:
            i = s.json("POST", "/v1/jobs", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2})[1]["id"]
            s.process.kill()
            s.process.wait()
        for column in ("tries", "due", "crashes"):
            rows(file, f"ALTER TABLE jobs DROP COLUMN {column}")
        rows(file, "UPDATE jobs SET status='running', result=NULL, finished=NULL, request=?", QUICK)
        with Server("--state", state) as s:
            until(lambda: s.json("GET", f"/v1/jobs/{i}")[1]["status"] == "done", "its job is run")
            equal(s.json("GET", f"/v1/jobs/{i}")[1]["crashes"], 1, "and counted from now on")


def crashing_job():
    """The process dies under a job, again and again: then the job has failed, and the one beside it has not."""
    with tempfile.TemporaryDirectory() as state:
        file = os.path.join(state, "jobs.sqlite")

        def running():
            return [i for i, in rows(file, "SELECT id FROM jobs WHERE status='running' ORDER BY created, rowid")]
        with Server("--state", state) as s:
            body = {**LONG, "detect_repetition": False, "max_tokens": 3000}
            one, two = (s.json("POST", "/v1/jobs", body)[1]["id"] for _ in range(2))
            until(lambda: running() == [one, two], "two jobs run side by side")
            s.process.kill()
            s.process.wait()
        for times in (2, 3):
            with Server("--state", state) as s:
                until(lambda: running() == [one], f"then one alone (its run {times})")
                s.process.kill()
                s.process.wait()
        with Server("--state", state) as s:
            j = s.json("GET", f"/v1/jobs/{one}")[1]
            equal((j["status"], j["crashes"], j.get("error", {}).get("code")), ("failed", 3, "job_crashed"), f"three ends: {j}")
            check("3 times" in j["error"]["message"] and "submit the job again" in j["error"]["message"], f"it says so: {j}")
            check(one in s.logs() and s.metric("jobs_total") == 1, "in log and metrics")
            until(lambda: running() == [two], "its neighbour runs")
            equal(s.json("GET", f"/v1/jobs/{two}")[1]["crashes"], 1, "and is not blamed for it")
            third = s.json("POST", "/v1/jobs", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2})[1]["id"]
            s.json("DELETE", f"/v1/jobs/{two}")
            until(lambda: s.json("GET", f"/v1/jobs/{third}")[1]["status"] == "done", "and others after it")
            check(s.json("GET", f"/v1/jobs/{two}")[1]["status"] in ("cancelled", "done"), "the neighbour ends as it should")


def submit(s, **k):
    return s.json("POST", "/v1/jobs", {**json.loads(QUICK), **k})[1]["id"]


def broken_engine():
    """The engine fails for good: what it ran then is as if the server had died, and no job is taken from the queue to fail.
    On gpusim, whose second GPU can die."""
    sim = os.path.join(ROOT, "build", "gpusim")
    env = {"VL_CUDA_DRIVER": os.path.join(sim, "libcuda.so.1"), "VL_NCCL": os.path.join(sim, "libnccl.so.2"), "GPUSIM_PTX": "80",
           "GPUSIM_DEVICES": "2"}
    args = ("-m", os.path.join(ROOT, "tests", "golden", "models", "std"), "--backend", "cuda", "--gpus", "2")
    probe = subprocess.run([VITREOUS, "info", *args[:4]], capture_output=True, text=True, env={**os.environ, **env})
    if not os.path.exists(env["VL_NCCL"]) or "no GPU kernels" in probe.stderr or "release" not in serving.BUILD:
        print("SKIP an engine that fails: nvcc or gpusim was not there, or a sanitizer's build runs")
        serving.skipped += 1
        return
    os.environ.update({**env, "GPUSIM_FAIL_KERNEL": "700"})
    try:
        with tempfile.TemporaryDirectory() as state, Server(*args, "--state", state) as s:
            ids = [submit(s, max_tokens=30, ignore_eos=True, temperature=0) for _ in range(5)]
            until(lambda: s.get("/health")[0] == 503, "/health says that the engine is gone")

            def jobs():
                return [(j["status"], j["crashes"]) for j in (s.json("GET", f"/v1/jobs/{i}")[1] for i in ids)]
            until(lambda: not any(j[0] == "running" for j in jobs()), "what ran is put back")
            got = [j for j in jobs() if j[0] != "done"]
            check(0 < sum(crashes for _, crashes in got) <= 2, f"it is counted against the two that ran: {got}")
            equal({status for status, _ in got}, {"queued"}, "and nothing that was accepted is lost")
            equal(s.chat("x")[1]["error"]["code"], "engine_failed", "a request is told")
    finally:
        for name in (*env, "GPUSIM_FAIL_KERNEL"):
            os.environ.pop(name, None)


def job_storage():
    """A storage that fails is told and nothing is lost: no 404 for a job that is there, no `cancelled` for one that is not."""
    with tempfile.TemporaryDirectory() as state, Server("--state", state) as s:
        file = os.path.join(state, "jobs.sqlite")
        done = submit(s)
        until(lambda: s.json("GET", f"/v1/jobs/{done}")[1]["status"] == "done", "a job is done")
        equal(rows(file, "SELECT request FROM jobs"), [("",)], "what was asked is not kept longer than it is needed")
        rows(file, "ALTER TABLE jobs RENAME TO elsewhere")
        for method, path, body in (("GET", f"/v1/jobs/{done}", None), ("GET", "/v1/jobs", None), ("DELETE", f"/v1/jobs/{done}", None),
                                   ("POST", "/v1/jobs", json.loads(QUICK))):
            status, r = s.json(method, path, body)
            equal((status, r["error"]["code"] if "error" in r else r), (500, "storage_failed"), f"{method} {path} without the table")
        rows(file, "ALTER TABLE elsewhere RENAME TO jobs")
        equal(s.json("GET", f"/v1/jobs/{done}")[1].get("status"), "done", "and it is there again")
        no = "CREATE TRIGGER no BEFORE UPDATE ON jobs WHEN new.status='{}' BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        rows(file, no.format("running"))
        i = submit(s)
        rows(file, no.format("cancelled").replace("no", "nor", 1))
        status, r = s.json("DELETE", f"/v1/jobs/{i}")
        equal((status, r.get("error", {}).get("code")), (500, "storage_failed"), f"it cannot be cancelled: {r}")
        rows(file, no.format("done").replace("no", "not_yet", 1))
        rows(file, "DROP TRIGGER no")
        until(lambda: "result could not be stored" in s.logs(), "a result that cannot be stored")
        equal(s.json("GET", f"/v1/jobs/{i}")[1]["status"], "running", "is not done yet")
        rows(file, "DROP TRIGGER not_yet")
        until(lambda: s.json("GET", f"/v1/jobs/{i}")[1]["status"] == "done", "it is stored when that is possible again")
        check(s.json("GET", f"/v1/jobs/{i}")[1]["result"]["choices"], "with its answer")
        rows(file, "UPDATE jobs SET finished=1 WHERE id=?", done)
        rows(file, "DROP TRIGGER nor")
        submit(s)
        until(lambda: s.json("GET", f"/v1/jobs/{done}")[0] == 404, "a day later it is forgotten, also without a restart")
        r = subprocess.run([VITREOUS, "serve", "-m", model_dir(), "--port", "0", "--state", state], capture_output=True, text=True,
                           timeout=HANG)
        check(r.returncode == 3 and "in use by another server" in r.stderr, f"one server at a time: {r.returncode} {r.stderr[-300:]}")
        long = [submit(s, max_tokens=3000, ignore_eos=True, detect_repetition=False) for _ in range(3)]
        before = s.metric("jobs_total")
        for i in reversed(long):
            s.json("DELETE", f"/v1/jobs/{i}")
        until(lambda: s.metric("jobs_total") == before + 3, "cancelled ones are counted, also those that had not begun")
        j = [s.json("GET", f"/v1/jobs/{i}")[1] for i in long]
        check(all(x["status"] == "cancelled" and "error" not in x for x in j), f"and say no more than that: {j}")
        status, r = s.json("GET", "/v1/jobs")
        equal((status, len(r["data"]), r.get("has_more")), (200, 5, False), "the list is whole")
        rows(file, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 150) INSERT INTO jobs(id, tenant, status, created, "
             "finished, request, http, result) SELECT 'job_' || i, tenant, 'done', created, finished, '', 200, '{}' FROM n, (SELECT * FROM jobs LIMIT 1)")
        r = s.json("GET", "/v1/jobs")[1]
        equal((len(r["data"]), r.get("has_more")), (100, True), "the list says that there are more")
    picture = image(b"P6\n64 64\n255\n" + random.Random(1).randbytes(64 * 64 * 3))

    def big(s):
        return s.json("POST", "/v1/jobs", {"messages": [{"role": "user", "content": [picture, text("x")]}], "max_tokens": 3000, "ignore_eos": True,
                                           "detect_repetition": False})
    with Server("--max-body", "20000") as s:
        ids = []
        while len(ids) < 200 and (r := big(s))[0] == 202:
            ids.append(r[1]["id"])
        check(60 < len(ids) < 100 and (r[0], r[1]["error"]["code"]) == (429, "queue_full"), f"what is queued is bounded in bytes: {len(ids)} {r}")
        for i in reversed(ids):
            s.json("DELETE", f"/v1/jobs/{i}")
        until(lambda: s.metric("jobs_total") >= len(ids), "they end")
        room = [big(s) for _ in range(30)]
        equal({x[0] for x in room}, {202}, "and there is room again")


def rows(file, sql, *args):
    db = sqlite3.connect(file)
    with db:
        found = db.execute(sql, args).fetchall()
    db.close()
    return found


def stopped_jobs():
    """SIGTERM puts running jobs back; a job whose key is gone is not run as somebody else's; a file that cannot be used."""
    one, two = ("--api-key", "key-number-one"), ("--api-key", "key-number-two")
    with tempfile.TemporaryDirectory() as state:
        file = os.path.join(state, "jobs.sqlite")
        with Server("--state", state, *one) as s:
            i = s.json("POST", "/v1/jobs", {k: v for k, v in LONG.items() if k != "cache"}, headers=s.headers)[1]["id"]
            until(lambda: s.json("GET", f"/v1/jobs/{i}", headers=s.headers)[1]["status"] != "queued", "it runs")
            s.process.send_signal(signal.SIGTERM)
            equal(s.process.wait(HANG), 0, "it stops")
        row = rows(file, "SELECT status, tries FROM jobs")[0]
        check(row in (("queued", 0), ("done", 1)), f"a running job is put back: {row}")
        rows(file, "UPDATE jobs SET status='queued'")
        with Server("--state", state, *two):
            until(lambda: rows(file, "SELECT status FROM jobs")[0][0] not in ("queued", "running"), "the other key's server ends it")
        with Server("--state", state, *one) as s:
            j = s.json("GET", f"/v1/jobs/{i}", headers=s.headers)[1]
            equal((j["status"], j.get("error", {}).get("code")), ("failed", "unknown_key"), f"and says why: {str(j)[:300]}")
    with tempfile.TemporaryDirectory() as state:
        file = os.path.join(state, "jobs.sqlite")
        more = "".join(f", c{i}" for i in range(1992))       # SQLite has at most 2000 columns: none can be added
        rows(file, "CREATE TABLE jobs(id TEXT PRIMARY KEY, tenant, status, created, finished, request, http, result" + more + ")")
        r = subprocess.run([VITREOUS, "serve", "-m", model_dir(), "--port", "0", "--state", state], capture_output=True, text=True,
                           timeout=HANG)
        check(r.returncode == 3 and "cannot be brought up" in r.stderr, f"a file without the columns: {r.returncode} {r.stderr[-300:]}")


def main():
    with Server() as s:
        for part in (smuggling, malformed, fuzz_json, deaths, many_pictures, cancel):
            before = time.monotonic()
            part(s)
            if os.environ.get("V"):
                print(f"{part.__name__}: {time.monotonic() - before:.1f} s", flush=True)
        check(s.process.poll() is None and s.get("/health")[0] == 200, "the server is still there")
    for part in (slow_clients, overload, deadlines, longest, watchdog, drain, killed_jobs, old_jobs, crashing_job, stopped_jobs, job_storage, broken_engine, helper_killed):
        before = time.monotonic()
        part()
        if os.environ.get("V"):
            print(f"{part.__name__}: {time.monotonic() - before:.1f} s", flush=True)
    finish()


main()
