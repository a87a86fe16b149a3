// What all layers of a network on the device do alike: their matrix products and those of their
// gradients, on the network's stream and, for what only the step's end waits for, beside it; and
// where their parameters and gradients are.
#pragma once

#include <cstddef>
#include <cstdint>

#include "host/gpu/branch.h"
#include "host/gpu/matmul.h"
#include "host/parameters.h"
#include "kernels/dense.h"

namespace vae::gpu {

// A layer's size as kernels take it. ParameterLayout refuses those that do not fit.
inline int width(std::size_t size) {
    return static_cast<int>(size);
}

// Arrays [rows, columns] have `rows` examples or draws; products are as wide as the layer's
// product_width().
class LayerProducts {
  public:
    // The precision is not automatic. Throws RunError when cuBLASLt fails.
    LayerProducts(Precision precision, const Stream& stream, DeviceArena& arena)
        : stream_(stream),
          float_factors_(precision == Precision::fp32 ? kernels::FloatFactors::two_tf32
                                                      : kernels::FloatFactors::tf32),
          lane_(stream, arena),
          matmul_(precision),
          weights_(stream),
          weights_lane_(weights_.own_stream(), arena) {}

    // From now on: parameters, the same as factors of products, and gradients, each an arena.
    void read(const float* parameters, ConstReals operands) {
        parameters_ = parameters;
        operands_ = operands;
    }
    void write(float* gradients) { gradients_ = gradients; }

    const Matmul& matmul() const { return matmul_; }
    // How kernels of ours take floats as factors.
    kernels::FloatFactors float_factors() const { return float_factors_; }
    const MatmulLane& lane() const { return lane_; }
    const Stream& stream() const { return stream_; }
    const float* parameters() const { return parameters_; }
    float* gradients() const { return gradients_; }
    ConstReals operands() const { return operands_; }
    const float* parameter(const Tensor& tensor) const { return parameters_ + tensor.offset; }
    ConstReals operand(const Tensor& tensor) const { return operands_.from(tensor.offset); }
    float* gradient(const Tensor& tensor) const { return gradients_ + tensor.offset; }

    // product ← x·Wᵀ
    void forward(const DenseLayer& layer, ConstReals x, int rows, Reals product) const;
    // h ← max(x·Wᵀ + b, 0), and its bits
    void forward_relu(const DenseLayer& layer, ConstReals x, int rows, Reals h,
                      std::uint8_t* bits) const;
    // d_x ← d_product·W
    void backward_input(const DenseLayer& layer, ConstReals d_product, int rows, Reals d_x) const;
    // The same, but 0 where the bits of x, which a ReLU made, are not set.
    void backward_input_relu(const DenseLayer& layer, ConstReals d_product,
                             const std::uint8_t* bits, int rows, Reals d_x) const;
    // The gradient of the weight, beside what follows: x and d_product stay as they are until
    // join().
    void backward_weight(const DenseLayer& layer, ConstReals x, ConstReals d_product, int rows);
    // Likewise, and the gradient of the bias, the sums of d_product over rows.
    void backward_weight_bias(const DenseLayer& layer, ConstReals x, ConstReals d_product,
                              int rows);

    // The same by products of ours, where the device has them: see kernels/dense.h. All but a
    // pass's first, and but those of weights, start early: what is ahead in the stream then writes
    // no parameters, and began when those that do were done.
    //
    // product ← x·Wᵀ and h ← f(product + b)
    void forward_fused(kernels::Activation f, const DenseLayer& layer, ConstReals x, int rows,
                       Reals product, Reals h, bool is_first) const;
    // Likewise of a gated layer, but for the product's padding.
    void forward_fused_gated(const DenseLayer& layer, ConstReals x, int rows, Reals product,
                             Reals h, bool is_first) const;
    // d_before ← (d_product·W) · f'(before + bias), of the hidden layer whose output is x
    void backward_input_fused(kernels::Activation f, const DenseLayer& layer, ConstReals d_product,
                              int rows, ConstReals before, const float* bias, Reals d_before) const;
    // Likewise of a gated layer `before`, whose product its gradient takes the place of.
    void backward_input_fused_gated(const DenseLayer& layer, ConstReals d_product, int rows,
                                    const DenseLayer& before, Reals product) const;
    // As backward_weight_bias, of a gated layer too.
    void backward_weight_fused(const DenseLayer& layer, ConstReals x, ConstReals d_product,
                               int rows);

    // Where products of ours run that are not a pass's first.
    kernels::DenseStream early() const { return {stream_.get(), true}; }

    // What follows sees all gradients.
    void join() { weights_.join(); }

  private:
    // Where to put what runs beside the trunk.
    const MatmulLane& beside();

    const Stream& stream_;
    const kernels::FloatFactors float_factors_;
    const MatmulLane lane_;  // of stream_
    const Matmul matmul_;
    Branch weights_;
    const MatmulLane weights_lane_;
    const float* parameters_ = nullptr;
    ConstReals operands_;
    float* gradients_ = nullptr;
};

}  // namespace vae::gpu
