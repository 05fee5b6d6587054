# bench_engine: the whole CPU executor against the read bandwidth and against peers.
add_executable(bench_engine ${CMAKE_CURRENT_LIST_DIR}/bench_engine.cpp)
target_link_libraries(bench_engine PRIVATE troupe_engine_exec fmt::fmt)
target_include_directories(bench_engine PRIVATE ${PROJECT_SOURCE_DIR})
