#!/usr/bin/env python3
"""Many clients at once: only 200 and 429, every answer bit-identical to the lone one, /health is served all the
while, memory stays flat. Times and rates are printed.

VL_LOAD_SECONDS (default 6), VL_LOAD_CLIENTS (64), VL_LOAD_REQUESTS (300: requests of the memory part).
VL_STRICT=1, never set by a test run: the figures of a quiet machine are demanded: /health p99 < 50 ms, 8 clients >= 2.5 x one."""
import os
import threading
import time

from serving import SLOW, Server, check, equal, finish, image, png, text

SECONDS = float(os.environ.get("VL_LOAD_SECONDS", "6"))
CLIENTS = int(os.environ.get("VL_LOAD_CLIENTS", "64"))
REQUESTS = int(os.environ.get("VL_LOAD_REQUESTS", "300"))
LONG = int(200 / SLOW)                # tokens of a long answer
STRICT = os.environ.get("VL_STRICT") == "1"

QUESTIONS = [[image(png(64 + 32 * i, 64, (40 * i, 99, 7))), text(f"question {i}")] for i in range(4)] + [
    "a question without a picture", "另一个问题"]


def ask(s, q, n=12):
    body = {"messages": [{"role": "user", "content": q}], "temperature": 0, "max_tokens": n, "ignore_eos": True, "cache": False}
    return s.json("POST", "/v1/chat/completions", body, timeout=300)


def content(r):
    return r["choices"][0]["message"]["content"]


def crowd(s, clients, seconds, lone, n=12):
    """Runs until the time is over; returns (statuses, wrong answers, tokens per second)."""
    end, statuses, wrong, lock = time.monotonic() + seconds, {}, [], threading.Lock()
    done = [0]

    def one(i):
        k = i
        while time.monotonic() < end:
            k += 1
            status, r = ask(s, QUESTIONS[k % len(QUESTIONS)], n)
            with lock:
                statuses[status] = statuses.get(status, 0) + 1
                if status == 200:
                    done[0] += r["usage"]["completion_tokens"]
                    if not content(r).startswith(lone[k % len(QUESTIONS)]):
                        wrong.append((k % len(QUESTIONS), content(r)))
            if status == 429:
                time.sleep(0.2)
    threads = [threading.Thread(target=one, args=(i,)) for i in range(clients)]
    start = time.monotonic()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return statuses, wrong, done[0] / (time.monotonic() - start)


def health(s, stop, times, bad):
    while not stop.is_set():
        t = time.monotonic()
        if s.get("/health")[0] != 200:
            bad.append(t)
        times.append(time.monotonic() - t)
        time.sleep(0.01)


def main():
    with Server("--no-request-log") as s:
        lone = [content(ask(s, q)[1]) for q in QUESTIONS]
        equal([content(ask(s, q)[1]) for q in QUESTIONS], lone, "the same question, the same answer")
        stop, times, bad = threading.Event(), [], []
        watcher = threading.Thread(target=health, args=(s, stop, times, bad))
        watcher.start()
        statuses, wrong, rate = crowd(s, CLIENTS, SECONDS, lone)
        stop.set()
        watcher.join()
        times.sort()
        p99 = times[int(len(times) * 0.99)] * 1e3
        print(f"{CLIENTS} clients, {SECONDS:.0f} s: {statuses}, {rate:.0f} tokens/s; /health p99 {p99:.1f} ms of {len(times)}")
        check(set(statuses) <= {200, 429} and statuses.get(200, 0) > 0, f"only 200 and 429: {statuses}")
        equal(wrong[:1], [], "answers in a crowd are bit-identical to lone ones")
        equal((bad, len(times) > 1), ([], True), "/health is 200 each time")
        if STRICT:
            check(p99 < 50, f"/health p99 {p99:.1f} ms")
        # Long answers: what is measured is the engine's batching, not this client's Python.
        long = [content(ask(s, q, LONG)[1]) for q in QUESTIONS]
        one, eight = (crowd(s, k, min(SECONDS, 10), long, LONG)[2] for k in (1, 8))
        print(f"1 client {one:.1f} tokens/s, 8 clients {eight:.1f} tokens/s: x {eight / one:.2f}")
        if STRICT:
            check(eight >= 2.5 * one, "8 clients give 2.5 times the tokens of one")
        for _ in range(REQUESTS // 2):
            s.json("POST", "/tokenize", {"content": "warm"})
        for q in QUESTIONS * 3:
            ask(s, q, 2)
        before = s.metric("rss_bytes")
        for i in range(REQUESTS):
            if i % 10:
                s.json("POST", "/v1/preprocess", {"image": QUESTIONS[i % 4][0]["image_url"]["url"]})
            else:
                ask(s, QUESTIONS[i % len(QUESTIONS)], 2)
        growth = (s.metric("rss_bytes") - before) / 2 ** 20
        print(f"memory after {REQUESTS} more requests: {before / 2 ** 20:.0f} MiB {growth:+.1f} MiB")
        # AddressSanitizer keeps what was freed for a while.
        check(growth < (8 if SLOW == 1 else 100), f"memory is flat: {growth:+.1f} MiB")
        equal(s.metric("inflight") + s.metric("queue_depth"), 0, "nothing is left behind")
    finish()


main()
