#!/bin/bash
# test_install.sh: what `make install` puts down is enough: the example program builds against it
# through pkg-config, shared and static, and the installed binary finds its demo model.
. "$(dirname "$0")/../lib.sh"
photo=$PWD/tests/golden/images/pic-scene.jpg
model=$PWD/tests/golden/models/std
config=${VL_BUILD#build/}
check "make install" make --no-print-directory CONFIG="$config" install PREFIX="$tmp/usr"
check "make install with DESTDIR" make --no-print-directory CONFIG="$config" install DESTDIR="$tmp/stage" PREFIX=/usr
check "DESTDIR is not in the .pc file" grep -qx "prefix=/usr" "$tmp/stage/usr/lib/pkgconfig/vitreous.pc"
for f in bin/vitreous lib/libvitreous.a lib/libvitreous.so include/vitreous.h share/vitreous/demo/config.json; do
    check "installed: $f" [ -e "$tmp/usr/$f" ]
done
export PKG_CONFIG_PATH="$tmp/usr/lib/pkgconfig"
check "pkg-config knows it" pkg-config --exists vitreous
cc=${CC:-cc}
# shellcheck disable=SC2046  # flags are meant to split
check "the example builds" $cc -std=c17 -Wall -Wextra -Werror tests/api/example.c -o "$tmp/example" \
    $(pkg-config --cflags --libs vitreous) "-Wl,-rpath,$tmp/usr/lib"
run "$tmp/example" "$photo" "What is this?" "$model"; rc 0 "the example answers"
# shellcheck disable=SC2046
check "the example builds statically" $cc -std=c17 tests/api/example.c -o "$tmp/example-static" \
    $(pkg-config --cflags vitreous) "$tmp/usr/lib/libvitreous.a" \
    $(pkg-config --static --libs vitreous | sed 's/-lvitreous//')
shared=$out
run "$tmp/example-static" "$photo" "What is this?" "$model"; rc 0 "the static example answers"
check "shared and static agree" [ "$out" = "$shared" ]
run "$tmp/example" "$tmp/none.jpg" "What?" "$model"; rc 1 "the example reports a missing picture"
if echo | cc -x c++ -fsyntax-only - 2>/dev/null; then
    run cc -x c++ -fsyntax-only -include vitreous.h /dev/null -I"$tmp/usr/include"; rc 0 "the header is C++ too"
else
    skip "the header as C++: there is no C++ compiler"
fi
foreign=$(nm -D --defined-only "$tmp/usr/lib/libvitreous.so" | awk '$2 != "A" && $3 !~ /^vl_/ { print $3 }')
check "the library exports vl_ names only ($foreign)" [ -z "$foreign" ]
if [ -e models/demo/model.safetensors ]; then
    run bash -c "cd / && '$tmp/usr/bin/vitreous' info"; rc 0 "the installed binary finds its demo model"
    run "$tmp/example" "$photo" "What is this?"; rc 0 "so does the library"
else
    skip "the demo model has no weights in this checkout"
fi
finish
