#include "host/gpu/hidden_layers.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "kernels/bias_activation.h"
#include "kernels/launch.h"

namespace vae::gpu {
namespace {

// In bf16 the kernels of cuBLASLt that have a ReLU's forward epilogue are those of the GPU's
// generation, but of those with the backward ones at least the bias gradient's are of compute
// capability 8.0, by their names in the library of CUDA 13.0 (cutlass_80_tensorop_…_bgradb_bf16
// and, but on 10.0, …_drelu_bf16). On newer GPUs these reach perhaps 60 % of what plain products
// do, so a layer's backward gains by them only while what its two products lose is less than the
// kernel of ours that they save: 2 GFLOP lose about 2 µs on an H100, which is what a small kernel
// costs. An assumption, until it is measured.
constexpr int kFirstWithFasterProducts = 9;  // compute capability
constexpr double kMostBackwardFlops = 2e9;

bool has_faster_products() {
    int device = 0;
    int major = 0;
    kernels::cuda_check(cudaGetDevice(&device), "cudaGetDevice");
    kernels::cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
                        "cudaDeviceGetAttribute");
    return major >= kFirstWithFasterProducts;
}

kernels::Activation kernel_activation(Activation activation) {
    switch (activation) {
        case Activation::relu:
            return kernels::Activation::relu;
        case Activation::tanh:
            return kernels::Activation::tanh;
        case Activation::softplus:
            return kernels::Activation::softplus;
        case Activation::gelu:
            return kernels::Activation::gelu;
        case Activation::silu:
            return kernels::Activation::silu;
        case Activation::gated:
            break;
    }
    throw std::logic_error("an activation without a kernel");
}

std::vector<DenseLayer> with_behind(std::vector<DenseLayer> layers, const DenseLayer& behind) {
    layers.push_back(behind);
    return layers;
}

}  // namespace

HiddenLayers::HiddenLayers(const HiddenShape& shape, const Config& config, Storage storage,
                           LayerProducts& products, DeviceArena& arena)
    : layers_(with_behind(shape.layers, shape.behind)),
      activation_(config.model.activation),
      fusion_(config.train.plan),
      most_backward_flops_(has_faster_products() ? kMostBackwardFlops
                                                 : std::numeric_limits<double>::infinity()),
      storage_(storage),
      training_rows_(shape.training_rows),
      products_(products) {
    const auto rows = static_cast<std::size_t>(shape.capacity);
    for (const DenseLayer& layer : shape.layers) {
        Hidden& hidden = hidden_.emplace_back();
        hidden.product = {arena, rows * layer.product_width(), storage, "a hidden layer"};
        hidden.h = {arena, rows * layer.out, storage, "a hidden layer's activations"};
        if (wanted_way() != LayerWay::epilogue) continue;
        const auto pitch = static_cast<std::size_t>(relu_bits_pitch(width(layer.out)));
        hidden.bits = {arena, rows * pitch, "the bits of a hidden layer's activations"};
    }
}

LayerWay HiddenLayers::wanted_way() const {
    switch (fusion_) {
        case FusionPlan::cublas:
            return LayerWay::products;
        case FusionPlan::fused:
            return LayerWay::fused;
        case FusionPlan::automatic:
        case FusionPlan::epilogue:
            break;
    }
    return activation_ == Activation::relu ? LayerWay::epilogue : LayerWay::products;
}

void HiddenLayers::start() {
    start(std::vector<LayerPlan>(hidden_.size(), {wanted_way(), wanted_way()}));
}

void HiddenLayers::start(const std::vector<LayerPlan>& wanted) {
    plans_.clear();
    training_plan_ = make_plan(wanted, training_rows_);
}

bool HiddenLayers::takes(const MatmulProduct& product) const {
    const Matmul& matmul = products_.matmul();
    if (fusion_ == FusionPlan::epilogue) return matmul.has(product);
    return matmul.is_fused(products_.lane(), product);
}

