// app.js: the page itself: what is shown, and what the controls do.
import { ask, asCurl, asPython, deleteAll, deleteChat, loadChats, saveChat } from './chat.js';
import { csvOf, el, markdown } from './markdown.js';
import { addPicture, boxesOf, clearPictures, costOf, drawBoxes, onChange, pictures, renderPictures, samplePicture } from './pictures.js';
import { lang, setLanguage, t, tasks } from './text.js';

const $ = (id) => document.getElementById(id);
const root = document.documentElement;
let props = null;                     // what /props says about model and limits
let chat = fresh();
let running = null;                   // AbortController of the answer in the making
const dropped = new Set();            // conversations deleted while their answer was in the making

function fresh() {
  return { id: crypto.randomUUID?.() ?? String(Math.random()), created: Date.now(), title: '', turns: [] };
}

const settings = () => ({
  preset: $('preset').value || 'auto', temperature: Math.min(2, Math.max(0, Number($('temperature').value) || 0)),
  maxTokens: Math.max(1, Number($('max-tokens').value) || 512),
  seed: Math.floor(Math.random() * 1e9),
});

// ---- one message ------------------------------------------------------------------------------
function thumbs(turn) {
  return turn.images.length
    ? el('div', { class: 'thumbs' }, ...turn.images.map((p) => el('img', { src: p.url, alt: p.name }))) : null;
}

function tokenView(turn) {
  const percent = (lp) => `${(Math.exp(lp) * 100).toFixed(1)} %`;
  const info = el('p', { class: 'note', role: 'status' }, t('pickToken'));
  const text = el('p', { class: 'plain' }, ...turn.tokens.map((k, i) => {
    const p = Math.exp(k.logprob), level = p > 0.8 ? 'p1' : p > 0.4 ? 'p2' : 'p3';
    const others = k.top_logprobs.map((o) => `${JSON.stringify(o.token)} ${percent(o.logprob)}`);
    const tell = () => { info.textContent = [`${JSON.stringify(k.token)}: ${percent(k.logprob)}`, ...others].join(' · '); };
    return el('span', { class: `tok ${level}`, tabindex: i ? -1 : 0, onfocus: tell, onclick: tell,
      title: [percent(k.logprob), ...others].join('\n') }, k.token);
  }));
  // One stop of the Tab key for all tokens; the arrows go from one to the next.
  text.addEventListener('keydown', (e) => {
    const at = document.activeElement, to = { ArrowRight: at.nextElementSibling, ArrowLeft: at.previousElementSibling }[e.key];
    if (!to) return;
    e.preventDefault();
    [at.tabIndex, to.tabIndex] = [-1, 0];
    to.focus();
  });
  return el('div', {}, text, info);
}

const stages = [['queue', 'queue_ms'], ['decode', 'image_decode_ms'], ['resize', 'image_resize_ms'],
  ['vit', 'encode_ms'], ['read', 'prefill_ms'], ['write', 'decode_ms']];
const ms = (x) => (x >= 1000 ? `${(x / 1000).toFixed(1)} s` : `${x.toFixed(x < 10 ? 1 : 0)} ms`);

function timingView(turn) {
  const tm = turn.timings, total = stages.reduce((a, [, k]) => a + tm[k], 0) || 1;
  const bar = el('div', { class: 'bar', 'aria-hidden': 'true' });
  const legend = el('ul', { class: 'legend' });
  stages.forEach(([name, key], i) => {
    const part = el('span', { class: `c${i + 1}` });
    part.style.width = `${(tm[key] / total) * 100}%`;
    if (tm[key] > 0) bar.append(part);
    legend.append(el('li', {}, el('i', { class: `c${i + 1}` }), `${t(name)} ${ms(tm[key])}`));
  });
  legend.append(el('li', {}, `${tm.tokens_per_second.toFixed(1)} ${t('perSecond')}`));
  if (tm.cached_pictures) legend.append(el('li', {}, t('fromCache')));
  return el('details', {}, el('summary', {}, `${t('timings')}: ${ms(tm.total_ms)}`), bar, legend);
}

function reportView(turn) {
  const rows = turn.reports.flatMap((r, i) => [
    el('dt', {}, `${i + 1}. ${r.format}`),
    el('dd', {}, [`${r.width}×${r.height}`, r.orientation !== 1 ? t('turned', r.orientation) : '',
      t('resized', r.width, r.height, r.resized_width, r.resized_height), `${r.tokens} ${t('tokens')}`,
      ...r.warnings].filter(Boolean).join(' · '))]);
  return el('details', {}, el('summary', {}, t('done')), el('dl', {}, ...rows));
}

