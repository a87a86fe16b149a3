# What all our own C++ is compiled with. CUDA files get their warnings in kernels/CMakeLists.txt.
add_library(vae_options INTERFACE)
target_include_directories(vae_options INTERFACE "${CMAKE_SOURCE_DIR}")
target_compile_options(vae_options INTERFACE
    # Contraction, which GCC does unasked where there are fused multiply-adds, is off: every operation
    # rounds as it is written, on every processor alike. It costs no time that can be measured.
    $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion>
    $<$<AND:$<BOOL:${VAE_WERROR}>,$<COMPILE_LANGUAGE:CXX>>:-Werror>)
if(VAE_SANITIZE)
    target_compile_options(vae_options INTERFACE
        $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${VAE_SANITIZE} -fno-omit-frame-pointer
                                  -fno-sanitize-recover=all
                                  # These slow the compiler down, and most of what they find ends in
                                  # a report of AddressSanitizer as well.
                                  -fno-sanitize=null,vptr
                                  # g++ warns of impossible paths in code that it has instrumented.
                                  -Wno-stringop-overflow -Wno-maybe-uninitialized>)
    target_link_options(vae_options INTERFACE -fsanitize=${VAE_SANITIZE})
endif()
