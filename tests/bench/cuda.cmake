# bench_cuda: the CUDA executor against the read bandwidth of its GPU; bench_cuda_ops: its operations, one by one;
# bench_cuda_loads: loads through the scheduler, without actors; bench_cuda_power: what power bounds.
if(TROUPE_CUDA_FOUND)
  foreach(bench bench_cuda bench_cuda_ops bench_cuda_loads bench_cuda_power)
    add_executable(${bench} ${CMAKE_CURRENT_LIST_DIR}/${bench}.cpp)
    set_target_properties(${bench} PROPERTIES BUILD_RPATH "$ORIGIN/../lib")
    target_link_libraries(${bench} PRIVATE troupe_engine_exec_cuda fmt::fmt)
  endforeach()
  target_sources(bench_cuda_ops PRIVATE ${CMAKE_CURRENT_LIST_DIR}/cuda_swap.cpp)
  target_link_libraries(bench_cuda_loads PRIVATE troupe_engine_sched troupe_engine_kv)
  include(${CMAKE_CURRENT_LIST_DIR}/attention/attention.cmake)
endif()
