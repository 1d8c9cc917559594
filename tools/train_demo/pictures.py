"""Draws the pictures: shapes, words, numbers, Chinese text and bar charts over all sorts of backgrounds.

A Picture knows what it shows (objects, text, bars), so that questions.py can ask about it, and a list
of marks: points with what is there, the targets of the auxiliary heads in model.py.
"""
import colorsys
import dataclasses
import functools
import glob
import io
import os
import random
import zlib

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

import vocab as V

FONT_ROOT = "/usr/share/fonts"
# fonts that training never sees; everything else in LATIN / CJK is for training
HELD_LATIN = ["OpenSans-Semibold", "OpenSans-Regular", "LiberationSansNarrow-Bold", "FreeSerifBold",
              "Lato-Medium", "NotoSansDisplay-Regular", "DejaVuSansCondensed", "RobotoCondensed-Medium",
              "NotoSerif-Italic", "LiberationMono-Bold"]
TRAIN_LATIN = ["DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif",
               "DejaVuSerif-Bold", "DejaVuSans-Oblique", "DejaVuSerifCondensed",
               "DejaVuSansCondensed-Bold", "LiberationSans-Regular", "LiberationSans-Bold",
               "LiberationSans-Italic", "LiberationSerif-Regular", "LiberationSerif-Bold",
               "LiberationSerif-Italic", "LiberationMono-Regular", "LiberationSansNarrow-Regular",
               "FreeSans", "FreeSansBold", "FreeSerif", "FreeSansOblique", "FreeMonoBold", "Lato-Regular",
               "Lato-Bold", "Lato-Heavy", "Lato-Italic", "Lato-Semibold", "OpenSans-Light",
               "OpenSans-Bold", "OpenSans-Italic", "OpenSans-CondBold", "Roboto-Regular", "Roboto-Bold",
               "Roboto-Medium", "Roboto-Italic", "RobotoCondensed-Regular", "RobotoCondensed-Bold",
               "NotoSans-Regular", "NotoSans-Bold", "NotoSans-Italic", "NotoSerif-Regular",
               "NotoSerif-Bold", "NotoSansDisplay-Bold"]
HELD_CJK = ["wqy-microhei", "NotoSerifCJK-Bold"]
TRAIN_CJK = ["NotoSansCJK-Regular", "NotoSerifCJK-Regular", "wqy-zenhei", "NotoSansCJK-Bold", "uming",
             "ukai"]
EASY_LATIN, EASY_CJK = ["DejaVuSans", "LiberationSans-Bold"], ["NotoSansCJK-Regular", "wqy-zenhei"]
# text heights in pixels that training never uses
HELD_SIZES = {17, 23, 29, 37, 43}

NONE = -100  # "no target" in the marks, as torch's cross entropy ignores it
FIELDS = ["char", "next", "idx", "shape", "colour", "x1h", "x1t", "y1h", "y1t", "x2h", "x2t", "y2h",
          "y2t", "v10", "v1", "place"]
FIELD_ID = {f: i for i, f in enumerate(FIELDS)}


@dataclasses.dataclass
class Obj:
    shape: str
    colour: str
    box: tuple  # x1, y1, x2, y2 in pixels


@dataclasses.dataclass
class Picture:
    kind: str  # shapes, word, number, zh, chart
    size: tuple  # height, width
    level: float = 1.0  # how much there may be in it: 0 one thing .. 1 everything
    crowd: bool = False  # many of few kinds, to be counted
    image: Image.Image = None
    objects: list = dataclasses.field(default_factory=list)
    text: str = ""
    bars: list = dataclasses.field(default_factory=list)  # (label, value, colour)
    marks: list = dataclasses.field(default_factory=list)  # (x, y, {field: class})


@functools.lru_cache(None)
def font_files():
    return {os.path.splitext(os.path.basename(f))[0]: f
            for f in sorted(glob.glob(FONT_ROOT + "/**/*.[to]t[fc]", recursive=True))}


@functools.lru_cache(4000)
def font(name, size):
    return ImageFont.truetype(font_files()[name], size)


