#include "host/parameters.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "host/error.h"
#include "host/noise.h"
#include "host/output_layer.h"

namespace vae {
namespace {

constexpr std::size_t kAlignment = 64;  // elements: 256 bytes of float
constexpr std::size_t kPairRows = 8;    // of either of two joint weights, a multiple of this
constexpr std::size_t kLargest = std::numeric_limits<std::int32_t>::max();

std::size_t aligned(std::size_t elements) {
    return (elements + kAlignment - 1) / kAlignment * kAlignment;
}

void check_width(std::size_t width, const std::string& name) {
    if (width == 0) {
        throw InputError(fmt::format("{} is 0: a layer needs at least one unit", name));
    }
    if (width > kLargest) {
        throw InputError(
            fmt::format("{} is {}: a layer has at most {} units", name, width, kLargest));
    }
}

// What stands below the diagonal of a posterior's Cholesky factor.
std::size_t tril_rows(const ModelConfig& model) {
    if (model.posterior != PosteriorCovariance::full) return 0;
    if (model.latent > kMostFullLatent) {
        throw InputError(
            fmt::format("model.latent is {}: a full covariance has at most {} dimensions",
                        model.latent, kMostFullLatent));
    }
    return std::size_t{model.latent} * (model.latent - 1) / 2;
}

// Hands out places in the arena, one after the other.
class Arena {
  public:
    // `reserved` elements, at least the tensor's size.
    Tensor place(std::string name, std::vector<std::size_t> shape, std::size_t reserved = 0) {
        Tensor tensor{std::move(name), std::move(shape), end_, 1};
        for (const std::size_t extent : tensor.shape) tensor.size *= extent;
        end_ += aligned(std::max(tensor.size, reserved));
        // Each extent is below 2^31 (check_width), so neither product nor sum wraps before this.
        if (tensor.size > kLargest || end_ > kLargest) {
            throw InputError(
                fmt::format("the network is too large: with {} it has more than {} parameters; "
                            "use fewer or narrower layers",
                            tensor.name, kLargest));
        }
        return tensor;
    }

    DenseLayer dense(const std::string& name, std::size_t in, std::size_t out) {
        DenseLayer layer;
        layer.in = in;
        layer.out = out;
        layer.weight = place(name + ".weight", {out, in});
        layer.bias = place(name + ".bias", {out});
        return layer;
    }

    DenseLayer gated(const std::string& name, std::size_t in, std::size_t out) {
        const Pair pair = joint(name, name + ".gate", in, out, {});
        return {in,
                out,
                pair.first_weight,
                pair.first_bias,
                pair.stride,
                pair.second_weight,
                pair.second_bias};
    }

    // tril: rows of a third weight of the joint matrix, 0 for none.
    Heads heads(std::size_t in, std::size_t latent, std::size_t tril) {
        const Third third{"encoder.tril", tril, (tril + kPairRows - 1) / kPairRows * kPairRows};
        const Pair pair = joint("encoder.mu", "encoder.logvar", in, latent, third);
        return {in,
                latent,
                pair.stride,
                pair.first_weight,
                pair.first_bias,
                pair.second_weight,
                pair.second_bias,
                third.stride,
                pair.third_weight,
                pair.third_bias};
    }

    std::size_t end() const { return end_; }

  private:
    // A third one, of rows of its own, behind a pair; stride 0: none.
    struct Third {
        std::string name;
        std::size_t rows = 0;
        std::size_t stride = 0;
    };

    // Two linear maps of one input whose weights are one matrix of 2·stride rows, and a third's.
    struct Pair {
        std::size_t stride = 0;
        Tensor first_weight;
        Tensor second_weight;
        Tensor third_weight;
        Tensor first_bias;
        Tensor second_bias;
        Tensor third_bias;
    };

    Pair joint(const std::string& first, const std::string& second, std::size_t in, std::size_t out,
               const Third& third) {
        const std::size_t step = std::lcm(kAlignment / std::gcd(in, kAlignment), kPairRows);
        Pair pair;
        // NOLINTNEXTLINE(clang-analyzer-core.DivideZero): step is a multiple of positive numbers
        pair.stride = (out + step - 1) / step * step;
        pair.first_weight = place(first + ".weight", {out, in}, pair.stride * in);
        pair.second_weight = place(second + ".weight", {out, in}, pair.stride * in);
        if (third.stride > 0) {
            pair.third_weight = place(third.name + ".weight", {third.rows, in}, third.stride * in);
        }
        pair.first_bias = place(first + ".bias", {out});
        pair.second_bias = place(second + ".bias", {out});
        if (third.stride > 0) pair.third_bias = place(third.name + ".bias", {third.rows});
        return pair;
    }