bool HiddenLayers::takes_forward(std::size_t i, int rows) const {
    return takes({.kind = MatmulKind::forward,
                  .types = products_.matmul().types_of(storage_, storage_),
                  .epilogue = MatmulEpilogue::bias_relu,
                  .rows = rows,
                  .in = width(layers_[i].in),
                  .out = width(layers_[i].out)});
}

bool HiddenLayers::takes_backward(std::size_t i, int rows) const {
    const Matmul& matmul = products_.matmul();
    const MatmulProduct d_input = {.kind = MatmulKind::backward_input,
                                   .types = matmul.types_of(storage_, storage_),
                                   .epilogue = MatmulEpilogue::relu_backward,
                                   .rows = rows,
                                   .in = width(layers_[i].out),
                                   .out = width(layers_[i + 1].product_width())};
    const MatmulProduct d_weight = {.kind = MatmulKind::backward_weight,
                                    .types = matmul.types_of(storage_, Storage::fp32),
                                    .epilogue = MatmulEpilogue::bias_gradient,
                                    .rows = rows,
                                    .in = width(layers_[i].in),
                                    .out = width(layers_[i].out)};
    const bool gains = fusion_ == FusionPlan::epilogue ||
                       d_input.flops() + d_weight.flops() <= most_backward_flops_;
    // Without both of them our kernel has to go through the gradient after all.
    return gains && takes(d_input) && takes(d_weight);
}

std::vector<LayerPlan> HiddenLayers::make_plan(std::vector<LayerPlan> wanted, int rows) const {
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        LayerPlan& plan = wanted[i];
        if (plan.forward == LayerWay::epilogue && !takes_forward(i, rows)) {
            plan.forward = LayerWay::products;
        }
        if (plan.backward != LayerWay::epilogue) continue;
        if (plan.forward != LayerWay::epilogue || !takes_backward(i, rows)) {
            plan.backward = LayerWay::products;
        }
    }
    return wanted;
}

const std::vector<LayerPlan>& HiddenLayers::plan_of(int rows) {
    const auto has_epilogue = [](const LayerPlan& plan) {
        return plan.forward == LayerWay::epilogue;
    };
    if (rows == training_rows_ ||
        std::none_of(training_plan_.begin(), training_plan_.end(), has_epilogue)) {
        return training_plan_;
    }
    const auto found = plans_.find(rows);
    if (found != plans_.end()) return found->second;
    return plans_[rows] = make_plan(training_plan_, rows);
}

kernels::GatedView HiddenLayers::gated_view(std::size_t i, int rows) const {
    const DenseLayer& layer = layers_[i];
    return {.product = hidden_[i].product.get(),
            .bias = products_.parameter(layer.bias),
            .gate_bias = products_.parameter(layer.gate_bias),
            .rows = rows,
            .cols = width(layer.out),
            .stride = width(layer.stride)};
}

void HiddenLayers::activation_forward(std::size_t i, int rows) {
    const DenseLayer& layer = layers_[i];
    Hidden& hidden = hidden_[i];
    cudaStream_t stream = products_.stream().get();
    if (layer.is_gated()) {
        kernels::gated_forward(gated_view(i, rows), hidden.h.get(), stream);
    } else {
        kernels::bias_activation_forward(kernel_activation(activation_), hidden.product.get(),
                                         products_.parameter(layer.bias), rows, width(layer.out),
                                         hidden.h.get(), stream);
    }
}

HiddenLayers::Before HiddenLayers::before_activation(std::size_t i, LayerWay forward) const {
    // An epilogue left the product's place alone.
    if (forward == LayerWay::epilogue) return {hidden_[i].h.get()};
    return {hidden_[i].product.get(), products_.parameter(layers_[i].bias)};
}

