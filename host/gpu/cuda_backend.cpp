#include "host/gpu/cuda_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "host/gpu/range.h"
#include "host/gpu/what_fits.h"
#include "host/request_checks.h"
#include "host/shuffle.h"

namespace vae::gpu {
namespace {

// Evaluation takes as many draws of z at a time as have this many values in the widest layer, but
// at most kMostEvaluationDraws, however small the batch: 16 MiB.
constexpr std::size_t kEvaluationValues = std::size_t{1} << 22;
constexpr std::size_t kMostEvaluationDraws = 4096;
// Of an example whose draws are many.
constexpr std::size_t kDrawsAtOnce = 64;
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

// Selects the device before anything is allocated on it.
SelectedDevice select_device(Precision wanted) {
    kernels::cuda_check(cudaSetDevice(0), "cudaSetDevice");
    cudaDeviceProp properties = {};
    kernels::cuda_check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
    return {.name = properties.name,
            .precision = choose_precision(wanted, properties),
            .has_tf32 = properties.major >= kFirstWithTf32};
}

}  // namespace

void TotalsOnDevice::add(const Network& network, int examples, double beta) {
    kernels::add_losses(network.recon().data(), network.kl().data(), network.loss(), examples, beta,
                        nullptr, sums_.data(), stream_.get());
}

LossTotals TotalsOnDevice::take() const {
    kernels::LossSums sums = {};
    sums_.download({&sums, 1}, stream_);
    return {.recon = sums.recon, .kl = sums.kl, .loss = sums.loss, .examples = sums.examples};
}

EncodedPosteriors::EncodedPosteriors(int count, const Heads& heads, DeviceArena& arena)
    : examples(static_cast<std::size_t>(count)),
      mu(arena, examples * heads.latent, "posterior means"),
      logvar(arena, examples * heads.latent, "posterior log-variances"),
      tril(arena, examples * heads.tril_size(), "posterior Cholesky factors") {}

CudaBackend::AveragedParameters::AveragedParameters(CudaBackend& backend)
    : network_(backend.network_) {
    if (backend.optimizer_.has_ema()) network_.read_parameters(backend.optimizer_.ema());
}

CudaBackend::AveragedParameters::~AveragedParameters() {
    network_.read_parameters(network_.parameters());
}

CudaBackend::CudaBackend(const Config& config, const ParameterLayout& layout, SelectedDevice device)
    : config_(config),
      layout_(layout),
      device_(std::move(device)),
      network_(config, layout, capacity_of(config, layout), device_.precision, stream_, arena_),
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
    return CudaBackend(config, layout, device).arena_.bytes();
}

