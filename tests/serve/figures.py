#!/usr/bin/env python3
"""The service's figures on a quiet machine, one line each (no test: nothing here can fail for slowness).

    quiet-machine$ VL_TEST_MODEL=models/demo python3 tests/serve/figures.py [crowd health repeat cache memory]

crowd: tokens/s of 8 clients over one, interleaved; health: p99 of /health under 64 clients; repeat: time to
first token of a second question on the same picture over the first; cache: an identical request from the result
cache. VL_LOAD_SECONDS: length of a part (6). `memory` asks VL_LOAD_REQUESTS times (10000; not part of the default)."""
import http.client
import json
import math
import multiprocessing
import os
import re
import selectors
import socket
import statistics
import sys
import threading
import time

from serving import Server, image, png, text, together

SECONDS = float(os.environ.get("VL_LOAD_SECONDS", "6"))
REQUESTS = int(os.environ.get("VL_LOAD_REQUESTS", "10000"))
ARGS = os.environ.get("VL_SERVE_ARGS", "").split()


def body(content, **k):
    return {"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 200,
            "ignore_eos": True, "cache": False, "detect_repetition": False, **k}


def rate(s, clients, seconds):
    """Tokens per second of so many clients that ask again as soon as they are answered; and the statuses."""
    end, tokens, codes = time.monotonic() + seconds, [0] * clients, {}

    def one(i):
        n = i
        while time.monotonic() < end:
            n += 1
            ask = [image(png(64 + 32 * (n % 4), 64)), text(f"question {n % 5}")]
            status, r = s.json("POST", "/v1/chat/completions", body(ask), timeout=120)
            codes[status] = codes.get(status, 0) + 1
            if status == 200:
                tokens[i] += r["usage"]["completion_tokens"]
            else:
                time.sleep(0.1)
    start = time.monotonic()
    together([lambda i=i: one(i) for i in range(clients)])
    return sum(tokens) / (time.monotonic() - start), codes


class Client:
    """A raw keep-alive connection that asks as soon as it is answered: it shares the cores with the server, so it
    costs as little as can be (bodies made beforehand, whole answers, no JSON parsed)."""
    def __init__(self, port, asks, first):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.asks, self.n, self.answers = asks, first, []

    def ask(self):
        self.got, self.need, self.sent = b"", None, time.monotonic()
        self.socket.sendall(self.asks[self.n % len(self.asks)])
        self.n += 1

    def receive(self):
        """Is the answer whole? It is then in `answers`: from when to when, and its tokens."""
        data = self.socket.recv(1 << 16)
        self.got += data
        if self.need is None and (head := self.got.find(b"\r\n\r\n")) >= 0:
            length = int(re.search(rb"\r\ncontent-length: *(\d+)", self.got[:head].lower())[1])
            self.need = head + 4 + length
        if not data or (self.need and not self.got.startswith(b"HTTP/1.1 200")):
            raise RuntimeError(f"an answer that is no 200: {self.got[:300]!r}")
        if self.need is None or len(self.got) < self.need:
            return False
        tokens = int(re.search(rb'"completion_tokens": *(\d+)', self.got)[1])
        self.answers.append((self.sent, time.monotonic(), tokens))
        return True


def posts():
    """Twenty requests as bytes: every picture size with every question."""
    for n in range(20):
        data = json.dumps(body([image(png(64 + 32 * (n % 4), 64)), text(f"question {n % 5}")])).encode()
        yield (b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
               b"Content-Length: %d\r\n\r\n" % len(data)) + data


def steady(port, asks, k, seconds):
    """Tokens per second of k clients in a window of which all of them are busy the whole time: it opens when each
    has been answered once, and each then asks until an answer has come after its end. Of an answer that is
    partly outside, the same part of its tokens counts. And the CPU seconds of this process per second of it."""
    clients = [Client(port, asks, 7 * i) for i in range(k)]
    busy, begin, end = selectors.DefaultSelector(), 0, math.inf
    for c in clients:
        busy.register(c.socket, selectors.EVENT_READ, c)
        c.ask()
    while busy.get_map():
        for key, _ in busy.select():
            c = key.data
            if not c.receive():
                continue
            if c.answers[-1][1] < end:
                c.ask()
            else:
                busy.unregister(c.socket)
                c.socket.close()
        if not begin and all(c.answers for c in clients):
            begin, cpu = time.monotonic(), time.process_time()
            end = begin + seconds
    cpu, wall = time.process_time() - cpu, time.monotonic() - begin
    tokens = sum(n * max(0, min(to, end) - max(sent, begin)) / (to - sent)
                 for c in clients for sent, to, n in c.answers)
    return tokens / seconds, cpu / wall