function progressView(turn) {
  const p = turn.progress;
  const stage = !p ? t('waiting') : p.stage === 'encode' ? t('encode', p.image + 1, p.done, p.total)
    : t('prefill', p.done, p.total);
  const text = p?.eta_ms > 0 ? `${stage} · ≈ ${ms(p.eta_ms)}` : stage;
  return el('div', { class: 'progress' },
    el('progress', p ? { value: p.done, max: p.total, 'aria-label': text } : { 'aria-label': text }), text);
}

const lastImages = (index) => chat.turns.slice(0, index).filter((u) => u.role === 'user').flatMap((u) => u.images);

function toolsView(turn, index) {
  const before = chat.turns.slice(0, index), set = { ...settings(), preset: turn.preset ?? 'auto' };
  const button = (text, fn, attrs = {}) => el('button', { type: 'button', onclick: fn, ...attrs }, text);
  return el('div', { class: 'row tools' },
    index === chat.turns.length - 1 ? button(t('regenerate'), () => answer(index)) : null,
    button(t('copy'), () => copyText(turn.text)),
    csvOf(turn.text) ? button('CSV', () => download('table.csv', csvOf(turn.text))) : null,
    turn.marks ? button(t('boxesAsJson'), () => download('boxes.json', boxesOf(turn, lastImages(index)))) : null,
    button(t('probabilities'), () => { turn.showTokens = !turn.showTokens; update(index); },
      { 'aria-pressed': String(!!turn.showTokens) }),
    button(t('asCurl'), () => showText('curl', asCurl(before, set))),
    button(t('asPython'), () => showText('Python', asPython(before, set))));
}

function assistantView(turn, index) {
  const busy = running && index === chat.turns.length - 1, out = [];
  out.push(el('h3', {}, props?.model.id ?? 'vitreous'));
  if (turn.text) {
    out.push(el('div', { class: `body${busy ? ' caret' : ''}` },
      ...(turn.showTokens && turn.tokens.length ? [tokenView(turn)] : markdown(turn.text))));
  } else if (busy) out.push(progressView(turn));
  if (turn.error) out.push(el('p', { class: 'bad', role: 'alert' }, `${t('failed')}: ${turn.error}`));
  if (turn.stopped) out.push(el('p', { class: 'note' }, t('stopped')));
  if (turn.finish && turn.finish !== 'stop') out.push(el('p', { class: 'note' }, t(`finish_${turn.finish}`)));
  if (turn.warnings) out.push(...turn.warnings.map((w) => el('p', { class: 'note warn' }, w)));
  if (turn.marks) {
    const images = lastImages(index), several = images.length > 1;
    images.forEach((p, image) => {
      const marks = turn.marks.filter((m) => m.image === image), r = turn.reports?.[image];
      if (!marks.length || !r) return;
      if (several) out.push(el('p', { class: 'note' }, t('onPicture', image + 1, p.name), marks.some((m) => m.image_by === 'last') ? ` ${t('guessed')}` : ''));
      out.push(drawBoxes(p.url, r, marks));
    });
    const line = (m) => `${several ? `${m.image + 1}. ` : ''}${m.label ?? m.type}: [${m.relative.map(Math.round)}] → [${m.pixels.map(Math.round)}]`;
    out.push(el('details', {}, el('summary', {}, t('thousandths')), el('pre', {}, turn.marks.map(line).join('\n'))));
  }
  if (turn.timings) out.push(timingView(turn));
  if (turn.reports) out.push(reportView(turn));
  if (!busy) out.push(toolsView(turn, index));
  return out;
}

function messageView(turn, index) {
  const body = turn.role === 'user'
    ? [el('h3', {}, t('you')), thumbs(turn), el('div', { class: 'plain' }, turn.text)]
    : assistantView(turn, index);
  return el('article', { class: `message ${turn.role}` }, ...body.filter(Boolean));
}

// Redraws one message, keeping open what the reader had opened.
function update(index) {
  const old = $('messages').children[index], open = old ? [...old.querySelectorAll('details')].map((d) => d.open) : [];
  const view = messageView(chat.turns[index], index);
  [...view.querySelectorAll('details')].forEach((d, i) => { d.open = !!open[i]; });
  if (old) old.replaceWith(view);
  else $('messages').append(view);
}

function render() {
  $('messages').replaceChildren(...chat.turns.map(messageView));
  $('welcome').hidden = chat.turns.length > 0;
  $('send').hidden = !!running;
  $('stop').hidden = !running;
}

