// Found before the real header of this name. The real one gives all prototypes and types; kernels
// are launched through a template of our own, which also tells how a kernel is called; and what a
// compiler for devices has built in is added.
#pragma once
#pragma GCC system_header  // #include_next is an extension of the compiler

#define cudaLaunchKernelEx cudaLaunchKernelEx_of_the_real_header
#include_next <cuda_runtime.h>
#undef cudaLaunchKernelEx

#include <array>
#include <type_traits>
#include <utility>

#include "device_builtins.h"
#include "device_engine.h"
#include "device_math.h"

namespace emulation {

template <class... Parameters>
struct SignatureOf {
    using Function = void (*)(Parameters...);

    static_assert((std::is_trivially_copyable_v<Parameters> && ...),
                  "kernel arguments are copied byte by byte");

    template <std::size_t... I>
    static void call_with(Function kernel, const void* const* arguments,
                          std::index_sequence<I...>) {
        kernel(*static_cast<const Parameters*>(arguments[I])...);
    }
    static void call(const void* kernel, const void* const* arguments) {
        call_with(reinterpret_cast<Function>(const_cast<void*>(kernel)), arguments,
                  std::index_sequence_for<Parameters...>());
    }

    static constexpr std::array<std::size_t, sizeof...(Parameters) + 1> kSizes = {
        sizeof(Parameters)..., 0};
    static constexpr std::array<bool, sizeof...(Parameters) + 1> kArePointers = {
        std::is_pointer_v<Parameters>..., false};
    static constexpr KernelSignature kValue = {&call, sizeof...(Parameters), kSizes.data(),
                                               kArePointers.data()};
};

}  // namespace emulation

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
    const void* function = reinterpret_cast<const void*>(kernel);
    emulation::remember_signature(function, emulation::SignatureOf<Parameters...>::kValue);
    return [&](Parameters... converted) {
        std::array<void*, sizeof...(Parameters) + 1> pointers = {
            const_cast<void*>(static_cast<const void*>(&converted))..., nullptr};
        return cudaLaunchKernelExC(config, function, pointers.data());
    }(std::forward<Arguments>(arguments)...);
}
