#!/usr/bin/env python3
"""min_tokens, typical_p, mirostat and DRY through the API, and the bound on KV kept of finished answers."""
from serving import Server, check, equal, finish, text, together


def wrong_values(s):
    cases = [("min_tokens", -1), ("min_tokens", "x"), ("min_tokens", 99), ("typical_p", 0), ("typical_p", 2), ("typical_p", "x"),
             ("dry_multiplier", -1), ("dry_multiplier", "x"), ("dry_base", 0.5), ("dry_allowed_length", 0), ("dry_allowed_length", 1.5),
             ("dry_penalty_last_n", -2), ("dry_sequence_breakers", "x"), ("dry_sequence_breakers", [5]),
             ("mirostat", 1), ("mirostat", 3), ("mirostat", "x"), ("mirostat_tau", -1), ("mirostat_tau", 101), ("mirostat_eta", 2),
             ("dry_sequence_breakers", [""]), ("dry_sequence_breakers", ["a"] * 17)]
    for name, value in cases:
        more = {"dry_multiplier": 1} if name == "dry_sequence_breakers" else {}
        status, r = s.chat("hi", **{name: value}, **more)
        check(status == 400 and r["error"]["param"] == name, f"{name}={value!r}: {status} {r}")
    for least, more in ((600, {}), (600, {"max_tokens": None}), (513, {}), (3000, {"max_tokens": 4000})):
        body = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "min_tokens": least, **more}
        status, r = s.json("POST", "/v1/chat/completions", body)
        check(status == 400 and r["error"]["param"] == "min_tokens", f"min_tokens {least} with {more}: {status} {str(r)[:200]}")
    for form in ({"response_format": {"type": "json_object"}}, {"guided_regex": "a*"}, {"guided_choice": ["a", "b"]}):
        status, r = s.chat("hi", min_tokens=2, **form)
        check(status == 400 and r["error"]["param"] == "min_tokens", f"min_tokens with {form}: {status} {r}")
    fields = s.json("GET", "/openapi.json")[1]["paths"]
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses"):
        known = fields[path]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
        for name in {c[0] for c in cases}:
            check(name in known, f"{name} in {path}")


def min_tokens(s):
    end = s.json("POST", "/tokenize", {"content": "<|im_end|>", "special": True})[1]["tokens"][0]
    for least in (0, 1, 5):
        status, r = s.chat("hi", logit_bias={str(end): 100}, min_tokens=least, max_tokens=20)
        equal((status, r["usage"]["completion_tokens"], r["choices"][0]["finish_reason"]), (200, least, "stop"), f"at least {least}")
    alone = s.chat("hi", logit_bias={str(end): 100}, min_tokens=5, max_tokens=20, cache=False)[1]["choices"]
    many = together([lambda: s.chat("hi", logit_bias={str(end): 100}, min_tokens=5, max_tokens=20, cache=False)] * 4)
    check(all(r[1]["choices"][0]["message"] == alone[0]["message"] for r in many), "the same beside others")


def said(r):
    return r[1]["choices"][0]["message"]["content"]


def typical(s):
    k = {"temperature": 1.5, "seed": 11, "max_tokens": 12, "ignore_eos": True, "top_k": 0, "top_p": 1, "repetition_penalty": 1}
    plain = said(s.chat("hi", **k))
    equal(said(s.chat("hi", typical_p=1, cache=False, **k)), plain, "1 is off")
    narrow = said(s.chat("hi", typical_p=0.05, **k))
    check(narrow != plain, "typical_p narrows the choice")
    equal(said(s.chat("hi", typical_p=0.05, cache=False, **k)), narrow, "a seed repeats it")
    equal(said(s.chat("hi", typical_p=0.05, temperature=0)), said(s.chat("hi", temperature=0)), "greedy stays greedy")


