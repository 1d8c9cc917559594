#!/bin/bash
# test_weights_md.sh: weights.md is what the binding table says today.
. "$(dirname "$0")/../lib.sh"
run "$VITREOUS" info --weights-md
rc 0 "info --weights-md"
check "weights.md is up to date (vitreous info --weights-md > weights.md)" cmp "$tmp/out" weights.md
finish
