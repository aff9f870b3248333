#!/usr/bin/env bash
# Counts instructions per task with callgrind: what the clock cannot tell on a
# busy machine. Each task runs 1,000 and 2,000 times; the difference is the task.
set -euo pipefail
cd "$(dirname "$0")"

cargo build --release --quiet --bin instructions

count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null \
        target/release/instructions "$1" "$2" 2>&1 >/dev/null |
        sed -n 's/.*Collected : //p'
}

for task in ${*:-format-common format-combined bare layer-combined layer-combined-micros tower-http-trace}; do
    few=$(count "$task" 1000)
    many=$(count "$task" 2000)
    printf '%-24s %6d instructions\n' "$task" $(((many - few) / 1000))
done
