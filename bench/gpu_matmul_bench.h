// The benchmarks of matrix products, whose names follow from the workloads.
#pragma once

namespace vae::bench {

// Registers them. Needs a device; throws kernels::CudaError and RunError.
void add_products();

}  // namespace vae::bench
