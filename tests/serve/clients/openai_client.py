#!/usr/bin/env python3
"""The official openai package as a client: chat with pictures, streaming, tools, JSON schema, logprobs, files,
cancel, errors. usage: openai_client.py URL"""
import base64
import json
import sys
import time

import openai

sys.path.insert(0, __file__.rsplit("/", 2)[0])
from serving import check, equal, finish, png      # noqa: E402

base = sys.argv[1].rstrip("/")
client = openai.OpenAI(base_url=base + "/v1", api_key="none", max_retries=0)
MODEL = client.models.list().data[0].id
URL = "data:image/png;base64," + base64.b64encode(png()).decode()
LOOK = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": URL, "detail": "low"}},
                                     {"type": "text", "text": "What colour?"}]}]


def ask(messages=LOOK, **k):
    return client.chat.completions.create(model=MODEL, messages=messages, **{"temperature": 0, "max_tokens": 16, **k})


r = ask()
check(r.choices[0].message.role == "assistant" and r.usage.total_tokens > 0 and r.model == MODEL, "chat with a picture")
check(r.x_image[0]["tokens"] == r.usage.prompt_tokens_details.image_tokens, "x_image")
chunks = list(ask(stream=True, stream_options={"include_usage": True}))
equal("".join(c.choices[0].delta.content or "" for c in chunks if c.choices), r.choices[0].message.content, "stream")
check(chunks[-1].usage.completion_tokens == r.usage.completion_tokens and chunks[0].choices[0].delta.role == "assistant", "usage")
r = ask(logprobs=True, top_logprobs=2)
check(all(len(k.top_logprobs) == 2 and isinstance(k.bytes, list) for k in r.choices[0].logprobs.content), "logprobs")
r = ask(n=2, temperature=1, seed=5, stop=["zzzz"], presence_penalty=0.5, frequency_penalty=0.1, top_p=0.9, user="me")
equal(len(r.choices), 2, "n")
tools = [{"type": "function", "function": {"name": "paint", "description": "paints", "parameters": {
    "type": "object", "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}}, "required": ["colour"]}}}]
r = ask(tools=tools, tool_choice="required", max_tokens=120)
call = r.choices[0].message.tool_calls[0]
check(call.function.name == "paint" and json.loads(call.function.arguments)["colour"] in ("red", "blue"), "tool call")
again = LOOK + [r.choices[0].message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": "done"}]
check(ask(again, tools=tools).choices, "the tool's answer goes back")
said = ask().choices[0].message.model_dump()             # with every null that the package puts there
check(ask(LOOK + [said, {"role": "user", "content": "And now?"}]).choices, "an answer goes back as it is")
pieces = [c for c in ask(tools=tools, tool_choice="required", max_tokens=120, stream=True) if c.choices and c.choices[0].delta.tool_calls]
equal(pieces[0].choices[0].delta.tool_calls[0].function.name, "paint", "streamed tool call")
schema = {"name": "answer", "strict": True, "schema": {"type": "object", "properties": {
    "colour": {"enum": ["red", "green", "blue"]}, "sure": {"type": "boolean"}}, "required": ["colour", "sure"], "additionalProperties": False}}
o = json.loads(ask(response_format={"type": "json_schema", "json_schema": schema}, max_tokens=60).choices[0].message.content)
check(o["colour"] in ("red", "green", "blue") and isinstance(o["sure"], bool), "JSON schema")
f = client.files.create(file=("a.png", png(40, 40)), purpose="vision")
r = ask([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": f.id}}, {"type": "text", "text": "x"}]}])
equal(r.x_image[0]["width"], 40, "an uploaded file")
check(any(x.id == f.id for x in client.files.list().data) and client.files.delete(f.id).deleted, "list and delete files")
r = client.completions.create(model=MODEL, prompt="Once upon", max_tokens=4, temperature=0, logprobs=1)
check(len(r.choices[0].logprobs.tokens) <= 4 and r.object == "text_completion", "completions")
k = {"model": MODEL, "prompt": "Once upon", "max_tokens": 4, "temperature": 0, "logprobs": 1, "echo": True}
r = client.completions.create(**k).choices[0]
chunks = [c for c in client.completions.create(**k, stream=True, stream_options={"include_usage": True})]
equal("".join(c.choices[0].text for c in chunks if c.choices), r.text, "completions: streamed, with the prompt")
equal(sum((c.choices[0].logprobs.tokens for c in chunks if c.choices and c.choices[0].logprobs), []), r.logprobs.tokens, "and log probabilities")
check([c.usage for c in chunks[:-1]] == [None] * (len(chunks) - 1) and chunks[-1].usage.total_tokens, "and usage at the end")
for kind, k in ((openai.BadRequestError, {"temperature": 9}), (openai.BadRequestError, {"extra_body": {"stop": 5}})):
    try:
        ask(**k)
        check(False, f"{k} is refused")
    except kind as e:
        check(e.body["param"] in ("temperature", "stop") and e.request_id, f"{k}: {e}")
try:
    client.models.retrieve("none")
    check(False, "404")
except openai.NotFoundError as e:
    equal(e.code, "model_not_found", "404")
SEE = [{"role": "user", "content": [{"type": "input_image", "image_url": URL, "detail": "low"}, {"type": "input_text", "text": "What colour?"}]}]
r = client.responses.create(model=MODEL, input=SEE, instructions="Be brief.", temperature=0, max_output_tokens=16)
check(r.id.startswith("resp_") and r.usage.total_tokens == r.usage.input_tokens + r.usage.output_tokens, "responses")
events = list(client.responses.create(model=MODEL, input=SEE, instructions="Be brief.", temperature=0, max_output_tokens=16, stream=True))
equal("".join(e.delta for e in events if e.type == "response.output_text.delta"), r.output_text, "responses: streamed")
check(events[0].type == "response.created" and events[-1].type in ("response.completed", "response.incomplete"), "responses: events")
equal(events[-1].response.output_text, r.output_text, "responses: the last event holds the answer")
with client.responses.stream(model=MODEL, input="Hi", temperature=0, max_output_tokens=8) as answer:
    kinds = [e.type for e in answer]
    final = answer.get_final_response() if kinds[-1] == "response.completed" else None
check(kinds[0] == "response.created" and (final is None or final.output_text), f"responses: the stream helper: {kinds}")
FLAT = [{"type": "function", "strict": True, **tools[0]["function"]}]
r = client.responses.create(model=MODEL, input=SEE, tools=FLAT, tool_choice="required", temperature=0, max_output_tokens=120)
call = r.output[0]
check(call.type == "function_call" and call.name == "paint" and json.loads(call.arguments)["colour"] in ("red", "blue"), f"responses: a call: {r.output}")
back = SEE + r.output + [{"type": "function_call_output", "call_id": call.call_id, "output": "done"}]
check(client.responses.create(model=MODEL, input=back, tools=FLAT, temperature=0, max_output_tokens=8).output, "responses: its result goes back")
with client.responses.stream(model=MODEL, input=SEE, tools=FLAT, tool_choice="required", temperature=0, max_output_tokens=120) as answer:
    events = list(answer)
    final = answer.get_final_response()
equal(final.output[0].arguments, call.arguments, "responses: a streamed call")
check([e.arguments for e in events if e.type == "response.function_call_arguments.done"] == [call.arguments], "responses: its event")
for k in ({"previous_response_id": "resp_1"}, {"background": True}, {"tools": [{"type": "web_search"}]}):
    try:
        client.responses.create(model=MODEL, input="Hi", **k)
        check(False, f"{k} is refused")
    except openai.BadRequestError as e:
        equal(e.body["param"], next(iter(k)), f"{k}")
stream = ask(stream=True, max_tokens=3000, extra_body={"ignore_eos": True, "cache": False})
next(iter(stream))
stream.close()
import http.client                                  # noqa: E402
host = base.split("//")[1]
start = time.monotonic()
while time.monotonic() - start < 300:                # a hang limit
    c = http.client.HTTPConnection(host)
    c.request("GET", "/metrics")
    if b"vitreous_inflight 0\n" in c.getresponse().read():
        break
    time.sleep(0.02)
else:
    check(False, "a closed stream ends its answer")
print(f"a closed stream ended its answer after {time.monotonic() - start:.2f} s")
finish()
