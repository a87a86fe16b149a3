# Third-party libraries, all from the distribution, header-only or static.
find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)
find_package(fmt REQUIRED)
find_package(CLI11 REQUIRED)          # CLI11::CLI11
find_package(nlohmann_json REQUIRED)  # nlohmann_json::nlohmann_json
find_path(VAE_TOMLPLUSPLUS_INCLUDE toml++/toml.h REQUIRED)
find_path(VAE_STB_INCLUDE stb_image_write.h PATH_SUFFIXES stb REQUIRED)
find_library(VAE_ZLIB NAMES libz.a z REQUIRED)
find_path(VAE_ZLIB_INCLUDE zlib.h REQUIRED)
# With the shared library a file compiles two seconds faster than with the headers alone, but nobody
# should have to install it: only for builds that stay where they are.
set(vae_fmt fmt::fmt-header-only)
if(VAE_SHARED_FMT)
    set(vae_fmt fmt::fmt)
endif()

add_library(vae_third_party INTERFACE)
target_include_directories(vae_third_party SYSTEM INTERFACE
    "${VAE_TOMLPLUSPLUS_INCLUDE}" "${VAE_STB_INCLUDE}" "${VAE_ZLIB_INCLUDE}")
target_link_libraries(vae_third_party INTERFACE
    "${vae_fmt}" CLI11::CLI11 nlohmann_json::nlohmann_json "${VAE_ZLIB}")

# The OpenMP flavour shares its threads with our own loops; the pthread one would fight them.
find_library(VAE_OPENBLAS NAMES libopenblas.a openblas PATH_SUFFIXES openblas-openmp REQUIRED)
find_path(VAE_CBLAS_INCLUDE cblas.h
          PATH_SUFFIXES openblas-openmp x86_64-linux-gnu/openblas-openmp
                        aarch64-linux-gnu/openblas-openmp REQUIRED)
add_library(vae_openblas INTERFACE)
target_include_directories(vae_openblas SYSTEM INTERFACE "${VAE_CBLAS_INCLUDE}")
target_link_libraries(vae_openblas INTERFACE "${VAE_OPENBLAS}" OpenMP::OpenMP_CXX Threads::Threads m)
