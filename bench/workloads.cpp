#include "bench/workloads.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "host/backend_choice.h"
#include "host/config_file.h"
#include "host/error.h"
#include "host/noise.h"
#include "host/parameters.h"
#include "host/shuffle.h"
#include "host/train.h"

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

TrainingLoop::TrainingLoop(const std::string& backend_name, const Config& config,
                           const Splits& splits)
    : config_(config), examples_(splits.train.size) {
    Checkpoint start = initial_checkpoint(config, splits);
    const ParameterLayout layout = start.layout();
    ChosenBackend chosen = choose_backend(backend_name, config, layout);
    backend_ = std::move(chosen.backend);
    note_ = chosen.note;
    backend_->set_data(splits);
    backend_->set_state(start.state);
    chunk_steps_ = steps_in_chunk(*backend_, layout, config.train.batch);
    epoch_steps_ = steps_per_epoch(examples_, config.train.batch);
}

std::uint64_t TrainingLoop::many_steps() const {
    constexpr std::uint64_t kChunks = 8;
    const std::uint64_t chunk = std::min(chunk_steps_, epoch_steps_);
    return backend_->queues_steps() ? kChunks * chunk : chunk;
}

std::uint64_t TrainingLoop::queue_chunk(std::uint64_t most) {
    const std::uint64_t batch = config_.train.batch;
    const std::uint64_t within = step_ % epoch_steps_;
    const std::uint64_t steps = std::min({most, chunk_steps_, epoch_steps_ - within});
    const std::uint64_t first = within * batch;
    backend_->train({.first_step = step_,
                     .batch = config_.train.batch,
                     .schedule = {{config_.train.learning_rate, config_.train.beta}},
                     .part = {.epoch = static_cast<std::uint32_t>(step_ / epoch_steps_),
                              .first = static_cast<std::uint32_t>(first),
                              .count = static_cast<std::uint32_t>(
                                  std::min(steps * batch, examples_ - first))}});
    backend_->close_totals();
    step_ += steps;
    return steps;
}

void TrainingLoop::take_chunk() {
    const TrainTotals totals = backend_->take_totals();
    if (totals.skipped.count != 0) throw RunError("a step was skipped: " + totals.skipped.cause());
}

void TrainingLoop::train(std::uint64_t steps) {
    const std::size_t ahead = backend_->queues_steps() ? kClosedTotals : 1;
    std::size_t queued = 0;
    for (std::uint64_t left = steps; left > 0; ++queued) {
        if (queued == ahead) {
            take_chunk();
            --queued;
        }
        left -= queue_chunk(left);
    }
    for (; queued > 0; --queued) take_chunk();
}

}  // namespace vae::bench
