#!/usr/bin/env python3
"""The machine code of the GPU kernels, per architecture, against sass_budget.txt.

Registers, stack and shared memory are read from the cubins inside build/cuda/kernels.fatbin. What the
instructions are is read from nvdisasm's listing: the tool is looked for on the PATH, then in
build/sass-tools (`make sass-tools` installs it there from PyPI); without it that half is skipped.
--table prints every kernel on every architecture as Markdown; --docs writes the table of docs/gpu.md, and
the test fails where that is not what --docs would write.
"""
import fnmatch
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
IMAGE = ROOT / "build/cuda/kernels.fatbin"
BUDGET = pathlib.Path(__file__).with_name("sass_budget.txt")
COUNTED = {"ldg128": r"LDG(?!STS)\S*\.128", "hmma": "HMMA", "ldsm": "LDSM", "ldgsts": r"LDGSTS\S*\.128",
           "local": "(STL|LDL)"}


def cubins(image):
    """Architecture and bytes of each cubin (kind 2) of a fatbin; gpusim/fatbin.c has the layout."""
    at, left = struct.unpack_from("<H", image, 6)[0], struct.unpack_from("<Q", image, 8)[0]
    while left >= 64:
        kind, head, size = struct.unpack_from("<H2xIQ", image, at)
        if kind == 2:
            yield struct.unpack_from("<I", image, at + 28)[0], image[at + head:at + head + size]
        at, left = at + head + size, left - head - size


def resources(elf, arch):
    """{kernel: {registers, stack, shared}} from .nv.info and .nv.shared.*."""
    table, count, names = struct.unpack_from("<Q", elf, 40)[0], *struct.unpack_from("<HH", elf, 60)
    sections = [struct.unpack_from("<IIQQQQ", elf, table + 64 * i) for i in range(count)]
    text = sections[names][4]

    def string(base, offset):
        return elf[base + offset:elf.index(b"\0", base + offset)].decode()
    by_name = {string(text, s[0]): s for s in sections}
    symbols, strings, info = by_name[".symtab"], by_name[".strtab"], by_name[".nv.info"]
    found = {}
    at, end = info[4], info[4] + info[5]
    while at < end:
        form, what, size = struct.unpack_from("<BBH", elf, at)
        if form == 4 and what in (0x2F, 0x11):  # register count, stack frame
            symbol, value = struct.unpack_from("<II", elf, at + 4)
            kernel = string(strings[4], struct.unpack_from("<I", elf, symbols[4] + 24 * symbol)[0])
            found.setdefault(kernel, {})["registers" if what == 0x2F else "stack"] = value
        at += 4 + (size if form == 4 else 0)
    for kernel, r in found.items():
        r["shared"] = by_name.get(f".nv.shared.{kernel}", [0] * 6)[5]
        if r["shared"] and arch >= 90:  # the driver keeps the first KiB
            r["shared"] -= 1024
    return {k: r for k, r in found.items() if "registers" in r}


def in_flight(listing):
    """The most 128-bit loads that were begun before any of their results was read."""
    most, waiting = 0, []
    for line in listing:
        load = re.search(r"LDG(?!STS)\S*\.128\S*\s+R(\d+)", line)
        used = {int(r) for r in re.findall(r"\bR(\d+)", line.split(",", 1)[-1])}
        waiting = [] if any(used & group for group in waiting) else waiting
        if load:
            first = int(load.group(1))
            waiting.append(set(range(first, first + 4)))
            most = max(most, len(waiting))
    return most


