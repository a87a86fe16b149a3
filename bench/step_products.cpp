#include "bench/step_products.h"

#include <fmt/format.h>

#include <cstddef>

#include "host/parameters.h"

namespace vae::bench {

using gpu::MatmulKind;
using gpu::MatmulTypes;

namespace {

// All products of a chain of layers over so many rows; `narrow` says of each layer's output whether
// bf16 training keeps it so.
void add_chain(std::vector<StepProduct>& cases, const std::string& name, int rows,
               const std::vector<int>& widths, const std::vector<bool>& narrow) {
    for (std::size_t i = 0; i + 1 < widths.size(); ++i) {
        const std::string layer = fmt::format("{}.{}", name, i);
        const int in = widths[i];
        const int out = widths[i + 1];
        cases.push_back({layer + "/forward", MatmulKind::forward, rows, in, out, narrow[i]});
        const bool is_pixels = i == 0 && name == "encoder";  // nobody needs their gradient
        const bool is_latent = i == 0 && name == "decoder";  // whose gradient is summed in float
        if (!is_pixels) {
            cases.push_back(
                {layer + "/input_gradient", MatmulKind::backward_input, rows, in, out, !is_latent});
        }
        cases.push_back(
            {layer + "/weight_gradient", MatmulKind::backward_weight, rows, in, out, false});
    }
}

}  // namespace

MatmulTypes types_of(const StepProduct& product, Precision precision) {
    if (precision == Precision::fp32) return MatmulTypes::fp32;
    if (precision == Precision::tf32) return MatmulTypes::tf32;
    return product.is_narrow ? MatmulTypes::bf16 : MatmulTypes::bf16_to_fp32;
}

std::vector<StepProduct> products_of(const Workload& workload) {
    const Config config = config_of(workload);
    const auto examples = static_cast<int>(config.train.batch);
    const auto latent = static_cast<int>(config.model.latent);
    const auto pixels = static_cast<int>(workload.shape.pixels());
    const auto& encoder_hidden = config.model.encoder_hidden;
    const auto& decoder_hidden = config.model.decoder_hidden;
    std::vector<int> encoder = {pixels};
    encoder.insert(encoder.end(), encoder_hidden.begin(), encoder_hidden.end());
    // Both heads are one product, each padded.
    const ParameterLayout layout(config.model, workload.shape.pixels());
    encoder.push_back(static_cast<int>(layout.heads.product_width()));
    std::vector<int> decoder = {latent};
    decoder.insert(decoder.end(), decoder_hidden.begin(), decoder_hidden.end());
    decoder.push_back(pixels);
    // The heads and the output stay FP32.
    std::vector<bool> encoder_narrow(encoder_hidden.size(), true);
    encoder_narrow.push_back(false);
    std::vector<bool> decoder_narrow(decoder_hidden.size(), true);
    decoder_narrow.push_back(false);
    std::vector<StepProduct> cases;
    add_chain(cases, "encoder", examples, encoder, encoder_narrow);
    add_chain(cases, "decoder", examples * static_cast<int>(config.objective.samples), decoder,
              decoder_narrow);
    return cases;
}

}  // namespace vae::bench
