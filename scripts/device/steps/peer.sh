# shellcheck shell=bash disable=SC2154
# vLLM beside us: the same measures of both, one after the other.
# Sourced by run.sh.

# vLLM, as ../shared/peer packs it into .peer.
step_peer() {
  local begin=$SECONDS
  if timeout -k 5 90 bash .peer/install_on_device.sh >"$out/peer_install.log" 2>&1; then
    note peer "installed in $((SECONDS - begin)) s: $(tail -n 1 "$out/peer_install.log")"
  else
    note peer "FAILED: $(tail -n 1 "$out/peer_install.log" | head -c 150)"
    rm -f /tmp/peer/env.sh
  fi
}
# end_peer GROUP: ends a process group of vLLM's and what it left, then waits until the GPU's memory is free. Its engine is a
# process of its own, which outlives the one that began it.
end_peer() {
  local file pid i
  kill -KILL -- "-$1" 2>/dev/null
  for file in /proc/[0-9]*/environ; do
    pid=${file//[^0-9]/}
    if grep -qz '^PEER_ROOT=' "$file" 2>/dev/null; then kill -KILL "$pid" 2>/dev/null; fi
  done
  wait "$1" 2>/dev/null
  for ((i = 0; i < 40; ++i)); do
    [[ $(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | head -n 1) -lt 3000 ]] && return
    sleep 0.5
  done
  note "after vLLM" "FAILED: $(nvidia-smi --query-gpu=memory.used --format=csv,noheader) of the GPU are still taken"
}
with_peer() { # FILE SECONDS COMMAND...
  local file=$1 limit=$2 group
  shift 2
  (
    # shellcheck disable=SC1091
    . /tmp/peer/env.sh
    export VLLM_CACHE_ROOT=/tmp/peer/cache/vllm TRITON_CACHE_DIR=/tmp/peer/cache/triton TORCHINDUCTOR_CACHE_DIR=/tmp/peer/cache/inductor
    exec setsid timeout -k 5 "$limit" "$@"
  ) >"$file" 2>&1 &
  group=$!
  wait "$group" || note "$(basename "$file")" "FAILED: $(tail -n 1 "$file" | head -c 150)"
  end_peer "$group"
}
# compare NAME MODEL VOCABULARY PEER_SECONDS OUR_SECONDS MEASURES...: the same measures of both, one after the other.
compare() {
  local name=$1 model=$2 vocabulary=$3 theirs=$4 mine=$5 begin=$SECONDS
  shift 5
  # Without it ours are measured alone.
  [[ -e /tmp/peer/env.sh ]] && with_peer "$out/$name.vllm.log" "$theirs" python3 "$from"/peer.py "$model" "$@"
  python3 "$from"/models.py "/tmp/troupe-$model" "$model" "${limits[@]}"
  one "$name.troupe" "$mine" "$from/bin/troupe" bench "/tmp/troupe-$model/cluster.json" --set 'devices=["cuda:0"]' \
    --vocabulary "$vocabulary" --rounds 2 --json "$@"
  note "$name" "$((SECONDS - begin)) s"
  python3 "$from"/ratios.py "$model" "$out/$name.troupe.log" "$out/$name.vllm.log" | tee -a "$out/ratios.txt"
}
step_compare8b() {
  compare compare8b llama8b 128256 230 150 --decode 1,8,32,64,128,256 --first-token 128,512,2048,8192 \
    --load 128/128:1024 --load 2048/128:256 --load 1000/1000:256
}
step_compare06b() {
  compare compare06b qwen06b 151936 170 70 --decode 1,64,256 --first-token 128,2048 --load 128/128:2048 --load 1000/1000:256
}

# vLLM alone, with limits of its own.
defaults() { # NAME MODEL SECONDS MEASURES...
  local name=$1 model=$2 limit=$3
  shift 3
  with_peer "$out/$name.vllm.log" "$limit" python3 "$from"/peer.py "$model" --defaults "$@"
  grep '^{"measure"' "$out/$name.vllm.log" | tee -a "$out/ratios.txt"
}
step_defaults8b() {
  defaults defaults8b llama8b 250 --decode 1,8,64,256 --load 128/128:1024 --load 2048/128:256 --load 1000/1000:256
}
step_defaults06b() {
  defaults defaults06b qwen06b 170 --decode 1,64,256 --load 128/128:2048 --load 1000/1000:256
}

step_loads8b() {
  compare loads8b llama8b 128256 200 130 --load 128/128:1024 --load 2048/128:256 --load 1000/1000:256
}

# Both servers under the same client.
online_loads=(--load 512/128:16@1 --load 512/128:80@8 --load 512/128:384@64 --load 512/128:1024@256)
online_peer() {
  local serving i
  (
    # shellcheck disable=SC1091
    . /tmp/peer/env.sh
    exec setsid python3 -m vllm.entrypoints.cli.main serve /tmp/troupe-llama8b/hf --load-format dummy --host 127.0.0.1 --port 8321 \
      --dtype bfloat16 --max-model-len 9216 --max-num-seqs 256 --max-num-batched-tokens 8192
  ) >"$out/online_server.vllm.log" 2>&1 &
  serving=$!
  for ((i = 0; i < 150; ++i)); do curl -sf -m 2 http://127.0.0.1:8321/health >/dev/null && break; sleep 1; done
  one online.vllm 130 "$from/bin/troupe" bench --url http://127.0.0.1:8321 --vocabulary 128256 --json "${online_loads[@]}"
  end_peer "$serving"
}
step_online() {
  python3 "$from"/models.py /tmp/troupe-llama8b llama8b "${limits[@]}"
  cp /tmp/troupe-llama8b/cluster.json "$out/cluster.json"
  [[ -e /tmp/peer/env.sh ]] && online_peer
  up_file /tmp/troupe-llama8b/cluster.json 150 online_server.troupe 18450 --set 'devices=["cuda:0"]' || { down; note online "FAILED: not ready"; return; }
  one online.troupe 120 "$from/bin/troupe" bench --url http://127.0.0.1:18450 --vocabulary 128256 --json "${online_loads[@]}"
  down
  note "online" "$(grep -h '^ready after' "$out/online_server.troupe.log")"
  python3 "$from"/ratios.py online "$out/online.troupe.log" "$out/online.vllm.log" | tee -a "$out/ratios.txt"
}
