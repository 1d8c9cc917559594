#!/bin/sh
# install.sh BUILD DESTDIR PREFIX VERSION: what `make install` copies, and the pkg-config file.
set -eu
build=$1 to=$2$3 prefix=$3 version=$4
mkdir -p "$to/bin" "$to/lib/pkgconfig" "$to/include" "$to/share/vitreous/demo"
install -m 755 "$build/vitreous" "$to/bin/"
install -m 644 "$build/libvitreous.a" "$to/lib/"
install -m 755 "$build/libvitreous.so.0" "$to/lib/"
ln -sf libvitreous.so.0 "$to/lib/libvitreous.so"
install -m 644 vitreous.h "$to/include/"
cp -R models/demo/. "$to/share/vitreous/demo/"
cat >"$to/lib/pkgconfig/vitreous.pc" <<PC
prefix=$prefix
Name: vitreous
Description: Qwen3-VL inference: a picture and a question in, the answer out
Version: $version
Cflags: -I\${prefix}/include
Libs: -L\${prefix}/lib -lvitreous
Libs.private: -fopenmp -ljansson -lpcre2-8 -lutf8proc -lwebp -lwebpdemux -ljpeg -ldl -lpthread -lm
PC
echo "installed to $to"