    std::size_t end_ = 0;
};

// Half the width of the uniform distribution, or the normal's standard deviation; 0 is zero.
double spread(Initialization initialization, bool bias, std::size_t in, std::size_t out) {
    const auto fan_in = static_cast<double>(in);
    switch (initialization) {
        case Initialization::pytorch:
            return 1 / std::sqrt(fan_in);
        case Initialization::glorot:
            return bias ? 0 : std::sqrt(6 / (fan_in + static_cast<double>(out)));
        case Initialization::he:
            return bias ? 0 : std::sqrt(2 / fan_in);
    }
    return 0;
}

}  // namespace

ParameterLayout::ParameterLayout(const ModelConfig& model, std::size_t x_pixels)
    : pixels(x_pixels), arena_size(0) {
    check_width(pixels, "the number of pixels of an example");
    check_width(model.latent, "model.latent");
    Arena arena;
    const auto hidden = [&](const std::string& name, std::size_t in, std::size_t out) {
        return model.activation == Activation::gated ? arena.gated(name, in, out)
                                                     : arena.dense(name, in, out);
    };
    std::size_t in = pixels;
    for (std::size_t i = 0; i < model.encoder_hidden.size(); ++i) {
        check_width(model.encoder_hidden[i], fmt::format("model.encoder_hidden[{}]", i));
        encoder.push_back(hidden(fmt::format("encoder.{}", i), in, model.encoder_hidden[i]));
        in = encoder.back().out;
    }
    heads = arena.heads(in, model.latent, tril_rows(model));
    in = model.latent;
    for (std::size_t i = 0; i < model.decoder_hidden.size(); ++i) {
        check_width(model.decoder_hidden[i], fmt::format("model.decoder_hidden[{}]", i));
        decoder.push_back(hidden(fmt::format("decoder.{}", i), in, model.decoder_hidden[i]));
        in = decoder.back().out;
    }
    const std::size_t outputs = output_count(model, pixels);
    check_width(outputs, "the number of the decoder's outputs");
    output = arena.dense("decoder.out", in, outputs);
    if (has_logvar(model)) output_logvar = arena.place("decoder.logvar", {1});
    const std::size_t components = model.prior_components;
    if (model.prior == Prior::mixture) {
        check_width(components, "model.prior_components");
        prior_mean = arena.place("prior.mean", {components, model.latent});
        prior_logvar = arena.place("prior.logvar", {components, model.latent});
        prior_logits = arena.place("prior.logits", {components});
    }
    if (model.prior == Prior::vamp) {
        check_width(components, "model.prior_components");
        pseudo_inputs = arena.place("prior.pseudo_inputs", {components, pixels});
    }
    arena_size = arena.end();
}

std::vector<Tensor> DenseLayer::tensors() const {
    if (!is_gated()) return {weight, bias};
    return {weight, gate_weight, bias, gate_bias};
}

std::vector<Tensor> Heads::tensors() const {
    if (!is_full()) return {mu_weight, logvar_weight, mu_bias, logvar_bias};
    return {mu_weight, logvar_weight, tril_weight, mu_bias, logvar_bias, tril_bias};
}

std::vector<Tensor> ParameterLayout::tensors() const {
    std::vector<Tensor> all;
    const auto add = [&all](const std::vector<Tensor>& more) {
        all.insert(all.end(), more.begin(), more.end());
    };
    for (const DenseLayer& layer : encoder) add(layer.tensors());
    add(heads.tensors());
    for (const DenseLayer& layer : decoder) add(layer.tensors());
    add(output.tensors());
    for (const Tensor* tensor :
         {&output_logvar, &prior_mean, &prior_logvar, &prior_logits, &pseudo_inputs}) {
        if (tensor->size > 0) all.push_back(*tensor);
    }
    return all;
}

std::vector<float> initial_parameters(const ParameterLayout& layout, Initialization initialization,
                                      std::uint64_t seed) {
    std::vector<float> arena(layout.arena_size, 0.0F);
    std::uint32_t index = 0;
    const auto draw = [&](const Tensor& tensor, std::size_t in, double factor) {
        NoiseAddress address{seed, Purpose::initialization, 0, index++, 0};
        const bool bias = tensor.shape.size() == 1;
        const auto scale =
            static_cast<float>(factor * spread(initialization, bias, in, tensor.shape.front()));
        if (scale == 0) return;
        const std::span<float> values(arena.data() + tensor.offset, tensor.size);
        if (initialization == Initialization::he) {
            fill_normal(address, values);
            for (float& value : values) value *= scale;
        } else {
            fill_uniform(address, values);
            for (float& value : values) value = (2 * value - 1) * scale;
        }
    };
    const auto draw_all = [&](const std::vector<Tensor>& tensors, std::size_t in) {
        for (const Tensor& tensor : tensors) draw(tensor, in, 1);
    };
    for (const DenseLayer& layer : layout.encoder) draw_all(layer.tensors(), layer.in);
    const Heads& heads = layout.heads;
    const double of_tril = 1 / std::sqrt(static_cast<double>(heads.latent));
    for (const Tensor& tensor : heads.tensors()) {
        const bool is_tril = tensor.name.starts_with("encoder.tril.");
        draw(tensor, heads.in, is_tril ? of_tril : 1);
    }
    for (const DenseLayer& layer : layout.decoder) draw_all(layer.tensors(), layer.in);
    draw_all(layout.output.tensors(), layout.output.in);
    if (layout.output_logvar.size > 0) ++index;
    const NoiseAddress address{seed, Purpose::initialization, 0, index, 0};
    const auto values_of = [&](const Tensor& tensor) {
        return std::span<float>(arena.data() + tensor.offset, tensor.size);
    };
    fill_normal(address, values_of(layout.prior_mean));
    fill_uniform(address, values_of(layout.pseudo_inputs));
    return arena;
}

}  // namespace vae
