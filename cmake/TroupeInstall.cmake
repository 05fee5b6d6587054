# libtroupe.so from all folders; libtroupe_transport.so from base/ and transport/, for programs that want the wire alone
# (nobody links both); the public headers; the service; and the CMake package that find_package(Troupe) reads. The component
# `transport` can be installed without the rest.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

get_property(libraries GLOBAL PROPERTY TROUPE_LIBRARIES)
set(transport_libraries ${libraries})
list(FILTER transport_libraries INCLUDE REGEX "^troupe_transport")
set(objects ${libraries})
list(TRANSFORM objects REPLACE "(.+)" "$<TARGET_OBJECTS:\\1>")
add_library(troupe_shared SHARED ${objects})
set_target_properties(troupe_shared PROPERTIES
  OUTPUT_NAME troupe EXPORT_NAME troupe VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR} LINKER_LANGUAGE CXX)
# The archives bring what the folders link to; their members are all here already and none is taken.
target_link_libraries(troupe_shared
  PRIVATE ${libraries}
  INTERFACE CAF::core fmt::fmt tl::expected)
target_include_directories(troupe_shared INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)

# What backends of people's own need: headers alone, since such a library meets Troupe's code only through classes that the
# process hands it.
add_library(troupe_backend_api INTERFACE)
set_target_properties(troupe_backend_api PROPERTIES EXPORT_NAME backend_api)
target_include_directories(troupe_backend_api INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(troupe_backend_api INTERFACE tl::expected)
target_compile_features(troupe_backend_api INTERFACE cxx_std_20)
install(TARGETS troupe_backend_api EXPORT TroupeTargets)

list(APPEND transport_libraries troupe_base)
set(objects ${transport_libraries})
list(TRANSFORM objects REPLACE "(.+)" "$<TARGET_OBJECTS:\\1>")
add_library(troupe_transport_shared SHARED ${objects})
set_target_properties(troupe_transport_shared PROPERTIES
  OUTPUT_NAME troupe_transport EXPORT_NAME transport VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}
  LINKER_LANGUAGE CXX)
target_link_libraries(troupe_transport_shared
  PRIVATE ${transport_libraries}
  INTERFACE CAF::core fmt::fmt tl::expected)
target_include_directories(troupe_transport_shared INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
install(TARGETS troupe_transport_shared EXPORT TroupeTransportTargets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT transport)
foreach(folder base transport)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${folder}/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
    COMPONENT transport)
endforeach()

# systemd looks for units below lib, whatever the libraries' folder is called.
install(FILES ${PROJECT_SOURCE_DIR}/packaging/systemd/troupe@.service DESTINATION lib/systemd/system)
install(FILES ${PROJECT_SOURCE_DIR}/docs/machines.md ${PROJECT_SOURCE_DIR}/docs/triton.md
  ${PROJECT_SOURCE_DIR}/docs/backends.md DESTINATION ${CMAKE_INSTALL_DOCDIR})

install(TARGETS troupe_shared EXPORT TroupeTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET troupe)
  install(TARGETS troupe RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
foreach(folder config engine actors)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${folder}/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
endforeach()

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/Troupe)
install(EXPORT TroupeTargets NAMESPACE Troupe:: DESTINATION ${package_dir})
install(EXPORT TroupeTransportTargets NAMESPACE Troupe:: DESTINATION ${package_dir} COMPONENT transport)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/TroupeConfig.cmake.in
  ${PROJECT_BINARY_DIR}/TroupeConfig.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/TroupeConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/TroupeConfig.cmake ${PROJECT_BINARY_DIR}/TroupeConfigVersion.cmake
  ${PROJECT_SOURCE_DIR}/cmake/FindCAF.cmake DESTINATION ${package_dir} COMPONENT transport)
