// The CUDA backend's model as it is read: evaluated, drawn from, encoded with and decoded with.
#include <algorithm>
#include <numeric>

#include "host/gpu/cuda_backend.h"
#include "host/gpu/range.h"
#include "host/request_checks.h"

namespace vae::gpu {
namespace {

// Of an example whose draws are many.
constexpr std::size_t kDrawsAtOnce = 64;

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
