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

// How a hidden layer's bias and activation, or their backward, are computed.
enum class LayerWay {
    products,  // by a kernel behind cuBLASLt's plain product
    epilogue,  // inside of cuBLASLt's products, of ReLU alone
    fused,     // inside of products of ours
};

// A layer's two ways, of which any two go together, but for a backward by epilogues.
struct LayerPlan {
    // Where h comes from; of an epilogue its bits too, and nothing else.
    LayerWay forward = LayerWay::products;
    // Where the gradient of the layer's product comes from. But for `products` it is the product of
    // the layer behind it, and the gradient of the bias comes with that of the weight. Epilogues go
    // by the bits, and so only behind one.
    LayerWay backward = LayerWay::products;

    // Products that are computed this way, of kLayerProducts that have a choice.
    int products_by(LayerWay way) const {
        return (forward == way ? 1 : 0) + (backward == way ? 2 : 0);
    }

    bool operator==(const LayerPlan&) const = default;
};
inline constexpr int kLayerProducts = 3;

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
    // Once the arena is allocated: decides which ways training steps go, as train.plan says. Passes
    // of other rows take of their epilogues what they can, and decide when they are first given to
    // the stream, which does not capture then; all else is as in a step. Throws RunError when
    // cuBLASLt fails.
    void start();
    // The same from a wish for each layer, which no plan has so far: tests mix the ways. Epilogues
    // are taken as far as cuBLASLt has them; none where train.plan could have none.
    void start(const std::vector<LayerPlan>& wanted);

    bool empty() const { return hidden_.empty(); }
    const RealArray& h(std::size_t layer) const { return hidden_[layer].h; }
    // What the layer behind reads, after forward: x if there are no layers.
    ConstReals output(ConstReals x) const { return empty() ? x : hidden_.back().h.get(); }
    // After backward, if there are layers.
    ConstReals first_d_product() const { return hidden_.front().product.get(); }
    // Of a training step; after start.
    const std::vector<LayerPlan>& plan() const { return training_plan_; }

    // x[rows, in] through all layers. is_first: x was not made by a kernel of this pass.
    void forward(ConstReals x, int rows, bool is_first);
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
                                         // an epilogue
    };

    // The way of every layer, as far as cuBLASLt has it.
    LayerWay wanted_way() const;
    // Whether a product with an epilogue is taken; those of a layer forward, and of its backward.
    bool takes(const MatmulProduct& product) const;
    bool takes_forward(std::size_t i, int rows) const;
    bool takes_backward(std::size_t i, int rows) const;
    // The wanted plan, less the epilogues that cannot be had for passes of so many rows.
    std::vector<LayerPlan> make_plan(std::vector<LayerPlan> wanted, int rows) const;
    const std::vector<LayerPlan>& plan_of(int rows);
    void activation_forward(std::size_t i, int rows);
    // From d_h to the gradient of the layer's product, in its place, and those of its biases.
    void activation_backward(std::size_t i, LayerWay forward, int rows, ConstReals d_h,
                             const kernels::Scratch& scratch);
    // What the slope of an activation of one product is computed from: the product and the bias, or
    // h alone.
    struct Before {
        ConstReals values;
        const float* bias = nullptr;
    };
    Before before_activation(std::size_t i, LayerWay forward) const;
    // By products of ours.
    void fused_forward(std::size_t i, ConstReals x, int rows, bool is_first);
    void fused_backward(std::size_t i, LayerWay forward, ConstReals x, ConstReals d_behind,
                        int rows);
    // A step of backward, whose d_behind it takes to this layer's place for it; x is the layer's.
    void layer_backward(std::size_t i, const LayerPlan& plan, ConstReals x, ConstReals d_behind,
                        int rows, Reals d_h, const kernels::Scratch& scratch);
    kernels::GatedView gated_view(std::size_t i, int rows) const;

    const std::vector<DenseLayer> layers_;  // layers_[i] is behind layer i − 1
    const Activation activation_;
    const FusionPlan fusion_;
    const double most_backward_flops_;  // of a layer whose epilogues backward nobody asked for
    const Storage storage_;
    const int training_rows_;
    LayerProducts& products_;
    std::vector<LayerPlan> training_plan_;
    std::map<int, std::vector<LayerPlan>> plans_;  // of other passes, by their rows
    std::vector<Hidden> hidden_;
};

}  // namespace vae::gpu