CudaBackend::CudaBackend(const Config& config, const ParameterLayout& layout)
    : CudaBackend(config, layout, select_device(config.train.precision)) {
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
    const int fused = network_.fused_products();
    const int fusible = network_.fusible_products();
    if (fused == 0) return name_of(FusionPlan::cublas);
    const std::string plan = name_of(FusionPlan::epilogue);
    return fused == fusible ? plan : fmt::format("{} in {} of {} products", plan, fused, fusible);
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
    network_.encode(batch.rows);
    network_.sample(batch.rows, epsilon_of(batch), outputs);
    network_.decode(batch.rows * network_.samples());
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

LossTotals CudaBackend::evaluate(Split split, double beta) {
    const Range range("evaluate");
    const auto capacity = static_cast<std::size_t>(network_.capacity());
    const std::size_t size = data(split).size;
    const AveragedParameters averaged(*this);
    totals_.begin();
    std::vector<std::uint32_t> block;
    for (std::size_t start = 0; start < size; start += capacity) {
        const int rows = static_cast<int>(std::min(capacity, size - start));
        const auto offset = static_cast<std::uint32_t>(start);
        block.resize(static_cast<std::size_t>(rows));
        std::iota(block.begin(), block.end(), offset);
        gather_evaluation(split, block, identity_.data(), offset);
        network_.encode(rows);
        network_.sample(rows,
                        {.stream = noise(Purpose::evaluation_epsilon, 0),
                         .index = identity_.data(),
                         .first_index = data(split).first_index + offset},
                        {});
        network_.decode(rows * network_.samples());
        network_.losses(rows, {beta});
        totals_.add(network_, rows, beta);
    }
    return totals_.take();
}

void CudaBackend::draw(const DrawRequest& request,
                       const std::function<void(const DrawBlock&)>& visit) {
    const Range range("draw");
    const std::size_t size = data(request.split).size;
    check_draws(request, size);
    const auto capacity = static_cast<std::size_t>(network_.draw_capacity());
    const auto draws =
        static_cast<std::uint32_t>(std::min<std::size_t>({request.draws, kDrawsAtOnce, capacity}));
    const std::size_t examples = std::min(capacity / draws, identity_.size());
    const AveragedParameters averaged(*this);
    for (std::size_t first = 0; first < request.rows.size(); first += examples) {
        DrawBlock block;
        block.first_row = first;
        block.rows = std::min(examples, request.rows.size() - first);
        const int rows = static_cast<int>(block.rows);
        const auto of_block = request.rows.subspan(first, block.rows);
        upload_index(of_block);
        gather_evaluation(request.split, of_block, index_.data(), 0);
        network_.encode(rows);
        for (std::uint32_t at = 0; at < request.draws; at += block.draws) {
            block.first_draw = at;
            block.draws = std::min(draws, request.draws - at);
            const kernels::EpsilonSource noise = {
                .stream = {.seed = request.seed,
                           .purpose = static_cast<std::uint32_t>(Purpose::importance_epsilon),
                           .step = 0,
                           .sample = at},
                .index = index_.data(),
                .first_index = data(request.split).first_index};
            draw_block(noise, request.wants_z, block);
            visit(block);
        }
    }
}

void CudaBackend::draw_block(const kernels::EpsilonSource& noise, bool wants_z, DrawBlock& block) {
    network_.draw(static_cast<int>(block.rows), static_cast<int>(block.draws), noise);
    const std::size_t rows = block.rows * block.draws;
    std::vector<float> values(rows);
    network_.draw_recon().download(values, stream_);
    block.recon.assign(values.begin(), values.end());
    network_.log_ratio().download(values, stream_);
    block.log_ratio.assign(values.begin(), values.end());
    if (!wants_z) return;
    block.z.resize(rows * layout_.heads.latent);
    network_.z().download(block.z, stream_);
}

Posterior CudaBackend::encode(std::span<const float> x) {
    const std::size_t pixels = layout_.pixels;
    const std::size_t latent = layout_.heads.latent;
    const std::size_t rows = whole_rows(x.size(), pixels, "encode");
    const std::size_t capacity = encoded_.examples;
    const std::size_t below = layout_.heads.tril_size();
    const AveragedParameters averaged(*this);
    Posterior result;
    result.tril.resize(rows * below);
    result.mu.resize(rows * latent);
    result.logvar.resize(rows * latent);
    for (std::size_t start = 0; start < rows; start += capacity) {
        const std::size_t count = std::min(capacity, rows - start);
        network_.x().upload(x.subspan(start * pixels, count * pixels), stream_);
        network_.x_changed(static_cast<int>(count));
        network_.encode(static_cast<int>(count));
        // z is computed too, and not used: any noise will do.
        network_.posterior(static_cast<int>(count),
                           {.stream = noise(Purpose::evaluation_epsilon, 0),
                            .index = identity_.data(),
                            .first_index = 0},
                           encoded_.get());
        const auto part = [&](std::vector<float>& v, std::size_t cols) {
            return std::span(v).subspan(start * cols, count * cols);
        };
        encoded_.mu.download(part(result.mu, latent), stream_);
        encoded_.logvar.download(part(result.logvar, latent), stream_);
        encoded_.tril.download(part(result.tril, below), stream_);
    }
    return result;
}

template <class Visit>
void CudaBackend::decode_batches(std::span<const float> z, const char* caller, const Visit& visit) {
    const std::size_t latent = layout_.heads.latent;
    const std::size_t rows = whole_rows(z.size(), latent, caller);
    const auto capacity = static_cast<std::size_t>(network_.decode_capacity());
    const AveragedParameters averaged(*this);
    for (std::size_t start = 0; start < rows; start += capacity) {
        const std::size_t count = std::min(capacity, rows - start);
        network_.z().upload(z.subspan(start * latent, count * latent), stream_);
        network_.z_changed(static_cast<int>(count));
        network_.decode(static_cast<int>(count));
        visit(start, count);
    }
}

std::vector<float> CudaBackend::decode(std::span<const float> z) {
    const std::size_t pixels = layout_.pixels;
    std::vector<float> means(z.size() / layout_.heads.latent * pixels);
    decode_batches(z, "decode", [&](std::size_t start, std::size_t count) {
        network_.output_mean(static_cast<int>(count));
        network_.x().download(std::span(means).subspan(start * pixels, count * pixels), stream_);
    });
    return means;
}

std::vector<float> CudaBackend::outputs(std::span<const float> z) {
    const std::size_t width = layout_.output.out;
    std::vector<float> all(z.size() / layout_.heads.latent * width);
    decode_batches(z, "outputs", [&](std::size_t start, std::size_t count) {
        network_.add_output_bias(static_cast<int>(count));
        network_.output_product().download(std::span(all).subspan(start * width, count * width),
                                           stream_);
    });
    return all;
}

std::vector<float> CudaBackend::examples(Split split, std::span<const std::uint32_t> rows) {
    check_rows(rows, split, data(split).size);
    const std::size_t pixels = layout_.pixels;
    const auto capacity = static_cast<std::size_t>(network_.capacity());
    std::vector<float> result(rows.size() * pixels);
    for (std::size_t start = 0; start < rows.size(); start += capacity) {
        const std::size_t count = std::min(capacity, rows.size() - start);
        const auto part = rows.subspan(start, count);
        upload_index(part);
        gather_evaluation(split, part, index_.data(), 0);
        network_.x().download(std::span(result).subspan(start * pixels, count * pixels), stream_);
    }
    return result;
}

}  // namespace vae::gpu
