#!/usr/bin/env python3
"""Writes tests/gpusim/prebuilt: the test kernels as PTX for machines without nvcc.

Both PTX dialects (compute_90 and compute_100), line tables but no DWARF and no paths, in the same
container nvcc -fatbin writes. SHA256SUMS holds the sources they came from; test_prebuilt.sh fails
when a source has changed since. Run it again after changing a .cu file: tests/gpusim/prebuild.py
"""
import hashlib
import pathlib
import re
import struct
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "prebuilt"


def ptx(source, arch):
    out = subprocess.run(["nvcc", "-O3", "-ptx", "-lineinfo", f"-arch=compute_{arch}", source, "-o", "-"],
                         check=True, capture_output=True, text=True).stdout
    files = re.findall(r'^\s*\.file\s+(\d+)\s+"([^"]*)"', out, re.M)
    body = re.split(r"^\s*\.(?:section|file)\b", out, maxsplit=1, flags=re.M)[0]
    body = re.sub(r"^\s*//.*\n|^\s*\n", "", body, flags=re.M)
    table = "".join(f'.file {n} "{pathlib.PurePath(path).name}"\n' for n, path in files)
    return (body + table).encode() + b"\0"


def entry(text, arch):
    head = bytearray(64)
    struct.pack_into("<HHIQ", head, 0, 1, 0x101, 64, len(text))
    struct.pack_into("<I", head, 28, arch)
    return bytes(head) + text


def main():
    OUT.mkdir(exist_ok=True)
    sums = []
    for source in sorted(HERE.glob("*.cu")):
        entries = b"".join(entry(ptx(str(source), arch), arch) for arch in (90, 100))
        box = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entries)) + entries
        (OUT / f"{source.stem}.fatbin").write_bytes(box)
        sums.append(f"{hashlib.sha256(source.read_bytes()).hexdigest()}  tests/gpusim/{source.name}\n")
    (OUT / "SHA256SUMS").write_text("".join(sums))


if __name__ == "__main__":
    main()
