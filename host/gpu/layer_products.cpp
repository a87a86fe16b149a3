#include "host/gpu/layer_products.h"

namespace vae::gpu {

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

}  // namespace vae::gpu
