# The gRPC edge needs grpc++ and protoc's plugin. TROUPE_GRPC: AUTO builds it where both are found, ON insists, OFF leaves it out.
# Sets TROUPE_GRPC_FOUND and, when true, TROUPE_GRPC_PLUGIN and the target troupe_grpc.
set(TROUPE_GRPC AUTO CACHE STRING "Build the gRPC edge: AUTO, ON or OFF")
set_property(CACHE TROUPE_GRPC PROPERTY STRINGS AUTO ON OFF)
set(TROUPE_GRPC_FOUND FALSE)
if(NOT TROUPE_GRPC)
  return()
endif()

find_package(PkgConfig QUIET)
if(PkgConfig_FOUND)
  pkg_check_modules(GRPCPP QUIET IMPORTED_TARGET grpc++)
endif()
find_program(TROUPE_GRPC_PLUGIN grpc_cpp_plugin)
if(GRPCPP_FOUND AND TROUPE_GRPC_PLUGIN)
  set(TROUPE_GRPC_FOUND TRUE)
  add_library(troupe_grpc INTERFACE)
  # gRPC's inline functions use two libraries that grpc++.pc takes for its own affair.
  target_link_libraries(troupe_grpc INTERFACE PkgConfig::GRPCPP -lgpr -labsl_synchronization)
elseif(TROUPE_GRPC STREQUAL "AUTO")
  message(STATUS "No gRPC edge: libgrpc++-dev and protobuf-compiler-grpc are not both here (scripts/bootstrap installs them)")
else()
  message(FATAL_ERROR "TROUPE_GRPC=${TROUPE_GRPC} needs libgrpc++-dev and protobuf-compiler-grpc; scripts/bootstrap installs them")
endif()
