# Sets VAE_HAVE_CUDA and, if so, enables the CUDA language and finds the toolkit. With AUTO whatever
# is missing makes this a build of the CPU program, and says so; with ON it is an error.
set_property(CACHE VAE_CUDA PROPERTY STRINGS AUTO ON OFF)
string(TOUPPER "${VAE_CUDA}" vae_cuda_wanted)
if(NOT vae_cuda_wanted STREQUAL "AUTO")
    if(vae_cuda_wanted MATCHES "^(1|ON|YES|TRUE|Y)$")
        set(vae_cuda_wanted ON)
    elseif(vae_cuda_wanted MATCHES "^(0|OFF|NO|FALSE|N)$")
        set(vae_cuda_wanted OFF)
    else()
        message(FATAL_ERROR "VAE_CUDA is ${VAE_CUDA}: use ON, OFF or AUTO")
    endif()
endif()

set(vae_oldest_cuda 12.8)  # the first that compiles for every architecture of the default list
set(vae_cuda_problem "")
set(VAE_HAVE_CUDA OFF)
if(NOT vae_cuda_wanted STREQUAL "OFF")
    # The toolkit's usual place is often not on PATH.
    find_program(VAE_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_HOME ENV CUDA_PATH
                 PATHS /usr/local/cuda PATH_SUFFIXES bin)
    if(NOT VAE_NVCC)
        set(vae_cuda_problem "nvcc was not found: install the CUDA Toolkit and put nvcc on PATH")
    else()
        execute_process(COMMAND "${VAE_NVCC}" --version OUTPUT_VARIABLE vae_nvcc_says ERROR_QUIET)
        string(REGEX MATCH "release ([0-9.]+)" vae_nvcc_match "${vae_nvcc_says}")
        if(NOT CMAKE_MATCH_1 OR CMAKE_MATCH_1 VERSION_LESS vae_oldest_cuda)
            set(vae_cuda_problem "${VAE_NVCC} is of CUDA ${CMAKE_MATCH_1}: ${vae_oldest_cuda} or newer is needed")
        else()
            # nvcc may be there without the rest, and then enable_language would be fatal.
            get_filename_component(CUDAToolkit_ROOT "${VAE_NVCC}" REALPATH)
            get_filename_component(CUDAToolkit_ROOT "${CUDAToolkit_ROOT}/../.." ABSOLUTE)
            find_package(CUDAToolkit)
            foreach(library cudart_static cublasLt curand)
                if(NOT TARGET CUDA::${library})
                    set(vae_cuda_problem "the CUDA Toolkit of ${VAE_NVCC} has no ${library}")
                endif()
            endforeach()
        endif()
    endif()
    if(vae_cuda_problem STREQUAL "")
        set(VAE_HAVE_CUDA ON)
        set(CMAKE_CUDA_ARCHITECTURES ${VAE_CUDA_ARCHITECTURES})
        set(CMAKE_CUDA_COMPILER "${VAE_NVCC}")
        enable_language(CUDA)
    elseif(vae_cuda_wanted STREQUAL "ON")
        message(FATAL_ERROR "VAE_CUDA is ON, but ${vae_cuda_problem}")
    else()
        message(STATUS "No CUDA backend: ${vae_cuda_problem}")
    endif()
endif()

# CMake 3.25 does not know that this nvcc can do C++20.
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()

# vae_device_code(target): how nvcc compiles a library of kernels.
function(vae_device_code target)
    target_include_directories(${target} PUBLIC "${CMAKE_SOURCE_DIR}")
    target_link_libraries(${target} PUBLIC CUDA::cudart_static)
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON)
    # The ptxas options make a register that spills, and an array that lands in local memory, a
    # warning.
    target_compile_options(${target} PRIVATE
        $<$<COMPILE_LANGUAGE:CUDA>:$<IF:$<BOOL:${VAE_SMALL_DEVICE_CODE}>,--compress-mode=size,-lineinfo>
            -Xcompiler=-Wall,-Wextra,-Wshadow
            -Xptxas=--warn-on-spills,--warn-on-local-memory-usage>
        $<$<AND:$<BOOL:${VAE_WERROR}>,$<COMPILE_LANGUAGE:CUDA>>:
            --Werror=all-warnings -Xcompiler=-Werror -Xptxas=--warning-as-error>)
endfunction()