void HiddenLayers::activation_backward(std::size_t i, LayerWay forward, int rows, ConstReals d_h,
                                       const kernels::Scratch& scratch) {
    const DenseLayer& layer = layers_[i];
    Hidden& hidden = hidden_[i];
    const Reals product = hidden.product.get();
    float* const d_bias = products_.gradient(layer.bias);
    cudaStream_t stream = products_.stream().get();
    if (layer.is_gated()) {
        kernels::gated_backward(gated_view(i, rows), d_h, product, d_bias,
                                products_.gradient(layer.gate_bias), scratch, stream);
        return;
    }
    const Before before = before_activation(i, forward);
    kernels::bias_activation_backward(kernel_activation(activation_), before.values, before.bias,
                                      d_h, rows, width(layer.out), product, d_bias, scratch,
                                      stream);
}

void HiddenLayers::fused_forward(std::size_t i, ConstReals x, int rows, bool is_first) {
    const DenseLayer& layer = layers_[i];
    Hidden& hidden = hidden_[i];
    if (layer.is_gated()) {
        products_.forward_fused_gated(layer, x, rows, hidden.product.get(), hidden.h.get(),
                                      is_first);
    } else {
        products_.forward_fused(kernel_activation(activation_), layer, x, rows,
                                hidden.product.get(), hidden.h.get(), is_first);
    }
}

void HiddenLayers::fused_backward(std::size_t i, LayerWay forward, ConstReals x,
                                  ConstReals d_behind, int rows) {
    const DenseLayer& layer = layers_[i];
    const DenseLayer& behind = layers_[i + 1];
    const Reals d_product = hidden_[i].product.get();
    if (layer.is_gated()) {
        products_.backward_input_fused_gated(behind, d_behind, rows, layer, d_product);
    } else {
        const Before before = before_activation(i, forward);
        products_.backward_input_fused(kernel_activation(activation_), behind, d_behind, rows,
                                       before.values, before.bias, d_product);
    }
    products_.backward_weight_fused(layer, x, d_product, rows);
}

void HiddenLayers::forward(ConstReals x, int rows, bool is_first) {
    const std::vector<LayerPlan>& plans = plan_of(rows);
    for (std::size_t i = 0; i < hidden_.size(); ++i) {
        const DenseLayer& layer = layers_[i];
        Hidden& hidden = hidden_[i];
        switch (plans[i].forward) {
            case LayerWay::products:
                products_.forward(layer, x, rows, hidden.product.get());
                activation_forward(i, rows);
                break;
            case LayerWay::epilogue:
                products_.forward_relu(layer, x, rows, hidden.h.get(), hidden.bits.data());
                break;
            case LayerWay::fused:
                fused_forward(i, x, rows, is_first && i == 0);
                break;
        }
        x = hidden.h.get();
    }
}

void HiddenLayers::backward(ConstReals x, ConstReals d_behind, int rows, Reals d_h,
                            const kernels::Scratch& scratch) {
    const std::vector<LayerPlan>& plans = plan_of(rows);
    for (std::size_t i = hidden_.size(); i-- > 0;) {
        const ConstReals input = i == 0 ? x : hidden_[i - 1].h.get();
        layer_backward(i, plans[i], input, d_behind, rows, d_h, scratch);
        d_behind = hidden_[i].product.get();
    }
}

void HiddenLayers::layer_backward(std::size_t i, const LayerPlan& plan, ConstReals x,
                                  ConstReals d_behind, int rows, Reals d_h,
                                  const kernels::Scratch& scratch) {
    const DenseLayer& layer = layers_[i];
    const DenseLayer& behind = layers_[i + 1];
    const Reals d_product = hidden_[i].product.get();
    switch (plan.backward) {
        case LayerWay::products:
            products_.backward_input(behind, d_behind, rows, d_h);
            activation_backward(i, plan.forward, rows, d_h, scratch);
            products_.backward_weight(layer, x, d_product, rows);
            break;
        case LayerWay::epilogue:
            products_.backward_input_relu(behind, d_behind, hidden_[i].bits.data(), rows,
                                          d_product);
            products_.backward_weight_bias(layer, x, d_product, rows);
            break;
        case LayerWay::fused:
            fused_backward(i, plan.forward, x, d_behind, rows);
            break;
    }
}

}  // namespace vae::gpu
