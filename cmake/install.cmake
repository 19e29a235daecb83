# The headers, and a package for find_package(tcnca). Paths in it are relative: the installed tree may be moved.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_DATADIR}/cmake/tcnca)
install(TARGETS tcnca EXPORT tcnca-targets FILE_SET HEADERS)
install(EXPORT tcnca-targets NAMESPACE tcnca:: DESTINATION ${package_dir})
install(FILES cmake/tcnca-config.cmake cmake/tcnca-cuda-standard.cmake DESTINATION ${package_dir})

# Before 1.0 a minor version may break its users. The headers do not depend on the architecture.
write_basic_package_version_file(tcnca-config-version.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/tcnca-config-version.cmake DESTINATION ${package_dir})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/tcnca)

if(PROJECT_IS_TOP_LEVEL)
  set(CPACK_GENERATOR TGZ)
  set(CPACK_PACKAGE_FILE_NAME tcnca-${PROJECT_VERSION})
  set(CPACK_VERBATIM_VARIABLES ON)
  include(CPack)
endif()
