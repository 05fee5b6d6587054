# shellcheck shell=bash disable=SC2154
# Correctness of kernels and of the executor, and errors as sentences.
# Sourced by run.sh.

step_kernels() { one kernels 50 "$from/bin/kernels_cuda_test" -d yes; }
step_sampling() { one sampling 30 "$from/bin/engine_exec_cuda_test" -d yes "the device samples*"; }
step_executor() { one executor 60 "$from/bin/engine_exec_cuda_test" -d yes "~the device samples*" "~cuda logits*" "~[ranks]"; }
step_golden() { one golden 40 "$from/bin/engine_exec_cuda_test" -d yes "cuda logits*"; }

step_memcheck() {
  one memcheck 45 compute-sanitizer --error-exitcode 9 "$from/bin/kernels_cuda_test" "cuda silu_mul and embed,cuda rope_store*,cuda gated*"
  one memcheck_wide 60 compute-sanitizer --error-exitcode 9 "$from/bin/kernels_cuda_test" "cuda products of many rows,cuda attention of prompts around whole tiles"
}

step_racecheck() {
  one racecheck 100 compute-sanitizer --tool racecheck --error-exitcode 9 "$from/bin/kernels_cuda_test" \
    "cuda silu_mul and embed,cuda rope_store*,cuda gated*"
}

step_errors() {
  printf '{"model_repository": "%s/examples/models"}' "$PWD" >"$out/cluster.json"
  local said
  said=$("${ours[@]}" timeout 15 "$from/bin/troupe" up "$out/cluster.json" --port 18440 --set 'devices=["cuda:9"]' 2>&1 | tail -n 1)
  note "error: no such device" "${said:0:150}"
  said=$("${ours[@]}" timeout 15 "$from/bin/troupe" up "$out/cluster.json" --port 18441 --set 'devices=["cuda:0"]' \
    --set models.bard.kv_cache_memory_bytes=1000 2>&1 | tail -n 1)
  note "error: too little memory" "${said:0:150}"
  said=$(CUDA_VISIBLE_DEVICES=-1 "${ours[@]}" timeout 15 "$from/bin/troupe" up "$out/cluster.json" --port 18442 --set 'devices=["cuda:0"]' 2>&1 | tail -n 1)
  note "error: no GPU" "${said:0:150}"
}
