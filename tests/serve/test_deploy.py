#!/usr/bin/env python3
"""deploy/: every metric that the dashboard and the alert rules ask for is one that the server exports; the rules,
the unit and the files are well-formed as far as the tools at hand can tell (promtool, systemd-analyze)."""
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


def main():
    with Server() as s:
        text = s.get("/metrics")[2].decode()
    known = set(re.findall(r"^# TYPE (\S+) ", text, re.M))
    known |= {k + tail for k in known for tail in ("_bucket", "_sum", "_count")}
    dashboard = json.loads(read("grafana-dashboard.json"))
    exprs = [t["expr"] for p in dashboard["panels"] for t in p["targets"]]
    check(len(exprs) >= 20 and len({p["id"] for p in dashboard["panels"]}) == len(dashboard["panels"]), "panels")
    for where, words in (("dashboard", "\n".join(exprs)), ("alerts", read("alerts.yml"))):
        for name in sorted(set(re.findall(r"\bvitreous_\w+", words))):
            check(name in known, f"{where}: the server exports no {name}")
    for line in read("kubernetes/vitreous.yml").split("metric: {name: ")[1:]:
        check(line.split("}")[0] in known, "HPA metric")
    help_text = subprocess.run([serving.VITREOUS, "serve", "--help"], capture_output=True, text=True).stdout
    for name in ("Dockerfile", "docker-compose.yml", "kubernetes/vitreous.yml", "vitreous.service"):
        lines = [x for x in read(name).splitlines() if "vitreous serve" in x or "ENTRYPOINT" in x or "args: [" in x
                 or "command: [\"--api" in x]
        for option in re.findall(r"--[a-z-]+", "\n".join(x for x in lines if not x.lstrip().startswith("#"))):
            check(option in help_text, f"{name}: {option} is no option of serve")
    tool("promtool", ["check", "rules", os.path.join(DEPLOY, "alerts.yml")], "alert rules")
    # The program is not installed where this runs; anything else the tool says is a fault.
    tool("systemd-analyze", ["verify", os.path.join(DEPLOY, "vitreous.service")], "systemd unit",
         accept=lambda out: all("is not executable" in x for x in out.splitlines() if x.strip()))
    finish()


main()
