#!/usr/bin/env python3
"""The result cache on disk: a hit after a restart (and after SIGKILL), tenants apart, bounded, damage ignored."""
import glob
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile

import serving
from serving import ROOT, Server, check, equal, finish, image, model_dir, png, text


def ask(s, words, tokens=4, headers=None, **k):
    body = {"messages": [{"role": "user", "content": words}], "temperature": 0, "max_tokens": tokens, **k}
    status, h, data = s.post("/v1/chat/completions", body, headers=headers, timeout=120)
    check(status == 200, f"answered: {status} {data[:200]}")
    return h["X-Cache"], data


def file_in(folder):
    return os.path.join(folder, "results.sqlite")


def restart(folder):
    question = [image(png(64, 48)), text("What is it?")]
    with Server("--result-cache-dir", folder) as s:
        first = ask(s, question)
        equal((first[0], ask(s, question)), ("miss", ("hit", first[1])), "in memory")
        equal(s.metric("result_cache_disk_hits"), 0, "memory comes first")
        check(s.metric("result_cache_disk_bytes") > 0, "bytes on disk")
    equal(oct(os.stat(folder).st_mode & 0o777), "0o700", "for this user only")
    equal(oct(os.stat(file_in(folder)).st_mode & 0o777), "0o600", "the file too")
    with Server("--result-cache-dir", folder) as s:
        encodes = s.metric("encodes_total")
        equal(ask(s, question), ("hit", first[1]), "the same bytes after a restart")
        equal((s.metric("encodes_total"), s.metric("result_cache_disk_hits")), (encodes, 1), "read, not computed")
        equal(ask(s, question), ("hit", first[1]), "then from memory")
        equal(s.metric("result_cache_disk_hits"), 1, "then from memory")
        killed = ask(s, "kill")
        s.process.send_signal(signal.SIGKILL)
        s.process.wait()
    with Server("--result-cache-dir", folder, "--result-cache", "0") as s:
        equal(ask(s, "kill"), ("hit", killed[1]), "after SIGKILL, and without the tier in memory")
        other = [image(png(64, 48, (1, 2, 3))), text("What is it?")]
        equal(ask(s, other)[0], "miss", "another picture")
    with Server("--result-cache-dir", folder, "--max-tokens", "9") as s:
        equal(ask(s, "kill")[0], "miss", "another default is another answer")
    with Server("--result-cache-dir", folder) as s:
        equal(ask(s, "kill"), ("hit", killed[1]), "and back")


