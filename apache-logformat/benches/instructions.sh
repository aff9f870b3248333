#!/usr/bin/env bash
# Counts each task's instructions with callgrind: what no clock tells on a busy
# machine. A task runs 1,000 times and 2,000 times; the difference is its own.
set -euo pipefail
cd "$(dirname "$0")"

cargo build --release --quiet --bin instructions

count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null \
        target/release/instructions "$1" "$2" 2>&1 >/dev/null |
        sed -n 's/.*Collected : //p'
}

for task in ${*:-$(target/release/instructions)}; do
    few=$(count "$task" 1000)
    many=$(count "$task" 2000)
    printf '%-28s %6d instructions\n' "$task" $(((many - few) / 1000))
done