@functools.lru_cache(None)
def word_list(held_out):
    """English words of 3 to 8 letters; one in ten is held out."""
    path = "/usr/share/dict/words"
    words = [w.strip() for w in open(path, encoding="utf-8")]
    words = [w for w in words if w.isascii() and w.isalpha() and w.islower() and 3 <= len(w) <= 8]
    return [w for w in words if (zlib.crc32(w.encode()) % 10 == 0) == held_out]


# ------------------------------------------------------------------------------------------ backgrounds

def fractal(rng, n=448):
    """A photograph-like texture: smooth noise of several octaves, tinted, with a few blobs and edges."""
    out = np.zeros((n, n, 3), np.float32)
    amp = 1.0
    octave = rng.choice([2, 3, 4, 6])
    fall = rng.uniform(0.35, 0.75)
    while octave < n // 2:
        small = rng.standard_normal((octave, octave, 3)) * amp
        small = small * 0.45 + small.mean(2, keepdims=True) * 0.9
        up = [np.asarray(Image.fromarray(small[..., c].astype(np.float32)).resize((n, n), Image.BICUBIC))
              for c in range(3)]
        out += np.stack(up, 2)
        amp *= fall
        octave *= 2
    out = out / (out.std() + 1e-6) * rng.uniform(25, 55) + rng.uniform(50, 205, 3)
    im = Image.fromarray(np.clip(out, 0, 255).astype(np.uint8))
    d = ImageDraw.Draw(im, "RGBA")
    for _ in range(rng.integers(0, 10)):
        x, y, r = rng.uniform(0, n, 3)
        fill = tuple(int(v) for v in rng.uniform(0, 255, 3)) + (int(rng.uniform(20, 90)),)
        r = r / 4 + 5
        if rng.random() < 0.5:
            d.ellipse((x - r, y - r, x + r, y + r), fill=fill)
        else:
            d.line((x, y, *rng.uniform(0, n, 2)), fill=fill, width=int(rng.uniform(1, 14)))
    return im


@functools.lru_cache(4)
def bank(seed):
    rng = np.random.default_rng(seed)
    return [fractal(rng) for _ in range(48)], rng.standard_normal((512, 512, 3)).astype(np.float32)


def background(r, h, w, hard, seed, calm=False):
    """An RGB image [h, w]; hard in 0..1 allows gradients, noise and photo textures."""
    u = r.random()
    if hard < .15 and r.random() < .8:
        return Image.new("RGB", (w, h), (r.randint(235, 255),) * 3)
    base = tuple(int(255 * v) for v in colorsys.hsv_to_rgb(r.random(), r.random() ** 2 * 0.6, r.random()))
    if r.random() < 0.35:
        base = (r.randint(215, 255),) * 3 if r.random() < 0.75 else (r.randint(0, 45),) * 3
    if u > 0.55 * hard:
        return Image.new("RGB", (w, h), base)
    if u < 0.16 * hard:  # gradient
        other = tuple(min(255, max(0, c + r.randint(-70, 70))) for c in base)
        g = Image.linear_gradient("L").rotate(r.choice([0, 90, 180, 270])).resize((w, h))
        return Image.composite(Image.new("RGB", (w, h), other), Image.new("RGB", (w, h), base), g)
    photos, _ = bank(seed)
    tex = r.choice(photos)
    s = r.uniform(1.0, 1.3)
    cw, ch = min(448, int(w * s)), min(448, int(h * s))
    x, y = r.randint(0, 448 - cw), r.randint(0, 448 - ch)
    tex = tex.crop((x, y, x + cw, y + ch)).resize((w, h), Image.BILINEAR)
    if calm or r.random() < 0.5:
        tex = Image.blend(Image.new("RGB", (w, h), base), tex, r.uniform(0.25, 0.75))
    return tex


def region_mean(im, box):
    return im.resize((1, 1), Image.BOX, box=box).getpixel((0, 0))


def lum(c):
    return 0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2]


# --------------------------------------------------------------------------------------------- shapes