def crowd():
    """One client and eight in turn, half a second each, at least nine rounds. The figure is the median of the rounds'
    ratios: a machine that others use is fast for some seconds and slow for others, and a round's two halves are
    neighbours."""
    rounds = max(9, round(SECONDS))
    asks, got, cpu = list(posts()), {1: [], 8: []}, {1: [], 8: []}
    with Server("--no-request-log", *ARGS) as s:
        steady(s.port, asks, 8, .5)
        for _ in range(rounds):
            for k in got:
                tps, share = steady(s.port, asks, k, .5)
                got[k].append(tps)
                cpu[k].append(share)
    each = [eight / one for one, eight in zip(got[1], got[8])]
    one, eight = (statistics.median(got[k]) for k in (1, 8))
    print("crowd: rounds " + " ".join(f"{a:.0f}->{b:.0f}" for a, b in zip(got[1], got[8])))
    print(f"crowd: 1 client {one:.0f} (best {max(got[1]):.0f}), 8 clients {eight:.0f} (best {max(got[8]):.0f}) tokens/s: "
          f"x {statistics.median(each):.2f}, median of {rounds} rounds, {min(each):.2f} to {max(each):.2f} (of the medians "
          f"x {eight / one:.2f}); the clients took {statistics.median(cpu[1]):.1%} and {statistics.median(cpu[8]):.1%} of a core")


def watch(port, stop, out):
    """In a process of its own, so that the clients' interpreter lock is not part of the figure."""
    c, times = http.client.HTTPConnection("127.0.0.1", port), []
    while not stop.is_set():
        t = time.monotonic()
        c.request("GET", "/health")
        c.getresponse().read()
        times.append((time.monotonic() - t) * 1e3)
        time.sleep(0.01)
    out.put(sorted(times))


def health():
    with Server("--no-request-log", *ARGS) as s:
        stop, out = multiprocessing.Event(), multiprocessing.Queue()
        w = multiprocessing.Process(target=watch, args=(s.port, stop, out))
        w.start()
        tps, codes = rate(s, 64, SECONDS)
        stop.set()
        times = out.get()
        w.join()
        print(f"health: 64 clients {codes}, {tps:.0f} tokens/s; /health p50 {times[len(times) // 2]:.1f} ms, "
              f"p99 {times[int(len(times) * .99)]:.1f} ms of {len(times)}")


def repeat():
    with Server("--no-request-log", *ARGS) as s:
        first, again = [], []
        for i in range(8):
            ask = [image(png(384, 384, (30 * i, 80, 9))), text("What is this?")]
            for to in (first, again):
                r = s.json("POST", "/v1/chat/completions", body(ask, max_tokens=1))[1]
                to.append(r["timings"]["first_token_ms"])
        a, b = statistics.median(first), statistics.median(again)
        print(f"repeat: first token {a:.1f} ms, the same picture again {b:.1f} ms: {b / a:.0%}")


def cache():
    with Server("--no-request-log", *ARGS) as s:
        ask = json.dumps(body([image(png(384, 384)), text("What is this?")], max_tokens=64, cache=True))
        c, seen, times = http.client.HTTPConnection("127.0.0.1", s.port), set(), []
        for i in range(101):
            t = time.monotonic()
            c.request("POST", "/v1/chat/completions", ask, {"Content-Type": "application/json"})
            r = c.getresponse()
            data = r.read()
            times.append((time.monotonic() - t) * 1e3)
            seen.add(data)
            assert r.status == 200 and r.getheader("X-Cache") == ("hit" if i else "miss")
        hits = sorted(times[1:])
        print(f"cache: computed {times[0]:.1f} ms, from the cache p50 {hits[50]:.2f} ms, p99 {hits[98]:.2f} ms, "
              f"{len(seen)} different bodies of {len(times)}")


def memory():
    with Server("--no-request-log", *ARGS) as s:
        rss = []
        for i in range(REQUESTS):
            if i % (REQUESTS // 10) == 0:
                rss.append(s.metric("rss_bytes") / 2 ** 20)
            ask = [image(png(64 + i % 7, 64, (i % 200, 9, 9))), text(f"q {i}")] if i % 4 == 0 else f"question {i}"
            s.json("POST", "/v1/chat/completions", body(ask, max_tokens=4, cache=i % 2 == 0))
        rss.append(s.metric("rss_bytes") / 2 ** 20)
        print(f"memory: MiB at every tenth of {REQUESTS} requests: " + " ".join(f"{x:.0f}" for x in rss))


for part in sys.argv[1:] or ["crowd", "health", "repeat", "cache"]:
    {f.__name__: f for f in (crowd, health, repeat, cache, memory)}[part]()
