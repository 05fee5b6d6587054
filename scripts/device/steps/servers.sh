# shellcheck shell=bash disable=SC2154
# A server in the background, and questions to it.
# Sourced by run.sh.

# up_file CLUSTER LIMIT NAME PORT OPTIONS...: a server in the background, for at most LIMIT seconds; waits until it is ready. Leaves
# its process in `server`.
up_file() {
  local file=$1 limit=$2 name=$3 port=$4 i
  shift 4
  : >"$out/$name.log"
  # In the foreground, timeout passes a signal on once and not to its group again.
  "${ours[@]}" timeout --foreground "$limit" "$from/bin/troupe" up "$file" --port "$port" "$@" >>"$out/$name.log" 2>&1 &
  server=$!
  for ((i = 0; i < 300; ++i)); do
    grep -q '^ready after' "$out/$name.log" && return 0
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
  done
  echo "--- $name did not become ready"; head -c 1500 "$out/$name.log"
  return 1
}
up() { up_file "$out/cluster.json" 60 "$@"; }
down() {
  kill "$server" 2>/dev/null
  wait "$server" 2>/dev/null
  return 0
}

# ask PORT BODY FILE
ask() { curl -sS -m 15 "http://127.0.0.1:$1/v1/completions" -H 'content-type: application/json' -d "$2" >"$3" 2>&1; }
text_of() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["choices"][0]["text"])' "$1" 2>&1; }

texts=$(mktemp -d)
serve_on() { # NAME PORT OPTIONS...: answers to NAME.greedy, NAME.seeded, NAME.stream, NAME.many.1 to .16 in $texts, and NAME.metrics
  local name=$1 port=$2
  up "$@" || { down; return 1; }
  ask "$port" '{"model":"bard","prompt":"ROMEO:","max_tokens":48,"temperature":0}' "$texts/$name.greedy"
  ask "$port" '{"model":"bard","prompt":"JULIET:","max_tokens":48,"temperature":0.9,"top_p":0.95,"top_k":50,"seed":7}' "$texts/$name.seeded"
  ask "$port" '{"model":"bard","prompt":"HAMLET:","max_tokens":24,"temperature":0,"stream":true}' "$texts/$name.stream"
  local i jobs=()
  for i in {1..16}; do
    ask "$port" "{\"model\":\"bard\",\"prompt\":\"KING $i:\",\"max_tokens\":64,\"temperature\":0}" "$texts/$name.many.$i" &
    jobs+=($!)
  done
  wait "${jobs[@]}"
  curl -sS -m 15 "http://127.0.0.1:$port/metrics" >"$texts/$name.metrics" 2>&1
  down
}
