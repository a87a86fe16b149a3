#include "bench/workloads.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "host/config_file.h"
#include "host/error.h"
#include "host/noise.h"

namespace vae::bench {

const std::vector<Workload>& workloads() {
    static const std::vector<std::string> burda = {
        "model.encoder_hidden=200,200", "model.latent=50",      "model.activation=tanh",
        "model.initialization=glorot",  "objective.bound=iwae", "train.batch=20",
        "train.adam_epsilon=1e-4",      "data.binarize=dynamic"};
    const auto draws = [](const std::string& samples) {
        std::vector<std::string> settings = burda;
        settings.push_back("objective.samples=" + samples);
        return settings;
    };
    static const std::vector<Workload> all = {
        {"S",
         {28, 28, 1},
         60'000,
         {"model.encoder_hidden=400", "model.latent=20", "train.batch=128"}},
        {"I1", {28, 28, 1}, 60'000, draws("1")},
        {"I50", {28, 28, 1}, 60'000, draws("50")},
        {"L",
         {32, 32, 3},
         16'384,
         {"model.encoder_hidden=4096,4096", "model.latent=256", "train.batch=8192"}}};
    return all;
}

const Workload& workload(const std::string& name) {
    for (const Workload& each : workloads()) {
        if (each.name == name) return each;
    }
    throw InputError(fmt::format("there is no workload {}; they are S, I1, I50 and L", name));
}

Config config_of(const Workload& workload, const std::vector<std::string>& settings) {
    ConfigBuilder builder;
    for (const auto* list : {&workload.settings, &settings}) {
        for (const std::string& setting : *list) {
            builder.set_assignment(setting, fmt::format("workload {}: {}", workload.name, setting));
        }
    }
    return builder.finish();
}

double step_flops(const Config& config, std::size_t pixels) {
    const auto examples = static_cast<double>(config.train.batch);
    const auto rows = examples * static_cast<double>(config.objective.samples);
    const auto latent = static_cast<double>(config.model.latent);
    double flops = 0;
    // A chain of layers over so many rows; the gradient of the first one's input may be unneeded.
    const auto chain = [&flops](double count, const std::vector<double>& widths, bool has_d_input) {
        for (std::size_t i = 0; i + 1 < widths.size(); ++i) {
            const double product = 2 * count * widths[i] * widths[i + 1];
            flops += (i == 0 && !has_d_input ? 2 : 3) * product;
        }
    };
    std::vector<double> encoder = {static_cast<double>(pixels)};
    encoder.insert(encoder.end(), config.model.encoder_hidden.begin(),
                   config.model.encoder_hidden.end());
    encoder.push_back(2 * latent);
    std::vector<double> decoder = {latent};
    decoder.insert(decoder.end(), config.model.decoder_hidden.begin(),
                   config.model.decoder_hidden.end());
    decoder.push_back(static_cast<double>(pixels));
    chain(examples, encoder, false);
    chain(rows, decoder, true);
    return flops;
}

Splits random_images(const ImageShape& shape, std::size_t examples) {
    Splits splits;
    splits.train.shape = shape;
    splits.train.size = examples;
    std::vector<std::uint8_t> bytes(examples * shape.pixels());
    std::vector<float> uniforms(shape.pixels());
    for (std::size_t i = 0; i < examples; ++i) {
        const auto example = static_cast<std::uint32_t>(i);
        fill_uniform({1, Purpose::synthetic_data, 0, example, 0}, uniforms);
        std::transform(uniforms.begin(), uniforms.end(), bytes.data() + i * shape.pixels(),
                       [](float u) { return static_cast<std::uint8_t>(u * 255); });
    }
    splits.train.values = std::move(bytes);
    return splits;
}

}  // namespace vae::bench
