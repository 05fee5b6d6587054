#!/usr/bin/env bash
# run_connect_test.sh TROUPE EMBED QUICKSTART_FILE: the cluster of multi_node on free ports, and EMBED --connect to its front.
set -euo pipefail
troupe=$1 embed=$2 models=$(cd "$(dirname "$3")/../models" && pwd)
folder=$(mktemp -d)
python3 - "$folder/cluster.json" "$models" <<'END'
import json, socket, sys
held = [socket.socket() for _ in range(3)]
for s in held:
    s.bind(("127.0.0.1", 0))
nodes = [{"name": n, "address": "127.0.0.1:%d" % s.getsockname()[1], "devices": d} for n, d, s in
         zip(("front", "stage1", "stage2"), ([], ["cpu"], ["cpu"]), held)]
nodes[0]["router"] = True
json.dump({"secret_file": "secret", "model_repository": sys.argv[2], "nodes": nodes, "wire": {"dead_after_s": 5},
           "models": {"bard": {"instances": 2}}}, open(sys.argv[1], "w"))
END
"$troupe" up "$folder/cluster.json" >"$folder/out" 2>"$folder/err" &
process=$!
trap 'kill $process 2>/dev/null || true; wait $process 2>/dev/null || true; rm -rf "$folder"' EXIT
for _ in $(seq 1200); do
  grep -q "^front | ready" "$folder/out" && break
  kill -0 $process || { cat "$folder/out" "$folder/err"; exit 1; }
  sleep 0.05
done
front=$(sed -n 's/.*"front", "address": "\([^"]*\)".*/\1/p' "$folder/cluster.json")
"$embed" --connect "$front" --secret-file "$folder/secret" | tee "$folder/said"
grep -q "finished: length" "$folder/said"
# A stranger without the secret is turned away with a reason.
if "$embed" --connect "$front" 2>"$folder/refused"; then exit 1; fi
grep -q "secret" "$folder/refused"
kill -TERM $process
wait $process
echo "connected: good"
