#!/bin/bash
# test_anchors.sh: in the chapters, a link [`name`](path#L12) points at a line of that file that has
# the name in it, and any other link to a file of the tree points at a file that is there. FIX=1 moves
# an anchor whose name stands on one line only.
cd "$(dirname "$0")/../.." || exit 2
passed=0 failed=0
for doc in $(git ls-files -co --exclude-standard 'docs/chapters/*.md'); do
    while IFS='|' read -r name target; do
        file=$(dirname "$doc")/${target%%#*} line=
        case $target in *#L[0-9]*) line=${target##*#L} ;; esac
        if [ ! -e "$file" ]; then
            echo "FAIL $doc: $target is not there"
        elif [ -n "$line" ] && [ "${FIX:-}" = 1 ] && [ "$(grep -cF -- "$name" "$file")" = 1 ]; then
            sed -i "s|\(\[\`*$name\`*\]([^)#]*\)#L$line)|\1#L$(grep -nF -- "$name" "$file" | cut -d: -f1))|" "$doc"
            continue
        elif [ -n "$line" ] && ! sed -n "${line}p" "$file" | grep -qF -- "$name"; then
            echo "FAIL $doc: $name is not on line $line of $file, but on" \
                 "$(grep -nF -- "$name" "$file" | cut -d: -f1 | tr '\n' ' ')"
        else
            passed=$((passed + 1))
            continue
        fi
        failed=$((failed + 1))
    done < <(grep -oP '\[`?[^\]]+?`?\]\((?!https?:|#|mailto:)[^) ]+\)' "$doc" |
             sed -E 's/^\[`?([^]]+[^]`])`?\]\(([^)]*)\)$/\1|\2/')
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
