#!/usr/bin/env python3
"""/v1/responses: what it takes, what it refuses, its typed events, and that it says what the chat route says."""
import json
import time

from serving import Server, check, equal, finish, image, png, text, url

EVENTS = ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]
ENDS = ["response.output_text.done", "response.content_part.done", "response.output_item.done"]


def ask(s, input, **fields):
    return s.json("POST", "/v1/responses", {"input": input, "temperature": 0, "max_output_tokens": 8, **fields}, timeout=120)


def said(r):
    return r["output"][0]["content"][0]["text"]


def look(u=None, words="What is it?"):
    return [{"role": "user", "content": [{"type": "input_image", "image_url": u or url(png()), "detail": "low"},
                                         {"type": "input_text", "text": words}]}]


def answers(s):
    status, r = ask(s, "Hello")
    chat = s.chat("Hello")[1]
    equal((status, said(r)), (200, chat["choices"][0]["message"]["content"]), "a text gets the chat's answer")
    check(r["object"] == "response" and r["id"].startswith("resp_") and r["output"][0]["type"] == "message"
          and r["output"][0]["role"] == "assistant" and r["error"] is None and r["store"] is False, "the object's form")
    u, v = r["usage"], chat["usage"]
    equal((u["input_tokens"], u["output_tokens"], u["total_tokens"]),
          (v["prompt_tokens"], v["completion_tokens"], v["total_tokens"]), "usage")
    reason = chat["choices"][0]["finish_reason"]
    equal((r["status"], r["incomplete_details"]), ("completed", None) if reason == "stop" else
          ("incomplete", {"reason": "max_output_tokens"}), f"status after {reason}")
    status, r = ask(s, "Hello", ignore_eos=True)
    equal((r["status"], r["incomplete_details"], r["output"][0]["status"]),
          ("incomplete", {"reason": "max_output_tokens"}, "incomplete"), "an answer cut short says so")
    status, r = ask(s, look())
    chat = s.chat([image(detail="low"), text("What is it?")])[1]
    equal((status, said(r)), (200, chat["choices"][0]["message"]["content"]), "a picture")
    equal(r["x_image"][0]["tokens"], r["usage"]["input_tokens_details"]["image_tokens"], "x_image")
    status, r = ask(s, "Hello", instructions="Be brief.")
    chat = s.json("POST", "/v1/chat/completions", {"temperature": 0, "max_tokens": 8, "messages": [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]})[1]
    equal((said(r), r["usage"]["input_tokens"]), (chat["choices"][0]["message"]["content"], chat["usage"]["prompt_tokens"]), "instructions")
    turns = [{"type": "message", "role": "user", "content": "Hi"}, {"role": "assistant", "content": [{"type": "output_text", "text": "Yes?"}]},
             {"role": "user", "content": [{"type": "input_text", "text": "Go"}]}]
    chat = s.json("POST", "/v1/chat/completions", {"temperature": 0, "max_tokens": 8, "messages": [
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Go"}]})[1]
    equal(ask(s, turns)[1]["usage"]["input_tokens"], chat["usage"]["prompt_tokens"], "several turns")
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
    r = ask(s, "Hello", max_output_tokens=60, text={"format": {"type": "json_schema", "name": "a", "schema": schema}})[1]
    check(isinstance(json.loads(said(r))["ok"], bool), "text.format")
    f = s.json("POST", "/v1/files", png(40, 40), headers={"Content-Type": "application/octet-stream"})[1]["id"]
    part = [{"role": "user", "content": [{"type": "input_image", "file_id": f}, {"type": "input_text", "text": "x"}]}]
    equal(ask(s, part)[1]["x_image"][0]["width"], 40, "an uploaded file")


def refusals(s):
    cases = [({"previous_response_id": "resp_1"}, "previous_response_id"), ({"background": True}, "background"),
             ({"conversation": "c"}, "conversation"), ({"prompt": {"id": "p"}}, "prompt"), ({"include": ["x"]}, "include"),
             ({"tools": [{"type": "web_search"}]}, "tools"), ({"truncation": "auto"}, "truncation"),
             ({"tool_choice": "required"}, "tool_choice"), ({"temperature": 9}, "temperature"),
             ({"max_output_tokens": 0}, "max_output_tokens"), ({"max_output_tokens": "8"}, "max_output_tokens"),
             ({"instructions": 5}, "instructions"), ({"stream": 1}, "stream"), ({"text": 5}, "text"),
             ({"text": {"format": {"type": "xml"}}}, "text"), ({"text": {"format": {"type": "json_schema"}}}, "text"),
             ({"input": None}, "input"), ({"input": ""}, "input"), ({"input": []}, "input"), ({"input": 5}, "input"),
             ({"input": ["x"]}, "input[0]"), ({"input": [{"role": "cook", "content": "x"}]}, "input[0]"),
             ({"input": [{"type": "function_call", "call_id": "1"}]}, "input[0]"), ({"input": [{"type": 5}]}, "input[0]"),
             ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]}, "input[0].content[0]"),
             ({"input": look("data:image/png;base64,AAAA")}, "input[0].content[0]"),
             ({"input": look("https://example.com/a.png")}, "input[0].content[0]")]
    for fields, param in cases:
        status, r = ask(s, fields.get("input", "Hi"), **{k: v for k, v in fields.items() if k != "input"})
        check(status in (400, 415) and r["error"]["param"] == param, f"{str(fields)[:80]}: {status} {r.get('error')}")
    status, r = ask(s, "Hi", previous_response_id=None, background=False, tools=[], include=[], truncation="disabled",
                    tool_choice="auto", metadata={"a": "b"}, wrong_field=1, n=3, messages=[])
    equal((status, r["metadata"], len(r["output"])), (200, {"a": "b"}, 1), "fields that ask for nothing")
    for name in ("wrong_field", "'n'", "'messages'"):
        check(any(name in w for w in r["x_warnings"]), f"{name} is warned about: {r['x_warnings']}")
    equal(s.json("POST", "/v1/responses", {})[1]["error"]["param"], "input", "input is required")
    api = s.json("GET", "/openapi.json")[1]["paths"]["/v1/responses"]["post"]
    schema = api["requestBody"]["content"]["application/json"]["schema"]
    check(schema["required"] == ["input"] and "max_output_tokens" in schema["properties"] and
          "messages" not in schema["properties"] and "text/event-stream" in api["responses"]["200"]["content"], "/openapi.json")


