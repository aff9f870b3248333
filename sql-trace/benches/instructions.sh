#!/bin/sh
# Instructions per statement of the layer alone: two runs of different length
# under callgrind, and the difference between them. Clocks are disturbed by
# whatever else runs on a machine; these counts are not.
#
#     sql-trace/benches/instructions.sh
set -eu
cd "$(dirname "$0")"
bench=$(cargo bench --no-run --bench layer 2>&1 | sed -n 's/.*Executable.*(\(.*\))/\1/p')
count() {
    ONLY=$1 ROUNDS=$2 valgrind --tool=callgrind --callgrind-out-file=/dev/null "$bench" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}
# Each round runs 2000 statements without tracing, and 2000 with, if any.
both() {
    echo $((($(count "$1" 6) - $(count "$1" 2)) / 8000))
}
bare=$(both none)
printf '%-28s %6d\n' bare "$bare"
for variant in "disabled" "captured" "full line" "full line, with values" "JSON"; do
    printf '%-28s %6d more\n' "$variant" $(($(both "$variant") - bare - bare))
done
