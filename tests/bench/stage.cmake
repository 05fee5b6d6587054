# bench_stage: the protocols' edges against bare grpc++, and backends of people's own.
if(TROUPE_GRPC_FOUND)
  add_executable(bench_stage bench_stage.cpp stage_bare.cpp stage_clients.cpp stage_hybrid.cpp)
  target_link_libraries(bench_stage PRIVATE troupe_actors troupe_config troupe_proto_kserve fmt::fmt Threads::Threads)
  target_include_directories(bench_stage PRIVATE ${PROJECT_SOURCE_DIR})
  set(stage ${CMAKE_BINARY_DIR}/lib/stage)
  foreach(backend identity forward)
    add_library(stage_${backend} MODULE stage_${backend}.cpp)
    target_link_libraries(stage_${backend} PRIVATE troupe_compile_flags)
    target_include_directories(stage_${backend} PRIVATE
      ${PROJECT_SOURCE_DIR}/base/include ${PROJECT_SOURCE_DIR}/actors/include ${PROJECT_SOURCE_DIR}/engine/include
      ${PROJECT_SOURCE_DIR}/engine/request/../include)
    set_target_properties(stage_${backend} PROPERTIES
      OUTPUT_NAME troupe_${backend} LIBRARY_OUTPUT_DIRECTORY ${stage}/${backend} CXX_VISIBILITY_PRESET hidden)
  endforeach()
  add_library(stage_clock MODULE stage_clock.cpp)
  target_link_libraries(stage_clock PRIVATE troupe_compile_flags ${CMAKE_DL_LIBS})
  target_include_directories(stage_clock PRIVATE ${PROJECT_SOURCE_DIR})
  set_target_properties(stage_clock PROPERTIES PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${stage})
  add_dependencies(bench_stage troupe stage_identity stage_forward stage_clock)
endif()
