// pictures.js: the pictures waiting to be sent. Each is shown to the server's dry run first, so that
// size, tokens and time are known before anything is asked; and boxes drawn over pictures.
import { el } from './markdown.js';
import { t } from './text.js';

export const pictures = [];           // {name, url, report, error, converted}
const readable = ['image/jpeg', 'image/png', 'image/webp', 'image/gif', 'image/bmp'];
const largest = 8 << 20;
let changed = () => {};
export const onChange = (fn) => { changed = fn; };

const dataUrl = (blob) => new Promise((ok, no) => {
  const r = new FileReader();
  r.onload = () => ok(r.result);
  r.onerror = () => no(r.error);
  r.readAsDataURL(blob);
});

// What the server does not read (HEIC in Safari, AVIF, SVG) or what is too big goes through a canvas.
async function convert(blob) {
  const bitmap = await createImageBitmap(blob);
  const scale = Math.min(1, 4096 / Math.max(bitmap.width, bitmap.height));
  const canvas = el('canvas');
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  canvas.getContext('2d').drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((ok) => canvas.toBlob(ok, 'image/jpeg', 0.95));
}

async function dryRun(p) {
  const r = await fetch('/v1/preprocess', {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ image: p.url }),
  });
  const answer = await r.json();
  if (r.ok) p.report = answer;
  else p.error = answer.error?.message ?? String(r.status);
}

export async function addPicture(blob, name, max) {
  if (pictures.length >= max) throw new Error(t('tooMany', max));
  const p = { name: name || t('untitled'), url: '', report: null, error: '' };
  try {
    const bad = !readable.includes(blob.type) || blob.size > largest;
    p.converted = bad;
    p.url = await dataUrl(bad ? await convert(blob) : blob);
  } catch {
    throw new Error(t('unreadable', p.name));
  }
  pictures.push(p);
  changed();
  await dryRun(p).catch(() => { p.error = t('unreachable'); });
  changed();
  return p;
}

export function clearPictures() {
  pictures.length = 0;
  changed();
}

// Tokens and predicted time of a picture under a preset ('auto': as the server is configured).
export const costOf = (p, preset) => {
  const r = p.report && (preset === 'auto' ? p.report : p.report.presets[preset]);
  return r ? { tokens: r.tokens, ms: r.estimate.first_token_ms, width: r.resized_width, height: r.resized_height } : null;
};

function facts(p, preset) {
  const lines = [], r = p.report, c = costOf(p, preset);
  if (p.error) lines.push(el('span', { class: 'bad' }, p.error));
  else if (!c) lines.push(t('measuring'));
  else {
    lines.push(t('resized', r.width, r.height, c.width, c.height), `${c.tokens} ${t('tokens')}`);
    if (r.orientation !== 1) lines.push(t('turned', r.orientation));
    for (const w of r.warnings) lines.push(el('span', { class: 'warn' }, w));
  }
  if (p.converted) lines.push(t('converted'));
  return lines.flatMap((l) => [l, el('br')]);
}

export function renderPictures(list, preset) {
  const move = (i, by) => {
    const [p] = pictures.splice(i, 1);
    pictures.splice(i + by, 0, p);
    changed();
  };
  list.replaceChildren(...pictures.map((p, i) => {
    const button = (label, text, fn, off) =>
      el('button', { type: 'button', 'aria-label': `${t(label)}: ${p.name}`, title: t(label), onclick: fn, disabled: off }, text);
    return el('li', {}, el('img', { src: p.url, alt: p.name }), el('div', {}, ...facts(p, preset)),
      el('div', { class: 'row' }, button('earlier', '←', () => move(i, -1), i === 0),
        button('later', '→', () => move(i, 1), i === pictures.length - 1),
        button('remove', '✕', () => { pictures.splice(i, 1); changed(); })));
  }));
}

// Boxes and points of an answer by picture, in pixels of the upright original.
export function boxesOf(turn, images) {
  const of = (image, type) => turn.marks.filter((m) => m.image === image && m.type === type)
    .map((m) => ({ label: m.label, [type]: m.pixels.map((x) => Math.round(x * 10) / 10) }));
  return `${JSON.stringify(images.map((p, i) => ({
    picture: p.name, width: turn.reports?.[i]?.width, height: turn.reports?.[i]?.height, boxes: of(i, 'box'), points: of(i, 'point'),
  })), null, 1)}\n`;
}

// The same, over the picture.
export function drawBoxes(url, report, marks) {
  const ns = 'http://www.w3.org/2000/svg', svg = document.createElementNS(ns, 'svg');
  const { width, height } = report, unit = Math.max(width, height) / 100;
  const add = (tag, attrs, text) => {
    const e = document.createElementNS(ns, tag);
    for (const [k, v] of Object.entries(attrs)) e.setAttribute(k, v);
    if (text) e.textContent = text;
    svg.append(e);
  };
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  svg.setAttribute('role', 'img');
  svg.setAttribute('aria-label', marks.map((m) => `${m.label ?? m.type}: ${m.pixels.map(Math.round)}`).join('; '));
  for (const m of marks) {
    const [x, y, x2, y2] = m.pixels;
    if (m.type === 'box') add('rect', { x: Math.min(x, x2), y: Math.min(y, y2), width: Math.abs(x2 - x), height: Math.abs(y2 - y) });
    else add('circle', { cx: x, cy: y, r: unit });
    if (m.label) add('text', { x: x + unit / 2, y: Math.max(y - unit, unit * 4), 'font-size': Math.max(unit * 4, 13), 'stroke-width': Math.max(unit / 2, 2) }, m.label);
  }
  return el('div', { class: 'boxes' }, el('img', { src: url, alt: '', width, height }), svg);
}

// A picture to try the page with, drawn here so that nothing has to be downloaded.
export function samplePicture() {
  const canvas = el('canvas'), g = canvas.getContext('2d');
  canvas.width = 320;
  canvas.height = 224;
  g.fillStyle = '#ffffff';
  g.fillRect(0, 0, 320, 224);
  g.fillStyle = '#d62828';
  g.beginPath();
  g.arc(84, 84, 48, 0, 7);
  g.fill();
  g.fillStyle = '#1d4ed8';
  g.fillRect(186, 40, 88, 88);
  g.fillStyle = '#111111';
  g.font = 'bold 40px sans-serif';
  g.fillText('2026', 112, 196);
  return new Promise((ok) => canvas.toBlob(ok, 'image/png'));
}
