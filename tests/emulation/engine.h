// Executes kernels: block after block, and in a block a fiber for each CUDA thread that waits.
// Everything happens on the OS thread that calls, one kernel at a time.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "random.h"

namespace emulation {

// A kernel with its arguments, copied when it was launched.
struct Kernel {
    std::string name;
    const void* function = nullptr;
    const KernelSignature* signature = nullptr;
    dim3 grid;
    dim3 block;
    std::size_t shared_bytes = 0;
    // May begin before what is ahead of it has ended, so that each thread must ask for that end.
    bool is_programmatic = false;
    std::vector<std::shared_ptr<const void>> arguments;  // one a parameter
};

// In which order the blocks of a grid and the threads of a block get their turns.
struct Turns {
    enum class Order { ascending, descending, random };
    Order order = Order::ascending;
    Random random;
};

// Runs the kernel to its end. Says what it died of, for people; empty when it finished.
std::string execute(const Kernel& kernel, Turns& turns);

// Whether a kernel is executing, so that the caller is device code.
bool is_executing();

}  // namespace emulation
