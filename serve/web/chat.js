// chat.js: conversations: the request made from one, the stream that answers it, and where they are
// kept (IndexedDB of this browser; nothing is stored on the server).

// ---- the request ------------------------------------------------------------------------------
const parts = (turn) => [
  ...turn.images.map((p) => ({ type: 'image_url', image_url: p.url })),
  { type: 'text', text: turn.text },
];

export function requestOf(turns, settings) {
  const body = {
    messages: turns.map((turn) => turn.role === 'user'
      ? { role: 'user', content: turn.images.length ? parts(turn) : turn.text }
      : { role: 'assistant', content: turn.text }),
    temperature: settings.temperature, max_tokens: settings.maxTokens,
    logprobs: true, top_logprobs: 5, stream: true,
    stream_options: { include_usage: true, include_progress: true },
  };
  if (settings.preset !== 'auto') body.preset = settings.preset;
  if (settings.temperature > 0 && settings.seed !== undefined) body.seed = settings.seed;
  return body;
}

// The same question for a program: pictures as files, without the page's own extras.
function portable(turns, settings) {
  const body = requestOf(turns, settings), names = [];
  for (const k of ['logprobs', 'top_logprobs', 'stream', 'stream_options']) delete body[k];
  for (const m of body.messages)
    if (Array.isArray(m.content))
      for (const p of m.content)
        if (p.type === 'image_url') {
          names.push(`picture${names.length + 1}.png`);
          p.image_url = names.at(-1);
        }
  return [body, names];
}

export function asCurl(turns, settings) {
  const [body, names] = portable(turns, settings);
  for (const m of body.messages)
    if (Array.isArray(m.content))
      for (const p of m.content) if (p.type === 'image_url') p.image_url = `attachment:${p.image_url.replace(/\.png$/, '')}`;
  const json = JSON.stringify(body, null, 1).replaceAll("'", "'\\''");
  const files = names.map((n) => ` \\\n  -F '${n.replace(/\.png$/, '')}=@${n}'`).join('');
  return `curl ${location.origin}/v1/chat/completions${files} \\\n  -F 'request=${json}'`;
}

export function asPython(turns, settings) {
  const [body, names] = portable(turns, settings);
  const { temperature, max_tokens, messages, ...extra } = body;
  let json = JSON.stringify(messages, null, 4);
  for (const n of names) json = json.replace(JSON.stringify(n), `{"url": picture("${n}")}`);
  return `import base64\nfrom openai import OpenAI\n\n` +
    `client = OpenAI(base_url="${location.origin}/v1", api_key="none")\n\n` +
    (names.length ? `def picture(path):\n    data = base64.b64encode(open(path, "rb").read()).decode()\n` +
      `    return "data:;base64," + data\n\n` : '') +
    `answer = client.chat.completions.create(\n    model="vitreous", temperature=${temperature}, ` +
    `max_tokens=${max_tokens},\n    extra_body=${JSON.stringify(extra)},\n    messages=${json})\n` +
    `print(answer.choices[0].message.content)\n`;
}

// ---- the stream -------------------------------------------------------------------------------
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split('\n\n');
    rest = blocks.pop();
    for (const b of blocks)
      if (b.startsWith('data: ') && b !== 'data: [DONE]') yield JSON.parse(b.slice(6));
  }
}

// Fills `turn` as the answer comes and calls show() after each change. Throws {message, retry}.
export async function ask(turns, settings, turn, signal, show) {
  const r = await fetch('/v1/chat/completions', {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, signal,
    body: JSON.stringify(requestOf(turns, settings)),
  });
  if (!r.ok) {
    const e = await r.json().catch(() => ({}));
    throw { message: e.error?.message ?? `HTTP ${r.status}`, retry: r.headers.get('Retry-After') };
  }
  for await (const c of events(r.body)) {
    if (c.error) throw { message: c.error.message };
    const k = c.choices[0];
    if (c.x_progress) turn.progress = c.x_progress;
    if (c.x_image) turn.reports = c.x_image;
    if (c.x_warnings) turn.warnings = c.x_warnings;
    if (c.timings) turn.timings = c.timings;
    if (c.usage) turn.usage = c.usage;
    if (c.x_grounding) turn.marks = c.x_grounding;
    if (k?.delta?.content) turn.text += k.delta.content;
    if (k?.logprobs?.content) turn.tokens.push(...k.logprobs.content);
    if (k?.finish_reason) turn.finish = k.finish_reason;
    show();
  }
}

// ---- history ----------------------------------------------------------------------------------
let db;
const opened = new Promise((ok) => {
  const r = indexedDB.open('vitreous', 1);
  r.onupgradeneeded = () => r.result.createObjectStore('chats', { keyPath: 'id' });
  r.onsuccess = () => ok(db = r.result);
  r.onerror = () => ok(null);         // private windows: no history, no harm
});

async function store(mode, fn) {
  await opened;
  if (!db) return undefined;
  return new Promise((ok, no) => {
    const r = fn(db.transaction('chats', mode).objectStore('chats'));
    r.onsuccess = () => ok(r.result);
    r.onerror = () => no(r.error);
  });
}

export const saveChat = (chat) => store('readwrite', (s) => s.put(chat));
export const deleteChat = (id) => store('readwrite', (s) => s.delete(id));
export const deleteAll = () => store('readwrite', (s) => s.clear());
export const loadChats = async () => ((await store('readonly', (s) => s.getAll())) ?? [])
  .sort((a, b) => b.created - a.created);
