"""Makes models/demo/pictures: a dozen generated pictures, four rendered scenes, and questions.json.

  python tools/train_demo/bundle.py models/demo/pictures

The generated ones are the first of a fixed seed, with held-out fonts and wordings; none was chosen
because the model answers it well. The scenes are ray-cast or painted by code of their own, unlike
anything in training.
"""
import json
import pathlib
import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

import pictures as P
import questions as Q

PLAN = [("shapes", (224, 288)), ("shapes", (256, 256)), ("shapes", (240, 320)), ("shapes", (200, 200)),
        ("shapes", (224, 224)), ("word", (120, 240)), ("word", (160, 224)), ("number", (128, 256)),
        ("zh", (160, 224)), ("zh", (128, 192)), ("chart", (240, 288)), ("chart", (256, 256))]


def ray_cast(w=288, h=224):
    """A red ball and a blue ball on a floor under a sky, with shading and shadows."""
    balls = [((-.95, .02, 3.6), .78, (215, 35, 35)), ((1.05, -.2, 3.9), .58, (40, 75, 215))]
    sun = np.array([-.45, .8, -.45])
    sun /= np.linalg.norm(sun)
    y, x = np.mgrid[0:h * 2, 0:w * 2]
    ray = np.stack([(x / w - 1) * w / h, 1 - y / h, np.full(x.shape, 1.9)], 2).astype(float)
    ray /= np.linalg.norm(ray, axis=2, keepdims=True)

    def hit(start, way):
        """Nearest ball along each ray: distance (inf: none) and its number."""
        best, who = np.full(way.shape[:2], np.inf), np.full(way.shape[:2], -1)
        for k, (c, rad, _) in enumerate(balls):
            oc = start - np.array(c)
            b = (oc * way).sum(-1)
            disc = b * b - (oc * oc).sum(-1) + rad * rad
            t = -b - np.sqrt(np.maximum(disc, 0))
            closer = (disc > 0) & (t > 1e-3) & (t < best)
            best, who = np.where(closer, t, best), np.where(closer, k, who)
        return best, who

    out = np.array([205, 225, 245]) + (ray[..., 1:2] * -60)
    floor_t = np.where(ray[..., 1] < -1e-3, -.78 / np.minimum(ray[..., 1], -1e-3), np.inf)
    point = ray * np.where(np.isfinite(floor_t), floor_t, 0)[..., None]
    shadow = np.isfinite(hit(point, np.broadcast_to(sun, ray.shape))[0])
    floor = np.where(shadow, .55, 1.0)[..., None] * np.array([196, 190, 178])
    out = np.where((np.isfinite(floor_t) & (floor_t < 40))[..., None], floor, out)
    t, who = hit(np.zeros(3), ray)
    for k, (c, _, rgb) in enumerate(balls):
        at = ray * np.where(np.isfinite(t), t, 0)[..., None]
        normal = at - np.array(c)
        normal /= np.linalg.norm(normal, axis=2, keepdims=True) + 1e-9
        light = .55 + .5 * np.clip((normal * sun).sum(-1), 0, 1)
        out = np.where((who == k)[..., None], light[..., None] * np.array(rgb), out)
    return Image.fromarray(np.clip(out, 0, 255).astype(np.uint8)).reduce(2)


def road_sign(w=256, h=256):
    """Hills, a road and a blue sign with a number."""
    im = Image.new("RGB", (w, h), (150, 195, 235))
    d = ImageDraw.Draw(im)
    for k, (base, amp, rgb) in enumerate([(150, 26, (110, 150, 110)), (185, 16, (80, 130, 70))]):
        line = [(x, base + amp * np.sin(x / (38 + 17 * k) + 2 * k)) for x in range(0, w + 8, 8)]
        d.polygon([(0, h), *line, (w, h)], fill=rgb)
    d.polygon([(90, h), (118, 190), (138, 190), (190, h)], fill=(90, 90, 95))
    im = im.filter(ImageFilter.GaussianBlur(1.2))
    d = ImageDraw.Draw(im)
    d.rectangle((176, 130, 182, 232), fill=(110, 110, 115))
    d.rectangle((128, 58, 232, 136), fill=(245, 245, 245))
    d.rectangle((132, 62, 228, 132), fill=(30, 70, 170))
    d.text((180, 97), "308", font=P.font("LiberationSans-Bold", 46), fill=(255, 255, 255), anchor="mm")
    return im