def other_weights(folder):
    """The same path, names and sizes, but other weights."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(model_dir(), os.path.join(copy, "m"))
        args = ("-m", os.path.join(copy, "m"), "--result-cache-dir", folder)
        with Server(*args) as s:
            one = ask(s, "weights")
            equal(one[0], "miss", "nothing yet")
        with Server(*args) as s:
            equal(ask(s, "weights"), ("hit", one[1]), "the same checkpoint")
        path = os.path.join(copy, "m", "model.safetensors")
        state = os.stat(path)
        with open(path, "r+b") as f:
            f.seek(-4000, 2)
            old = f.read(2)
            f.seek(-4000, 2)
            f.write(bytes([old[0] ^ 1, old[1]]))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        with Server(*args) as s:
            equal(ask(s, "weights")[0], "miss", "weights were changed")


def tenants(folder):
    one, two = {"Authorization": "Bearer key-number-one"}, {"Authorization": "Bearer key-number-two"}
    both = ("--api-key", "key-number-one", "--api-key", "key-number-two")
    with Server("--result-cache-dir", folder, *both) as s:
        a = ask(s, "mine", headers=one)
        equal(ask(s, "mine", headers=two)[0], "miss", "another key's answer is not shared")
    with Server("--result-cache-dir", folder, *both[2:], *both[:2]) as s:
        equal(ask(s, "mine", headers=one), ("hit", a[1]), "a key finds its own after a restart, in any order of keys")
    with Server("--result-cache-dir", folder) as s:
        equal(ask(s, "mine")[0], "miss", "nor shared with nobody")


def bounded(folder):
    size = 128 << 10
    with Server("--result-cache-dir", folder, "--result-cache-disk-bytes", str(size), "--result-cache", "0") as s:
        first = ask(s, "0")
        for i in range(1, 40):
            ask(s, str(i))
            if i % 5 == 0:
                equal(ask(s, "0"), ("hit", first[1]), "what is used stays")
        check(s.metric("result_cache_disk_bytes") <= size, "bounded by its own count")
        equal(ask(s, "1")[0], "miss", "the least recently used went")
        equal(ask(s, "39")[0], "hit", "the latest is there")
    check(on_disk(folder) <= size + (64 << 10), f"bounded on disk: {on_disk(folder)}")


def on_disk(folder):
    return sum(os.path.getsize(x) for x in glob.glob(file_in(folder) + "*"))


SLACK = 320 << 10                      # of the file over its bound: 64 pages, and what the log may hold


def smaller(folder):
    """A lower bound shrinks the file itself, not only what is counted."""
    def fill(s, n):
        for i in range(n):
            ask(s, str(i), 24, logprobs=True, top_logprobs=20)
    with Server("--result-cache-dir", folder, "--result-cache", "0") as s:
        fill(s, 40)
        full = s.metric("result_cache_disk_bytes")
    before, less = on_disk(folder), 256 << 10
    old = folder + "-old"                              # as a file that was made before there was auto_vacuum
    shutil.copytree(folder, old)
    db = sqlite3.connect(file_in(old))
    db.execute("PRAGMA auto_vacuum=NONE")
    db.execute("VACUUM")
    db.close()
    check(before > 2 * (less + SLACK), f"enough to see a difference: {before}")
    with Server("--result-cache-dir", folder, "--result-cache-disk-bytes", str(less), "--result-cache", "0") as s:
        check(0 < s.metric("result_cache_disk_bytes") <= less < full, "a lower bound holds from the start")
        check(on_disk(folder) <= less + SLACK, f"for the file too, while it is open: {before} -> {on_disk(folder)}")
        equal(ask(s, "39", 24, logprobs=True, top_logprobs=20)[0], "hit", "the latest answers stay")
        fill(s, 10)
    check(on_disk(folder) <= less + SLACK, f"and after: {on_disk(folder)}")
    with Server("--result-cache-dir", old, "--result-cache-disk-bytes", str(less), "--result-cache", "0") as s:
        check(on_disk(old) <= less + SLACK and "begins anew" in s.logs(), f"one that cannot shrink: {on_disk(old)}")


def closed(folder):
    """A folder that is there already and that others may enter is refused, and left as it is."""
    os.mkdir(folder)
    for mode in (0o755, 0o770, 0o701):
        os.chmod(folder, mode)
        r = subprocess.run([serving.VITREOUS, "serve", "-m", model_dir(), "--port", "0", "--result-cache-dir", folder],
                           capture_output=True, text=True, timeout=60 * serving.SLOW)
        check(r.returncode == 3 and "others may enter" in r.stderr, f"mode {mode:o}: {r.returncode} {r.stderr[-300:]}")
        equal((os.stat(folder).st_mode & 0o777, os.listdir(folder)), (mode, []), "nothing was done to it")
    os.chmod(folder, 0o700)
    with Server("--result-cache-dir", folder) as s:
        equal(ask(s, "x")[0], "miss", "a closed one will do")
    os.chmod(folder, 0o755)
    with Server("--result-cache-dir", folder) as s:
        equal(ask(s, "x")[0], "hit", "one that an earlier version left open goes on")
    equal(oct(os.stat(folder).st_mode & 0o777), "0o700", "and is closed")


def fs_group(folder):
    """Kubernetes' fsGroup makes all of a volume writable for the pod's group at every start: our cache in it is closed again."""
    def refused(why, what):
        r = subprocess.run([serving.VITREOUS, "serve", "-m", model_dir(), "--port", "0", "--result-cache-dir", folder],
                           capture_output=True, text=True, timeout=60 * serving.SLOW)
        check(r.returncode == 3 and why in r.stderr, f"{what}: {r.returncode} {r.stderr[-300:]}")

    def open_up(group=os.getegid()):
        os.chown(folder, -1, group)
        os.chmod(folder, 0o2770)
        for f in os.listdir(folder):
            os.chmod(os.path.join(folder, f), 0o660)
    with Server("--result-cache-dir", folder) as s:
        first = ask(s, "x")
    open_up()
    with Server("--result-cache-dir", folder) as s:
        equal(ask(s, "x"), ("hit", first[1]), "what was stored is there")
        check("writable for its group" in s.logs(), "the log warns")
        equal([oct(os.stat(f).st_mode & 0o7777) for f in (folder, file_in(folder))], ["0o700", "0o600"], "and all is closed")
    os.chmod(folder, 0o2771)
    refused("others may enter", "open to strangers too")
    open_up()
    os.rename(file_in(folder), folder + "-elsewhere")
    os.symlink(folder + "-elsewhere", file_in(folder))
    refused("others may enter", "no cache of ours is in it: a link")
    os.remove(file_in(folder))
    shutil.copy(folder + "-elsewhere", file_in(folder))
    os.symlink("/dev/null", file_in(folder) + "-wal")         # in the place of the log
    os.chmod(folder, 0o2770)
    refused("no file of this user's own", "what somebody else has put there")
    os.remove(file_in(folder) + "-wal")
    if os.geteuid() == 0:                # only root can give files away
        open_up(54321)
        refused("others may enter", "a group that is none of ours")
        os.chown(folder, -1, os.getegid())
        os.chown(file_in(folder), 54321, -1)
        refused("others may enter", "somebody else's cache")


def gpu(folder):
    """What another GPU, driver or cuBLAS made is not served. On gpusim, which can be several devices."""
    sim = os.path.join(ROOT, "build", "gpusim")
    env = {"VL_CUDA_DRIVER": os.path.join(sim, "libcuda.so.1"), "GPUSIM_PTX": "80"}
    args = ("-m", os.path.join(ROOT, "tests", "golden", "models", "std"), "--backend", "cuda", "--result-cache-dir", folder)
    probe = subprocess.run([serving.VITREOUS, "info", *args[:4]], capture_output=True, text=True, env={**os.environ, **env})
    if not os.path.exists(env["VL_CUDA_DRIVER"]) or "no GPU kernels" in probe.stderr:
        print("SKIP the key's GPU: nvcc or gpusim was not there")
        serving.skipped += 1
        return

    if "asan" in serving.BUILD:
        # gpusim keeps the kernels it has parsed until the process ends (findings may name them), and vitreous closes
        # its driver before: LeakSanitizer would no longer see who holds them. Loaded from the start, it stays.
        env["LD_PRELOAD"] = env["VL_CUDA_DRIVER"]
        env["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "exitcode=99") + ":verify_asan_link_order=0"

    def on(**more):
        before = {k: os.environ.get(k) for k in (*env, *more)}
        os.environ.update({**env, **more})
        try:
            with Server(*args) as s:
                ops = s.json("GET", "/v1/ops")[1]
                check(ops["device"] and not any(k["chosen"] for k in ops["kernels"]), f"/v1/ops: no kernel of the CPU: {str(ops)[:300]}")
                return ask(s, "gpu", 2)[0], s.json("GET", "/props")[1]["model"]["device"]
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
    cublas = {"VL_KERNEL": "gemm=cublas", "VL_CUBLAS": os.path.join(sim, "libcublas.so.13")}
    first, second, again = on(GPUSIM_DEVICE="A100"), on(GPUSIM_DEVICE="H100"), on(GPUSIM_DEVICE="A100")
    equal((first[0], second[0], again[0]), ("miss", "miss", "hit"), f"another GPU: {first[1]}, {second[1]}")
    check("A100" in first[1] and "H100" in second[1] and "driver API 13.0" in first[1], f"the device is named: {first[1]}")
    blas = on(GPUSIM_DEVICE="A100", **cublas)
    check(blas[0] == "miss" and "cuBLAS 1" in blas[1] and "cuBLAS" not in first[1], f"cuBLAS is part of it: {blas}")


def damage(folder):
    args = ("--result-cache-dir", folder, "--result-cache", "0")
    with Server(*args) as s:
        a, b = ask(s, "a"), ask(s, "b")
    db = sqlite3.connect(file_in(folder))
    row, record = db.execute("SELECT id, record FROM results ORDER BY used LIMIT 1").fetchone()
    db.execute("UPDATE results SET record=? WHERE id=?", (record.replace(b"created", b"creatEd"), row))
    db.commit()
    db.close()
    with Server(*args) as s:
        again = ask(s, "a")
        equal(again[0], "miss", "a damaged record is a miss")
        equal(s.metric("result_cache_disk_damaged"), 1, "and counted")
        equal(ask(s, "b"), ("hit", b[1]), "the others are not touched")
        equal(ask(s, "a"), ("hit", again[1]), "and it is stored anew")
    check(a[1] != again[1], "(ids differ)")
    size = os.path.getsize(file_in(folder))
    for what, data in (("no database", b"no database at all" * 400), ("a page of noise", None), ("cut short", b"")):
        if what == "a page of noise":
            with open(file_in(folder), "r+b") as f:
                f.seek(4096)
                f.write(os.urandom(max(4096, size - 4096)))
        elif data:
            with open(file_in(folder), "wb") as f:
                f.write(data)
        else:
            os.truncate(file_in(folder), 5000)
        with Server(*args) as s:
            ask(s, "a")
            equal(ask(s, "a")[0], "hit", f"{what}: works again")


def locked(folder):
    with Server("--result-cache-dir", folder):
        r = subprocess.run([serving.VITREOUS, "serve", "-m", model_dir(), "--port", "0", "--result-cache-dir", folder],
                           capture_output=True, text=True, timeout=60)
        check(r.returncode == 3 and "in use" in r.stderr, f"one server at a time: {r.returncode} {r.stderr[-200:]}")
    r = subprocess.run([serving.VITREOUS, "serve", "-m", model_dir(), "--port", "0", "--result-cache-dir", "/proc/none"],
                       capture_output=True, text=True, timeout=60)
    check(r.returncode == 3 and "result-cache-dir" in r.stderr, f"no such place: {r.stderr[-200:]}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        for part in (restart, other_weights, tenants, bounded, smaller, closed, fs_group, gpu, damage, locked):
            try:
                part(os.path.join(folder, part.__name__))
            except Exception as e:       # noqa: BLE001: one broken part must not hide the others
                check(False, f"{part.__name__}: {type(e).__name__}: {e}")
    finish()


main()
