#!/bin/sh
# Remakes tests/golden from the seeds:  tools/make_goldens.sh [demo | MODEL...]
#
# Without arguments: the random models, then their cases. With names: only
# those models' cases ("demo" is models/demo). PYTHON names the interpreter of a virtual
# environment with tools/requirements-hf.txt installed.
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
if [ $# -gt 0 ]; then
    exec "$python" hf_cases.py "$@"
fi
"$python" make_golden_models.py
"$python" hf_cases.py