// ---- asking -----------------------------------------------------------------------------------
async function answer(index) {
  if (running) return;
  const set = settings(), main = document.querySelector('main'), mine = chat;
  const turn = { role: 'assistant', text: '', tokens: [], preset: set.preset };
  chat.turns.length = index;
  chat.turns.push(turn);
  running = new AbortController();
  render();
  let due = 0;
  const show = () => {                // at most one redraw per frame
    due ||= requestAnimationFrame(() => {
      due = 0;
      if (chat !== mine) return;      // another conversation was opened
      const low = main.scrollHeight - main.scrollTop - main.clientHeight < 120;
      update(index);
      if (low) main.scrollTop = main.scrollHeight;
    });
  };
  try {
    await ask(mine.turns.slice(0, index), set, turn, running.signal, show);
  } catch (e) {
    if (e?.name === 'AbortError') turn.stopped = true;
    else turn.error = [e instanceof TypeError ? t('unreachable') : e?.message ?? t('unreachable'), e?.retry ? t('retryIn', e.retry) : ''].filter(Boolean).join(' ');
  }
  cancelAnimationFrame(due);
  running = null;
  delete turn.progress;
  render();
  main.scrollTop = main.scrollHeight;
  $('status').textContent = turn.error ?? t('answered');
  if (!dropped.has(mine.id)) await saveChat(mine).catch(() => {});
  renderHistory();
}

function send() {
  const text = $('question').value.trim();
  const images = pictures.filter((p) => !p.error).map(({ url, name }) => ({ url, name }));
  if (running || (!text && !images.length)) return;
  chat.turns.push({ role: 'user', text: text || tasks[0].ask[lang()], images });
  chat.title ||= text || t('untitled');
  $('question').value = '';
  grow();
  clearPictures();
  answer(chat.turns.length);
}

async function take(files) {
  for (const f of files) {
    try {
      await addPicture(f, f.name, props?.limits.images ?? 8);
    } catch (e) {
      showText(t('failed'), e.message);
    }
  }
  $('question').focus();
}

// ---- around it --------------------------------------------------------------------------------
function refresh() {
  const preset = $('preset').value || 'auto';
  renderPictures($('pictures'), preset);
  const costs = pictures.map((p) => costOf(p, preset)).filter(Boolean);
  const sum = (k) => costs.reduce((a, c) => a + c[k], 0);
  $('estimate').textContent = costs.length
    ? `${sum('tokens')} ${t('tokens')}, ${t('about')} ${ms(sum('ms'))} ${t('toFirst')}` : '';
  for (const o of $('preset').options) {      // what each resolution would cost
    const tokens = pictures.map((p) => costOf(p, o.value)?.tokens ?? 0).reduce((a, b) => a + b, 0);
    o.textContent = tokens ? `${t(o.value)} (${tokens})` : t(o.value);
  }
}

function renderTasks() {
  $('tasks').replaceChildren(...tasks.map((k) => el('button', { type: 'button', id: `task-${k.id}`, onclick: () => {
    $('question').value = k.ask[lang()];
    if (k.preset) $('preset').value = k.preset;
    grow();
    refresh();
    if (pictures.length || chat.turns.length) send();
    else $('question').focus();
  } }, k[lang()])));
}

function renderPresets() {
  const value = $('preset').value || 'auto';
  $('preset').replaceChildren(...['auto', 'fast', 'balanced', 'ocr', 'ground'].map((p) => el('option', { value: p }, t(p))));
  $('preset').value = value;
}

function renderNotice() {
  if (!props) return;
  const m = props.model, millions = (m.parameters / 1e6).toFixed(m.parameters < 1e8 ? 1 : 0);
  $('model').textContent = m.id;
  $('notice').textContent = (m.embedded ? t('noticeDemo', millions) : t('notice', m.id, millions, m.backend, m.dtype))
    + (m.warning ? ` ${m.warning}` : '');
}

function modelDialog() {
  const m = props.model, dl = el('dl');
  for (const [k, v] of Object.entries({ ...m, ...props.speed }))
    dl.append(el('dt', {}, k.replaceAll('_', ' ')), el('dd', {}, typeof v === 'number' ? String(+v.toFixed(3)) : String(v)));
  $('info-title').textContent = t('modelTitle');
  $('info-body').replaceChildren(el('p', {}, $('notice').textContent), dl);
  $('info-dialog').showModal();
}

async function renderHistory() {
  const chats = await loadChats().catch(() => []);
  $('history-list').replaceChildren(...chats.map((c) => el('li', {},
    el('button', { type: 'button', onclick: () => open(c), 'aria-current': String(c.id === chat.id) }, c.title),
    el('button', { type: 'button', class: 'icon', 'aria-label': `${t('drop')}: ${c.title}`,
      onclick: async () => { dropped.add(c.id); await deleteChat(c.id); renderHistory(); } }, '✕'))));
}

