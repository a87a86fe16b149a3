// The matrices of a product that is measured.
#pragma once

#include <cstddef>
#include <vector>

#include "host/gpu/device_array.h"
#include "host/gpu/matmul.h"

namespace vae::gpu {

// Whatever a product and any epilogue of it read or write, filled with random numbers: how fast a
// GPU multiplies depends on the values, and zeros would flatter it.
class ProductOperands {
  public:
    // One, or so many that the device's second-level cache does not hold them all, as it does not
    // hold all of a step, when products take one after the other: at least two.
    enum class Copies { one, beyond_cache };

    // Waits until all is there. Throws RunError when the device is full, kernels::CudaError when it
    // fails.
    ProductOperands(const MatmulProduct& product, const Stream& stream,
                    Copies copies = Copies::one);

    const MatmulProduct& product() const { return product_; }
    std::size_t copies() const { return copies_.size(); }
    // As cuBLASLt names them; see run_plan().
    const void* a(std::size_t copy = 0) const { return copies_[copy].a.data(); }
    const void* b(std::size_t copy = 0) const { return copies_[copy].b.data(); }
    void* d(std::size_t copy = 0) { return copies_[copy].d.data(); }
    void* bias(std::size_t copy = 0) { return copies_[copy].bias.data(); }
    void* bits(std::size_t copy = 0) { return copies_[copy].bits.data(); }

    // The product by a plan of it, as run_plan() does.
    void multiply(cublasLtHandle_t handle, const MatmulLane& lane, MatmulPlan& plan,
                  std::size_t copy = 0);

  private:
    using Bytes = DeviceArray<unsigned char>;
    struct Copy {
        Bytes a;
        Bytes b;
        Bytes d;
        Bytes bias;
        Bytes bits;
    };
    Copy reserve();

    static constexpr const char* kUse = "the matrices of a measured product";
    MatmulProduct product_;
    DeviceArena arena_{kUse};
    std::vector<Copy> copies_;
};

}  // namespace vae::gpu
