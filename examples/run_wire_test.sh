#!/usr/bin/env bash
# Runs the two ends of caf_over_ucx: run_wire_test.sh SERVER FOLDER [CLIENT]
set -euo pipefail
server=$1 folder=$2 client=${3:-$1}
umask 077
rm -f "$folder/serve.log"
head -c 32 /dev/urandom | base64 >"$folder/wire.secret"
"$server" --serve 127.0.0.1:0 --secret-file "$folder/wire.secret" >"$folder/serve.log" &
process=$!
trap 'kill $process 2>/dev/null || true' EXIT
where=
for _ in $(seq 200); do
  where=$(sed -n "s/^listening at //p" "$folder/serve.log" 2>/dev/null || true)
  [[ -n $where ]] && break
  sleep 0.05
done
"$client" --connect "$where" --name Romeo --secret-file "$folder/wire.secret"
wait $process