def polygon(name):
    k = np.arange(10) * np.pi / 5 - np.pi / 2
    if name == "square":
        return [(-.82, -.82), (.82, -.82), (.82, .82), (-.82, .82)]
    if name == "triangle":
        return [(0, -.9), (.95, .8), (-.95, .8)]
    if name == "diamond":
        return [(0, -1), (.78, 0), (0, 1), (-.78, 0)]
    if name == "star":
        rad = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
        return list(zip(rad * np.cos(k), rad * np.sin(k) + .05))
    if name == "cross":
        a, b = .33, .95
        return [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a),
                (-b, -a), (-a, -a)]
    t = np.linspace(0, 2 * np.pi, 40)
    if name == "heart":
        return list(zip(np.sin(t) ** 3 * .95,
                        -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 17))
    return list(zip(np.cos(t) * .95, np.sin(t) * .95))  # circle, ring


@functools.lru_cache(None)
def unit(name):
    return np.array(polygon(name), np.float32)


def shape_mask(name, pw, ph, angle):
    """Anti-aliased mask [ph, pw] of a shape that fills about the whole rectangle."""
    pts = unit(name)
    c, s = np.cos(angle), np.sin(angle)
    pts = pts @ np.array([[c, s], [-s, c]], np.float32)
    lo, hi = pts.min(0), pts.max(0)
    pts = (pts - lo) / (hi - lo) * (np.array([pw, ph]) * 2 - 1)
    m = Image.new("L", (pw * 2, ph * 2))
    d = ImageDraw.Draw(m)
    d.polygon([tuple(p) for p in pts], fill=255)
    if name == "ring":
        inner = (pts - pts.mean(0)) * 0.55 + pts.mean(0)
        d.polygon([tuple(p) for p in inner], fill=0)
    return m.reduce(2)


def digits(v):
    """0..1000 coordinate (multiple of 10) as hundreds (0..10) and tens."""
    return v // 100, v // 10 % 10


def norm_box(box, size):
    """Pixels to Qwen3-VL's 0..1000 coordinates, rounded to 10."""
    h, w = size
    return [min(1000, max(0, round(c / s * 100) * 10)) for c, s in zip(box, (w, h, w, h))]


def box_fields(box, size):
    out = {}
    for name, v in zip(("x1", "y1", "x2", "y2"), norm_box(box, size)):
        out[name + "h"], out[name + "t"] = digits(v)
    h, w = size
    cx, cy = (box[0] + box[2]) / 2 / w, (box[1] + box[3]) / 2 / h
    out["place"] = int(min(2, cy * 3)) * 3 + int(min(2, cx * 3))
    return out


