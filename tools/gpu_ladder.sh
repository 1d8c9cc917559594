#!/bin/bash
# gpu_ladder.sh PROGRAM CHAPTER: puts the tables that PROGRAM --table prints between the marks of CHAPTER.
set -eu
tables=$(mktemp)
trap 'rm -f "$tables"' EXIT
"$1" --table >"$tables"
sed -i -e '/^<!-- ladder -->$/,/^<!-- end -->$/{//!d}' -e "/^<!-- ladder -->\$/r $tables" "$2"
echo "$2: tables remade"
