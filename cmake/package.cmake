# The archive that cpack makes (scripts/package): the program, and beside it what checks and
# measures it on a machine with a GPU where nothing can be built or installed. It looks like the source tree
# with the programs in bin, so that its scripts find them. `cmake --install` installs the program
# alone.
set(vae_archive_only COMPONENT archive EXCLUDE_FROM_ALL)
foreach(program gpu_tests vae_gpu_bench vae_step_bench)
    if(TARGET ${program})
        # Google Benchmark is a shared library, and comes along. CUDA's the machine has.
        set_target_properties(${program} PROPERTIES INSTALL_RPATH "$ORIGIN/../lib/vae")
        install(TARGETS ${program} RUNTIME DESTINATION bin ${vae_archive_only})
    endif()
endforeach()
if(TARGET benchmark::benchmark)
    install(IMPORTED_RUNTIME_ARTIFACTS benchmark::benchmark
            LIBRARY DESTINATION lib/vae ${vae_archive_only})
endif()
install(DIRECTORY docs presets DESTINATION . ${vae_archive_only})
install(DIRECTORY bench/peers DESTINATION bench ${vae_archive_only}
        FILES_MATCHING PATTERN "*.py")
install(PROGRAMS scripts/bench_elbo scripts/bench_gpu scripts/check_gpu scripts/profile
        DESTINATION scripts ${vae_archive_only})
install(DIRECTORY scripts/lib DESTINATION scripts ${vae_archive_only}
        FILES_MATCHING PATTERN "*.py" PATTERN "__pycache__" EXCLUDE)
install(FILES tests/torch_check.py tests/torch_likelihood.py
        DESTINATION tests ${vae_archive_only})
install(FILES README.md DESTINATION . ${vae_archive_only})
# What the pages link to.
install(FILES bench/RESULTS.md DESTINATION bench ${vae_archive_only})
install(DIRECTORY bench/results DESTINATION bench ${vae_archive_only}
        FILES_MATCHING PATTERN "*.json")
# Results name the commit, which no archive has in it by itself.
install(CODE "execute_process(COMMAND git describe --always --dirty --abbrev=12
                  WORKING_DIRECTORY \"${CMAKE_SOURCE_DIR}\" OUTPUT_FILE
                  \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/commit\" ERROR_QUIET)"
        ${vae_archive_only})

set(vae_system "${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR}")
string(TOLOWER "${vae_system}" vae_system)
if(VAE_HAVE_CUDA)
    string(APPEND vae_system "-cuda${CUDAToolkit_VERSION_MAJOR}")
endif()
set(CPACK_GENERATOR TGZ)
set(CPACK_PACKAGE_FILE_NAME "vae-${PROJECT_VERSION}-${vae_system}")
set(CPACK_STRIP_FILES ON)
set(CPACK_THREADS 0)
set(CPACK_COMPONENTS_ALL program archive)
set(CPACK_ARCHIVE_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_GROUPING ALL_COMPONENTS_IN_ONE)
set(CPACK_COMPONENT_INCLUDE_TOPLEVEL_DIRECTORY ON)
include(CPack)