function open(c) {
  running?.abort();
  chat = c;
  showHistory(window.innerWidth > 640);
  render();
}

function showHistory(on) {
  $('history').hidden = !on;
  $('history-toggle').setAttribute('aria-expanded', String(on));
  if (on) renderHistory();
}

function showText(title, text) {
  $('info-title').textContent = title;
  $('info-body').replaceChildren(el('pre', { tabindex: 0 }, text),
    el('button', { type: 'button', onclick: () => copyText(text) }, t('copy')));
  $('info-dialog').showModal();
}

function download(name, text) {
  const csv = name.endsWith('.csv');             // the mark tells spreadsheets that it is UTF-8
  const url = URL.createObjectURL(new Blob(csv ? ['\ufeff', text] : [text], { type: csv ? 'text/csv' : 'application/json' }));
  el('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

async function copyText(text) {
  await navigator.clipboard?.writeText(text).catch(() => {});
  $('status').textContent = t('copied');
}

function grow() {
  const q = $('question');
  q.style.height = 'auto';
  q.style.height = `${q.scrollHeight + 2}px`;
}

function applyLanguage(code) {
  setLanguage(code);
  localStorage.setItem('language', code);
  $('language').textContent = code === 'zh' ? 'EN' : '中';
  renderTasks();
  renderPresets();
  renderNotice();
  refresh();
  render();
  grow();
}

function applyTheme(name) {
  root.dataset.theme = name;
  localStorage.setItem('theme', name);
}

// ---- camera -----------------------------------------------------------------------------------
async function openCamera() {
  let media;
  try {
    media = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
  } catch {
    $('capture').click();
    return;
  }
  $('video').srcObject = media;
  $('camera-dialog').showModal();
  $('camera-dialog').onclose = () => media.getTracks().forEach((k) => k.stop());
}

function snap() {
  const v = $('video'), canvas = el('canvas');
  canvas.width = v.videoWidth;
  canvas.height = v.videoHeight;
  canvas.getContext('2d').drawImage(v, 0, 0);
  canvas.toBlob((b) => take([new File([b], 'camera.png', { type: 'image/png' })]), 'image/png');
  $('camera-dialog').close();
}

// ---- wiring -----------------------------------------------------------------------------------
const on = (id, event, fn) => $(id).addEventListener(event, fn);
on('composer', 'submit', (e) => { e.preventDefault(); send(); });
on('question', 'input', grow);
on('question', 'keydown', (e) => {
  if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) { e.preventDefault(); send(); }
});
on('stop', 'click', () => running?.abort());
on('add', 'click', () => $('file').click());
on('camera', 'click', openCamera);
on('snap', 'click', snap);
on('camera-close', 'click', () => $('camera-dialog').close());
on('info-close', 'click', () => $('info-dialog').close());
on('model', 'click', () => props && modelDialog());
on('preset', 'change', refresh);
on('language', 'click', () => applyLanguage(lang() === 'zh' ? 'en' : 'zh'));
on('theme', 'click', () => applyTheme(root.dataset.theme === 'dark' ? 'light' : 'dark'));
on('history-toggle', 'click', () => showHistory($('history').hidden));
on('new-chat', 'click', () => open(fresh()));
on('clear-history', 'click', async () => { dropped.add(chat.id); await deleteAll(); open(fresh()); });
on('sample', 'click', async () => take([new File([await samplePicture()], 'sample.png', { type: 'image/png' })]));
for (const id of ['file', 'capture']) on(id, 'change', (e) => { take([...e.target.files]); e.target.value = ''; });
document.addEventListener('paste', (e) => {
  const files = [...(e.clipboardData?.files ?? [])];
  if (files.length) { e.preventDefault(); take(files); }
});
let depth = 0;                        // dragenter and dragleave also fire for every child
document.addEventListener('dragenter', (e) => { e.preventDefault(); depth++; $('drop').hidden = false; });
document.addEventListener('dragleave', () => { if (--depth <= 0) { depth = 0; $('drop').hidden = true; } });
document.addEventListener('dragover', (e) => e.preventDefault());
document.addEventListener('drop', (e) => {
  e.preventDefault();
  depth = 0;
  $('drop').hidden = true;
  take([...e.dataTransfer.files]);
});
document.addEventListener('keydown', (e) => { if (e.key === 'Escape' && running) running.abort(); });

onChange(refresh);
applyTheme(localStorage.getItem('theme') ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'));
applyLanguage(localStorage.getItem('language') ?? (navigator.language.startsWith('zh') ? 'zh' : 'en'));
fetch('/props').then((r) => r.json()).then((p) => { props = p; renderNotice(); })
  .catch(() => { $('notice').textContent = t('unreachable'); });
