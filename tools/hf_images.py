#!/usr/bin/env python3
"""Tiny picture files of every kind and what Pillow makes of them.

Writes tests/golden/images/* and expected.safetensors: per file name the RGB result [H, W, 3] U8
of Image.open -> exif_transpose -> convert_to_rgb (transformers: alpha and tRNS on white).
manifest.json lists format, size, orientation, number of frames, whether alpha was used.

Two rules differ from Pillow and are written here by the files' own specification:
- 16-bit grey PNG: v >> 8 (Pillow clips I;16 to two levels);
- tRNS of 2/4-bit grey: compared before the samples are widened (Pillow compares after).
Needs cjpeg and jpegtran (libjpeg-turbo) for arithmetic coding and the rarer samplings.
"""
import io
import json
import struct
import subprocess
import warnings
import zlib

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file
from transformers.image_transforms import convert_to_rgb

from hf_cases import IMAGES, scene

W, H = 33, 21
ORIENTATIONS = range(1, 9)


def exif(orientation, endian="<"):
    """A minimal TIFF block with the orientation tag only. endian: "<" (II) or ">" (MM)."""
    head = b"II*\0" if endian == "<" else b"MM\0*"
    return head + struct.pack(endian + "IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def ramp():
    """An alpha plane [H, W] with 0, 255 and everything between."""
    return np.add.outer(np.arange(H) * 9, np.arange(W) * 4).clip(0, 255).astype(np.uint8)


# ---- PNG, written by hand: Pillow writes neither interlaced nor low-depth grey nor 16 bits ------

ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
         (1, 0, 2, 1)]  # (row, column, row step, column step)


