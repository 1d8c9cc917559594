#!/usr/bin/env python3
"""The service's figures on a quiet machine, one line each (no test: nothing here can fail for slowness).

    quiet-machine$ VL_TEST_MODEL=models/demo python3 tests/serve/figures.py [crowd health repeat cache memory]

crowd: tokens/s of 8 clients over one, interleaved; health: p99 of /health under 64 clients; repeat: time to
first token of a second question on the same picture over the first; cache: an identical request from the result
cache. VL_LOAD_SECONDS: length of a part (6). `memory` asks VL_LOAD_REQUESTS times (10000; not part of the default)."""
import http.client
import json
import multiprocessing
import os
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


def crowd():
    with Server("--no-request-log", *ARGS) as s:
        rate(s, 8, 1)
        got = {1: [], 8: []}
        for _ in range(3):
            for k in got:
                got[k].append(rate(s, k, SECONDS / 6)[0])
        one, eight = (statistics.median(got[k]) for k in (1, 8))
        print(f"crowd: 1 client {one:.0f}, 8 clients {eight:.0f} tokens/s: x {eight / one:.2f}")


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
