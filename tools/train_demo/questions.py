"""Questions about a Picture and their true answers, in English and Chinese.

ask() returns (task, question, answer) triples; `held` picks the wordings training never sees.
"""
import json

import pictures as P
import vocab as V

# how often each question is drawn when it can be asked
WEIGHT = {"caption": 2.5, "colour": 3, "shape": 4, "shape1": 2, "count": 4, "exist": 2.5, "left": 2,
          "above": 2, "isleft": 1, "isright": 1, "isabove": 1, "isbelow": 1, "place": 2.5, "at": 1.2,
          "biggest": .6, "box": 3.5, "boxes": 1, "word": 3, "number": 3, "zh": 3, "value": 4, "tallest": 2,
          "shortest": 1, "bars": .6, "trend": 1, "chart": 1.2, "barcolour": .8}


def name(o, lang, article=False):
    if lang == "zh":
        return V.COLOURS[o.colour][1] + "的" + V.SHAPES[o.shape][1]
    text = f"{o.colour} {o.shape}"
    return ("an " if article and text[0] in "aeiou" else "a " if article else "") + text


def listing(objs, lang):
    if lang == "zh":
        return "，".join("一个" + name(o, "zh") for o in objs) + "。"
    parts = [name(o, "en", True) for o in objs]
    text = ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]
    return text[0].upper() + text[1:] + "."


def boxes_json(objs, size, label):
    return json.dumps([{"bbox_2d": P.norm_box(o.box, size), "label": label} for o in objs],
                      ensure_ascii=False)


def centre(o, size):
    return (o.box[0] + o.box[2]) / 2 / size[1], (o.box[1] + o.box[3]) / 2 / size[0]


def cell(o, size, margin):
    """3 x 3 cell of the centre, or None when it lies closer than margin to a border of cells."""
    c = centre(o, size)
    if any(abs(v - b) < margin for v in c for b in (1 / 3, 2 / 3)):
        return None
    return int(c[1] * 3) * 3 + int(c[0] * 3)


def sayable(o, objs):
    """True when colour and shape name this object alone."""
    return sum(p.shape == o.shape and p.colour == o.colour for p in objs) == 1


def count(objs, shape=None, colour=None):
    """How many of this shape, or of this colour, or at all."""
    plural, zh = (V.SHAPES[shape] if shape else (colour + " shapes", V.COLOURS[colour][1] + "的图形") if colour
                  else ("shapes", "图形"))
    n = sum(shape in (None, o.shape) and colour in (None, o.colour) for o in objs)
    return "count", {"ss": plural, "s": zh}, str(n)


def about_shapes(r, pic, lang):
    """Every (task, fields, answer) that has one clear answer for this picture."""
    objs, size = pic.objects, pic.size
    zh = lang == "zh"
    out = []
    if not objs:
        return out
    unique = [o for o in objs if sayable(o, objs)]
    shapes = sorted({o.shape for o in objs})
    colours = sorted({o.colour for o in objs})
    by_x = sorted(objs, key=lambda o: centre(o, size)[0])
    xs = [centre(o, size)[0] for o in by_x]
    if len(objs) <= 4 and all(b - a > .05 for a, b in zip(xs, xs[1:])):
        out.append(("caption", {}, listing(by_x, lang)))
    if len(objs) == 1:
        out.append(("shape1", {}, V.SHAPES[objs[0].shape][1] if zh else objs[0].shape))
    lone = [o for o in objs if sum(p.shape == o.shape for p in objs) == 1]
    if lone:
        o = r.choice(lone)
        out.append(("colour", {"s": V.SHAPES[o.shape][1] if zh else o.shape},
                    V.COLOURS[o.colour][1] if zh else o.colour))
    lone = [o for o in objs if sum(p.colour == o.colour for p in objs) == 1]
    if lone:
        o = r.choice(lone)
        out.append(("shape", {"c": V.COLOURS[o.colour][1] if zh else o.colour},
                    V.SHAPES[o.shape][1] if zh else o.shape))
    u = r.random()
    if pic.crowd:
        out += [count(objs, s) for s in shapes] + [count(objs, colour=c) for c in colours] + [count(objs)]
    elif u < .55:
        out.append(count(objs, r.choice(shapes)))
    elif u < .75:
        out.append(count(objs, colour=r.choice(colours)))
    else:
        out.append(count(objs))
    if r.random() < .5:
        o = r.choice(objs)
        out.append(("exist", {"a": name(o, lang)}, "有" if zh else "yes"))
    else:
        # a near miss: right shape or right colour, but not together
        fake = P.Obj(r.choice(shapes if r.random() < .6 else V.SHAPE_NAMES),
                     r.choice(colours if r.random() < .4 else V.COLOUR_NAMES), None)
        if not any(o.shape == fake.shape and o.colour == fake.colour for o in objs):
            out.append(("exist", {"a": name(fake, lang)}, "没有" if zh else "no"))
    if len(unique) >= 2:
        a, b = r.sample(unique, 2)
        (ax, ay), (bx, by) = centre(a, size), centre(b, size)
        f = {"a": name(a, lang), "b": name(b, lang)}
        yes, no = ("是", "否") if zh else ("yes", "no")
        if abs(ax - bx) > .08:
            out.append(("left", f, ("左边" if zh else "left") if ax < bx else ("右边" if zh else "right")))
            t = r.choice(["isleft", "isright"])
            out.append((t, f, yes if (ax < bx) == (t == "isleft") else no))
        if abs(ay - by) > .08:
            out.append(("above", f, ("上面" if zh else "above") if ay < by else ("下面" if zh else "below")))
            t = r.choice(["isabove", "isbelow"])
            out.append((t, f, yes if (ay < by) == (t == "isabove") else no))
    placed = [(o, cell(o, size, .035)) for o in unique]
    placed = [p for p in placed if p[1] is not None]
    if placed:
        o, k = r.choice(placed)
        out.append(("place", {"a": name(o, lang)}, (V.PLACES_ZH if zh else V.PLACES)[k]))
    cells = [cell(o, size, .035) for o in objs]
    if None not in cells:
        lone = [o for o, k in zip(objs, cells) if cells.count(k) == 1]
        if lone:
            o = r.choice(lone)
            k = cells[objs.index(o)]
            out.append(("at", {"p": (V.PLACES_ZH if zh else V.PLACES)[k]}, name(o, lang)))
    area = sorted(((o.box[2] - o.box[0]) * (o.box[3] - o.box[1]), i) for i, o in enumerate(objs))
    if len(objs) > 1 and area[-1][0] > 1.6 * area[-2][0]:
        out.append(("biggest", {}, name(objs[area[-1][1]], lang)))
    for o in r.sample(unique, min(2, len(unique))):
        out.append(("box", {"a": name(o, lang)}, boxes_json([o], size, name(o, lang))))
    s = r.choice(shapes)
    same = [o for o in by_x if o.shape == s]
    if len(same) <= 3 and all(centre(b, size)[0] - centre(a, size)[0] > .05 for a, b in zip(same, same[1:])):
        label = V.SHAPES[s][1] if zh else s
        out.append(("boxes", {"s": label, "ss": V.SHAPES[s][0]}, boxes_json(same, size, label)))
    return out


