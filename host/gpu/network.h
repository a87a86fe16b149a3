// The model on the device: its arenas, what its passes leave, and the forward and backward passes
// as a sequence of matrix products and kernels on one stream, with the gradients of weights on
// another beside it.
#pragma once

#include <cstdint>
#include <vector>

#include "host/config.h"
#include "host/gpu/branch.h"
#include "host/gpu/device_array.h"
#include "host/gpu/hidden_layers.h"
#include "host/gpu/layer_products.h"
#include "host/gpu/likelihood.h"
#include "host/gpu/prior.h"
#include "host/gpu/real_array.h"
#include "host/gpu/resident_data.h"
#include "host/parameters.h"
#include "kernels/cholesky_posterior.h"
#include "kernels/loss_totals.h"
#include "kernels/objective.h"
#include "kernels/reparameterize.h"
#include "kernels/scratch.h"

namespace vae::gpu {

// Optional outputs of the encoder on the device; null: not written.
struct PosteriorOutputs {
    float* mu = nullptr;       // [examples, latent]
    float* logvar = nullptr;   // [examples, latent]
    float* tril = nullptr;     // [examples, heads.tril_size()]; of a full covariance alone
    float* epsilon = nullptr;  // [rows, latent]
};

// What the KL term weighs in the loss: the factor, times the beta of the step on the device if
// there is one.
struct KlWeight {
    double factor = 1;
    const kernels::StepState* state = nullptr;

    KlWeight times(double other) const { return {factor * other, state}; }
};

// A batch may be taken in parts, which give the step's gradient together.
struct StepPart {
    int step_examples = 0;  // of all parts
    bool is_first = true;   // a later one adds to the gradients that are there
};

// Which ways a training step goes.
struct StepPlan {
    std::vector<LayerPlan> layers;  // hidden ones, of the encoder and then of the decoder
    // In kernels of ours: the heads with the draw of z, and the gradient of z with theirs; the
    // decoder's output with its losses and their gradient.
    bool fuses_heads = false;
    bool fuses_output = false;

    // Products that could have a hidden layer's activation inside, and those of the last two that
    // are in kernels of ours; and those that are computed in a way.
    int fusible_products() const;
    int products_by(LayerWay way) const;

    bool operator==(const StepPlan&) const = default;

  private:
    // The gradient that the output's product passes on counts as the last hidden layer's.
    int fused_around_latents() const;
};

// Whether plan `fused` takes the heads, and the output, where the device has its kernels.
bool can_fuse_heads(const Config& config);
bool can_fuse_output(const Config& config);

// The hidden layers of both networks, for batches of up to `capacity` examples.
struct HiddenShapes {
    HiddenShape encoder;
    HiddenShape decoder;
};
// Throws InputError for more draws than there are numbers for.
HiddenShapes hidden_shapes(const Config& config, const ParameterLayout& layout, int capacity);

// An example has `samples` draws of z, which are neighbouring rows of what the decoder sees: rows =
// examples·samples. Training and evaluation take the objective's number of draws.
class Network {
  public:
    // Reserves everything for batches of up to `capacity` examples with the objective's draws. The
    // precision is not automatic.
    Network(const Config& config, const ParameterLayout& layout, int capacity, Precision precision,
            const Stream& stream, DeviceArena& arena);
    // Once the arena is allocated, before all else: parameters and gradients are zero.
    void start();

    // From now on the passes read these parameters, an arena of the layout: the network's own, as
    // at first, or others, as they are now.
    void read_parameters(const DeviceArray<float>& arena);
    // What is kept of parameters(), x() and z() in bf16 follows what others than the passes wrote
    // there; of x and z their first rows.
    void parameters_changed();
    void x_changed(int rows);
    void z_changed(int rows);

