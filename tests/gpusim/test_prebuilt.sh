#!/bin/bash
# test_prebuilt.sh: the prebuilt kernels come from the sources that are here (see prebuild.py).
cd "$(dirname "$0")/../.." || exit 2
p=0 f=0
for cu in tests/gpusim/*.cu; do
    if grep -F "  $cu" tests/gpusim/prebuilt/SHA256SUMS | sha256sum -c --status; then
        p=$((p + 1))
    else
        echo "FAIL $cu changed since tests/gpusim/prebuilt was made: run tests/gpusim/prebuild.py"
        f=$((f + 1))
    fi
done
echo "$p passed, $f failed"
[ $f = 0 ]