def png(samples, depth, colour, interlaced=False, chunks=()):
    """PNG bytes. samples: [H, W, channels] of 0..2^depth-1; chunks: (type, data) before IDAT."""
    height, width, channels = samples.shape

    def rows(part):
        out = b""
        for row in part.reshape(part.shape[0], -1):
            if depth == 16:
                packed = row.astype(">u2").tobytes()
            elif depth == 8:
                packed = row.astype(np.uint8).tobytes()
            else:
                bits = (row[:, None] >> np.arange(depth - 1, -1, -1)) & 1
                packed = np.packbits(bits.astype(np.uint8)).tobytes()
            out += b"\0" + packed
        return out

    if interlaced:
        parts = [samples[r::rs, c::cs] for r, c, rs, cs in ADAM7]
        data = b"".join(rows(p) for p in parts if p.size)
    else:
        data = rows(samples)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(
            ">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunk(*c) for c in chunks) \
        + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def png_files(rgb):
    grey = np.asarray(rgb.convert("L"), np.int64)
    colours = np.asarray(rgb, np.int64)
    rng = np.random.default_rng(5)
    palette = rng.integers(0, 256, (256, 3)).astype(np.uint8)
    alphas = bytes(i * 53 % 256 for i in range(200))  # shorter than the palette of 8 bits
    files = {}
    for depth in (1, 2, 4, 8):
        index = (grey >> (8 - depth))[..., None]
        plte = (b"PLTE", palette[:1 << depth].tobytes())
        trns = (b"tRNS", alphas[:1 << depth])
        for tag, inter in (("", False), ("-interlaced", True)):
            files[f"png-palette{depth}{tag}.png"] = png(index, depth, 3, inter, [plte])
            files[f"png-grey{depth}{tag}.png"] = png(index, depth, 0, inter)
        files[f"png-palette{depth}-trns.png"] = png(index, depth, 3, False, [plte, trns])
        value = int(index[H // 2, W // 2, 0]) if depth > 1 else 0  # white on white shows nothing
        files[f"png-grey{depth}-trns.png"] = png(index, depth, 0, False,
                                                 [(b"tRNS", struct.pack(">H", value))])
    la = np.stack([grey, ramp().astype(np.int64)], -1)
    rgba = np.concatenate([colours, ramp()[..., None]], -1)
    wide = rng.integers(0, 256, (H, W, 1))
    for tag, inter in (("", False), ("-interlaced", True)):
        files[f"png-rgb8{tag}.png"] = png(colours, 8, 2, inter)
        files[f"png-la8{tag}.png"] = png(la, 8, 4, inter)
        files[f"png-rgba8{tag}.png"] = png(rgba, 8, 6, inter)
        files[f"png-grey16{tag}.png"] = png(grey[..., None] * 256 + wide, 16, 0, inter)
        files[f"png-rgb16{tag}.png"] = png(colours * 256 + wide, 16, 2, inter)
    files["png-la16.png"] = png(la * 256 + wide, 16, 4)
    files["png-rgba16.png"] = png(rgba * 256 + wide, 16, 6)
    key = struct.pack(">HHH", *(int(c) for c in colours[3, 3]))
    files["png-rgb8-trns.png"] = png(colours, 8, 2, False, [(b"tRNS", key)])
    hidden = rgba.copy()
    hidden[..., 3] = 0
    files["png-invisible.png"] = png(hidden, 8, 6)
    files["png-gamma.png"] = png(colours, 8, 2, False, [(b"gAMA", struct.pack(">I", 100000))])
    for orientation, endian in ((3, "<"), (6, ">"), (8, "<")):
        files[f"png-exif{orientation}.png"] = png(colours, 8, 2, False,
                                                  [(b"eXIf", exif(orientation, endian))])
    return files


# ---- the other formats ---------------------------------------------------------------------

def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def tool(name, data, *options):
    return subprocess.run([name, *options], input=data, capture_output=True, check=True).stdout


def app1(jpeg, body):
    """`jpeg` with an Exif APP1 segment of `body` put first."""
    body = b"Exif\0\0" + body
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def jpeg_files(rgb):
    ppm, grey = saved(rgb, "PPM"), saved(rgb.convert("L"), "PPM")
    files = {"jpeg-progressive.jpg": saved(rgb, "JPEG", quality=85, progressive=True),
             "jpeg-quality5.jpg": saved(rgb, "JPEG", quality=5),
             "jpeg-grey.jpg": saved(rgb.convert("L"), "JPEG", quality=85),
             "jpeg-restart.jpg": saved(rgb, "JPEG", quality=85, restart_marker_blocks=2),
             "jpeg-arithmetic.jpg": tool("cjpeg", ppm, "-quality", "85", "-arithmetic"),
             "jpeg-arithmetic-progressive.jpg":
                 tool("cjpeg", ppm, "-quality", "85", "-arithmetic", "-progressive"),
             "jpeg-arithmetic-grey.jpg": tool("cjpeg", grey, "-quality", "85", "-arithmetic"),
             "jpeg-rgb.jpg": tool("cjpeg", ppm, "-quality", "90", "-rgb"),
             "jpeg-optimized.jpg": tool("cjpeg", ppm, "-quality", "75", "-optimize")}
    for name, sampling in (("444", "1x1"), ("422", "2x1"), ("420", "2x2"), ("411", "4x1"),
                           ("440", "1x2"), ("410", "4x2"), ("441", "1x4"), ("mixed", "2x2,1x2,2x1")):
        files[f"jpeg-{name}.jpg"] = tool("cjpeg", ppm, "-quality", "85", "-sample", sampling)
    cmyk = Image.merge("CMYK", [*rgb.split(), Image.fromarray(ramp())])
    plain = saved(cmyk, "JPEG", quality=90)
    files["jpeg-cmyk.jpg"] = plain
    adobe = plain.index(b"Adobe")
    ycck = bytearray(plain)
    ycck[adobe + 11] = 2  # the transform flag: now the same samples mean YCCK
    files["jpeg-ycck.jpg"] = bytes(ycck)
    start = adobe - 4
    length = struct.unpack(">H", plain[start + 2:start + 4])[0]
    files["jpeg-cmyk-no-adobe.jpg"] = plain[:start] + plain[start + 2 + length:]
    base = saved(rgb, "JPEG", quality=90, subsampling=0)
    for orientation in ORIENTATIONS:
        endian = "<" if orientation % 2 else ">"
        files[f"jpeg-exif{orientation}.jpg"] = app1(base, exif(orientation, endian))
    files["jpeg-exif-broken.jpg"] = app1(base, b"II*\0\xff\xff\xff\xff")
    files["jpeg-exif-9.jpg"] = app1(base, exif(9))
    files["jpeg-1x1.jpg"] = saved(rgb.crop((5, 5, 6, 6)), "JPEG", quality=90)
    return files


def bmp(rows, bits, compression=0, masks=(), top_down=False, palette=b""):
    """BMP bytes with a 40-byte header. rows: list of packed rows, top first."""
    rows = rows if top_down else rows[::-1]
    data = b"".join(r + b"\0" * (-len(r) % 4) for r in rows)
    extra = b"".join(struct.pack("<I", m) for m in masks) + palette
    offset = 14 + 40 + len(extra)
    header = struct.pack("<IiiHHIIiiII", 40, W, -H if top_down else H, 1, bits, compression,
                         len(data), 2835, 2835, len(palette) // 4, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + header + extra + data


def other_files(rgb):
    alpha = rgb.copy()
    alpha.putalpha(Image.fromarray(ramp()))
    palette = rgb.quantize(16)
    grey = rgb.convert("L")
    second = ImageOps.invert(rgb)
    bgr = np.asarray(rgb)[..., ::-1]
    a = np.asarray(rgb).astype(np.int64)
    packed565 = (a[..., 0] >> 3 << 11 | a[..., 1] >> 2 << 5 | a[..., 2] >> 3).astype("<u2")
    packed555 = (a[..., 0] >> 3 << 10 | a[..., 1] >> 3 << 5 | a[..., 2] >> 3).astype("<u2")
    bgrx = np.concatenate([bgr, np.full((H, W, 1), 255, np.uint8)], -1)
    clear = palette.copy()
    clear.info["transparency"] = 3
    files = {
        "gif-static.gif": saved(palette, "GIF"),
        "gif-interlaced.gif": saved(palette, "GIF", interlace=1),
        "gif-transparent.gif": saved(palette, "GIF", transparency=3),
        "gif-grey.gif": saved(grey, "GIF"),
        "gif-animated.gif": saved(palette, "GIF", save_all=True, duration=80,
                                  append_images=[second.quantize(16), palette.rotate(90)]),
        "bmp-24.bmp": saved(rgb, "BMP"), "bmp-grey8.bmp": saved(grey, "BMP"),
        "bmp-palette8.bmp": saved(palette, "BMP"), "bmp-1.bmp": saved(rgb.convert("1"), "BMP"),
        "bmp-24-topdown.bmp": bmp([r.tobytes() for r in bgr], 24, top_down=True),
        "bmp-16-565.bmp": bmp([r.tobytes() for r in packed565], 16, 3,
                              (0xf800, 0x07e0, 0x001f)),
        "bmp-16-555.bmp": bmp([r.tobytes() for r in packed555], 16),
        "bmp-32.bmp": bmp([r.tobytes() for r in bgrx], 32),
        "tga-rgb.tga": saved(rgb, "TGA"), "tga-rgb-rle.tga": saved(rgb, "TGA", compression="tga_rle"),
        "tga-rgba.tga": saved(alpha, "TGA"), "tga-grey.tga": saved(grey, "TGA"),
        "tga-topdown.tga": saved(rgb, "TGA", orientation=1),
        "tga-palette.tga": saved(palette, "TGA"),
        "pnm-rgb.ppm": saved(rgb, "PPM"), "pnm-grey.pgm": saved(grey, "PPM"),
        "webp-lossy.webp": saved(rgb, "WEBP", quality=70),
        "webp-lossless.webp": saved(rgb, "WEBP", lossless=True),
        "webp-alpha.webp": saved(alpha, "WEBP", quality=70),
        "webp-alpha-lossless.webp": saved(alpha, "WEBP", lossless=True, exact=True),
        "webp-animated.webp": saved(rgb, "WEBP", lossless=True, save_all=True, duration=80,
                                    append_images=[second]),
        "webp-animated-alpha.webp": saved(alpha, "WEBP", lossless=True, save_all=True, duration=80,
                                          append_images=[second.convert("RGBA")]),
        "webp-exif6-le.webp": saved(rgb, "WEBP", quality=70, exif=exif(6)),
        "webp-exif8-be.webp": saved(rgb, "WEBP", lossless=True, exif=exif(8, ">")),
    }
    return files


# ---- expected results ----------------------------------------------------------------------

def by_specification(data):
    """RGB of a grey PNG written by png() without interlace handling by Pillow's colour rules:
    16 bit: v >> 8; tRNS compared at the file's own depth. None where Pillow is right."""
    depth, colour = data[24], data[25]
    if colour != 0 or not (depth == 16 or (b"tRNS" in data and depth < 8)):
        return None
    image = Image.open(io.BytesIO(data))
    raw = np.asarray(image).astype(np.int64)
    if depth == 16:
        grey = raw >> 8
    else:
        levels = (1 << depth) - 1
        grey = raw * 255 if image.mode == "1" else raw
        key = struct.unpack(">H", data[data.index(b"tRNS") + 4:][:2])[0]
        grey = np.where(grey == key * 255 // levels, 255, grey)
    return np.repeat(grey[..., None], 3, -1).astype(np.uint8)


def main():
    warnings.filterwarnings("ignore", "Corrupt EXIF")  # jpeg-exif-broken.jpg is meant to be
    IMAGES.mkdir(parents=True, exist_ok=True)
    rgb = scene(W, H, 11)
    files = jpeg_files(rgb) | png_files(rgb) | other_files(rgb)
    for stale in IMAGES.iterdir():
        if not stale.name.startswith("pic-"):
            stale.unlink()
    expected, manifest = {}, {}
    for name, data in files.items():
        (IMAGES / name).write_bytes(data)
    for path in sorted(IMAGES.iterdir()):
        data = path.read_bytes()
        image = Image.open(io.BytesIO(data))
        frames, kind = getattr(image, "n_frames", 1), image.format
        image.load()
        stored = list(image.size)
        orientation = image.getexif().get(0x0112, 1)
        if orientation not in ORIENTATIONS:
            orientation = 1
        upright = ImageOps.exif_transpose(image)
        pillow = convert_to_rgb(upright, return_numpy=True)
        special = by_specification(data) if kind == "PNG" else None
        differs = special is not None and not np.array_equal(special, pillow)
        manifest[path.name] = {
            "format": kind, "stored_size": stored, "orientation": orientation, "frames": frames,
            "alpha": "A" in image.getbands() or "transparency" in image.info,
            "differs_from_pillow": differs}
        expected[path.name] = torch.from_numpy((special if differs else pillow).copy())
    save_file(expected, IMAGES / "expected.safetensors")
    rows = [f" {json.dumps(k)}: {json.dumps(v)}" for k, v in manifest.items()]
    (IMAGES / "manifest.json").write_text("{\n" + ",\n".join(rows) + "\n}\n")
    differing = [k for k, v in manifest.items() if v["differs_from_pillow"]]
    print(f"{len(manifest)} pictures; not as Pillow: {', '.join(differing)}")


if __name__ == "__main__":
    main()
