#include "tests/bench/attention/flashinfer_tiles.cuh"

#include <flashinfer/attention/prefill.cuh>

TROUPE_FLASHINFER_TILES(16)
