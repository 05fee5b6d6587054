# shellcheck shell=bash disable=SC2154
# Tensor parallelism over two GPUs, or two processes on one.
# Sourced by run.sh.

# Ranks on two GPUs.
step_tp_tests() { one tp_tests 110 "$from/bin/engine_exec_cuda_test" -d yes "[ranks]"; }
step_tp_bench() {
  local ranks
  for ranks in 1 2; do
    one "bench_tp$ranks" 45 "$from/bin/bench_cuda" --model llama8b --ranks "$ranks" --batches 1,64,256 --prefill 128,2048
  done
  one bench_tp_no_graphs 30 "$from/bin/bench_cuda" --model llama8b --ranks 2 --batches 1,64,256 --prefill 128 --without graphs_of_ranks
}
# Two stages that share one GPU, each a machine of its own to NCCL.
shared() { # NAME SECONDS SCRIPT...
  local name=$1 limit=$2
  shift 2
  one "$name" "$limit" env "TROUPE_BIN=$from/bin/troupe" TROUPE_DEVICE=cuda:0 "TROUPE_BREAK=$from/lib/break.so" PYTHONDONTWRITEBYTECODE=1 python3 "$@"
}
# What tests/api wants of ranks on CPUs.
step_tp_shared() { shared tp_shared 300 -m pytest -q -p no:cacheprovider tests/api/test_ranks.py; }
# What the end of a rank of an 8B costs.
step_tp_shared8b() {
  python3 "$from"/models.py "$models"/shared llama8b max_num_seqs=16 max_num_batched_tokens=2048 max_model_len=2048
  shared tp_shared8b 120 "$from"/ranks_apart.py "$models"/shared/models llama8b
}
kill_rank() { curl -sS -m 5 "http://127.0.0.1:$1/troupe/v1/debug/kill" -H 'content-type: application/json' -d '{"actor":"rank"}' 2>&1; }
# killed NAME PORT BODY FILE: asks, ends a rank meanwhile, and says how long the whole took.
killed() {
  local name=$1 port=$2 begin asked said
  begin=$(date +%s%N)
  curl -sS -m 40 "http://127.0.0.1:$port/v1/completions" -H 'content-type: application/json' -d "$3" >"$4" 2>&1 &
  asked=$!
  sleep 0.12
  said=$(kill_rank "$port")
  wait "$asked"
  note "$name" "kill: ${said:0:60}; answered after $((($(date +%s%N) - begin) / 1000000)) ms: $(tail -c 150 "$4" | tr '\n' ' ')"
}
step_tp_serve() {
  local body='{"model":"bard","prompt":"ROMEO:","max_tokens":400,"temperature":0,"ignore_eos":true}' kind
  printf '{"model_repository": "%s/examples/models"}' "$PWD" >"$out/cluster.json"
  local two=(--set 'devices=["cuda:0","cuda:1"]' --set models.bard.tensor_parallel=2 --set models.bard.gpu_memory_utilization=0.3)
  serve_on serve_cpu 18431 --set models.bard.dtype=float32 || note tp_serve "FAILED: the CPU server"
  serve_on serve_tp 18434 "${two[@]}" --set models.bard.dtype=float32 || { note tp_serve "FAILED: not ready"; return; }
  for kind in greedy seeded; do
    if [[ "$(text_of "$texts/serve_cpu.$kind")" == "$(text_of "$texts/serve_tp.$kind")" ]]; then
      note "tp_serve $kind" "the text of two GPUs in float32 is the CPU's"
    else
      note "tp_serve $kind" "FAILED: not the CPU's"
    fi
  done
  up tp_kill 18435 "${two[@]}" --set models.bard.dtype=float32 --fault-injection || { down; note tp_kill "FAILED: not ready"; return; }
  ask 18435 "$body" "$texts/whole"
  killed "tp_kill bard" 18435 "$body" "$texts/killed"
  if [[ "$(text_of "$texts/whole")" == "$(text_of "$texts/killed")" ]]; then
    note tp_kill "the text of a stream whose rank was ended is the text without"
  else
    note tp_kill "FAILED: another text"
  fi
  down
  python3 "$from"/models.py "$models"/tp llama8b "${limits[@]}" tensor_parallel_size=2
  cp "$models"/tp/cluster.json "$out/cluster_tp8b.json"
  up_file "$models"/tp/cluster.json 60 tp_8b 18436 --fault-injection --set 'devices=["cuda:0","cuda:1"]' || { down; note tp_8b "FAILED: not ready"; return; }
  body='{"model":"llama8b","prompt":"aaab aaac","max_tokens":300,"temperature":0,"ignore_eos":true}'
  ask 18436 "$body" "$texts/whole8b"
  killed "tp_kill 8b" 18436 "$body" "$texts/killed8b"
  note tp_8b "$(grep -h '^ready after' "$out/tp_8b.log"); $(tail -n 2 "$out/tp_8b.log" | tr '\n' ' ' | head -c 300)"
  down
}
# As step_lost, of a rank of two.
step_tp_lost() {
  python3 "$from"/models.py "$models"/tp llama8b "${limits[@]}" tensor_parallel_size=2
  lost_of tp_lost 18453 2 "$models"/tp/cluster.json --set 'devices=["cuda:0","cuda:1"]'
}