def instructions(tool, elf):
    """{kernel: {ldg128, inflight, hmma, ...}} of one cubin."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as f:
        f.write(elf)
        f.flush()
        text = subprocess.run([tool, "-c", f.name], check=True, capture_output=True, text=True).stdout
    found = {}
    for kernel, body in re.findall(r"^\.text\.(\w+):\n(.*?)(?=^\s*\.section|\Z)", text, re.M | re.S):
        code = [m.group(1) for m in re.finditer(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?\s*([^;]*);", body)]
        found[kernel] = {name: sum(bool(re.match(p, c)) for c in code) for name, p in COUNTED.items()}
        found[kernel]["instructions"] = len(code)
        found[kernel]["inflight"] = in_flight(code)
    return found


def nvdisasm():
    pattern = "lib/python3*/site-packages/nvidia/*/bin/nvdisasm"
    installed = sorted((ROOT / "build/sass-tools").glob(pattern))
    return shutil.which("nvdisasm") or (str(installed[0]) if installed else None)


def budget_for(kernel, arch):
    for line in BUDGET.read_text().splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        low, _, high = words[1].partition("-")
        if fnmatch.fnmatchcase(kernel, words[0]) and int(low) <= arch <= int(high or low):
            limits = dict(zip(("registers", "stack", "shared"), map(int, words[2:5])))
            return limits, {k: int(v) for k, v in (w.split("=") for w in words[5:])}
    raise SystemExit(f"FAIL {BUDGET.name} has no line for {kernel} on sm_{arch}\n0 passed, 1 failed")


def measured(tool):
    """{(kernel, arch): all that is known of it}."""
    all_of_it = {}
    for arch, elf in cubins(IMAGE.read_bytes()):
        listed = instructions(tool, elf) if tool else {}
        for kernel, r in resources(elf, arch).items():
            all_of_it[kernel, arch] = {**r, **listed.get(kernel, {})}
    return all_of_it


def print_table(found):
    columns = ["registers", "stack", "shared", "ldg128", "inflight", "hmma", "ldsm", "ldgsts", "local"]
    print("| kernel | sm | " + " | ".join(columns) + " |\n|---" + "|---:" * (len(columns) + 1) + "|")
    for (kernel, arch), r in sorted(found.items()):
        print(f"| {kernel} | {arch} | " + " | ".join(str(r.get(c, "-")) for c in columns) + " |")


DOCS, FROM, TO = ROOT / "docs/gpu.md", "<!-- sass: written by tests/cuda/test_sass.py --docs -->\n", "<!-- /sass -->\n"
LISTED = 90                 # the architecture whose instructions the documentation lists


def compiler():
    said = subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout
    release = re.search(r"V(\d+\.\d+\.\d+)", said)
    return f"nvcc {release.group(1)}" if release else "an unknown nvcc"


def docs_table(found):
    """One line for each kernel: registers of every architecture, instructions of one."""
    archs = sorted({arch for _, arch in found})
    columns = ["instructions", "ldg128", "inflight", "hmma", "ldsm", "ldgsts", "local"]
    lines = [f"By {compiler()}:", "", f"| kernel | registers on sm_{', '.join(map(str, archs))} | stack | " +
             f"shared | sm_{LISTED}: " + " | ".join(columns) + " |", "|---|---" + "|---:" * (len(columns) + 2) + "|"]
    for kernel in sorted({k for k, _ in found}):
        each = [found[kernel, a] for a in archs if (kernel, a) in found]
        one = found[kernel, LISTED]
        lines.append(f"| `{kernel}` | {' '.join(str(r['registers']) for r in each)} | {max(r.get('stack', 0) for r in each)}"
                     f" | {one['shared']} | " + " | ".join(str(one[c]) for c in columns) + " |")
    return "\n".join(lines) + "\n"


def whole(found):
    """Is it the usual build (CUDA_GENCODE, CUDA_FLAGS), whose figures the documentation has?"""
    return {arch for _, arch in found} == {75, 80, 86, 89, 90, 100, 120}


def docs(found, write):
    """Writes the table, or says whether it is the one that is there."""
    text = DOCS.read_text()
    before, rest = text.split(FROM)
    old, after = rest.split(TO)
    new = docs_table(found)
    if write:
        DOCS.write_text(before + FROM + new + TO + after)
    return old == new


def check(found, tool):
    passed, failures = 0, []
    for (kernel, arch), r in sorted(found.items()):
        limits, promised = budget_for(kernel, arch)
        wrong = [f"{k} {r.get(k, 0)}, at most {v}" for k, v in limits.items() if r.get(k, 0) > v]
        if tool:
            wrong += [f"{k} {r[k]}, at least {v}" for k, v in promised.items() if r[k] < v]
            wrong += ["touches local memory"] if r["local"] and not limits["stack"] else []
        passed += not wrong
        failures += [f"FAIL {kernel} on sm_{arch}: {'; '.join(wrong)}"] if wrong else []
    return passed, failures


def main():
    if not IMAGE.exists():
        print("SKIP nvcc was not there: no machine code to look at\n0 passed, 0 failed, 1 skipped")
        return 0
    tool = nvdisasm()
    found = measured(tool)
    if "--table" in sys.argv:
        print_table(found)
        return 0
    if "--docs" in sys.argv:
        docs(found, write=True)
        return 0
    passed, failures = check(found, tool)
    if tool and whole(found) and f"By {compiler()}:" in DOCS.read_text():
        fresh = docs(found, write=False)
        passed += fresh
        failures += [] if fresh else ["FAIL docs/gpu.md has another table: tests/cuda/test_sass.py --docs"]
    print("\n".join(failures))
    if not tool:
        print("SKIP no nvdisasm (make sass-tools): instructions were not looked at")
    print(f"{passed} passed, {len(failures)} failed, {int(not tool)} skipped")
    return bool(failures)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