def about_chart(r, pic, lang):
    zh = lang == "zh"
    bars = pic.bars
    values = [v for _, v, _ in bars]
    out = [("bars", {}, str(len(bars))),
           ("chart", {}, ", ".join(f"{l}: {v}" for l, v, _ in bars)),
           ("caption", {}, f"一个有{len(bars)}个柱子的柱状图。" if zh else
            f"A bar chart with {len(bars)} bars.")]
    for label, value, colour in r.sample(bars, 2):
        out.append(("value", {"l": label}, str(value)))
    out.append(("barcolour", {"l": label}, V.COLOURS[colour][1] if zh else colour))
    top = max(values)
    if sum(v > top * .93 for v in values) == 1:
        out.append(("tallest", {}, bars[values.index(top)][0]))
    low = min(values)
    if sum(v < low + .07 * top for v in values) == 1:
        out.append(("shortest", {}, bars[values.index(low)][0]))
    if len(set(values)) == len(values) and len(values) > 2:
        if values == sorted(values):
            out.append(("trend", {}, "上升" if zh else "up"))
        elif values == sorted(values, reverse=True):
            out.append(("trend", {}, "下降" if zh else "down"))
    return out


def about(r, pic, lang):
    zh = lang == "zh"
    if pic.kind == "shapes":
        return about_shapes(r, pic, lang)
    if pic.kind == "chart":
        return about_chart(r, pic, lang)
    t = pic.text
    said = {"word": f"单词“{t}”。" if zh else f'The word "{t}".',
            "number": f"数字{t}。" if zh else f"The number {t}.",
            "zh": f"文字“{t}”。" if zh else f'The Chinese text "{t}".'}[pic.kind]
    return [(pic.kind, {}, t), ("caption", {}, said)]


def reword(r, task, lang):
    """A training wording, in half of the cases with words around it, so that no one way of asking is needed."""
    text = r.choice(V.Q[task][lang][0] + V.MORE.get(task, {}).get(lang, []))
    if r.random() < .5:
        return text
    if lang == "zh":
        return r.choice(V.LEAD_ZH) + text
    lead, lower = r.choice(V.LEAD)
    return lead + (text[0].lower() + text[1:] if lower else text)


def ask(r, pic, held=False, most=5, tasks=None):
    """Up to `most` (task, question, answer) triples, drawn by WEIGHT without replacement."""
    pool = [(t, f, a, lang) for lang in ("en", "zh") for t, f, a in about(r, pic, lang)
            if tasks is None or t in tasks]
    out = []
    while pool and len(out) < most:
        k = r.choices(range(len(pool)), [WEIGHT[p[0]] for p in pool])[0]
        task, fields, answer, lang = pool.pop(k)
        wording = reword(r, task, lang) if not held else r.choice(V.Q[task][lang][1])
        if lang == "en" and fields.get("a", "").startswith("orange"):
            wording = wording.replace(" a {a}", " an {a}").replace("Is a {a}", "Is an {a}")
        out.append((task, wording.format(**fields), answer))
    return out