def draw_shapes(r, pic, hard, seed):
    h, w = pic.size
    im = background(r, h, w, hard * 0.9, seed, calm=True)
    many = pic.crowd or r.random() < 0.35
    n = r.randint(2 if pic.crowd else 3, 9) if many else r.choice([1, 2, 2, 3, 3, 4, 4, 5])
    if min(h, w) < 96:
        n = min(n, 2)
    n = min(n, 1 + int(pic.level * 8))
    kinds = r.sample(V.SHAPE_NAMES, r.choice([1, 2, 3])) if many else V.SHAPE_NAMES
    few = pic.crowd or r.random() < 0.4
    hues = r.sample(V.COLOUR_NAMES, r.choice([1, 2, 3, 5])) if few else V.COLOUR_NAMES
    low = 24 if min(h, w) > 100 else 18
    high = max(low + 4, min(h, w) * (0.62 if n < 3 else 0.42 if n < 6 else 0.3))
    outline = r.random() < 0.3
    for _ in range(n):
        for _try in range(14):
            s = r.uniform(low, high) if r.random() < 0.7 else r.uniform(low, (low + high) / 2)
            pw, ph = int(s * r.uniform(.88, 1.12)), int(s * r.uniform(.88, 1.12))
            if pw >= w - 4 or ph >= h - 4:
                continue
            x, y = r.randint(1, w - pw - 1), r.randint(1, h - ph - 1)
            gap = 3
            if any(x < o.box[2] + gap and o.box[0] < x + pw + gap and y < o.box[3] + gap
                   and o.box[1] < y + ph + gap for o in pic.objects):
                continue
            mean = region_mean(im, (x, y, x + pw, y + ph))
            colour = r.choice(hues)
            ref = V.COLOURS[colour][0]
            if max(abs(a - b) for a, b in zip(mean, ref)) < 75 and abs(lum(mean) - lum(ref)) < 60:
                continue
            break
        else:
            continue
        name = r.choice(kinds)
        jit = 9 if colour in ("black", "white") else 22
        rgb = tuple(min(255, max(0, c + r.randint(-jit, jit))) for c in ref)
        tilt = {"square": .16, "diamond": .12, "circle": 0, "ring": 0, "cross": .2}.get(name, .3)
        mask = shape_mask(name, pw, ph, r.uniform(-tilt, tilt) if hard > .2 else 0)
        fill = Image.new("RGB", (pw, ph), rgb)
        style = r.random()
        if style < .2 * hard:  # shaded, as a lit ball
            dark = tuple(int(c * .75) for c in rgb)
            g = Image.radial_gradient("L").resize((pw, ph), Image.BILINEAR,
                                                  box=(40, 40, 216 + 40, 216 + 40))
            fill = Image.composite(Image.new("RGB", (pw, ph), dark), fill, g)
        if style > 1 - .2 * hard:  # drop shadow
            im.paste(tuple(int(c * .55) for c in mean), (x + 2, y + 3), mask.point(lambda v: v // 2))
        if outline and pw > 30 and ph > 30 and name != "ring":
            edge = (15, 15, 15) if lum(rgb) > 90 else (240, 240, 240)
            im.paste(edge, (x, y), mask)
            pad = max(1, min(pw, ph) // 22)
            iw, ih = pw - 2 * pad, ph - 2 * pad
            im.paste(fill.resize((iw, ih)), (x + pad, y + pad), mask.resize((iw, ih), Image.BILINEAR))
        else:
            im.paste(fill, (x, y), mask)
        pic.objects.append(Obj(name, colour, (x, y, x + pw, y + ph)))
    pic.image = im
    for o in pic.objects:
        x1, y1, x2, y2 = o.box
        f = dict(box_fields(o.box, pic.size), shape=V.SHAPE_NAMES.index(o.shape),
                 colour=V.COLOUR_NAMES.index(o.colour))
        for _ in range(2 if len(pic.objects) < 5 else 1):
            pic.marks.append((r.uniform(.3, .7) * (x2 - x1) + x1, r.uniform(.3, .7) * (y2 - y1) + y1, f))


# ----------------------------------------------------------------------------------------------- text

def choose_text(r, kind, level, held):
    if kind == "number":
        lengths = [1, 2, 3, 4, 5][:1 + int(level * 5)]
        n = r.choice(lengths if held else lengths + lengths[-1:] * 2)  # the longest are the hardest
        return str(r.randint(10 ** (n - 1) if n > 1 else 0, 10 ** n - 1))
    if kind == "zh":
        return "".join(r.choice(V.ZH_CHARS) for _ in range(r.choice([1, 2, 2, 3, 4][:1 + int(level * 5)])))
    if held or r.random() < .5:
        word = r.choice(word_list(held))
    else:
        word = "".join(r.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(r.randint(2, 9)))
    word = word[:1 + int(level * 9)]
    u = r.random()
    return word if u < .55 else word.upper() if u < .8 else word.capitalize()


def draw_text(r, pic, hard, seed, held):
    h, w = pic.size
    pic.text = choose_text(r, pic.kind, pic.level, held)
    im = background(r, h, w, hard, seed)
    if pic.kind == "zh":
        names = HELD_CJK if held else TRAIN_CJK if hard > .25 else EASY_CJK
        most, least = min(64, h * .8), 16 if hard > .5 else 20
    else:
        names = HELD_LATIN if held else TRAIN_LATIN if hard > .25 else EASY_LATIN
        most, least = min(64, h * .85), 13 if hard > .5 else 16
    name = r.choice(names)
    size = int(r.uniform(least, max(least + 1, most)))
    if r.random() < .5:
        size = int(r.uniform(least, max(least + 1, min(most, 40))))
    if held:
        size = min(HELD_SIZES, key=lambda s: abs(s - size))
    elif size in HELD_SIZES:
        size += 1
    while True:
        f = font(name, size)
        x0, y0, x1, y1 = f.getbbox(pic.text)
        if (x1 - x0 <= w - 4 and y1 - y0 <= h - 2) or size <= 10:
            break
        size -= 2
        size -= size in HELD_SIZES and not held
    tw, th = x1 - x0, y1 - y0
    pad = 4
    mask = Image.new("L", (tw + 2 * pad, th + 2 * pad))
    ImageDraw.Draw(mask).text((pad - x0, pad - y0), pic.text, font=f, fill=255)
    px = r.randint(-pad, max(-pad, w - tw - pad)) if w > tw else -pad
    py = r.randint(-pad, max(-pad, h - th - pad)) if h > th else -pad
    angle = 0.0
    if hard > .4 and r.random() < .3 and tw < w - 8 and th < h - 12:
        angle = r.uniform(-4, 4)
        mask = mask.rotate(angle, Image.BICUBIC, expand=False)
    area = (max(0, px), max(0, py), min(w, px + mask.width), min(h, py + mask.height))
    if hard > .3 and r.random() < .2:  # a plate behind the text
        plate = tuple(r.randint(0, 255) for _ in range(3))
        ImageDraw.Draw(im).rectangle((area[0] - 3, area[1] - 3, area[2] + 3, area[3] + 3), fill=plate)
    mean = region_mean(im, area)
    need = 150 if hard < .15 else 95
    for _ in range(20):
        ink = tuple(r.randint(0, 255) for _ in range(3))
        if r.random() < .4:
            ink = (0, 0, 0) if lum(mean) > 120 else (255, 255, 255)
        if abs(lum(ink) - lum(mean)) > need:
            break
    else:
        ink = (0, 0, 0) if lum(mean) > 127 else (255, 255, 255)
    im.paste(ink, (px, py), mask)
    pic.image = im
    cs, sn = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    cx, cy = mask.width / 2, mask.height / 2
    edges = [f.getlength(pic.text[:i]) for i in range(len(pic.text) + 1)]
    for i, c in enumerate(pic.text):
        ux = pad - x0 + (edges[i] + edges[i + 1]) / 2 - cx
        uy = pad + th / 2 - cy
        nxt = V.CHAR_ID[pic.text[i + 1]] if i + 1 < len(pic.text) else len(V.CHARS)
        jx, jy = r.uniform(-.12, .12) * size, r.uniform(-.15, .15) * size
        pic.marks.append((px + cx + ux * cs + uy * sn + jx, py + cy - ux * sn + uy * cs + jy,
                          {"char": V.CHAR_ID[c], "next": nxt, "idx": i}))


def draw_grid(r, pic, ease, seed):
    """Single characters in the middle of patches, then ever less so: a vision transformer learns the
    characters first and that they may stand anywhere second. ease: 0 exactly centred .. 1 anywhere."""
    h, w = pic.size
    im = background(r, h, w, ease, seed, calm=True)
    d = ImageDraw.Draw(im)
    for cy in range(16, h, 32):
        for cx in range(16, w, 32):
            zh = r.random() < .5
            name = r.choice((TRAIN_CJK if zh else TRAIN_LATIN) if ease > .5 else
                            (EASY_CJK if zh else EASY_LATIN))
            size = int(r.uniform(20 - 3 * ease, 22 + 8 * ease))
            c = r.choice(V.ZH_CHARS if zh else V.CHARS[:62])
            x = cx - 8 + r.uniform(-1, 1) * 8 * ease
            y = cy - 8 + r.uniform(-1, 1) * 8 * ease
            mean = im.getpixel((min(w - 1, max(0, int(x))), min(h - 1, max(0, int(y)))))
            ink = (0, 0, 0) if lum(mean) > 127 else (255, 255, 255)
            if r.random() < ease:
                other = tuple(r.randint(0, 255) for _ in range(3))
                ink = other if abs(lum(other) - lum(mean)) > 95 else ink
            d.text((x, y), c, font=font(name, size + (size in HELD_SIZES)), fill=ink, anchor="mm")
            pic.marks.append((x + r.uniform(-.1, .1) * size * ease, y + r.uniform(-.1, .1) * size * ease,
                              {"char": V.CHAR_ID[c]}))
    pic.image = im


def draw_sheet(r, pic, hard, seed):
    """Characters for the auxiliary heads only: many for the price of few; alone, later in rows."""
    h, w = pic.size
    if r.random() > 1.6 * hard - .5:
        return draw_grid(r, pic, min(1, 2 * hard), seed)
    im = background(r, h, w, hard, seed, calm=True)
    d = ImageDraw.Draw(im)
    y = r.randint(0, 6)
    while True:
        zh = r.random() < .4
        if hard > .25:
            name = r.choice(TRAIN_CJK if zh else TRAIN_LATIN)
        else:
            name = r.choice(EASY_CJK if zh else EASY_LATIN)
        size = int(r.uniform(18, 30 if hard < .25 else 40)) if r.random() < .8 else r.randint(14, 60)
        if size in HELD_SIZES:
            size += 1
        if y + size > h:
            break
        mean = region_mean(im, (0, y, w, min(h, y + size)))
        ink = (0, 0, 0) if lum(mean) > 127 else (255, 255, 255)
        if r.random() < hard:
            for _ in range(8):
                c = tuple(r.randint(0, 255) for _ in range(3))
                if abs(lum(c) - lum(mean)) > 95:
                    ink = c
                    break
        pool = V.ZH_CHARS if zh else r.choice(["0123456789", V.LATIN[:26], V.LATIN[26:]])
        text = "".join(r.choice(pool) for _ in range(w // (size // 2) + 1))
        f = font(name, size)
        x = r.randint(0, 8)
        edges = [x + f.getlength(text[:i]) for i in range(len(text) + 1)]
        n = sum(e <= w for e in edges) - 1
        _, y0, _, y1 = f.getbbox(text[:n])
        d.text((x, y - y0), text[:n], font=f, fill=ink)
        for i in range(n):
            pic.marks.append(((edges[i] + edges[i + 1]) / 2 + r.uniform(-.12, .12) * size,
                              y + (y1 - y0) / 2 + r.uniform(-.15, .15) * size,
                              {"char": V.CHAR_ID[text[i]],
                               "next": V.CHAR_ID[text[i + 1]] if i + 1 < n else len(V.CHARS)}))
        y += y1 - y0 + r.randint(3, 12)
    pic.image = im


# --------------------------------------------------------------------------------------------- charts

def draw_chart(r, pic, hard, seed, held):
    h, w = pic.size
    n = r.randint(2, min(6, w // 30, 2 + int(pic.level * 6)))
    labels = sorted(r.sample("ABCDEFGHIJKLMNOPQRSTUVWXYZ", n)) if r.random() < .5 else list("ABCDEF"[:n])
    printed = r.random() < .65 or pic.level < .4
    top = r.choice([10, 20, 50, 99]) if printed else 10
    values = [r.randint(1, top) for _ in range(n)]
    u = r.random()
    if u < .2:
        values.sort()
    elif u < .4:
        values.sort(reverse=True)
    dark = r.random() < .2
    paper = tuple(r.randint(5, 50) for _ in range(3)) if dark else tuple(r.randint(225, 255) for _ in range(3))
    ink = (235, 235, 235) if dark else (25, 25, 25)
    im = Image.new("RGB", (w, h), paper)
    if hard > .6 and r.random() < .15:
        im = Image.blend(im, background(r, h, w, 1, seed), .15)
    d = ImageDraw.Draw(im)
    names = HELD_LATIN if held else [t for t in TRAIN_LATIN if "Italic" not in t and "Obl" not in t]
    if hard < .3:
        names = EASY_LATIN
    size = r.randint(11, 15) if w < 160 else r.randint(12, 20)
    if held:
        size = 17 if size > 14 else 13
    elif size == 17:
        size = 16
    f = font(r.choice(names), size)
    left = int(size * 1.8) if not printed else r.randint(6, 14)
    y_top, y_bot = size + 8, h - size - 8
    scale = (y_bot - y_top) / (max(values) if printed else 10)
    if not printed:
        for t in range(0, 11, 2):
            y = y_bot - t * scale
            d.line((left, y, w - 4, y), fill=tuple((a + 2 * b) // 3 for a, b in zip(ink, paper)))
            d.text((left - 3, y), str(t), font=f, fill=ink, anchor="rm")
    d.line((left, y_bot, w - 4, y_bot), fill=ink)
    slot = (w - 6 - left) / n
    one = r.choice(V.COLOUR_NAMES) if r.random() < .4 else None
    width = r.uniform(.5, .8)
    for i, (label, value) in enumerate(zip(labels, values)):
        for _ in range(20):
            colour = one or r.choice(V.COLOUR_NAMES)
            if abs(lum(V.COLOURS[colour][0]) - lum(paper)) > 45:
                break
            one = None
        cx = left + slot * (i + .5)
        x1, x2 = cx - slot * width / 2, cx + slot * width / 2
        y = min(y_bot - 2, y_bot - value * scale)
        d.rectangle((x1, y, x2, y_bot - 1), fill=V.COLOURS[colour][0])
        d.text((cx, y_bot + 3), label, font=f, fill=ink, anchor="mt")
        f_val = {"v10": value // 10, "v1": value % 10, "idx": i}
        if printed:
            d.text((cx, y - 2), str(value), font=f, fill=ink, anchor="mb")
            for k, c in enumerate(str(value)):
                dx = (k - (len(str(value)) - 1) / 2) * size * .58
                pic.marks.append((cx + dx, y - 2 - size * .4, dict(f_val, char=V.CHAR_ID[c])))
        pic.marks.append((cx, y_bot + 3 + size * .4, dict(f_val, char=V.CHAR_ID[label])))
        pic.marks.append((cx, (y + y_bot) / 2, dict(f_val, colour=V.COLOUR_NAMES.index(colour),
                                                  next=V.CHAR_ID[label])))
        pic.bars.append((label, value, colour))
    pic.image = im


# ------------------------------------------------------------------------------------------- the whole

def damage(r, pic, seed):
    """Noise, blur and JPEG artefacts."""
    im = pic.image
    u = r.random()
    if u < .16:
        a = np.asarray(im).astype(np.float32)
        h, w = a.shape[:2]
        y, x = r.randint(0, 512 - h), r.randint(0, 512 - w)
        a += bank(seed)[1][y:y + h, x:x + w] * r.uniform(3, 16)
        im = Image.fromarray(np.clip(a, 0, 255).astype(np.uint8))
    elif u < .26:
        im = im.filter(ImageFilter.GaussianBlur(r.uniform(.3, .8)))
    elif u < .34:
        buf = io.BytesIO()
        im.save(buf, "JPEG", quality=r.randint(45, 95))
        im = Image.open(buf)
        im.load()
    pic.image = im


def make(r, kind, size, hard=1.0, seed=0, held=False, level=1.0, crowd=False):
    """One picture. r: random.Random; size: (height, width) of the result; hard, level: 0 easy .. 1 full
    (how it looks, how much is in it)."""
    draw = size
    if not held and hard > .4 and r.random() < .45:  # drawn at another size, as pictures come to the processor
        s = r.uniform(.85, 1.3)
        draw = tuple(min(448, int(side * s * r.uniform(.9, 1.1))) for side in size)
    pic = Picture(kind, draw, level, crowd)
    if kind == "shapes":
        draw_shapes(r, pic, hard, seed)
    elif kind == "sheet":
        draw_sheet(r, pic, hard, seed)
    elif kind == "chart":
        draw_chart(r, pic, hard, seed, held)
    else:
        draw_text(r, pic, hard, seed, held)
    if hard > .3:
        damage(r, pic, seed)
    if draw != size:
        pic.image = pic.image.resize((size[1], size[0]), Image.BICUBIC)
        sy, sx = size[0] / draw[0], size[1] / draw[1]
        for o in pic.objects:
            o.box = (o.box[0] * sx, o.box[1] * sy, o.box[2] * sx, o.box[3] * sy)
        pic.marks = [(x * sx, y * sy, f) for x, y, f in pic.marks]
        pic.size = size
    return pic


def new_rng(seed):
    return random.Random(seed)