def stream(s, input, **fields):
    body = {"input": input, "temperature": 0, "max_output_tokens": 8, "stream": True, **fields}
    status, headers, data = s.post("/v1/responses", body, timeout=120)
    blocks = [b.split("\n") for b in data.decode().split("\n\n") if b.startswith("event: ")]
    events = [json.loads(b[1][6:]) for b in blocks]
    for b, e in zip(blocks, events):
        equal(b[0][7:], e["type"], "the event's name is its type")
    return status, events


def streams(s):
    whole = ask(s, look(), cache=False)[1]
    status, events = stream(s, look(), cache=False)
    kinds = [e["type"] for e in events]
    deltas = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
    equal(kinds[:4], EVENTS, "how a stream begins")
    end = "response.incomplete" if whole["status"] == "incomplete" else "response.completed"
    equal(kinds[4 + len(deltas):], ENDS + [end], "how it ends")
    equal([e["sequence_number"] for e in events], list(range(len(events))), "numbers without a gap")
    equal("".join(deltas), said(whole), "the deltas are the answer")
    last = events[-1]["response"]
    equal((said(last), last["usage"]["output_tokens"], last["x_image"][0]["tokens"]),
          (said(whole), whole["usage"]["output_tokens"], whole["x_image"][0]["tokens"]), "the last event holds the whole")
    equal({e["response"]["id"] for e in events if "response" in e}, {last["id"]}, "one id")
    equal({e["item_id"] for e in events if "item_id" in e}, {last["output"][0]["id"]}, "one item")
    progress = stream(s, look(url(png(96, 64, (1, 2, 3)))), stream_options={"include_progress": True})[1]
    check(any(e["type"] == "response.x_progress" and e["stage"] == "prefill" for e in progress), "progress on request")
    failed = stream(s, "Hi", max_time=0.001, cache=False)[1]
    check(failed[-1]["type"] in ("response.failed", "response.incomplete", "response.completed"), "an end in every case")
    equal(stream(s, "Hi", temperature=7)[0], 400, "a wrong field is no stream")


def cache(s):
    def once(path, body):
        return s.post(path, body, timeout=120)
    body = {"input": look(words="cached?"), "temperature": 0, "max_output_tokens": 6}
    a, b = once("/v1/responses", body), once("/v1/responses", body)
    equal((a[1]["X-Cache"], b[1]["X-Cache"], a[2] == b[2]), ("miss", "hit", True), "the result cache, byte for byte")
    streamed = once("/v1/responses", {**body, "stream": True})[2]
    check(json.loads(a[2])["id"].encode() in streamed, "a stream replays the same answer")
    other = once("/v1/responses", {**body, "instructions": "Be brief."})
    equal(other[1]["X-Cache"], "miss", "instructions are part of the key")
    other = once("/v1/responses", {**body, "input": look(words="cached!")})
    equal(other[1]["X-Cache"], "miss", "input is part of the key")


def cancel(s):
    import http.client
    c = http.client.HTTPConnection("127.0.0.1", s.port)
    c.request("POST", "/v1/responses", json.dumps({"input": "x", "max_output_tokens": 3000, "ignore_eos": True, "stream": True,
                                                   "detect_repetition": False, "cache": False}), {"Content-Type": "application/json"})
    c.getresponse().read(50)
    c.sock.close() if c.sock else None
    c.close()
    for _ in range(200):
        if s.metric("inflight") == 0:
            break
        time.sleep(0.05)
    equal(s.metric("inflight"), 0, "a client that goes away ends its answer")


def main():
    with Server() as s:
        for part in (answers, refusals, streams, cache, cancel):
            try:
                part(s)
            except Exception as e:       # noqa: BLE001: one broken part must not hide the others
                check(False, f"{part.__name__}: {type(e).__name__}: {e}")
        check(s.process.poll() is None, "the server is still there")
    finish()


main()