    // x() through the encoder to its heads.
    void encode(int examples);
    // After encode: the objective's draws, in z(), and what losses() and backward() need of them.
    void sample(int examples, const kernels::EpsilonSource& noise, const PosteriorOutputs& outputs);
    // After encode: other draws, examples·samples of at most draw_capacity(). Then z(),
    // draw_recon() and log_ratio() are theirs.
    void draw(int examples, int samples, const kernels::EpsilonSource& noise);
    // After encode: the posteriors alone.
    void posterior(int examples, const kernels::EpsilonSource& noise,
                   const PosteriorOutputs& outputs);
    // z() through the decoder to output_product(), without the output's bias.
    void decode(int rows);
    // What backward() needs of all three. With plan `fused` z() and kl() come with the heads'
    // product, and output_product() is left to backward(), where kernels of ours can have them.
    void forward(int examples, const kernels::EpsilonSource& noise,
                 const PosteriorOutputs& outputs);
    // After forward: output_product(), if it was left to backward().
    void complete_output(int rows);
    // After encode and decode: recon(), kl() and loss() of each example.
    void losses(int examples, KlWeight beta);
    // x() becomes the likelihood's mean of output_product(), for at most decode_capacity() rows.
    void output_mean(int rows);
    // See OutputLikelihood.
    void keep_variance(const unsigned* is_taken, double ema_decay, float* ema) {
        likelihood_.keep_variance(is_taken, parameters_.data(), ema_decay, ema);
    }
    // output_product() gets its bias.
    void add_output_bias(int rows);
    // After forward, or after the other three: losses(), and the gradients of their mean over the
    // step's examples. Destroys output_product() and the products of hidden layers.
    // With sums, of a training step: adds the losses to them, and moves the running mean of the
    // score function's signal towards this step's.
    void backward(int examples, const kernels::EpsilonSource& noise, KlWeight beta,
                  const StepPart& part, kernels::LossSums* sums);

    const Matmul& matmul() const { return products_.matmul(); }
    StepPlan plan() const;  // after start
    int capacity() const { return capacity_; }
    int samples() const { return samples_; }
    int draw_capacity() const { return capacity_ * samples_; }  // rows of the decoder
    int decode_capacity() const { return decode_capacity_; }
    DeviceArray<float>& parameters() { return parameters_; }
    DeviceArray<float>& gradients() { return gradients_; }
    DeviceArray<float>& x() { return x_[x_in_use_]; }
    // After it the other of the two places for x is in use, where the next batch was put meanwhile.
    void swap_x() { x_in_use_ = 1 - x_in_use_; }
    // The place in use and the other one, as gather fills them.
    GatheredBatch batch() { return {x().data(), rounded_x_[x_in_use_].data()}; }
    GatheredBatch next_batch() {
        return {x_[1 - x_in_use_].data(), rounded_x_[1 - x_in_use_].data()};
    }
    // The parameters in bf16, for the optimiser to keep; null where the precision wants none.
    Bf16* rounded_parameters() { return rounded_parameters_.data(); }
    DeviceArray<float>& z() { return z_; }
    const DeviceArray<float>& draw_recon() const { return draw_recon_; }  // of each draw
    const DeviceArray<float>& log_ratio() const { return log_ratio_; }    // likewise
    const DeviceArray<float>& recon() const { return is_plain_ ? draw_recon_ : recon_; }
    const DeviceArray<float>& kl() const { return is_plain_ ? closed_kl_ : kl_; }
    // Null where it is recon + beta·kl.
    const float* loss() const { return loss_.data(); }
    DeviceArray<double>& running_mean() { return running_mean_; }
    DeviceArray<float>& output_product() { return output_product_; }
    const RealArray& encoder_h(std::size_t layer) const { return encoder_.h(layer); }
    const RealArray& decoder_h(std::size_t layer) const { return decoder_.h(layer); }

  private:
    void reserve_objective(std::size_t examples, std::size_t rows, DeviceArena& arena);
    // x() through the encoder's hidden layers, and the prior's pseudo-inputs with it.
    void encode_hidden(int examples);
    // From there to heads_product_ and the prior's components.
    void encode_heads(int examples);
    // From there to what sample() gives, in one kernel.
    void encode_and_sample(int examples, const kernels::EpsilonSource& noise,
                           const PosteriorOutputs& outputs);
    // From the decoder's hidden layers to output_product_.
    void output_forward(int rows);
    // From the gradient of the output's product to d_z_.
    void decoder_backward(int rows);
    // From d_heads_ on, where the prior's pseudo-inputs are the last rows.
    void encoder_backward(int rows);
    DecoderOutput decoder_output(int rows, int samples) const;
    // Where the draws' sums go, on the device; null: not written.
    struct DrawSums {
        float* kl = nullptr;         // in closed form, [examples]
        float* log_ratio = nullptr;  // [rows]
    };
    kernels::HeadsView heads_view(int examples, int samples) const;
    kernels::CholeskyHeads cholesky_heads(int examples, int samples) const;
    // From heads_product_ to z() and what else is asked for.
    void sample_posterior(int examples, int samples, const kernels::EpsilonSource& noise,
                          const PosteriorOutputs& outputs, const DrawSums& sums);
    // From d_z to d_heads_ and the gradients of the heads' biases.
    void posterior_backward(int examples, const kernels::EpsilonSource& noise,
                            const kernels::LatentGradient& of_draws);
    kernels::Objective objective() const;
    // Beside what follows: what becomes of a training step's losses.
    void total_losses(int examples, KlWeight beta, kernels::LossSums* sums);
    // kl_mask_ and loss_kl_.
    void apply_free_bits(int examples);
    void apply_objective(int examples, KlWeight beta);
    void likelihood_backward(int examples, KlWeight beta, int step_examples);
    const float* bias(const Tensor& tensor) const { return products_.parameter(tensor); }
    float* gradient(const Tensor& tensor) const { return products_.gradient(tensor); }
    // x(), or what the encoder sees instead.
    ConstReals encoder_input() const;
    ConstReals heads_input() const;
    ConstReals z_operand() const;
    ConstReals output_input() const;
    // Of the output's product: in its place, or apart where it is bf16.
    Reals d_output();

