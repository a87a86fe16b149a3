#include "host/gpu/network.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "host/backend.h"
#include "host/gpu/heads_layer.h"
#include "host/output_layer.h"
#include "kernels/convert.h"
#include "kernels/poisson.h"

namespace vae::gpu {
namespace {

// The widest gradient that passes from one layer to the one before it.
std::size_t widest_hidden(const ParameterLayout& layout) {
    std::size_t result = 0;
    for (const DenseLayer& layer : layout.encoder) result = std::max(result, layer.out);
    for (const DenseLayer& layer : layout.decoder) result = std::max(result, layer.out);
    return result;
}

// The widest array that a kernel sums over, of hidden layers and heads.
std::size_t widest(const ParameterLayout& layout) {
    std::size_t result = layout.heads.product_width();
    for (const DenseLayer& layer : layout.encoder) result = std::max(result, layer.product_width());
    for (const DenseLayer& layer : layout.decoder) result = std::max(result, layer.product_width());
    return result;
}

// Rows of a decoder's means that are worth one call.
constexpr int kDecodeRows = 512;

// One draw, the KL term in closed form and as it is, the gradient through z.
bool is_plain(const ObjectiveConfig& effective) {
    return effective.samples == 1 && !effective.uses_log_ratio() && !effective.uses_free_bits() &&
           effective.gradient == EncoderGradient::pathwise;
}

int draws_of(int examples, int samples) {
    if (examples > std::numeric_limits<int>::max() / samples) {
        throw InputError(fmt::format(
            "{} examples of objective.samples = {} draws are too many at once; use a smaller "
            "train.batch",
            examples, samples));
    }
    return examples * samples;
}

}  // namespace

int StepPlan::fusible_products() const {
    return kLayerProducts * static_cast<int>(layers.size()) + fused_around_latents();
}

int StepPlan::products_by(LayerWay way) const {
    int count = way == LayerWay::fused ? fused_around_latents() : 0;
    for (const LayerPlan& plan : layers) count += plan.products_by(way);
    return count;
}

int StepPlan::fused_around_latents() const {
    return (fuses_heads ? kLayerProducts : 0) + (fuses_output ? kLayerProducts - 1 : 0);
}

bool can_fuse_heads(const Config& config) {
    return is_plain(effective_objective(config)) &&
           config.model.posterior == PosteriorCovariance::diagonal;
}

// The bound of importance weighting has all losses before any gradient.
bool can_fuse_output(const Config& config) {
    return config.model.likelihood == Likelihood::bernoulli &&
           config.objective.bound != Bound::iwae;
}

HiddenShapes hidden_shapes(const Config& config, const ParameterLayout& layout, int capacity) {
    const int samples = static_cast<int>(config.objective.samples);
    const int part_rows = width(config.train.part_rows());
    const int pseudo_inputs = LearnedPrior::encoder_rows(config.model);
    return {.encoder = {.layers = layout.encoder,
                        .behind = heads_as_layer(layout.heads),
                        .capacity = capacity + pseudo_inputs,
                        .training_rows = part_rows + pseudo_inputs},
            .decoder = {.layers = layout.decoder,
                        .behind = layout.output,
                        .capacity = draws_of(capacity, samples),
                        .training_rows = draws_of(part_rows, samples)}};
}

Network::Network(const Config& config, const ParameterLayout& layout, int capacity,
                 Precision precision, const Stream& stream, DeviceArena& arena)
    : model_(config.model),
      objective_(effective_objective(config)),
      layout_(layout),
      capacity_(capacity),
      samples_(static_cast<int>(config.objective.samples)),
      decode_capacity_(std::min(draws_of(capacity, samples_), std::max(capacity, kDecodeRows))),
      is_plain_(is_plain(objective_)),
      storage_(precision == Precision::bf16 ? Storage::bf16 : Storage::fp32),
      fuses_heads_(config.train.plan == FusionPlan::fused && can_fuse_heads(config)),
      fuses_output_(config.train.plan == FusionPlan::fused && can_fuse_output(config)),
      stream_(stream),
      products_(precision, stream, arena),
      losses_(stream),
      likelihood_(config.model, layout, draws_of(capacity, samples_), stream, arena),
      prior_(config.model, layout, draws_of(capacity, samples_), stream, arena),
      parameters_(arena, layout.arena_size, "the parameters"),
      gradients_(arena, layout.arena_size, "the gradients"),
      encoder_(hidden_shapes(config, layout, capacity).encoder, config, storage_, products_, arena),
      decoder_(hidden_shapes(config, layout, capacity).decoder, config, storage_, products_,
               arena) {
    const int draws = draws_of(capacity, samples_);
    const auto examples = static_cast<std::size_t>(capacity);
    const auto rows = static_cast<std::size_t>(draws);
    const int encoded_rows = capacity + prior_.encoder_rows();
    const auto encoded = static_cast<std::size_t>(encoded_rows);
    for (DeviceArray<float>& x : x_) {
        x = {arena,
             static_cast<std::size_t>(std::max(decode_capacity_, encoded_rows)) * layout.pixels,
             "the batch"};
    }
    const bool is_rounded = storage_ == Storage::bf16;
    if (encodes_log_counts(model_.likelihood)) {
        log_counts_ = {arena, encoded * layout.pixels, storage_, "the batch's logarithms"};
    } else if (is_rounded) {
        for (DeviceArray<Bf16>& x : rounded_x_) x = {arena, encoded * layout.pixels, "the batch"};
    }
    heads_product_ = {arena, encoded * layout.heads.product_width(), "the encoder's heads"};
    d_heads_ = {arena, encoded * layout.heads.product_width(), storage_, "the encoder's heads"};
    if (is_rounded) {
        rounded_parameters_ = {arena, layout.arena_size, "the parameters in bf16"};
        if (config.train.ema > 0)
            rounded_others_ = {arena, layout.arena_size, "the parameters in bf16"};
        rounded_z_ = {arena, rows * layout.heads.latent, "the latents"};
        d_output_ = {arena, rows * layout.output.out, "the gradient of the decoder's output"};
    }
    if (layout.heads.is_full()) {
        for (DeviceArray<float>* of_draws : {&epsilon_, &draw_gradient_}) {
            *of_draws = {arena, rows * layout.heads.latent, "the draws of the posterior"};
        }
    }
    closed_kl_ = {arena, examples, "the KL terms"};
    z_ = {arena, rows * layout.heads.latent, "the latents"};
    output_product_ = {arena, rows * layout.output.out, "the decoder's output"};
    draw_recon_ = {arena, rows, "the reconstruction terms"};
    log_ratio_ = {arena, rows, "the log-ratios of the draws"};
    d_h_ = {arena, std::max(rows, encoded) * widest_hidden(layout), storage_,
            "the gradients of the activations"};
    d_z_ = {arena, rows * layout.heads.latent, "the gradient of the latents"};
    if (!is_plain_) reserve_objective(examples, rows, arena);
    kernels::ScratchSize size =
        kernels::scratch_size(std::max(draws, encoded_rows), width(widest(layout)));
    for (const kernels::ScratchSize& other : {likelihood_.scratch_size(), prior_.scratch_size()}) {
        size = {std::max(size.partials, other.partials), std::max(size.tickets, other.tickets)};
    }
    partials_ = {arena, size.partials, "the partial sums"};
    tickets_ = {arena, size.tickets, "the partial sums' tickets"};
    if (config.train.micro_batches > 1) {
        part_gradients_ = {arena, layout.arena_size, "the gradients of a part of the batch"};
    }
}

void Network::start() {
    likelihood_.start();
    prior_.start();
    encoder_.start();
    decoder_.start();
    scratch_ = {partials_.data(), partials_.size(), tickets_.data(), tickets_.size()};
    parameters_.zero(stream_);
    read_parameters(parameters_);
    parameters_changed();
    // Padding is never written again: the optimiser must find zero there.
    gradients_.zero(stream_);
    part_gradients_.zero(stream_);
    tickets_.zero(stream_);
    running_mean_.zero(stream_);
}

void Network::read_parameters(const DeviceArray<float>& arena) {
    const bool is_own = arena.data() == parameters_.data();
    const bool is_rounded = storage_ == Storage::bf16;
    if (is_rounded && !is_own) {
        kernels::round_to_bf16(arena.data(), arena.size(), rounded_others_.data(), stream_.get());
    }
    ConstReals operands = arena.data();
    if (is_rounded) operands = is_own ? rounded_parameters_.data() : rounded_others_.data();
    products_.read(arena.data(), operands);  // after what may throw
}

StepPlan Network::plan() const {
    StepPlan plan = {
        .layers = encoder_.plan(), .fuses_heads = fuses_heads_, .fuses_output = fuses_output_};
    plan.layers.insert(plan.layers.end(), decoder_.plan().begin(), decoder_.plan().end());
    return plan;
}

void Network::parameters_changed() {
    if (storage_ == Storage::fp32) return;
    kernels::round_to_bf16(parameters_.data(), parameters_.size(), rounded_parameters_.data(),
                           stream_.get());
}

void Network::x_changed(int rows) {
    Bf16* const rounded = batch().rounded;
    if (rounded == nullptr) return;
    kernels::round_to_bf16(x().data(), static_cast<std::size_t>(rows) * layout_.pixels, rounded,
                           stream_.get());
}

void Network::z_changed(int rows) {
    if (rounded_z_.data() == nullptr) return;
    kernels::round_to_bf16(z_.data(), static_cast<std::size_t>(rows) * layout_.heads.latent,
                           rounded_z_.data(), stream_.get());
}

ConstReals Network::encoder_input() const {
    if (encodes_log_counts(model_.likelihood)) return log_counts_.get();
    if (storage_ == Storage::bf16) return rounded_x_[x_in_use_].data();
    return x_[x_in_use_].data();
}

ConstReals Network::heads_input() const {
    return encoder_.output(encoder_input());
}

ConstReals Network::z_operand() const {
    return storage_ == Storage::bf16 ? ConstReals(rounded_z_.data()) : ConstReals(z_.data());
}

ConstReals Network::output_input() const {
    return decoder_.output(z_operand());
}

Reals Network::d_output() {
    return storage_ == Storage::bf16 ? Reals(d_output_.data()) : Reals(output_product_.data());
}

kernels::HeadsView Network::heads_view(int examples, int samples) const {
    return {.product = heads_product_.data(),
            .mu_bias = bias(layout_.heads.mu_bias),
            .logvar_bias = bias(layout_.heads.logvar_bias),
            .examples = examples,
            .samples = samples,
            .latent = width(layout_.heads.latent),
            .stride = width(layout_.heads.stride),
            .logvar_min = static_cast<float>(model_.logvar_min),
            .logvar_max = static_cast<float>(model_.logvar_max)};
}

void Network::encode(int examples) {
    encode_hidden(examples);
    encode_heads(examples);
}

void Network::encode_hidden(int examples) {
    if (encodes_log_counts(model_.likelihood)) {
        kernels::log_counts(x().data(), examples, width(layout_.pixels), log_counts_.get(),
                            stream_.get());
    }
    const int rows = examples + prior_.encoder_rows();
    const auto first = static_cast<std::size_t>(examples);  // of the pseudo-inputs
    if (storage_ == Storage::bf16) {
        prior_.copy_pseudo_inputs(products_.operands(),
                                  Reals(batch().rounded).from(first * layout_.pixels));
    } else {
        prior_.copy_pseudo_inputs(products_.operands(), x().data() + first * layout_.pixels);
    }
    encoder_.forward(encoder_input(), rows, true);
}

void Network::encode_heads(int examples) {
    const Heads& heads = layout_.heads;
    products_.forward(heads_as_layer(heads), heads_input(), examples + prior_.encoder_rows(),
                      heads_product_.data());
    prior_.set_components(
        products_.parameters(),
        heads_product_.data() + static_cast<std::size_t>(examples) * heads.product_width());
}

void Network::forward(int examples, const kernels::EpsilonSource& noise,
                      const PosteriorOutputs& outputs) {
    encode_hidden(examples);
    if (fuses_heads_) {
        encode_and_sample(examples, noise, outputs);
    } else {
        encode_heads(examples);
        sample(examples, noise, outputs);
    }
    const int rows = examples * samples_;
    decoder_.forward(z_operand(), rows, false);
    if (!fuses_output_) output_forward(rows);
}

void Network::complete_output(int rows) {
    if (fuses_output_) output_forward(rows);
}

void Network::output_forward(int rows) {
    products_.forward(layout_.output, output_input(), rows, output_product_.data());
}

void Network::sample(int examples, const kernels::EpsilonSource& noise,
                     const PosteriorOutputs& outputs) {
    sample_posterior(examples, samples_, noise, outputs,
                     {closed_kl_.data(), is_plain_ ? nullptr : log_ratio_.data()});
}

void Network::draw(int examples, int samples, const kernels::EpsilonSource& noise) {
    const int rows = examples * samples;
    sample_posterior(examples, samples, noise, {}, {nullptr, log_ratio_.data()});
    decode(rows);
    likelihood_.recon(decoder_output(rows, samples), products_.parameters(), scratch_,
                      draw_recon_.data());
}

void Network::posterior(int examples, const kernels::EpsilonSource& noise,
                        const PosteriorOutputs& outputs) {
    sample_posterior(examples, 1, noise, outputs, {});
}

void Network::decode(int rows) {
    decoder_.forward(z_operand(), rows, true);
    output_forward(rows);
}

DecoderOutput Network::decoder_output(int rows, int samples) const {
    return {.product = output_product_.data(),
            .x = x_[x_in_use_].data(),
            .rows = rows,
            .samples = samples};
}

void Network::output_mean(int rows) {
    likelihood_.mean(decoder_output(rows, 1), products_.parameters(), x().data());
}

void Network::add_output_bias(int rows) {
    likelihood_.outputs(decoder_output(rows, 1), products_.parameters(), output_product_.data());
}

}  // namespace vae::gpu
