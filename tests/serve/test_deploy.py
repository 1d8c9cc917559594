#!/usr/bin/env python3
"""deploy/: every metric that the dashboard and the alert rules ask for is one that the server exports, and every
one that it exports is on the dashboard; the Dockerfile has the libraries that the Makefile links; the rules, the unit and the files are well-formed as far as the tools at hand can tell (promtool, systemd-analyze)."""
import json
import os
import re
import shutil
import subprocess

import serving
from serving import ROOT, Server, check, finish

DEPLOY = os.path.join(ROOT, "deploy")


def read(name):
    with open(os.path.join(DEPLOY, name), encoding="utf-8") as f:
        return f.read()


def tool(name, args, what, accept=lambda out: False):
    if not shutil.which(name):
        print(f"SKIP {what}: {name} is not installed")
        serving.skipped += 1
        return
    r = subprocess.run([name, *args], capture_output=True, text=True)
    check(r.returncode == 0 or accept(r.stdout + r.stderr), f"{what}: {(r.stdout + r.stderr)[-400:]}")


# What the Makefile asks pkg-config for: Debian's package to build with, and the one to run with.
PACKAGES = {"jansson": ("libjansson-dev", "libjansson4"), "libpcre2-8": ("libpcre2-dev", "libpcre2-8-0"),
            "libutf8proc": ("libutf8proc-dev", "libutf8proc2"), "libwebp": ("libwebp-dev", "libwebp7"),
            "libwebpdemux": ("libwebp-dev", "libwebpdemux2"), "libjpeg": ("libjpeg-dev", "libjpeg62-turbo"),
            "libmicrohttpd": ("libmicrohttpd-dev", "libmicrohttpd12"), "sqlite3": ("libsqlite3-dev", "libsqlite3-0"),
            "libseccomp": ("libseccomp-dev", "libseccomp2"),
            "libcurl": ("libcurl4-openssl-dev", "curl")}          # opened at run time; curl brings it


def packages():
    """Each library that the Makefile links is in the Dockerfile, to build with and to run with, and in tools/deps.sh."""
    with open(os.path.join(ROOT, "Makefile"), encoding="utf-8") as f:
        asked = [w for line in re.findall(r"^(?:LIB|SERVE|HEADER)_PKG +:?\+?= *(.*)$", f.read(), re.M) for w in line.split()]
    with open(os.path.join(ROOT, "tools", "deps.sh"), encoding="utf-8") as f:
        deps = f.read().split()
    build, run = read("Dockerfile").split("\nFROM ")[1:]
    check("libjpeg" in asked and "sqlite3" in asked and "libcurl" in asked, f"the Makefile's modules: {asked}")
    for module in asked:
        if not check(module in PACKAGES, f"{module} is new in the Makefile: add its packages to PACKAGES here"):
            continue
        to_build, to_run = PACKAGES[module]
        check(to_build in build.split(), f"Dockerfile: {to_build} ({module}) is not installed to build with")
        check(to_run in run.split(), f"Dockerfile: {to_run} ({module}) is not installed to run with")
        check(any(to_build in w for w in deps), f"tools/deps.sh: {to_build} ({module}) is missing")
    for word in ("libstb-dev", "pkg-config", "gcc", "make"):
        check(word in build.split() and any(word in w for w in deps), f"{word} is missing")
    check("libgomp1" in run.split(), "OpenMP's library is missing")


def main():
    packages()
    with Server() as s:
        text = s.get("/metrics")[2].decode()
    exported = set(re.findall(r"^# TYPE (\S+) ", text, re.M))
    check(len(exported) > 40, "metrics")
    known = set(exported)
    known |= {k + tail for k in known for tail in ("_bucket", "_sum", "_count")}
    dashboard = json.loads(read("grafana-dashboard.json"))
    exprs = [t["expr"] for p in dashboard["panels"] for t in p["targets"]]
    check(len(exprs) >= 20 and len({p["id"] for p in dashboard["panels"]}) == len(dashboard["panels"]), "panels")
    for where, words in (("dashboard", "\n".join(exprs)), ("alerts", read("alerts.yml"))):
        for name in sorted(set(re.findall(r"\bvitreous_\w+", words))):
            check(name in known, f"{where}: the server exports no {name}")
    # And the other way: what the server measures can be looked at.
    shown = set(re.findall(r"\bvitreous_\w+", "\n".join(exprs)))
    for name in sorted(exported):
        check(shown & {name, name + "_bucket", name + "_sum", name + "_count"}, f"dashboard: {name} is shown nowhere")
    for line in read("kubernetes/vitreous.yml").split("metric: {name: ")[1:]:
        check(line.split("}")[0] in known, "HPA metric")
    help_text = subprocess.run([serving.VITREOUS, "serve", "--help"], capture_output=True, text=True).stdout
    for name in ("Dockerfile", "docker-compose.yml", "kubernetes/vitreous.yml", "vitreous.service"):
        lines = [x for x in read(name).splitlines() if "vitreous serve" in x or "ENTRYPOINT" in x or "args: [" in x
                 or "command: [\"-m" in x]
        for option in re.findall(r"--[a-z-]+", "\n".join(x for x in lines if not x.lstrip().startswith("#"))):
            check(option in help_text, f"{name}: {option} is no option of serve")
    compose = read("docker-compose.yml")
    for name in re.findall(r"\./([a-z-]+\.(?:yml|json))", compose):
        check(os.path.exists(os.path.join(DEPLOY, name)), f"docker-compose.yml: {name} is not there")
    check('command: ["-m", "/model"' in compose and ":/model:ro" in compose, "compose serves the model that it mounts")
    check("seccomp" in read("vitreous.service").split("SystemCallFilter=")[1].split("\n")[0].split(),
          "the decoder's own filter is allowed (systemd 252 has seccomp in no group)")
    tool("promtool", ["check", "rules", os.path.join(DEPLOY, "alerts.yml")], "alert rules")
    # The program is not installed where this runs; anything else the tool says is a fault.
    tool("systemd-analyze", ["verify", os.path.join(DEPLOY, "vitreous.service")], "systemd unit",
         accept=lambda out: all("is not executable" in x for x in out.splitlines() if x.strip()))
    finish()


main()
