#!/bin/bash
# lint.sh: the rules of the tree that a compiler does not check. Errors fail; sizes only warn.
#   1. Include order is a DAG: a folder includes only what the table below allows.
#   2. model/ sees no backend: no kernels/cpu, kernels/cuda, intrinsics, OpenMP or CUDA headers.
#   3. #if about a backend only in kernels/backend.c; about an instruction set only in kernels/cpu and
#      common/sha256_ni.c.
#   4. No "TODO", no tabs or trailing blanks in C.
#   Warnings: lines over 100 columns, files over 600 lines, functions over 60.
set -u
cd "$(dirname "$0")/.." || exit 2
errors=$(mktemp)
trap 'rm -f "$errors"' EXIT
sources=$(git ls-files -co --exclude-standard '*.c' '*.h' | grep -v '^gpusim/')

declare -A may=(
    [common]="common vitreous.h"
    [loader]="common loader vitreous.h"
    [tokenizer]="common loader tokenizer vitreous.h"
    [kernels]="common kernels vitreous.h"
    [model]="common loader tokenizer kernels model vitreous.h"
    [serve]="common loader tokenizer kernels model serve vitreous.h"
    [cli]="common loader tokenizer kernels model serve cli gpusim/gpusim_api.h vitreous.h"
)
for f in $sources; do
    dir=${f%%/*}
    [ -n "${may[$dir]:-}" ] || continue
    while IFS=: read -r line inc; do
        case " ${may[$dir]} " in
            *" ${inc%%/*} "* | *" $inc "*) ;;
            *) case $inc in
                   */*) echo "$f:$line: $dir/ may not include $inc" ;;
                   *) [ -e "$dir/$inc" ] || [ -e "${f%/*}/$inc" ] || echo "$f:$line: $dir/ may not include $inc" ;;
               esac ;;
        esac
    done < <(grep -nE '^#include "' "$f" | sed -E 's/^([0-9]+):#include "([^"]+)".*/\1:\2/')
done >>"$errors"
for f in $sources; do
    case $f in
        model/*|serve/*|cli/*)
            grep -nE '#include ["<](kernels/(cpu|cuda)/|immintrin|arm_neon|omp\.h|cuda)' "$f" |
                sed "s|^|$f:|; s|$| (the model is written against kernels/ops.h)|" ;;
    esac
    case $f in
        kernels/backend.c|kernels/cpu/*|kernels/cuda/*|common/sha256_ni.c|tests/*) ;;
        *) grep -nE '^ *#\s*(if|ifdef|ifndef|elif).*(CUDA|OPENMP|AVX|NEON|x86_64|aarch64|BACKEND)' "$f" |
               sed "s|^|$f:|; s|$| (backend or ISA condition outside kernels/backend.c, kernels/cpu)|" ;;
    esac
    grep -nE 'TODO|FIXME|\bXXX\b' "$f" | sed "s|^|$f:|"
    grep -nP '\t| +$' "$f" | sed "s|^|$f:|; s|$| (tab or trailing blank)|"
done >>"$errors"

for f in $sources; do
    awk -v f="$f" '
        /^[a-zA-Z_].*\)( *__attribute__.*)? *\{$/ || /^ +.*\) \{$/ && prev ~ /^[a-zA-Z_].*[,(]$/ { start = NR }
        length($0) > 100 { wide++ }
        { prev = $0 }
        /^}/ && start { if (NR - start > 60) printf "warning: %s:%d: a function of %d lines\n", f, start, NR - start; start = 0 }
        END { if (wide) printf "warning: %s: %d lines over 100 columns\n", f, wide
              if (NR > 600) printf "warning: %s: %d lines\n", f, NR }' "$f"
done
cat "$errors"
n=$(wc -l <"$errors")
echo "lint: $n errors in $(echo "$sources" | wc -l) files"
[ "$n" = 0 ]
