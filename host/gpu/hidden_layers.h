// The hidden layers of an encoder or a decoder on the device: what they leave for their backward,
// and which way each of them is computed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "host/config.h"
#include "host/gpu/layer_products.h"
#include "host/gpu/real_array.h"
#include "kernels/gated.h"
#include "kernels/scratch.h"

namespace vae::gpu {

// What of a ReLU layer are epilogues of cuBLASLt's products; the rest are plain products with our
// kernels between them.
struct LayerPlan {
    // h and its bits come from the layer's product.
    bool forward = false;
    // The gradient of the layer's product comes from the product of the layer behind it, by those
    // bits; its sums, which are the gradient of the bias, from the product of the weight's
    // gradient. Only if forward is.
    bool backward = false;

    // Products with an epilogue, of kLayerEpilogues.
    int epilogues() const { return (forward ? 1 : 0) + (backward ? 2 : 0); }
};
inline constexpr int kLayerEpilogues = 3;

struct HiddenShape {
    std::vector<DenseLayer> layers;
    DenseLayer behind;      // the layer that reads the last one's output
    int capacity = 0;       // rows, at most
    int training_rows = 0;  // of a training step
};

class HiddenLayers {
  public:
    // Products outlive the layers.
    HiddenLayers(const HiddenShape& shape, const Config& config, Storage storage,
                 LayerProducts& products, DeviceArena& arena);
    // Once the arena is allocated: decides what is fused in training steps. Passes of other rows
    // fuse of it what they can, and decide when they are first given to the stream, which does not
    // capture then. Throws RunError when cuBLASLt fails.
    void start();

    bool empty() const { return hidden_.empty(); }
    const RealArray& h(std::size_t layer) const { return hidden_[layer].h; }
    // What the layer behind reads, after forward: x if there are no layers.
    ConstReals output(ConstReals x) const { return empty() ? x : hidden_.back().h.get(); }
    // After backward, if there are layers.
    ConstReals first_d_product() const { return hidden_.front().product.get(); }
    // Of a training step; after start.
    const std::vector<LayerPlan>& plan() const { return training_plan_; }

    // x[rows, in] through all layers.
    void forward(ConstReals x, int rows);
    // From the gradient of the product of the layer behind to those of all layers' products,
    // weights and biases. After forward, whose x is still there; destroys its products.
    // d_h[rows, widest layer] is scratch.
    void backward(ConstReals x, ConstReals d_behind, int rows, Reals d_h,
                  const kernels::Scratch& scratch);

  private:
    // What a layer leaves for its backward.
    struct Hidden {
        RealArray product;  // [rows, product_width]: x·Wᵀ, without the bias; then its gradient
        RealArray h;        // [rows, out]: the layer's output
        DeviceArray<std::uint8_t> bits;  // [rows, relu_bits_pitch(out)] of h, if forward may be
                                         // fused
    };

    // Whether anything can be, whatever cuBLASLt says.
    bool may_fuse() const;
    // Whether a product with an epilogue is taken.
    bool takes(const MatmulProduct& product) const;
    // What of the wanted plan can be had for passes of so many rows.
    std::vector<LayerPlan> make_plan(std::vector<LayerPlan> wanted, int rows) const;
    const std::vector<LayerPlan>& plan_of(int rows);
    void activation_forward(std::size_t i, int rows);
    // From d_h to the gradient of the layer's product, in its place, and those of its biases.
    void activation_backward(std::size_t i, const LayerPlan& plan, int rows, ConstReals d_h,
                             const kernels::Scratch& scratch);
    kernels::GatedView gated_view(std::size_t i, int rows) const;

    const std::vector<DenseLayer> layers_;  // layers_[i] is behind layer i − 1
    const Activation activation_;
    const FusionPlan fusion_;
    const double most_backward_flops_;  // of a layer whose backward is fused where nobody asked
    const Storage storage_;
    const int training_rows_;
    LayerProducts& products_;
    std::vector<LayerPlan> training_plan_;
    std::map<int, std::vector<LayerPlan>> plans_;  // of other passes, by their rows
    std::vector<Hidden> hidden_;
};

}  // namespace vae::gpu
