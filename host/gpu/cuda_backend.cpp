#include "host/gpu/cuda_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "host/gpu/plan_cache.h"
#include "host/gpu/range.h"
#include "host/gpu/what_fits.h"
#include "host/request_checks.h"
#include "host/shuffle.h"
#include "kernels/dense.h"

namespace vae::gpu {
namespace {

// Evaluation takes as many draws of z at a time as have this many values in the widest layer, but
// at most kMostEvaluationDraws, however small the batch: 16 MiB.
constexpr std::size_t kEvaluationValues = std::size_t{1} << 22;
constexpr std::size_t kMostEvaluationDraws = 4096;
constexpr int kEncodedAtOnce = 1024;

int capacity_of(const Config& config, const ParameterLayout& layout) {
    std::size_t widest = std::max(layout.output.out, layout.heads.product_width());
    for (const auto* layers : {&layout.encoder, &layout.decoder}) {
        for (const DenseLayer& layer : *layers) widest = std::max(widest, layer.product_width());
    }
    const std::size_t draws =
        std::clamp<std::size_t>(kEvaluationValues / widest, 1, kMostEvaluationDraws);
    const auto enough = static_cast<std::uint32_t>((draws - 1) / config.objective.samples + 1);
    const std::uint32_t rows = std::max(config.train.part_rows(), enough);
    if (rows > static_cast<std::uint32_t>(std::numeric_limits<int>::max())) {
        throw InputError(fmt::format("train.batch = {} is too large", rows));
    }
    return static_cast<int>(rows);
}

constexpr int kFirstWithTf32 = 8;  // compute capability, and with bf16

Precision choose_precision(Precision wanted, const cudaDeviceProp& device) {
    if (wanted == Precision::fp32) return wanted;
    const bool is_automatic = wanted == Precision::automatic;
    if (device.major >= kFirstWithTf32) return is_automatic ? Precision::tf32 : wanted;
    if (is_automatic) return Precision::fp32;
    throw InputError(
        fmt::format("train.precision = \"{}\": {} (compute capability {}.{}) has no such "
                    "arithmetic, which starts with 8.0; use \"fp32\" or \"auto\"",
                    name_of(wanted), device.name, device.major, device.minor));
}

// Of the current device.
void check_fused(const cudaDeviceProp& device) {
    if (kernels::has_dense_kernels()) return;
    throw InputError(
        fmt::format("train.plan = \"fused\": of its kernels, which start with compute capability "
                    "8.0, there are none here for {} ({}.{}); use \"auto\" or \"cublas\"",
                    device.name, device.major, device.minor));
}

// Selects the device before anything is allocated on it.
SelectedDevice select_device(const TrainConfig& wanted) {
    kernels::cuda_check(cudaSetDevice(0), "cudaSetDevice");
    cudaDeviceProp properties = {};
    kernels::cuda_check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
    if (wanted.plan == FusionPlan::fused) check_fused(properties);
    return {.name = properties.name,
            .precision = choose_precision(wanted.precision, properties),
            .has_tf32 = properties.major >= kFirstWithTf32};
}

// The configuration with the plan that is kept, if "auto" takes one.
Config with_plan(Config config, const ParameterLayout& layout, Precision precision,
                 AutoPlan auto_plan) {
    if (config.train.plan != FusionPlan::automatic || auto_plan == AutoPlan::counted) return config;
    const auto kept = kept_plan(config, layout, precision);
    if (kept) config.train.plan = *kept;
    return config;
}

}  // namespace

CudaBackend::CudaBackend(const Config& config, const ParameterLayout& layout, SelectedDevice device,
                         AutoPlan auto_plan)
    : config_(with_plan(config, layout, device.precision, auto_plan)),
      layout_(layout),
      device_(std::move(device)),
      network_(config_, layout, capacity_of(config, layout), device_.precision, stream_, arena_),
      optimizer_(config.train, layout, stream_, arena_),
      steps_(config.train, network_.capacity(), step_parts(), stream_, arena_),
      data_(stream_),
      identity_(arena_, static_cast<std::size_t>(network_.capacity()), "row indices"),
      index_(arena_, identity_.size(), "row indices"),
      totals_(stream_, arena_),
      encoded_(std::min(network_.capacity(), kEncodedAtOnce), layout.heads, arena_),
      staged_index_(index_.size()) {}

std::size_t CudaBackend::bytes_needed(const Config& config, const ParameterLayout& layout,
                                      const SelectedDevice& device) {
    return CudaBackend(config, layout, device, AutoPlan::kept).arena_.bytes();
}

CudaBackend::CudaBackend(const Config& config, const ParameterLayout& layout, AutoPlan auto_plan)
    : CudaBackend(config, layout, select_device(config.train), auto_plan) {
    arena_.allocate([&] { return what_fits(config, layout, device_); }, DeviceArena::kHeadroom);
    network_.start();
    optimizer_.start();
    steps_.start();
    std::vector<std::uint32_t> identity(identity_.size());
    std::iota(identity.begin(), identity.end(), 0U);
    identity_.upload(identity, stream_);
}

// What is queued may still read memory that is about to go.
CudaBackend::~CudaBackend() {
    (void)cudaDeviceSynchronize();
}

std::string CudaBackend::plan() const {
    const StepPlan step = network_.plan();
    const int fusible = step.fusible_products();
    std::string parts;
    for (const auto& [way, plan] : {std::pair(LayerWay::epilogue, FusionPlan::epilogue),
                                    std::pair(LayerWay::fused, FusionPlan::fused)}) {
        const int products = step.products_by(way);
        if (products == 0) continue;
        if (products == fusible) return name_of(plan);
        parts += fmt::format("{}{} in {}", parts.empty() ? "" : ", ", name_of(plan), products);
    }
    if (parts.empty()) return name_of(FusionPlan::cublas);
    return fmt::format("{} of {} products", parts, fusible);
}

void CudaBackend::set_data(const Splits& splits) {
    const Range range("data to the device");
    check_data(splits, layout_);
    data_.clear();
    // Both windows in a quarter of what is free, as long as a step fits.
    const std::size_t window_bytes = std::min(window_bytes_, device_memory().free / 8);
    data_.set(splits, config_.data.placement, steps_.window_rows(row_bytes(splits), window_bytes));
    steps_.set_examples(static_cast<std::uint32_t>(splits.train.size), data_.streamed());
}

void CudaBackend::set_state(const TrainingState& state) {
    check_state(state, layout_, config_.train);
    network_.parameters().upload(state.parameters, stream_);
    network_.parameters_changed();
    optimizer_.upload(state);
    steps_done_ = state.step;
    network_.running_mean().upload(std::span(&state.running_mean, network_.running_mean().size()),
                                   stream_);
}

TrainingState CudaBackend::state() {
    const Range range("state from the device");
    TrainingState state;
    state.step = steps_done_;
    state.parameters.resize(layout_.arena_size);
    network_.parameters().download(state.parameters, stream_);
    optimizer_.download(state);
    network_.running_mean().download(std::span(&state.running_mean, network_.running_mean().size()),
                                     stream_);
    return state;
}

std::vector<double> CudaBackend::exact_parameters() {
    std::vector<float> parameters(layout_.arena_size);
    network_.parameters().download(parameters, stream_);
    return {parameters.begin(), parameters.end()};
}

std::vector<double> CudaBackend::exact_ema() {
    std::vector<float> ema(optimizer_.ema().size());
    optimizer_.ema().download(ema, stream_);
    return {ema.begin(), ema.end()};
}

kernels::NoiseStream CudaBackend::noise(Purpose purpose, std::uint64_t step) const {
    return {.seed = config_.train.seed,
            .purpose = static_cast<std::uint32_t>(purpose),
            .step = static_cast<std::uint32_t>(step),
            .sample = 0};
}

kernels::NoiseStream CudaBackend::noise(Purpose purpose, const TrainingBatch& batch) const {
    kernels::NoiseStream result = noise(purpose, batch.step);
    result.state = batch.state;
    return result;
}

void CudaBackend::check_capacity(const TrainRequest& request) const {
    std::uint32_t most =
        std::max(config_.train.batch, static_cast<std::uint32_t>(network_.capacity()));
    if (const StreamedData* const streamed = data_.streamed()) {
        most = std::min(most, static_cast<std::uint32_t>(streamed->window_rows()));
    }
    if (request.batch > most) {
        throw std::invalid_argument(fmt::format(
            "a batch of {} rows; the backend was made for up to {}", request.batch, most));
    }
}

void CudaBackend::upload_index(std::span<const std::uint32_t> rows) {
    index_uploaded_.synchronize();  // the staging memory may still be read
    std::copy(rows.begin(), rows.end(), staged_index_.data());
    kernels::cuda_check(cudaMemcpyAsync(index_.data(), staged_index_.data(), rows.size_bytes(),
                                        cudaMemcpyHostToDevice, stream_.get()),
                        "cudaMemcpyAsync of the row indices");
    index_uploaded_.record(stream_);
}

PixelSource CudaBackend::evaluation_pixels() const {
    const bool is_binary = config_.data.binarize != Binarize::none;
    const bool is_count = takes_bytes_as_counts(config_.model.likelihood);
    return {.pixels = is_binary  ? kernels::Pixels::binary
                      : is_count ? kernels::Pixels::counts
                                 : kernels::Pixels::grey,
            .noise = noise(Purpose::fixed_binarization, 0)};
}

PixelSource CudaBackend::training_pixels(const TrainingBatch& batch) const {
    PixelSource source = evaluation_pixels();
    if (config_.data.binarize == Binarize::dynamic) {
        source.noise = noise(Purpose::dynamic_binarization, batch);
    }
    return source;
}

void CudaBackend::gather_evaluation(Split split, std::span<const std::uint32_t> rows,
                                    const std::uint32_t* index, std::uint32_t offset) {
    data_.gather(split, rows, index, offset, evaluation_pixels(), network_.batch());
}

kernels::EpsilonSource CudaBackend::epsilon_of(const TrainingBatch& batch) const {
    return {.stream = noise(Purpose::epsilon, batch),
            .index = batch.index,
            .first_index = data(Split::train).first_index};
}

void CudaBackend::forward(const TrainingBatch& batch, const PosteriorOutputs& outputs) {
    network_.forward(batch.rows, epsilon_of(batch), outputs);
}

double CudaBackend::mean_loss(int examples, double beta) {
    totals_.begin();
    totals_.add(network_, examples, beta);
    return totals_.take().loss / examples;
}

StepParts CudaBackend::step_parts() {
    const auto batch_of = [](const StepPlace& place) {
        return TrainingBatch{
            .index = place.index, .slots = place.slots, .rows = place.rows, .state = place.state};
    };
    return {.gather =
                [this, batch_of](const StepPlace& place, const Stream& stream) {
                    const TrainingBatch batch = batch_of(place);
                    data_.gather_step(batch.index, batch.slots, batch.rows, training_pixels(batch),
                                      network_.next_batch(), stream);
                },
            .swap_x = [this] { network_.swap_x(); },
            .differentiate =
                [this, batch_of](const StepPlace& place) {
                    const TrainingBatch batch = batch_of(place);
                    forward(batch, {});
                    network_.backward(batch.rows, epsilon_of(batch), {1, batch.state}, place.part,
                                      optimizer_.batch_losses());
                },
            .update =
                [this](const kernels::StepState* state) {
                    optimizer_.step(state, network_.gradients().data(),
                                    network_.parameters().data(), network_.rounded_parameters());
                    network_.keep_variance(optimizer_.is_taken(), config_.train.ema,
                                           optimizer_.ema_arena());
                },
            .state_of =
                [this](std::uint64_t step, const StepSchedule& schedule) {
                    return optimizer_.state_of(step, schedule);
                }};
}

void CudaBackend::train(const TrainRequest& request) {
    const Range range("train");
    check_training(request, data(Split::train).size, steps_done_);
    check_capacity(request);
    steps_.run(request);
    steps_done_ += steps_per_epoch(request.examples(), request.batch);
}

StepProfile CudaBackend::profile(const TrainRequest& request) {
    check_training(request, data(Split::train).size, steps_done_);
    check_capacity(request);
    StepProfile result = steps_.profile(request);
    steps_done_ += steps_per_epoch(request.examples(), request.batch);
    return result;
}

}  // namespace vae::gpu