def blackboard(w=288, h=192):
    """Chalk on a board in a wooden frame."""
    rng = np.random.default_rng(5)
    im = Image.new("RGB", (w, h), (132, 92, 52))
    board = np.array([38, 66, 52]) + rng.normal(0, 5, (h - 28, w - 28, 1))
    im.paste(Image.fromarray(np.clip(board, 0, 255).astype(np.uint8)), (14, 14))
    d = ImageDraw.Draw(im)
    d.text((w // 2, h // 2), "学校", font=P.font("ukai", 76), fill=(238, 238, 228), anchor="mm")
    d.line((60, 156, 226, 158), fill=(200, 205, 190), width=2)
    return im.filter(ImageFilter.GaussianBlur(.5))


def night_shop(w=256, h=224):
    """A lit sign on a house at night, under a moon."""
    im = P.background(P.new_rng(8), h, w, 0, 0)
    grad = np.linspace(0, 1, h)[:, None, None] * np.array([28, 30, 52]) + np.array([10, 14, 40])
    im = Image.fromarray(np.broadcast_to(grad, (h, w, 3)).astype(np.uint8))
    d = ImageDraw.Draw(im)
    d.ellipse((200, 16, 238, 54), fill=(245, 225, 120))
    d.rectangle((30, 70, 226, h), fill=(70, 48, 44))
    for x in (48, 168):
        d.rectangle((x, 150, x + 40, 200), fill=(235, 190, 95))
    d.rectangle((48, 84, 208, 132), fill=(150, 20, 30))
    d.text((128, 108), "HOTEL", font=P.font("DejaVuSans-Bold", 38), fill=(255, 240, 200), anchor="mm")
    return im


SCENES = [
    ("balls.jpg", ray_cast, [("What color is the circle on the left?", "red"), ("有蓝色的圆形吗？", "有"),
                             ("Is the red circle left or right of the blue circle?", "left")]),
    ("sign.jpg", road_sign, [("What number is this?", "308"), ("图中的数字是什么？", "308")]),
    ("board.jpg", blackboard, [("图中的文字是什么？", "学校"), ("Read the Chinese text.", "学校")]),
    ("hotel.png", night_shop, [("Read the text.", "HOTEL"), ("图中写了什么？", "HOTEL")]),
]


def main(out):
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for old in out.iterdir():
        old.unlink()
    rows = []
    r = P.new_rng("a dozen")
    for k, (kind, size) in enumerate(PLAN):
        asked = []
        while not asked:  # a picture may come out empty
            pic = P.make(r, kind, size, 1.0, 77, held=True)
            asked = Q.ask(r, pic, held=True, most=3 if kind in ("shapes", "chart") else 2)
        name = f"{k + 1:02d}-{kind}." + ("jpg" if k % 2 else "png")
        pic.image.save(out / name, **({"quality": 90} if k % 2 else {"optimize": True}))
        rows += [{"image": name, "question": q, "answer": a} for _, q, a in asked]
    for name, draw, asked in SCENES:
        draw().save(out / name, **({"quality": 90} if name.endswith("jpg") else {"optimize": True}))
        rows += [{"image": name, "question": q, "answer": a} for q, a in asked]
    text = ",\n ".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (out / "questions.json").write_text(f"[{text}]\n", encoding="utf-8")
    print(len(rows), "questions,", sum(f.stat().st_size for f in out.iterdir()) // 1024, "kB")


if __name__ == "__main__":
    main(sys.argv[1])
