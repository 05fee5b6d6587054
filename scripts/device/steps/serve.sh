# shellcheck shell=bash disable=SC2154
# Servers from outside: the GPU's answers against the CPU's, endurance, start.
# Sourced by run.sh.

# many_alike NAME: how many of those that were asked at once have the CPU's text.
many_alike() {
  local i same=0
  for i in {1..16}; do
    [[ "$(text_of "$texts/serve_cpu.many.$i")" == "$(text_of "$texts/$1.many.$i")" ]] && same=$((same + 1))
  done
  echo "$same"
}
# Too few KV blocks for all at once: answers are set aside, and come back out of host memory (swap_space 4) or are computed anew (0).
serve_few_blocks() { # SWAP_SPACE PORT OPTIONS...
  local name=serve_few_$1 swap=$1 port=$2 same preempted
  shift 2
  serve_on "$name" "$port" "$@" --set models.bard.max_model_len=256 --set models.bard.num_gpu_blocks_override=30 \
    --set "models.bard.swap_space=$swap" ||
    { note "serve few blocks" "FAILED: not ready"; return; }
  same=$(many_alike "$name")
  preempted=$(awk '/^vllm:num_preemptions_total/ {print $NF}' "$texts/$name.metrics")
  preempted=${preempted:-0}
  if ((same == 16 && ${preempted%.*} > 0)); then
    note "serve few blocks, swap $swap" "$same of 16 texts are the CPU's, ${preempted%.*} times one was set aside"
  else
    note "serve few blocks, swap $swap" "FAILED: $same of 16 texts are the CPU's, '$preempted' times one was set aside"
  fi
}
step_serve() {
  local begin=$SECONDS kind
  printf '{"model_repository": "%s/examples/models"}' "$PWD" >"$out/cluster.json"
  local gpu=(--set 'devices=["cuda:0"]' --set models.bard.gpu_memory_utilization=0.3)
  serve_on serve_cpu 18431 --set models.bard.dtype=float32 || note serve "FAILED: the CPU server"
  serve_on serve_fp32 18432 "${gpu[@]}" --set models.bard.dtype=float32 || { note serve "FAILED: not ready"; return; }
  serve_on serve_bf16 18433 "${gpu[@]}" || note serve "FAILED: bf16 not ready"
  serve_on serve_fp16 18439 "${gpu[@]}" --set models.bard.dtype=float16 || note serve "FAILED: fp16 not ready"
  for kind in greedy seeded; do
    if [[ "$(text_of "$texts/serve_cpu.$kind")" == "$(text_of "$texts/serve_fp32.$kind")" ]]; then
      note "serve $kind" "the text of the GPU in float32 is the CPU's"
    else
      note "serve $kind" "FAILED: the GPU's text in float32 is not the CPU's"
      head -c 300 "$texts/serve_cpu.$kind"; echo; head -c 300 "$texts/serve_fp32.$kind"; echo
    fi
  done
  note "serve 16 at once" "$(many_alike serve_fp32) of 16 texts are the CPU's"
  serve_few_blocks 4 18445 "${gpu[@]}" --set models.bard.dtype=float32
  serve_few_blocks 0 18446 "${gpu[@]}" --set models.bard.dtype=float32
  note "serve stream" "$(grep -c '^data: ' "$texts/serve_bf16.stream") events, ends with $(grep '^data: ' "$texts/serve_bf16.stream" | tail -n 1 | head -c 20)"
  tail -c +1 "$texts"/*.greedy "$texts"/*.seeded >"$out/serve_texts.txt"
  note "serve bf16 says" "$(text_of "$texts/serve_bf16.greedy" | tr '\n' '/' | head -c 90)"
  note "serve fp16 says" "$(text_of "$texts/serve_fp16.greedy" | tr '\n' '/' | head -c 90)"
  note "serve" "$(grep -h '^ready after' "$out"/serve_*.log | tr '\n' ' '), $((SECONDS - begin)) s in all"
}

# SOAK_SECONDS of 256 streams of the 8B, a part of which are cut off at random.
step_soak() {
  local seconds=${SOAK_SECONDS:-360}
  python3 "$from"/models.py "$models"/llama8b llama8b "${limits[@]}"
  up_file "$models"/llama8b/cluster.json $((seconds + 90)) soak_server 18451 --set 'devices=["cuda:0"]' || { down; note soak "FAILED: not ready"; return; }
  # The process below `timeout`.
  one soak $((seconds + 60)) python3 "$from"/soak.py http://127.0.0.1:18451 llama8b "$(pgrep -P "$server" || echo "$server")" "$seconds"
  note soak "$(tail -n 1 "$out/soak.log" | head -c 400)"
  down
}
# lost_of NAME PORT RANKS CLUSTER OPTIONS...: an error that takes a GPU from the server's process, with the 8B: what it says, and who serves afterwards.
lost_of() {
  local name=$1 port=$2 ranks=$3 cluster=$4 begin=$SECONDS
  shift 4
  export CUDA_INJECTION64_PATH=$from/lib/break.so
  up_file "$cluster" 120 "${name}_server" "$port" --set models.llama8b.swap_space=1 "$@" || { down; unset CUDA_INJECTION64_PATH; note "$name" "FAILED: not ready"; return; }
  unset CUDA_INJECTION64_PATH
  one "$name" 100 python3 "$from"/lost.py "http://127.0.0.1:$port" llama8b "$(pgrep -P "$server" || echo "$server")" "$ranks"
  note "$name" "$(grep -h '^memory' "$out/$name.log"), $((SECONDS - begin)) s in all"
  down
}
step_lost() {
  python3 "$from"/models.py "$models"/llama8b llama8b "${limits[@]}"
  lost_of lost 18452 1 "$models"/llama8b/cluster.json --set 'devices=["cuda:0"]'
}
# What `troupe check` foresees of the 8B's memory beside what a server then has.
step_memory8b() {
  local told had
  python3 "$from"/models.py "$models"/llama8b llama8b "${limits[@]}"
  one check8b 30 "$from/bin/troupe" check "$models"/llama8b/cluster.json --set 'devices=["cuda:0"]'
  told=$(sed -n 's/.* on cuda:0: \([0-9]*\) KV blocks.*/\1/p' "$out/check8b.log")
  up_file "$models"/llama8b/cluster.json 60 memory_server 18452 --set 'devices=["cuda:0"]' || { down; note memory8b "FAILED: not ready"; return; }
  sleep 1
  had=$(curl -sS -m 5 http://127.0.0.1:18452/troupe/v1/status | python3 -c 'import json, sys; print(json.load(sys.stdin)["replicas"][0]["blocks_total"])')
  down
  note memory8b "check foresees $told KV blocks, the server has $had: $(grep ' on cuda:0: ' "$out/check8b.log" | head -c 300)"
}
# From the start of the process to the first token, the 8B's 16 GB in the page cache; vLLM too, where it is installed.
step_coldstart() {
  local begin
  python3 "$from"/models.py "$models"/file llama8b "${limits[@]}" 'load_format="auto"'
  python3 "$from"/weights.py "$models"/file/hf
  cat "$models"/file/hf/model.safetensors >/dev/null
  one coldstart 90 python3 tests/bench/start.py "$from/bin/troupe" "$models"/file/cluster.json --model llama8b --rounds 5 --set 'devices=["cuda:0"]'
  note coldstart "$(tail -n 1 "$out/coldstart.log" | head -c 300)"
  has_peer || return
  begin=$SECONDS
  (
    peer_environment
    exec setsid python3 -m vllm.entrypoints.cli.main serve "$models"/file/hf --host 127.0.0.1 --port 8322 \
      --dtype bfloat16 --max-model-len 9216 --max-num-seqs 256 --max-num-batched-tokens 8192
  ) >"$out/coldstart.vllm.log" 2>&1 &
  local serving=$!
  until curl -sf -m 20 http://127.0.0.1:8322/v1/completions -H 'content-type: application/json' \
    -d "{\"model\":\"$models/file/hf\",\"prompt\":\"aaab\",\"max_tokens\":1}" >/dev/null || ((SECONDS - begin > 150)); do sleep 0.2; done
  note "coldstart vLLM" "$((SECONDS - begin)) s to the first token"
  end_peer "$serving"
}
# The logits of a shape, prefill and decode, against transformers on the same card.
logits_of() { # MODEL PORT
  local folder=$models/logits-$1
  python3 "$from"/models.py "$folder" "$1" max_model_len=4096 max_num_seqs=8 'load_format="auto"'
  one "logits_weights_$1" 90 "${machine[@]}" python3 "$from"/logits.py weights "$folder"
  up_file "$folder/cluster.json" 60 "logits_server_$1" "$2" --set 'devices=["cuda:0"]' || { down; note "logits $1" "FAILED: not ready"; return; }
  one "logits_ask_$1" 60 python3 "$from"/logits.py ask "http://127.0.0.1:$2" "$1" "$folder"
  down
  one "logits_$1" 90 "${machine[@]}" python3 "$from"/logits.py judge "$folder"
  note "logits $1" "$(tail -n 2 "$out/logits_$1.log" | tr '\n' ' ' | head -c 300)"
  rm -rf "$folder"
}
step_logits() {
  logits_of qwen06b 18453
  logits_of llama8b 18454
}
