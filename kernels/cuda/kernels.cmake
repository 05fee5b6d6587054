# The kernels of the GPU: not among the libraries that libtroupe.so is made of.
add_library(troupe_kernels_cuda STATIC
  cuda/attention.cu cuda/attention_decode.cu cuda/attention_items.cu cuda/attention_prefill.cu cuda/attention_turned.cu
  cuda/attention_warpgroups.cu
  cuda/fill.cu cuda/halved.cu cuda/matmul.cpp
  cuda/ordered.cu cuda/range_copies.cu cuda/rope.cu
  cuda/ranks.cu cuda/rows.cu cuda/skinny.cu cuda/streamed.cu cuda/wide.cu)
target_include_directories(troupe_kernels_cuda PUBLIC ${PROJECT_SOURCE_DIR})
target_link_libraries(troupe_kernels_cuda PUBLIC troupe_kernels troupe_cuda_toolkit)
