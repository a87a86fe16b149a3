#include "host/gpu/layer_products.h"

namespace vae::gpu {
namespace {

kernels::DenseSize size_of(const DenseLayer& layer, int rows) {
    return {.rows = rows, .in = width(layer.in), .out = width(layer.product_width())};
}

kernels::DenseGate gate_of(const LayerProducts& products, const DenseLayer& layer) {
    return {.bias = products.parameter(layer.bias),
            .gate_bias = products.parameter(layer.gate_bias),
            .stride = width(layer.stride)};
}

}  // namespace

const MatmulLane& LayerProducts::beside() {
    weights_.fork();
    return Branch::is_measured() ? lane_ : weights_lane_;
}

void LayerProducts::forward(const DenseLayer& layer, ConstReals x, int rows, Reals product) const {
    matmul_.forward(lane_, x, operand(layer.weight), rows, width(layer.in),
                    width(layer.product_width()), product);
}

void LayerProducts::forward_relu(const DenseLayer& layer, ConstReals x, int rows, Reals h,
                                 std::uint8_t* bits) const {
    matmul_.forward_relu(lane_, x, operand(layer.weight), operand(layer.bias), rows,
                         width(layer.in), width(layer.out), h, bits);
}

void LayerProducts::backward_input(const DenseLayer& layer, ConstReals d_product, int rows,
                                   Reals d_x) const {
    matmul_.backward_input(lane_, d_product, operand(layer.weight), rows, width(layer.in),
                           width(layer.product_width()), d_x);
}

void LayerProducts::backward_input_relu(const DenseLayer& layer, ConstReals d_product,
                                        const std::uint8_t* bits, int rows, Reals d_x) const {
    matmul_.backward_input_relu(lane_, d_product, operand(layer.weight), bits, rows,
                                width(layer.in), width(layer.product_width()), d_x);
}

void LayerProducts::backward_weight(const DenseLayer& layer, ConstReals x, ConstReals d_product,
                                    int rows) {
    matmul_.backward_weight(beside(), d_product, x, rows, width(layer.in),
                            width(layer.product_width()), gradient(layer.weight));
}

void LayerProducts::backward_weight_bias(const DenseLayer& layer, ConstReals x,
                                         ConstReals d_product, int rows) {
    matmul_.backward_weight_bias(beside(), d_product, x, rows, width(layer.in), width(layer.out),
                                 gradient(layer.weight), gradient(layer.bias));
}

void LayerProducts::forward_fused(kernels::Activation f, const DenseLayer& layer, ConstReals x,
                                  int rows, Reals product, Reals h, bool is_first) const {
    kernels::dense_forward(f, float_factors_, size_of(layer, rows), x, operand(layer.weight),
                           parameter(layer.bias), product, h, {stream_.get(), !is_first});
}

void LayerProducts::forward_fused_gated(const DenseLayer& layer, ConstReals x, int rows,
                                        Reals product, Reals h, bool is_first) const {
    kernels::dense_gated_forward(
        float_factors_, {.rows = rows, .in = width(layer.in), .out = width(layer.out)}, x,
        operand(layer.weight), gate_of(*this, layer), product, h, {stream_.get(), !is_first});
}

void LayerProducts::backward_input_fused(kernels::Activation f, const DenseLayer& layer,
                                         ConstReals d_product, int rows, ConstReals before,
                                         const float* bias, Reals d_before) const {
    kernels::dense_backward(f, float_factors_, size_of(layer, rows), d_product,
                            operand(layer.weight), before, bias, d_before, early());
}

void LayerProducts::backward_input_fused_gated(const DenseLayer& layer, ConstReals d_product,
                                               int rows, const DenseLayer& before,
                                               Reals product) const {
    kernels::dense_gated_backward(float_factors_, size_of(layer, rows), d_product,
                                  operand(layer.weight), product, gate_of(*this, before), product,
                                  early());
}

void LayerProducts::backward_weight_fused(const DenseLayer& layer, ConstReals x,
                                          ConstReals d_product, int rows) {
    kernels::DenseBiasGradient d_bias = {.bias = gradient(layer.bias)};
    if (layer.is_gated()) {
        d_bias.gate_bias = gradient(layer.gate_bias);
        d_bias.outputs = width(layer.out);
        d_bias.stride = width(layer.stride);
    }
    kernels::dense_backward_weight(float_factors_, size_of(layer, rows), d_product, x,
                                   gradient(layer.weight), d_bias, beside().stream.get());
}

}  // namespace vae::gpu
