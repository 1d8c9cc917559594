#!/bin/sh
# run_demo.sh VITREOUS: the bundled pictures and questions, answered, beside what is really in the
# picture; then the web page on the loopback address until Ctrl-C. RUN_SERVE=0, or no terminal:
# it stops after the answers.
set -eu
bin=$1
"$bin" demo
if [ "${RUN_SERVE:-}" = 0 ]; then exit 0; fi
if [ -z "${RUN_SERVE:-}" ] && [ ! -t 1 ]; then
    echo "no terminal, so no web page: RUN_SERVE=1, or $bin serve"
    exit 0
fi
"$bin" serve --help >/dev/null 2>&1 || exit 0
exec "$bin" serve --host 127.0.0.1
