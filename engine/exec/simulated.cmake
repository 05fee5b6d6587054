# The simulated executor on its own, for a tree in which engine/exec has no CMakeLists.txt yet.
troupe_add_library(engine_simulated
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/simulated.cpp
  TESTS ${CMAKE_CURRENT_LIST_DIR}/simulated.test.cpp
  DEPS troupe_engine_kv troupe_engine_request fmt::fmt
  PRIVATE_DEPS troupe_engine_sched nlohmann_json::nlohmann_json) # sched: for its test
