// markdown.js: the Markdown that models write, as DOM nodes. Text only ever becomes text nodes, and
// links keep only http(s): nothing a model says can become markup or run.

export function el(tag, attrs = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attrs)) {
    if (k === 'class') e.className = v;
    else if (k.startsWith('on')) e.addEventListener(k.slice(2), v);
    else if (v !== undefined && v !== false) e.setAttribute(k, v === true ? '' : v);
  }
  e.append(...children.filter((c) => c !== undefined && c !== null));
  return e;
}

const inlineRules = [
  [/`([^`]+)`/, (m) => el('code', {}, m[1])],
  [/\*\*([^*]+(?:\*[^*]+)*)\*\*/, (m) => el('strong', {}, ...inline(m[1]))],
  [/(?<![*\w])\*([^*\s][^*]*)\*(?![*\w])/, (m) => el('em', {}, ...inline(m[1]))],
  [/~~([^~]+)~~/, (m) => el('del', {}, ...inline(m[1]))],
  [/\[([^\]]+)\]\((https?:\/\/[^\s)]+)\)/, (m) =>
    el('a', { href: m[2], rel: 'noopener noreferrer nofollow', target: '_blank' }, m[1])],
];

function inline(text) {
  let best = null, rule = null;
  for (const r of inlineRules) {
    const m = r[0].exec(text);
    if (m && (!best || m.index < best.index)) [best, rule] = [m, r];
  }
  if (!best) return text ? [text] : [];
  return [...inline(text.slice(0, best.index)), rule[1](best), ...inline(text.slice(best.index + best[0].length))];
}

const cells = (line) => line.trim().replace(/^\||\|$/g, '').split('|').map((c) => c.trim());
const isRule = (line) => /^\s*\|?[\s:|-]+\|?\s*$/.test(line ?? '') && line.includes('-') && line.includes('|');

function table(lines, i, out) {
  const row = (tag, line) => el('tr', {}, ...cells(line).map((c) => el(tag, {}, ...inline(c))));
  const body = el('tbody');
  const head = el('thead', {}, row('th', lines[i]));
  for (i += 2; i < lines.length && lines[i].includes('|'); i++) body.append(row('td', lines[i]));
  out.push(el('table', {}, head, body));
  return i;
}

// The first table of an answer as CSV (Markdown, a fenced block, or lines that are CSV already); '' if none.
// A cell that a spreadsheet would take for a formula is quoted as text: pictures are not to be trusted.
export function csvOf(text) {
  const lines = text.trim().split('\n'), at = lines.findIndex((l, i) => l.includes('|') && isRule(lines[i + 1]));
  const safe = (c) => (/^[=@\t\r]/.test(c) || (/^[+-]/.test(c) && !/^[+-][\d.,]+%?$/.test(c)) ? `'${c}` : c);
  const bare = (c) => (/^".*"$/.test(c) ? c.slice(1, -1).replaceAll('""', '"') : c);
  const quote = (c) => (/[",\n]/.test(c) ? `"${c.replaceAll('"', '""')}"` : c);
  if (at >= 0) {
    let end = at + 2;
    while (lines[end]?.includes('|')) end++;
    return [lines[at], ...lines.slice(at + 2, end)].map((l) => cells(l).map((c) => quote(safe(c))).join(',')).join('\r\n');
  }
  const fence = /```(?:csv)?\s*\n([\s\S]*?)\n```/.exec(text), plain = (fence ? fence[1] : text.trim()).split('\n');
  const commas = plain.map((l) => l.replace(/"[^"]*"/g, '').split(',').length);
  return plain.length > 1 && commas[0] > 1 && commas.every((n) => n === commas[0])
    ? plain.map((l) => l.split(/,(?=(?:[^"]*"[^"]*")*[^"]*$)/).map((c) => quote(safe(bare(c)))).join(',')).join('\r\n') : '';
}

function list(lines, i, out) {
  const ordered = /^\s*\d+[.)]/.test(lines[i]);
  const item = ordered ? /^\s*\d+[.)]\s+(.*)/ : /^\s*[-*+]\s+(.*)/;
  const e = el(ordered ? 'ol' : 'ul');
  for (let m; i < lines.length && (m = item.exec(lines[i])); i++) e.append(el('li', {}, ...inline(m[1])));
  out.push(e);
  return i;
}

export function markdown(text) {
  const lines = text.split('\n'), out = [];
  for (let i = 0; i < lines.length;) {
    const line = lines[i];
    let m;
    if (/^\s*```/.test(line)) {
      const code = [];
      for (i++; i < lines.length && !/^\s*```/.test(lines[i]); i++) code.push(lines[i]);
      i++;
      out.push(el('pre', {}, el('code', {}, code.join('\n'))));
    } else if ((m = /^(#{1,6})\s+(.*)/.exec(line))) {
      out.push(el('h' + Math.min(6, m[1].length + 3), {}, ...inline(m[2])));
      i++;
    } else if (line.includes('|') && isRule(lines[i + 1])) i = table(lines, i, out);
    else if (/^\s*([-*+]|\d+[.)])\s+/.test(line)) i = list(lines, i, out);
    else if ((m = /^>\s?(.*)/.exec(line))) {
      out.push(el('blockquote', {}, ...inline(m[1])));
      i++;
    } else if (/^\s*(-{3,}|\*{3,})\s*$/.test(line)) {
      out.push(el('hr'));
      i++;
    } else if (!line.trim()) i++;
    else {
      const para = [];
      for (; i < lines.length && lines[i].trim() && !/^\s*(```|#{1,6}\s|[-*+]\s|\d+[.)]\s|>)/.test(lines[i]); i++)
        para.push(lines[i]);
      if (!para.length) para.push(lines[i++]);
      out.push(el('p', { class: 'plain' }, ...inline(para.join('\n'))));
    }
  }
  return out;
}