def mirostat(s):
    k = {"temperature": 1.5, "seed": 11, "max_tokens": 40, "ignore_eos": True, "top_k": 0, "top_p": 1, "repetition_penalty": 1}
    plain = said(s.chat("hi", **k))
    equal(said(s.chat("hi", mirostat=0, mirostat_tau=1, cache=False, **k)), plain, "0 is off")
    low = said(s.chat("hi", mirostat=2, mirostat_tau=1, **k))
    check(low != plain, "it changes the choice")
    equal(said(s.chat("hi", mirostat=2, mirostat_tau=1, cache=False, **{**k, "top_k": 3, "top_p": 0.5, "min_p": 0.2})), low,
          "in the place of top_k, top_p and min_p")
    many = together([lambda: s.chat("hi", mirostat=2, mirostat_tau=1, cache=False, **k)] * 4)
    check(all(said(r) == low for r in many), "a seed repeats it, also beside others")
    greedy = said(s.chat("hi", temperature=0, max_tokens=12))
    equal(said(s.chat("hi", mirostat=2, temperature=0, max_tokens=12)), greedy, "greedy stays greedy")
    equal(said(s.chat("hi", mirostat=2, mirostat_tau=0, mirostat_eta=0, max_tokens=12, temperature=1, seed=1, top_p=1, top_k=0,
                      repetition_penalty=1)), said(s.chat("hi", temperature=0, max_tokens=12, repetition_penalty=1)), "no surprise is greedy")


def dry(s):
    # A bias that leaves two tokens makes an answer that must repeat itself; DRY breaks the run of one of them.
    a, b = (s.json("POST", "/tokenize", {"content": w})[1]["tokens"][0] for w in ("a", "b"))
    k = {"logit_bias": {str(a): 100, str(b): 99.5}, "max_tokens": 24, "ignore_eos": True, "logprobs": True, "repetition_penalty": 1}

    def run(**more):
        r = s.chat("hi", cache=False, **k, **more)
        check(r[0] == 200, f"{more}: {str(r[1])[:200]}")
        return [t["token"] for t in r[1]["choices"][0]["logprobs"]["content"]]
    plain, changed = run(), run(dry_multiplier=5)
    check(plain != changed, f"DRY changes a repetition: {plain}")
    equal(run(dry_multiplier=5), changed, "the same each time")
    equal(run(dry_multiplier=5, dry_penalty_last_n=0), plain, "looking at nothing is off")
    equal(run(dry_multiplier=5, dry_sequence_breakers=["a", "b"]), plain, "no repetition reaches over a breaker")
    equal(run(dry_multiplier=0, dry_base=3), plain, "a multiplier of 0 is off")


def prefix(s):
    before = s.metric("prefix_cache_bytes")
    s.chat([text("some words " * 60)], cache=False)
    check(s.metric("prefix_cache_bytes") > before, "KV is kept")
    again = s.chat([text("some words " * 60)], cache=False)[1]
    check(again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0, "and used")


def main():
    with Server("--kv-tokens", "2048") as s:       # so that 3000 tokens are more than the context leaves
        for part in (wrong_values, min_tokens, typical, mirostat, dry, prefix):
            try:
                part(s)
            except Exception as e:       # noqa: BLE001: one broken part must not hide the others
                check(False, f"{part.__name__}: {type(e).__name__}: {e}")
    for size in ("0", "1"):
        with Server("--prefix-cache", size) as s:
            answers = [s.chat([text("some words " * 60)], cache=False)[1] for _ in range(2)]
            equal((s.metric("prefix_cache_bytes"), answers[1]["usage"]["prompt_tokens_details"]["cached_tokens"]), (0, 0),
                  f"--prefix-cache {size}: nothing is kept")
            equal(answers[0]["choices"], answers[1]["choices"], "the same answer")
    with Server("--prefix-cache", str(8 << 20)) as s:
        for i in range(6):
            s.chat([text(f"{i} words " * 200)], cache=False, max_tokens=2)
            check(s.metric("prefix_cache_bytes") <= 8 << 20, "bounded")
        check(s.metric("prefix_cache_bytes") > 0, "but not empty")
    finish()


main()