    const ModelConfig model_;
    const ObjectiveConfig objective_;
    const ParameterLayout layout_;
    const int capacity_;         // examples
    const int samples_;          // of an example
    const int decode_capacity_;  // rows whose mean x() has room for
    // One draw, the KL term in closed form and as it is, the gradient through z: there are no
    // weights, and each example's losses are its draw's.
    const bool is_plain_;
    const Storage storage_;  // of factors of products, and of hidden layers
    // In training, in kernels of ours: the heads with the draw of z, and the gradient of z with
    // theirs; the decoder's output with its losses and their gradient.
    const bool fuses_heads_;
    const bool fuses_output_;
    const Stream& stream_;
    LayerProducts products_;
    Branch losses_;  // their sums, for which only the step's end waits
    OutputLikelihood likelihood_;
    LearnedPrior prior_;

    DeviceArray<float> parameters_;
    DeviceArray<Bf16> rounded_parameters_;
    DeviceArray<Bf16> rounded_others_;  // of read_parameters
    DeviceArray<float> gradients_;
    DeviceArray<float> part_gradients_;  // of a batch's later parts, if it is taken in parts
    HiddenLayers encoder_;
    HiddenLayers decoder_;
    // Of the encoder: the examples, then the prior's pseudo-inputs, as the next two.
    DeviceArray<float> x_[2];         // [examples, pixels], or a decoder's means
    DeviceArray<Bf16> rounded_x_[2];  // where x is a factor of a product in bf16
    unsigned x_in_use_ = 0;
    RealArray log_counts_;               // [examples, pixels] of x, where the encoder sees them
    DeviceArray<float> heads_product_;   // [examples, heads.product_width()]
    RealArray d_heads_;                  // [examples, heads.product_width()]
    DeviceArray<float> closed_kl_;       // [examples]
    DeviceArray<float> z_;               // [rows, latent]
    DeviceArray<Bf16> rounded_z_;        // as rounded_x_
    DeviceArray<float> output_product_;  // [rows, layout.output.out]
    DeviceArray<Bf16> d_output_;         // likewise, of a gradient in bf16
    DeviceArray<float> draw_recon_;      // [rows]
    DeviceArray<float> log_ratio_;       // [rows]; a plain objective's training leaves it alone
    RealArray d_h_;                      // [rows, widest hidden layer]
    DeviceArray<float> d_z_;             // [rows, latent]
    // Of a full covariance, else empty: its draws, and their gradient.
    DeviceArray<float> epsilon_;        // [rows, latent]
    DeviceArray<float> draw_gradient_;  // [rows, latent]
    // Empty where nothing needs them: what the objective makes of the draws.
    DeviceArray<float> recon_;  // [examples], as the next
    DeviceArray<float> kl_;
    DeviceArray<float> loss_;
    DeviceArray<float> signal_;
    DeviceArray<float> loss_kl_;
    DeviceArray<float> kl_mask_;         // [latent]
    DeviceArray<float> decoder_weight_;  // [rows], as the next
    DeviceArray<float> path_weight_;
    DeviceArray<float> ratio_weight_;
    DeviceArray<float> score_weight_;
    DeviceArray<double> running_mean_;  // one
    DeviceArray<float> partials_;
    DeviceArray<unsigned> tickets_;
    kernels::Scratch scratch_;  // the two above
};

}  // namespace vae::gpu
