# find_package(daq) gives the targets daq::daq (shared library) and daq::static.
include(CMakeFindDependencyMacro)
find_dependency(Threads)
get_filename_component(_daq_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(NOT TARGET daq::daq)
  add_library(daq::daq SHARED IMPORTED)
  set_target_properties(daq::daq PROPERTIES
    IMPORTED_LOCATION "${_daq_prefix}/lib/libdaq${CMAKE_SHARED_LIBRARY_SUFFIX}"
    INTERFACE_INCLUDE_DIRECTORIES "${_daq_prefix}/include")
  if(NOT APPLE)
    set_target_properties(daq::daq PROPERTIES IMPORTED_SONAME "libdaq.so.0")
  endif()
  add_library(daq::static STATIC IMPORTED)
  set_target_properties(daq::static PROPERTIES
    IMPORTED_LOCATION "${_daq_prefix}/lib/libdaq.a"
    INTERFACE_INCLUDE_DIRECTORIES "${_daq_prefix}/include"
    INTERFACE_LINK_LIBRARIES "Threads::Threads;${CMAKE_DL_LIBS};m")
endif()
unset(_daq_prefix)
