#!/bin/sh
# no_tls.sh CC OUT.o: for the static binary. libmicrohttpd.a refers to GnuTLS, whose own closure has
# no static libraries in Debian. The server speaks plain HTTP (TLS is the job of the proxy in front),
# so each GnuTLS name that libmicrohttpd asks for becomes a function that fails.
set -eu
archive=$($1 -print-file-name=libmicrohttpd.a)
nm -u "$archive" 2>/dev/null | sed -n 's/^ *U \(gnutls_[a-z0-9_]*\)$/\1/p' | sort -u |
    sed 's/.*/int &(void); int &(void) { return -1; }/' | $1 -fPIC -x c -c - -o "$2"
