#include "bench/step_products.h"

#include <fmt/format.h>

#include <cstddef>

#include "host/parameters.h"

namespace vae::bench {

using gpu::MatmulKind;
using gpu::MatmulTypes;

namespace {

// `is_narrow`: bf16 training keeps the result so.
MatmulTypes types_of(Precision precision, bool is_narrow) {
    if (precision == Precision::fp32) return MatmulTypes::fp32;
    if (precision == Precision::tf32) return MatmulTypes::tf32;
    return is_narrow ? MatmulTypes::bf16 : MatmulTypes::bf16_to_fp32;
}

// All products of a chain of layers over so many rows.
void add_chain(std::vector<StepProduct>& products, const std::string& name, Precision precision,
               int rows, const std::vector<int>& widths) {
    for (std::size_t i = 0; i + 1 < widths.size(); ++i) {
        const auto add = [&](const char* what, MatmulKind kind, bool is_narrow) {
            products.push_back({fmt::format("{}.{}/{}", name, i, what),
                                {.kind = kind,
                                 .types = types_of(precision, is_narrow),
                                 .rows = rows,
                                 .in = widths[i],
                                 .out = widths[i + 1]}});
        };
        const bool is_last = i + 2 == widths.size();         // the heads and the output stay FP32
        const bool is_pixels = i == 0 && name == "encoder";  // nobody needs their gradient
        const bool is_latent = i == 0 && name == "decoder";  // whose gradient is summed in float
        add("forward", MatmulKind::forward, !is_last);
        if (!is_pixels) add("input_gradient", MatmulKind::backward_input, !is_latent);
        add("weight_gradient", MatmulKind::backward_weight, false);
    }
}

}  // namespace

std::vector<StepProduct> products_of(const Workload& workload, Precision precision) {
    const Config config = config_of(workload);
    const auto examples = static_cast<int>(config.train.batch);
    const auto& encoder_hidden = config.model.encoder_hidden;
    const auto& decoder_hidden = config.model.decoder_hidden;
    const auto pixels = static_cast<int>(workload.shape.pixels());
    std::vector<int> encoder = {pixels};
    encoder.insert(encoder.end(), encoder_hidden.begin(), encoder_hidden.end());
    // Both heads are one product, each padded.
    const ParameterLayout layout(config.model, workload.shape.pixels());
    encoder.push_back(static_cast<int>(layout.heads.product_width()));
    std::vector<int> decoder = {static_cast<int>(config.model.latent)};
    decoder.insert(decoder.end(), decoder_hidden.begin(), decoder_hidden.end());
    decoder.push_back(pixels);
    std::vector<StepProduct> products;
    add_chain(products, "encoder", precision, examples, encoder);
    add_chain(products, "decoder", precision, examples * static_cast<int>(config.objective.samples),
              decoder);
    return products;
}

}  // namespace vae::bench
