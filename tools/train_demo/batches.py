"""Batches of pictures with several questions each, sharing the picture's prefix.

Row layout: <|im_start|>user\\n<|vision_start|> image*N <|vision_end|> block block ..., where a block is
question<|im_end|>\\n<|im_start|>assistant\\nanswer<|im_end|>. Blocks see the prefix and themselves only,
and their positions all start where the prefix ends, so each is exactly a one-question prompt.
"""
import random

import numpy as np
import torch

import model as M
import pictures as P
import questions as Q
import vocab as V

KINDS = {"shapes": .45, "number": .09, "word": .22, "zh": .12, "chart": .12}
TOKEN_CAP = 160


class Coder:
    """Text to ids with a cache; knows the special ids."""

    def __init__(self, tok):
        self.tok, self.memo = tok, {}
        self.enc("")
        ids = tok.token_to_id
        self.start, self.end = ids("<|im_start|>"), ids("<|im_end|>")
        self.vis0, self.vis1, self.pad = (ids("<|vision_start|>"), ids("<|vision_end|>"),
                                          ids("<|image_pad|>"))
        self.user = [self.start] + self.enc("user\n")
        self.turn = [self.end] + self.enc("\n") + [self.start] + self.enc("assistant\n")

    def enc(self, text):
        if text not in self.memo:
            if len(self.memo) > 50000:
                self.memo.clear()
            self.memo[text] = self.tok.encode(text, add_special_tokens=False).ids
        return self.memo[text]


STRIPS = [(32, 96), (32, 128), (64, 96), (64, 128), (64, 160), (96, 128)]
SHEETS = [(96, 128), (128, 128), (160, 128), (128, 192)]
LONG_STRIPS = [(64, 256), (64, 320), (96, 256), (96, 320)]
SMALL = [(96, 96), (96, 128), (128, 96), (128, 128), (128, 160), (160, 128), (160, 160)]
MIDDLE = [(128, 128), (128, 192), (192, 128), (160, 160), (160, 224), (224, 160), (192, 192)]
LARGE = [(192, 256), (256, 192), (224, 224), (128, 256), (256, 128), (256, 256), (128, 320)]
HUGE = [(320, 320), (256, 320), (320, 256), (192, 320), (320, 192), (224, 288), (288, 224)]


def choose_size(r, level):
    """(height, width), and whether only short text fits. Few sizes: the CPU kernels are made per shape."""
    u = r.random()
    if u < .30 - .18 * level:
        return r.choice(STRIPS), True
    if level > .6 and u < .17:
        return r.choice(LONG_STRIPS), True
    if level < .5:
        return r.choice(SMALL), False
    if level < .8:
        return r.choice(SMALL + MIDDLE), False
    u = r.random()
    return r.choice(SMALL if u < .35 else MIDDLE if u < .72 else LARGE if u < .93 else HUGE), False


TEXTS = ("number", "word", "zh")


def choose_kinds(r, size, strip):
    """The kinds of one batch and their weights. Text and the rest are never mixed: their questions
    differ in length, and rows are padded to the longest."""
    text = strip or r.random() < sum(KINDS[k] for k in TEXTS) - .1
    kinds = {k: v for k, v in KINDS.items() if (k in TEXTS) == text}
    if size[1] < 128 or size[0] < 128:
        kinds.pop("chart", None)
    return kinds


def choose_kind(r, kinds):
    return r.choices(list(kinds), list(kinds.values()))[0]


def blocks_of(r, pic, coder, held, most, tasks=None):
    """[(task, ids, answer start, segment kind)]: mostly single questions, some two-turn talks."""
    out, used = [], 0
    asked = Q.ask(r, pic, held, most, tasks)
    while asked:
        task, q, a = asked.pop(0)
        turns = [(task, q, a)]
        if not held and asked and r.random() < .12:
            turns.append(asked.pop(0))
        ids, spans = [], []
        for k, (task, q, a) in enumerate(turns):
            ids += (coder.enc("\n") + coder.user if k else []) + coder.enc(q) + coder.turn
            s = len(ids)
            ids += coder.enc(a) + [coder.end]
            spans.append((task, s, len(ids)))
        if used + len(ids) > TOKEN_CAP and out:
            continue
        used += len(ids)
        out.append((ids, spans, False))
    if not held and r.random() < .04:
        q, a = r.choice(V.CHAT)
        ids = coder.user + coder.enc(q) + coder.turn
        s = len(ids)
        ids += coder.enc(a) + [coder.end]
        out.append((ids, [("chat", s, len(ids))], True))
    return out


