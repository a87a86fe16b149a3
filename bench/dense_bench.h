// The benchmarks of hidden layers, whose names follow from what is computed and how.
#pragma once

namespace vae::bench {

// Registers them.
void add_dense_layers();

}  // namespace vae::bench
