#include "host/cpu/gradient_statistics.h"

#include <algorithm>
#include <cmath>

#include "host/cpu/sums.h"
#include "host/cpu/vector_math.h"

namespace vae::cpu {
namespace {

constexpr std::size_t kBlock = 4096;  // elements that one thread sums
constexpr double kNormEpsilon = 1e-7;

std::size_t blocks_of(std::size_t size) {
    return (size + kBlock - 1) / kBlock;
}

template <class T>
VAE_CPU_INLINE double sum_of_squares(const T* values, std::size_t size) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::size_t i = 0; i < size; ++i) {
        sum += static_cast<double>(values[i]) * static_cast<double>(values[i]);
    }
    return sum;
}

VAE_CPU_CLONES double block_squares(const float* values, std::size_t size) {
    return sum_of_squares(values, size);
}

double block_squares(const double* values, std::size_t size) {
    return sum_of_squares(values, size);
}

}  // namespace

GradientStatistics::GradientStatistics(const ParameterLayout& layout)
    : tensors_(layout.tensors()), squares_(tensors_.size()), scales_(tensors_.size()) {
    std::size_t largest = 0;
    for (const Tensor& tensor : tensors_) largest = std::max(largest, tensor.size);
    partials_.resize(blocks_of(largest));
}

template <class T>
void GradientStatistics::measure(const T* gradients, const TrainConfig& train) {
    for (std::size_t t = 0; t < tensors_.size(); ++t) {
        const T* values = gradients + tensors_[t].offset;
        const std::size_t size = tensors_[t].size;
        const std::size_t blocks = blocks_of(size);
#pragma omp parallel for schedule(static) if (size >= kParallelElements)
        for (std::size_t block = 0; block < blocks; ++block) {
            const std::size_t begin = block * kBlock;
            partials_[block] = block_squares(values + begin, std::min(kBlock, size - begin));
        }
        squares_[t] = 0;
        for (std::size_t block = 0; block < blocks; ++block) squares_[t] += partials_[block];
    }
    find_scales(train);
}

void GradientStatistics::find_scales(const TrainConfig& train) {
    double total = 0;
    for (std::size_t t = 0; t < tensors_.size(); ++t) {
        const double norm = std::sqrt(squares_[t]);
        scales_[t] = train.normalize_gradients ? 1 / (norm + kNormEpsilon) : 1.0;
        total += norm * scales_[t] * norm * scales_[t];
    }
    const double norm = std::sqrt(total);
    if (train.clip_norm <= 0 || norm <= train.clip_norm) return;
    for (double& scale : scales_) scale *= train.clip_norm / norm;
}

std::optional<std::size_t> GradientStatistics::first_bad() const {
    const auto bad = std::find_if_not(squares_.begin(), squares_.end(),
                                      [](double square) { return std::isfinite(square); });
    if (bad == squares_.end()) return std::nullopt;
    return static_cast<std::size_t>(bad - squares_.begin());
}

template void GradientStatistics::measure(const float*, const TrainConfig&);
template void GradientStatistics::measure(const double*, const TrainConfig&);

}  // namespace vae::cpu