def collate(pics, rows, coder, size):
    """Pictures and their blocks -> tensors for model.forward, answer spans for the loss."""
    gh, gw = size[0] // 16, size[1] // 16
    n, at = gh * gw // 4, len(coder.user) + 1
    prefix = coder.user + [coder.vis0] + [coder.pad] * n + [coder.vis1]
    b, longest = len(pics), max(sum(len(i) for i, _, _ in row) for row in rows)
    s = len(prefix) + (longest + 31) // 32 * 32
    ids = np.full((b, s), coder.end, np.int64)
    pos = np.zeros((3, b, s), np.int64)
    seg = np.full((b, s), -1)
    alone = np.zeros((b, s), bool)
    ids[:, :len(prefix)] = prefix
    seg[:, :len(prefix)] = 0
    pos[:, :, :at] = np.arange(at)
    cell = np.arange(n)
    pos[0, :, at:at + n] = at
    pos[1, :, at:at + n] = at + cell // (gw // 2)
    pos[2, :, at:at + n] = at + cell % (gw // 2)
    after = at + max(gh, gw) // 2
    pos[:, :, at + n] = after
    spans = []  # task, row, first answer token, end
    for k, row in enumerate(rows):
        p = len(prefix)
        for j, (block, answers, textonly) in enumerate(row):
            e = p + len(block)
            ids[k, p:e], seg[k, p:e], alone[k, p:e] = block, j + 1, textonly
            pos[:, k, p:e] = np.arange(len(block)) + (0 if textonly else after + 1)
            spans += [(task, k, p + lo, p + hi) for task, lo, hi in answers]
            p = e
    same = seg[:, :, None] == seg[:, None, :]
    shared = (seg[:, None, :] == 0) & ~alone[:, :, None]
    ok = np.tril(np.ones((s, s), bool)) & (same | shared)
    mask = np.where(ok, np.float32(0), np.float32(-1e4))
    images = np.stack([np.asarray(p.image) for p in pics])
    return {"pixels": M.patches(images), "grid": (gh, gw), "image_at": at, "ids": torch.from_numpy(ids),
            "pos": torch.from_numpy(pos), "mask": torch.from_numpy(mask), "spans": spans,
            "marks": collate_marks(pics, gh, gw)}


def collate_marks(pics, gh, gw, most=36):
    """The marks of all pictures as index tensors: which patch and merged token, where inside."""
    cols = {k: [] for k in ("b", "patch", "cell", "merged", "merged_cell", "fields")}
    for k, pic in enumerate(pics):
        marks = pic.marks if len(pic.marks) <= most else random.Random(k).sample(pic.marks, most)
        for x, y, f in marks:
            if not (0 <= x < gw * 16 and 0 <= y < gh * 16):
                continue
            px, py = int(x) // 16, int(y) // 16
            m = (py // 2) * (gw // 2) + px // 2
            cols["b"].append(k)
            cols["patch"].append(m * 4 + (py % 2) * 2 + px % 2)
            cols["cell"].append(int(y) % 16 // 4 * 4 + int(x) % 16 // 4)
            cols["merged"].append(m)
            cols["merged_cell"].append(int(y) % 32 // 4 * 8 + int(x) % 32 // 4)
            row = [P.NONE] * len(P.FIELDS)
            for name, v in f.items():
                row[P.FIELD_ID[name]] = v
            cols["fields"].append(row)
    return {k: torch.tensor(v, dtype=torch.long).reshape(-1, len(P.FIELDS)) if k == "fields"
            else torch.tensor(v, dtype=torch.long) for k, v in cols.items()}


def sheet_batch(seed, step, rank, hard, budget):
    """Pictures and marks only: for the first stage, which trains the vision tower alone."""
    r = random.Random(f"sheet/{seed}/{step}/{rank}")
    size = r.choice(SHEETS)
    b = max(4, int(budget / (size[0] * size[1] / 256 + 20)))
    pics = []
    while len(pics) < b:
        kind = "sheet" if r.random() < .8 else r.choice(["shapes", "shapes", "chart"])
        pics.append(P.make(r, kind, size, hard, seed))
    gh, gw = size[0] // 16, size[1] // 16
    return {"pixels": M.patches(np.stack([np.asarray(p.image) for p in pics])), "grid": (gh, gw),
            "marks": collate_marks(pics, gh, gw), "ids": pics, "spans": []}


EASY = [(96, 128), (128, 96), (128, 128), (160, 160)]


def training_batch(seed, step, rank, level, coder, budget, easy=0.0, crowds=0.0):
    """The batch of one process at one step; a pure function of its arguments. easy: share of the batches
    with few shapes in a small picture and many questions, of which nearly all look something up; crowds:
    share of these with many of few kinds, to be counted."""
    r = random.Random(f"{seed}/{step}/{rank}")
    lookup = r.random() < easy
    crowd = lookup and r.random() < crowds
    if lookup:
        size, kinds = r.choice(EASY), {"shapes": 1}
        level = level if crowd else min(level, r.choice([.3, .3, .6, 1]))
    else:
        size, strip = choose_size(r, level)
        kinds = choose_kinds(r, size, strip)
    p = size[0] * size[1] // 256
    b = max(4, min(48, int(budget / (p + 1.5 * (p / 4 + (60 if "word" in kinds else 130))))))
    pics, rows = [], []
    while len(pics) < b:
        pic = P.make(r, choose_kind(r, kinds), size, .5 + .5 * level, seed, level=level, crowd=crowd)
        if lookup and len(pic.objects) < 2:
            continue
        most = 6 if lookup else r.choice([4, 5, 6]) if pic.kind in ("shapes", "chart") else 3
        blocks = blocks_of(r, pic, coder, False, most)
        if blocks:
            pics.append(pic)
            rows.append(blocks)
    return collate(pics, rows, coder, size)


def held_out_batch(seed, k, coder, b=16):
    """Held-out wordings, fonts and text sizes."""
    r = random.Random(f"held/{seed}/{k}")
    size = r.choice([(128, 128), (128, 192), (192, 192), (224, 160), (224, 224), (256, 256), (192, 320)])
    pics, rows = [], []
    while len(pics) < b:
        pic = P.make(r, choose_kind(r, KINDS), size, 1.0, seed + 999, held=True)
        blocks = blocks_of(r, pic, coder, True, 5)
        if blocks:
            pics.append(pic)
            rows.append(blocks)
    return collate(pics, rows, coder, size)
