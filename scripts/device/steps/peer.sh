# shellcheck shell=bash disable=SC2154
# vLLM beside us: the same measures of both, one after the other.
# Sourced by run.sh.

peer=${PEER_ROOT:-/tmp/peer}
# What ours said on this machine, for later calls that measure vLLM alone.
figures=/tmp/troupe-figures

# vLLM, as ../shared/peer packs it into .peer.
step_peer() {
  local begin=$SECONDS
  if timeout -k 5 "$(within 90)" bash .peer/install_on_device.sh >"$out/peer_install.log" 2>&1; then
    note peer "installed in $((SECONDS - begin)) s: $(tail -n 1 "$out/peer_install.log")"
  else
    note peer "FAILED: $(tail -n 1 "$out/peer_install.log" | head -c 150)"
    rm -f "$peer/env.sh"
  fi
}
has_peer() { [[ -e $peer/env.sh ]]; }
# The environment of vLLM's processes, with a mark by which they are found.
peer_environment() {
  # shellcheck disable=SC1091
  . "$peer/env.sh"
  export TROUPE_PEER=$$
}
# What it compiles stays for the next of them.
peer_caches() {
  export VLLM_CACHE_ROOT=$peer/cache/vllm TRITON_CACHE_DIR=$peer/cache/triton TORCHINDUCTOR_CACHE_DIR=$peer/cache/inductor
}
# end_peer GROUP: ends a process group of vLLM's and what it left, then waits until the GPU's memory is free. Its engine is a
# process of its own, which outlives the one that began it.
end_peer() {
  local file pid i
  kill -KILL -- "-$1" 2>/dev/null
  for file in /proc/[0-9]*/environ; do
    pid=${file//[^0-9]/}
    if grep -qz "^TROUPE_PEER=$$\$" "$file" 2>/dev/null; then kill -KILL "$pid" 2>/dev/null; fi
  done
  wait "$1" 2>/dev/null
  for ((i = 0; i < 40; ++i)); do
    [[ $(nvidia-smi -i "$gpu" --query-gpu=memory.used --format=csv,noheader,nounits) -lt 3000 ]] && return
    sleep 0.5
  done
  note "after vLLM" "FAILED: $(nvidia-smi -i "$gpu" --query-gpu=memory.used --format=csv,noheader) of the GPU are still taken"
}
with_peer() { # FILE SECONDS COMMAND...
  local file=$1 limit group name
  limit=$(within "$2")
  name=$(basename "$file")
  shift 2
  if ((limit < 3)); then note "$name" "not run: no time left"; return 1; fi
  (
    peer_environment
    peer_caches
    exec setsid timeout -k 5 "$limit" "$@"
  ) >"$file" 2>&1 &
  group=$!
  wait "$group" || note "$name" "FAILED: $(tail -n 1 "$file" | head -c 150)"
  end_peer "$group"
}
keep_figures() { mkdir -p "$figures" && cp "$out/$1.troupe.log" "$figures/"; }
# beside NAME LABEL [OURS...]: vLLM's figures of NAME beside those of ours that earlier steps kept, or alone.
beside() {
  local name=$1 label=$2 step
  shift 2
  for step in "$@"; do cat "$figures/$step.troupe.log" 2>/dev/null; done >"$out/$name.troupe.log"
  if [[ -s $out/$name.troupe.log ]]; then
    python3 "$from"/ratios.py "$label" "$out/$name.troupe.log" "$out/$name.vllm.log" common | tee -a "$out/ratios.txt"
  else
    grep -a '^{"measure"' "$out/$name.vllm.log" | tee -a "$out/ratios.txt"
  fi
}

# shellcheck disable=SC2054
steps_8b=(--decode 1,8,32,64,128,256 --first-token 128,512,2048,8192)
loads_8b=(--load 128/128:1024 --load 2048/128:256 --load 1000/1000:256)
# 256 answers of 2,048 are more than the KV cache holds.
long_8b=(--load 128/2048:256)
# Prompts alone, in steps full of them: 131,072 tokens each.
full_8b=(--load 2048/1:64 --load 8192/1:16)
# A card that has worked for a while is up to a tenth slower than a cool one.
warmth() { nvidia-smi -i "$gpu" --query-gpu=temperature.gpu --format=csv,noheader,nounits; }
# compare NAME MODEL VOCABULARY PEER_SECONDS OUR_SECONDS MEASURES...: the same measures of both, with the same limits. Ours come
# first: the card cools while vLLM starts, so that both begin alike.
compare() {
  local name=$1 model=$2 vocabulary=$3 theirs=$4 mine=$5 begin=$SECONDS warm
  shift 5
  warm="ours from $(warmth) degrees on"
  python3 "$from"/models.py "$models/$model" "$model" "${limits[@]}"
  one "$name.troupe" "$mine" "$from/bin/troupe" bench "$models/$model/cluster.json" --set 'devices=["cuda:0"]' \
    --vocabulary "$vocabulary" --rounds 2 --json "$@"
  keep_figures "$name"
  # Without it ours are measured alone.
  if has_peer; then
    with_peer "$out/$name.vllm.log" "$theirs" python3 "$from"/peer.py "$model" "$@"
    warm+=", vLLM to $(warmth)"
  fi
  note "$name" "$((SECONDS - begin)) s, $warm"
  python3 "$from"/ratios.py "$model" "$out/$name.troupe.log" "$out/$name.vllm.log" | tee -a "$out/ratios.txt"
}
step_compare8b() { compare compare8b llama8b 128256 330 210 "${steps_8b[@]}" "${full_8b[@]}" "${loads_8b[@]}" "${long_8b[@]}"; }
step_steps8b() { compare steps8b llama8b 128256 160 60 "${steps_8b[@]}"; }
step_decodes8b() { compare decodes8b llama8b 128256 130 50 --decode 1,64,128,256; }
step_decodes06b() { compare decodes06b qwen06b 151936 110 40 --decode 1,64,256; }
step_loads8b() { compare loads8b llama8b 128256 200 130 "${loads_8b[@]}"; }
step_long8b() { compare long8b llama8b 128256 200 100 "${long_8b[@]}"; }
step_compare06b() {
  compare compare06b qwen06b 151936 170 70 --decode 1,64,256 --first-token 128,2048 --load 128/128:2048 --load 1000/1000:256
}

# vLLM alone, with limits of its own.
defaults() { # NAME MODEL SECONDS "OURS..." MEASURES...
  local name=$1 model=$2 limit=$3 ours_of=$4 begin=$SECONDS
  shift 4
  has_peer || { note "$name" "FAILED: no vLLM here; the step peer comes first"; return; }
  with_peer "$out/$name.vllm.log" "$limit" python3 "$from"/peer.py "$model" --defaults "$@" || return
  note "$name" "$((SECONDS - begin)) s"
  # shellcheck disable=SC2086
  beside "$name" defaults $ours_of
}
step_defaults8b() { defaults defaults8b llama8b 330 "compare8b steps8b loads8b long8b" "${steps_8b[@]}" "${full_8b[@]}" "${loads_8b[@]}" "${long_8b[@]}"; }
step_defaults_steps8b() { defaults defaults_steps8b llama8b 160 "compare8b steps8b" "${steps_8b[@]}"; }
step_defaults_long8b() { defaults defaults_long8b llama8b 200 "compare8b long8b" "${long_8b[@]}"; }
step_defaults06b() {
  defaults defaults06b qwen06b 170 "compare06b" --decode 1,64,256 --first-token 128,2048 --load 128/128:2048 --load 1000/1000:256
}

# Both servers under the same client.
online_loads=(--load 512/128:16@1 --load 512/128:80@8 --load 512/128:384@64 --load 512/128:1024@256)
online_peer() { # NAME OPTIONS...: vLLM's server
  local name=$1 serving i ready=0 deadline
  shift
  (
    peer_environment
    peer_caches
    exec setsid python3 -m vllm.entrypoints.cli.main serve "$models"/llama8b/hf --load-format dummy --host 127.0.0.1 --port 8321 \
      --dtype bfloat16 --max-model-len 9216 "$@"
  ) >"$out/${name}_server.vllm.log" 2>&1 &
  serving=$!
  deadline=$((SECONDS + $(within 150)))
  while ((SECONDS < deadline)) && kill -0 "$serving" 2>/dev/null; do
    curl -sf -m 2 http://127.0.0.1:8321/health >/dev/null && { ready=1; break; }
    sleep 1
  done
  if ((ready)); then
    one "$name.vllm" 130 "$from/bin/troupe" bench --url http://127.0.0.1:8321 --vocabulary 128256 --json "${online_loads[@]}"
  else
    note "$name.vllm" "FAILED: not ready: $(tail -n 1 "$out/${name}_server.vllm.log" | head -c 150)"
  fi
  end_peer "$serving"
  ((ready))
}
step_online() {
  local begin=$SECONDS
  python3 "$from"/models.py "$models"/llama8b llama8b "${limits[@]}"
  cp "$models"/llama8b/cluster.json "$out/cluster.json"
  up_file "$models"/llama8b/cluster.json 150 online_server.troupe 18450 --set 'devices=["cuda:0"]' || { down; note online "FAILED: not ready"; return; }
  one online.troupe 120 "$from/bin/troupe" bench --url http://127.0.0.1:18450 --vocabulary 128256 --json "${online_loads[@]}"
  down
  keep_figures online
  has_peer && online_peer online --max-num-seqs 256 --max-num-batched-tokens 8192
  note "online" "$(grep -h '^ready after' "$out/online_server.troupe.log"), $((SECONDS - begin)) s in all"
  python3 "$from"/ratios.py online "$out/online.troupe.log" "$out/online.vllm.log" | tee -a "$out/ratios.txt"
}
# vLLM's server alone, with limits of its own.
step_defaults_online() {
  local begin=$SECONDS
  has_peer || { note defaults_online "FAILED: no vLLM here; the step peer comes first"; return; }
  python3 "$from"/models.py "$models"/llama8b llama8b "${limits[@]}"
  online_peer defaults_online || return
  note defaults_online "$((SECONDS - begin)) s"
  beside defaults_online defaults online
}
