# bench_cuda_attention: our attention beside that of FlashInfer and cuDNN, whichever have their headers here (README.md says
# where they come from). Each of FlashInfer's kernels is a file: the one for Hopper takes a minute and 3.3 GB to compile.
set(FLASHINFER_DATA "" CACHE PATH "the folder flashinfer/data of FlashInfer's wheel, for bench_cuda_attention")
set(CUDNN_HEADERS "" CACHE PATH "the folder nvidia/cudnn/include of cuDNN's wheel, for bench_cuda_attention")
set(CUDNN_FRONTEND_HEADERS "" CACHE PATH "the folder include of cuDNN frontend's wheel, for bench_cuda_attention")

set(here ${CMAKE_CURRENT_LIST_DIR})
add_executable(bench_cuda_attention ${here}/bench_cuda_attention.cpp ${here}/attention_peers.cpp)
set_target_properties(bench_cuda_attention PROPERTIES BUILD_RPATH "$ORIGIN/../lib")
target_link_libraries(bench_cuda_attention PRIVATE troupe_engine_exec_cuda fmt::fmt)

if(EXISTS ${FLASHINFER_DATA}/include/flashinfer/attention/decode.cuh)
  add_library(bench_flashinfer STATIC ${here}/flashinfer_peer.cpp ${here}/flashinfer_decode.cu ${here}/flashinfer_tiles.cu
    ${here}/flashinfer_tiles_16.cu ${here}/flashinfer_tiles_64.cu ${here}/flashinfer_tiles_128.cu ${here}/flashinfer_hopper.cu
    ${here}/flashinfer_persistent.cu)
  # Its own CCCL before the toolkit's.
  foreach(folder cccl/libcudacxx/include cccl/cub cccl/thrust include cutlass/include cutlass/tools/util/include)
    target_include_directories(bench_flashinfer SYSTEM BEFORE PRIVATE ${FLASHINFER_DATA}/${folder})
  endforeach()
  target_compile_options(bench_flashinfer PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr --expt-extended-lambda -diag-suppress=177,1444,2908>)
  target_link_libraries(bench_flashinfer PRIVATE troupe_engine_exec_cuda)
  target_compile_definitions(bench_cuda_attention PRIVATE TROUPE_WITH_FLASHINFER)
  target_link_libraries(bench_cuda_attention PRIVATE bench_flashinfer)
else()
  message(STATUS "bench_cuda_attention is without FlashInfer: FLASHINFER_DATA names no headers")
endif()

if(EXISTS ${CUDNN_HEADERS}/cudnn.h AND EXISTS ${CUDNN_FRONTEND_HEADERS}/cudnn_frontend.h)
  target_sources(bench_cuda_attention PRIVATE ${here}/cudnn_peer.cpp)
  target_include_directories(bench_cuda_attention SYSTEM PRIVATE ${CUDNN_HEADERS} ${CUDNN_FRONTEND_HEADERS})
  target_compile_definitions(bench_cuda_attention PRIVATE TROUPE_WITH_CUDNN)
else()
  message(STATUS "bench_cuda_attention is without cuDNN: CUDNN_HEADERS and CUDNN_FRONTEND_HEADERS name no headers")
endif()
