#!/bin/sh
# Remakes tests/golden from the seeds:  tools/make_goldens.sh [demo | MODEL...]
#
# Without arguments: everything (but the demo cases). With names: only those models' cases and
# the tokenizer vectors ("demo" is models/demo). PYTHON names the interpreter of a virtual
# environment with tools/requirements-hf.txt installed; cjpeg (libjpeg-turbo) draws some pictures.
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}
if [ $# -gt 0 ]; then
    "$python" hf_cases.py "$@"
    exec "$python" hf_vectors.py tokenizer
fi
"$python" make_golden_models.py
"$python" hf_cases.py
"$python" hf_images.py
"$python" hf_vectors.py
