#!/usr/bin/env python3
"""Sets the line numbers of [`name`](path#L12) links in docs/chapters right after code has moved: the
line of the definition of `name` in that file (a line that starts at column 0 and has `name(` or
`name` in it, and is no comment), else the first line that has the name."""
import pathlib
import re

for doc in pathlib.Path(__file__).resolve().parent.parent.glob("docs/chapters/*.md"):
    def fix(m, doc=doc):
        name, path = m.group(1), m.group(2)
        lines = (doc.parent / path).read_text().splitlines()
        word = re.compile(r"\b" + re.escape(name) + r"\b")
        has = [i for i, line in enumerate(lines) if word.search(line)]
        if not has:
            raise SystemExit(f"{doc.name}: {name} is nowhere in {path}")
        defs = [i for i in has if re.match(r"(?!/\*| \*|#include)\w", lines[i]) and not lines[i].rstrip().endswith(";")]
        return f"[`{name}`]({path}#L{(defs or has)[0] + 1})"
    text = doc.read_text()
    new = re.sub(r"\[`([^`\]]+)`\]\(([^)#]+)#L\d+\)", fix, text)
    if new != text:
        doc.write_text(new)
        print("mended", doc.name)
