#!/usr/bin/env bash
# Counts instructions per record with callgrind, the kernel's not among them: what the
# clock cannot tell on a busy machine. Each variant writes 1,000 and 11,000 records; the
# difference is the records.
set -euo pipefail
cd "$(dirname "$0")"

cargo build --release --quiet --bin instructions

count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null \
        target/release/instructions "$1" "$2" 2>&1 >/dev/null |
        sed -n 's/.*Collected : //p'
}

for variant in ${*:-raw daily daily-and-size queue tracing-appender}; do
    few=$(count "$variant" 1000)
    many=$(count "$variant" 11000)
    printf '%-20s %6d instructions\n' "$variant" $(((many - few) / 10000))
done
