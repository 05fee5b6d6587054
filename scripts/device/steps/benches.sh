# shellcheck shell=bash disable=SC2154
# Benches of ours alone: the GPU's, and those of the host's cores.
# Sourced by run.sh.

step_bench8b() { one bench8b 75 "$from/bin/bench_cuda" --model llama8b --batches 1,8,32,64,128,256 --mixed 64,192; }
step_bench06b() { one bench06b 45 "$from/bin/bench_cuda" --model qwen06b --batches 1,64,256; }
# The price of the batch-invariant mode.
step_deterministic() {
  one bench_deterministic8b 60 "$from/bin/bench_cuda" --model llama8b --batches 1,8,64,256 --prefill 128,2048 --deterministic 1
  one bench_deterministic06b 30 "$from/bin/bench_cuda" --model qwen06b --batches 1,64,256 --prefill 128,2048 --deterministic 1
}
step_power() { one bench_power 70 "$from/bin/bench_cuda_power"; }

step_ops() { one bench_ops 40 "$from/bin/bench_cuda_ops" 1 8 32 256; }
# Attention of ours beside that of FlashInfer and cuDNN (tests/bench/attention/README.md).
step_attention() {
  if [[ ! -x $from/bin/bench_cuda_attention ]]; then note attention "FAILED: DEVICE_ATTENTION=1 bundle.sh packs it"; return; fi
  one bench_attention 60 env "LD_LIBRARY_PATH=$libraries:$(folder_of libcudnn.so.9)" "$from/bin/bench_cuda_attention"
}
# KV blocks to host memory and back: whether they are the same, and how fast.
step_swap() {
  one swap_tests 60 "$from/bin/engine_exec_cuda_test" -d yes "[swap]"
  one bench_swap 30 "$from/bin/bench_cuda_ops" swap
}
# What the ladder, which goes up, does not tell: all shortcuts but one.
step_without() {
  one bench_without06b 15 "$from/bin/bench_cuda" --model qwen06b --batches 1,8,32 --prefill 128 --without one_carveout
  one bench_without8b 20 "$from/bin/bench_cuda" --model llama8b --batches 1,8,32 --prefill 128 --without one_carveout
}
# All shortcuts, and all but one.
step_each8b() { one bench_each8b 110 "$from/bin/bench_cuda" --model llama8b --batches 1 --prefill 128 --each 1,8,32,64,256; }
step_each06b() { one bench_each06b 40 "$from/bin/bench_cuda" --model qwen06b --batches 1 --prefill 128 --each 1,8,64,256; }
# Where the time goes, kernel by kernel.
step_profile() {
  one bench_profile8b 60 env "CUDA_INJECTION64_PATH=$from/lib/profile.so" "$from/bin/bench_cuda" --model llama8b --batches 8 --prefill 8192 --mixed 64
}
step_profile06b() {
  one bench_profile06b 40 env "CUDA_INJECTION64_PATH=$from/lib/profile.so" "$from/bin/bench_cuda" --model qwen06b --batches 1,64 --prefill 128
  grep -a '^profile\|decode' "$out/bench_profile06b.log"
}
# Which calls of CUDA hold the host up under a load of prompts and answers.
step_profile_load() {
  python3 "$from"/models.py "$models"/llama8b llama8b "${limits[@]}"
  one bench_profile_load 60 env "CUDA_INJECTION64_PATH=$from/lib/profile.so" "$from/bin/troupe" bench "$models"/llama8b/cluster.json \
    --set 'devices=["cuda:0"]' --vocabulary 128256 --rounds 1 --json --load 600/64:96 --load 2048/64:64
}
# The wire between two processes of the host, which needs no GPU. WIRE_ROUNDS: the rounds behind a median.
step_wire() {
  lscpu | grep -E '^(Model name|CPU\(s\))' || true
  cat /sys/kernel/mm/transparent_hugepage/enabled || true
  one bench_wire 240 env "PATH=$from/bin:$PATH" "$from/bin/bench_transport" "${WIRE_ROUNDS:-7}"
}
# The edges against bare grpc++ on the host, which needs no GPU.
step_stage() {
  lscpu | grep -E '^(Model name|CPU\(s\))' || true
  one bench_stage 150 "$from/bin/bench_stage" "$PWD"
  cat "$out/bench_stage.log"
}
# Two stages of a simulated step against one, in processes of this host.
step_stages() {
  one stages 90 env "TROUPE_BIN=$from/bin/troupe" python3 tests/bench/stages.py 7
  note stages "$(tail -n 1 "$out/stages.log" | head -c 200)"
}
# What the scheduler and the device make of loads, with prompts spread over so many steps.
step_policies8b() {
  one bench_policies8b 200 "$from/bin/bench_cuda_loads" 1,64 512/128:384@64 512/128:1024@256 128/128:1024@1024
  one bench_policies8b_long 90 "$from/bin/bench_cuda_loads" 64 2048/128:256@256 1000/1000:256@256
  one bench_policies8b_swap 90 "$from/bin/bench_cuda_loads" --swap 8 64 1000/1000:256@256
}
