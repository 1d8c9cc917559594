#!/usr/bin/env python3
"""/v1/responses: what it takes, what it refuses, its typed events, and that it says what the chat route says."""
import json

from serving import Server, check, equal, finish, image, png, text, until, url

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
    status, r = ask(s, "Hello", ignore_eos=True, max_time=0.3, max_output_tokens=3000, cache=False)
    used = r["usage"]["output_tokens"]
    check(r["incomplete_details"]["reason"] == ("max_time" if used < 3000 else "max_output_tokens"), f"cut by time: {used} {r['incomplete_details']}")
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


PAINT = {"name": "paint", "description": "paints", "parameters": {
    "type": "object", "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}}, "required": ["colour"]}}
ERASE = {"name": "erase", "parameters": {"type": "object", "properties": {"all": {"type": "boolean"}}, "required": ["all"]}}
FLAT = [{"type": "function", "strict": True, **PAINT}, {"type": "function", "description": None, **ERASE}]
NESTED = [{"type": "function", "function": PAINT}, {"type": "function", "function": ERASE}]
CALL = ["response.output_item.added", "response.function_call_arguments.delta", "response.function_call_arguments.done",
        "response.output_item.done"]


def ask_chat(s, messages, **k):
    return s.json("POST", "/v1/chat/completions", {"messages": messages, "temperature": 0, "max_tokens": 120, **k}, timeout=120)


def same_call(item, call, what):
    equal((item.get("type"), item.get("name"), item.get("arguments"), item.get("status")),
          ("function_call", call["function"]["name"], call["function"]["arguments"], "completed"), what)


def tools(s):
    """Functions: the chat's own calls in this API's form, whole and streamed, and back as input."""
    for choice, chat_choice in (("required", "required"), ({"type": "function", "name": "erase"},
                                                           {"type": "function", "function": {"name": "erase"}})):
        status, r = ask(s, "Say", max_output_tokens=120, tools=FLAT, tool_choice=choice)
        chat = ask_chat(s, [{"role": "user", "content": "Say"}], tools=NESTED, tool_choice=chat_choice)[1]
        call = chat["choices"][0]["message"]["tool_calls"][0]
        equal((status, r.get("status"), len(r.get("output", []))), (200, "completed", 1), f"{choice}: {str(r)[:300]}")
        same_call(r["output"][0], call, f"{choice}: the chat's call")
        check(r["output"][0]["id"].startswith("fc_") and r["output"][0]["call_id"].startswith("call_") and
              r["parallel_tool_calls"] is True and r["tools"] == FLAT and r["tool_choice"] == choice, "the object's form")
        equal(r["usage"]["input_tokens"], chat["usage"]["prompt_tokens"], "the same prompt")
        events = stream(s, "Say", max_output_tokens=120, tools=FLAT, tool_choice=choice)[1]
        equal([e["type"] for e in events], EVENTS[:2] + CALL + ["response.completed"], "events of a call, and no message")
        added, delta, done, item = events[2:6]
        equal((added["item"]["arguments"], added["item"]["status"], delta["delta"], done["arguments"], done["name"]),
              ("", "in_progress", item["item"]["arguments"], item["item"]["arguments"], item["item"]["name"]), "from empty to whole")
        equal({e.get("item_id", e.get("item", {}).get("id")) for e in events[2:6]}, {item["item"]["id"]}, "one item")
        same_call(item["item"], call, f"{choice}: streamed")
        equal(events[-1]["response"]["output"], [item["item"]], "the last event holds it")
    for way in ("none", "auto"):
        chat = ask_chat(s, [{"role": "user", "content": "Say"}], max_tokens=4, tools=NESTED, tool_choice=way)[1]
        equal(ask(s, "Say", max_output_tokens=4, tools=FLAT, tool_choice=way)[1]["usage"]["input_tokens"], chat["usage"]["prompt_tokens"], way)


def forced(s, pattern, **k):
    """A whole and a streamed answer of a given form, functions at hand: they must say the same."""
    fields = {"max_output_tokens": 200, "tools": FLAT, "guided_regex": pattern, "cache": False}
    r, events = ask(s, "Say", **fields)[1], stream(s, "Say", **fields)[1]
    items = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    plain = [[{k: v for k, v in i.items() if k not in ("id", "call_id")} for i in list_] for list_ in (r["output"], items)]
    equal(plain[1], plain[0], f"{pattern}: streamed as whole")
    equal([e["output_index"] for e in events if e["type"] == "response.output_item.added"], list(range(len(items))), "indices")
    deltas = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
    texts = [i["content"][0]["text"] for i in items if i["type"] == "message"]
    equal(deltas, "".join(texts), f"{pattern}: the deltas are the text")
    return items, texts


def mixed(s):
    call = r'<tool_call>\n\{"name": "paint", "arguments": \{"colour": "red"\}\}\n</tool_call>'
    items, texts = forced(s, r"Hm\. \n" + call)
    equal(([i["type"] for i in items], texts), (["message", "function_call"], ["Hm."]), "text, then a call")
    items, texts = forced(s, call + r"\n" + call)
    equal(([i["type"] for i in items], texts, len({i["call_id"] for i in items})), (["function_call"] * 2, [], 2), "two calls")
    items, texts = forced(s, r"a <tool_call>none</tool_call> b")
    equal(([i["type"] for i in items], texts), (["message"], ["a <tool_call>none</tool_call> b"]), "no call stays text")
    items, texts = forced(s, r"a < b")
    equal(texts, ["a < b"], "what only begins like one")
    r = s.stream("Say", max_tokens=200, tools=NESTED, guided_regex=r"Hm\. \n" + call)[1]
    equal("".join(c["choices"][0]["delta"].get("content") or "" for c in r if c and c["choices"]), "Hm.", "the chat's stream too")


def turns(s):
    """Calls and their results as input: the prompt of the same turns in the chat."""
    def call(i, name, arguments):
        return {"type": "function_call", "id": f"fc_{i}", "call_id": f"call_{i}", "name": name, "arguments": arguments, "status": "completed"}

    def nested(i, name, arguments):
        return {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
    red, all_ = '{"colour": "red"}', '{"all": true}'
    user = {"role": "user", "content": "Go"}
    out = [{"type": "function_call_output", "call_id": f"call_{i}", "output": f"done {i}"} for i in (1, 2)]
    back = [{"role": "tool", "tool_call_id": f"call_{i}", "content": f"done {i}"} for i in (1, 2)]
    said_ = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Wait"}]}
    cases = [
        ([user, call(1, "paint", red), out[0]],
         [user, {"role": "assistant", "content": "", "tool_calls": [nested(1, "paint", red)]}, back[0]]),
        ([user, said_, call(1, "paint", red), call(2, "erase", all_), *out],
         [user, {"role": "assistant", "content": "Wait", "tool_calls": [nested(1, "paint", red), nested(2, "erase", all_)]}, *back]),
        ([user, call(1, "paint", red), out[0], call(2, "erase", all_), out[1], user],
         [user, {"role": "assistant", "content": "", "tool_calls": [nested(1, "paint", red)]}, back[0],
          {"role": "assistant", "content": "", "tool_calls": [nested(2, "erase", all_)]}, back[1], user])]
    for input, messages in cases:
        status, r = ask(s, input, tools=FLAT)
        chat = ask_chat(s, messages, tools=NESTED, max_tokens=8)[1]
        equal((status, r.get("usage", {}).get("input_tokens")), (200, chat["usage"]["prompt_tokens"]), f"{len(input)} items: {str(r)[:200]}")
        equal(said(r), chat["choices"][0]["message"]["content"], "and the same answer")
    seen = [user, call(1, "paint", red), {"type": "function_call_output", "call_id": "call_1", "output": look()[0]["content"]}]
    status, r = ask(s, seen, tools=FLAT)
    equal((status, len(r.get("x_image", []))), (200, 1), f"a picture as a result: {str(r)[:200]}")
    once = ask(s, "Say", max_output_tokens=120, tools=FLAT, tool_choice="required")[1]
    status, r = ask(s, [{"role": "user", "content": "Say"}, *once["output"],
                        {"type": "function_call_output", "call_id": once["output"][0]["call_id"], "output": "done"}], tools=FLAT)
    check(status == 200 and r["usage"]["input_tokens"] > once["usage"]["input_tokens"], f"an answer's output goes back as it is: {str(r)[:200]}")


def refusals(s):
    cases = [({"previous_response_id": "resp_1"}, "previous_response_id"), ({"background": True}, "background"),
             ({"conversation": "c"}, "conversation"), ({"prompt": {"id": "p"}}, "prompt"), ({"include": ["x"]}, "include"), ({"include": [LOGPROBS, "reasoning.encrypted_content"]}, "include"),
             ({"include": LOGPROBS}, "include"), ({"top_logprobs": 2}, "top_logprobs"), ({"include": [LOGPROBS], "top_logprobs": 21}, "top_logprobs"),
             ({"tools": [{"type": "web_search"}]}, "tools"), ({"truncation": "auto"}, "truncation"),
             ({"tool_choice": "required"}, "tool_choice"), ({"temperature": 9}, "temperature"),
             ({"max_output_tokens": 0}, "max_output_tokens"), ({"max_output_tokens": "8"}, "max_output_tokens"),
             ({"instructions": 5}, "instructions"), ({"stream": 1}, "stream"), ({"text": 5}, "text"),
             ({"text": {"format": {"type": "xml"}}}, "text"), ({"text": {"format": {"type": "json_schema"}}}, "text"),
             ({"input": None}, "input"), ({"input": ""}, "input"), ({"input": []}, "input"), ({"input": 5}, "input"),
             ({"input": ["x"]}, "input[0]"), ({"input": [{"role": "cook", "content": "x"}]}, "input[0]"),
             ({"input": [{"type": "function_call", "call_id": "1"}]}, "input[0]"), ({"input": [{"type": 5}]}, "input[0]"),
             ({"input": [{"type": "function_call", "call_id": 1, "name": "a", "arguments": "{}"}]}, "input[0]"),
             ({"input": [{"type": "function_call", "call_id": "1", "name": "a", "arguments": {}}]}, "input[0]"),
             ({"input": [{"type": "function_call_output", "call_id": "1", "output": "x"}]}, "input[0]"),
             ({"input": [{"role": "user", "content": "x"}, {"type": "function_call", "call_id": "1", "name": "a", "arguments": "{}"},
                         {"type": "function_call_output", "call_id": "1", "output": 5}]}, "input[2]"),
             ({"input": [{"type": "reasoning", "summary": []}]}, "input[0]"), ({"tools": [{"type": "function"}]}, "tools"),
             ({"tools": NESTED}, "tools"), ({"tools": FLAT, "tool_choice": {"type": "function", "name": "fly"}}, "tool_choice"),
             ({"tools": FLAT, "tool_choice": {"type": "allowed_tools", "name": "paint"}}, "tool_choice"),
             ({"tools": FLAT, "tool_choice": "required", "text": {"format": {"type": "json_object"}}}, "text"),
             ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]}, "input[0].content[0]"),
             ({"input": look("data:image/png;base64,AAAA")}, "input[0].content[0]"),
             ({"input": look("https://example.com/a.png")}, "input[0].content[0]")]
    for fields, param in cases:
        status, r = ask(s, fields.get("input", "Hi"), **{k: v for k, v in fields.items() if k != "input"})
        check(status in (400, 415) and r["error"]["param"] == param, f"{str(fields)[:80]}: {status} {r.get('error')}")
    status, r = ask(s, "Hi", previous_response_id=None, background=False, tools=[], include=[], top_logprobs=0, truncation="disabled",
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
    equal([e["type"] for e in events if "logprobs" in e], ["response.output_text.delta"] * len(deltas) + ["response.output_text.done"],
          "log probabilities (none) are where OpenAI's clients look for them")
    check(all(e["logprobs"] == [] for e in events if "logprobs" in e), "and empty")
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


LOGPROBS = "message.output_text.logprobs"


def logprobs(s):
    """The chat's own, in the part, in the deltas and at the end; replayed from the cache as well."""
    fields = {"include": [LOGPROBS], "top_logprobs": 2, "max_output_tokens": 12, "ignore_eos": True}
    chat = s.chat("Say 你好", logprobs=True, top_logprobs=2, max_tokens=12, ignore_eos=True)[1]["choices"][0]["logprobs"]["content"]
    status, r = ask(s, "Say 你好", **fields)
    got = r["output"][0]["content"][0]["logprobs"]
    equal((status, got, r["top_logprobs"]), (200, chat, 2), "the chat's")
    check(len(got) == 12 and all(set(t) == {"token", "bytes", "logprob", "top_logprobs"} and len(t["top_logprobs"]) == 2 for t in got), f"in OpenAI's form: {len(got)} {got[:1]}")
    for way in ("from the cache", "anew"):
        events = stream(s, "Say 你好", cache=way != "anew", **fields)[1]
        done = [e for e in events if e["type"] == "response.output_text.done"][0]
        deltas = [e for e in events if e["type"] == "response.output_text.delta"]
        in_deltas = [t for e in deltas for t in e["logprobs"]]
        rest = got[len(in_deltas):]
        equal((in_deltas + rest, done["logprobs"]), (got, got), f"in the deltas, and all at the end ({way})")
        check(len(in_deltas) > 6 and not any(utf8(t["bytes"]) for t in rest), f"only what has no text is in no delta: {rest}")
        for e in deltas:
            if "\ufffd" not in e["delta"]:   # random weights also say what is no UTF-8
                equal(e["delta"], b"".join(bytes(t["bytes"]) for t in e["logprobs"]).decode(errors="replace"), "a delta's tokens are its text")
        equal(events[-1]["response"]["output"][0]["content"][0]["logprobs"], got, "and in the whole")
    equal(ask(s, "Say 你好", include=[LOGPROBS], max_output_tokens=2)[1]["output"][0]["content"][0]["logprobs"][0]["top_logprobs"], [], "no alternatives")
    # A delta goes out when its character is whole: tokens of one byte each are held back.
    events = stream(s, "Say", guided_regex="(你|好|é)a", **{**fields, "ignore_eos": False})[1]
    deltas = [e for e in events if e["type"] == "response.output_text.delta"]
    equal("".join(e["delta"] for e in deltas)[1:], "a", "a constrained answer")
    equal([e["delta"] for e in deltas], [b"".join(bytes(t["bytes"]) for t in e["logprobs"]).decode() for e in deltas], "no token is lost")
    # With a call: the tokens of the text before it, and of nothing else.
    call = r'<tool_call>\n\{"name": "paint", "arguments": \{"colour": "red"\}\}\n</tool_call>'
    k = {"tools": FLAT, "guided_regex": r"Hm\. " + call, "include": [LOGPROBS], "max_output_tokens": 200}
    part = ask(s, "Say", **k)[1]["output"][0]["content"][0]
    said_ = b"".join(bytes(t["bytes"]) for t in part["logprobs"]).decode()
    check(part["text"] == "Hm." and part["logprobs"] and "Hm. ".startswith(said_), f"before a call: {said_!r}")
    events = stream(s, "Say", **k)[1]
    equal([e["logprobs"] for e in events if e["type"] == "response.output_text.done"], [part["logprobs"]], "streamed too")


def utf8(numbers):
    try:
        return bytes(numbers).decode()
    except UnicodeDecodeError:
        return ""


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
    until(lambda: s.metric("inflight") == 0, "a client that goes away ends its answer")


def main():
    with Server() as s:
        for part in (answers, tools, mixed, turns, refusals, streams, logprobs, cache, cancel):
            try:
                part(s)
            except Exception as e:       # noqa: BLE001: one broken part must not hide the others
                check(False, f"{part.__name__}: {type(e).__name__}: {e}")
        check(s.process.poll() is None, "the server is still there")
    finish()


main()
