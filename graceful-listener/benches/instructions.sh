#!/usr/bin/env bash
# Counts the instructions of a request with callgrind: what the clock cannot tell on
# a busy machine. Each server answers 1,000
# and 3,000 requests; the difference is 2,000 requests.
set -euo pipefail
cd "$(dirname "$0")"

cargo build --release --quiet --bins

# answer WRAPPER... -- SERVER REQUESTS HOW: a server under the wrapper, and its client.
answer() {
    local wrapper=()
    while [ "$1" != -- ]; do wrapper+=("$1"); shift; done
    coproc SERVER { exec "${wrapper[@]}" target/release/server "$2" 2>"$log"; }
    read -r address <&"${SERVER[0]}"
    target/release/client "$address" "$3" "$4"
    local pid=$SERVER_PID
    eval "exec ${SERVER[1]}>&-"
    wait "$pid"
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT

instructions() {
    answer valgrind --tool=callgrind --callgrind-out-file=/dev/null -- "$@"
    sed -n 's/.*Collected : //p' "$log"
}


for how in kept anew; do
    for server in ours axum; do
        few=$(instructions $server 1000 $how)
        many=$(instructions $server 3000 $how)
        printf '%s %s: %d instructions a request\n' "$server" "$how" $(((many - few) / 2000))
    done
done
