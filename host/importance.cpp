#include "host/importance.h"

#include <algorithm>
#include <cmath>

#include "host/sample_statistics.h"

namespace vae {

void LogSum::add(double log_term) {
    if (log_term == -std::numeric_limits<double>::infinity()) return;
    if (log_term <= largest_) {
        sum_ += std::exp(log_term - largest_);
    } else {
        sum_ = sum_ * std::exp(largest_ - log_term) + 1;
        largest_ = log_term;
    }
}

double LogSum::log() const {
    return largest_ + std::log(sum_);
}

ImportanceSum::ImportanceSum(std::uint32_t draws) : draws_(draws) {
    for (const std::uint32_t size : bound_samples(draws)) {
        Level level;
        level.size = size;
        levels_.push_back(level);
    }
}

void ImportanceSum::add(double log_weight) {
    if (log_weight > largest_ || std::isnan(log_weight)) {
        const double scale = std::exp(largest_ - log_weight);
        sum_ *= scale;
        squares_ *= scale * scale;
        largest_ = log_weight;
    }
    // Weights of 0 have no logarithm to compare.
    const double weight = log_weight == -std::numeric_limits<double>::infinity()
                              ? 0
                              : std::exp(log_weight - largest_);
    sum_ += weight;
    squares_ += weight * weight;
    double log_group = log_weight;
    std::uint32_t size = 1;
    for (Level& level : levels_) {
        if (level.size == 1) {
            level.total += log_weight;
            ++level.groups;
            continue;
        }
        level.open.add(log_group);
        level.held += size;
        if (level.held < level.size) return;
        log_group = level.open.log();
        size = level.size;
        level.total += log_group - std::log(static_cast<double>(level.size));
        ++level.groups;
        level.open = {};
        level.held = 0;
    }
}

double ImportanceSum::log_px() const {
    return largest_ + std::log(sum_ / static_cast<double>(draws_));
}

double ImportanceSum::error() const {
    if (draws_ < 2) return std::numeric_limits<double>::quiet_NaN();
    const auto count = static_cast<double>(draws_);
    const double relative = squares_ / (sum_ * sum_) - 1 / count;  // variance of the mean weight
    // Not max: it would drop a NaN.
    return std::sqrt(relative < 0 ? 0 : relative * count / (count - 1));
}

double ImportanceSum::effective_draws() const {
    return sum_ * sum_ / squares_;
}

std::vector<double> ImportanceSum::bounds() const {
    std::vector<double> means;
    for (const Level& level : levels_) {
        means.push_back(level.total / static_cast<double>(level.groups));
    }
    return means;
}

std::vector<std::uint32_t> bound_samples(std::uint32_t draws) {
    std::vector<std::uint32_t> samples;
    std::uint32_t factor = 5;
    for (std::uint64_t k = 1; k <= draws; k *= factor, factor = 7 - factor) {
        samples.push_back(static_cast<std::uint32_t>(k));
    }
    return samples;
}

double ImportanceEstimate::mean() const {
    return mean_of(log_px);
}

double ImportanceEstimate::error_over_examples() const {
    return error_of_mean(log_px);
}

double ImportanceEstimate::monte_carlo_error() const {
    double squares = 0;
    for (const double e : error) squares += e * e;
    return std::sqrt(squares) / static_cast<double>(error.size());
}

ImportanceEstimate importance_sampling(Backend& backend, const DrawRequest& request,
                                       const RowsDone& on_draws) {
    ImportanceEstimate estimate;
    estimate.draws = request.draws;
    for (const std::uint32_t samples : bound_samples(request.draws)) {
        estimate.bounds.push_back({samples, 0});
    }
    std::vector<ImportanceSum> sums;
    backend.draw(request, [&](const DrawBlock& block) {
        if (block.first_draw == 0) sums.assign(block.rows, ImportanceSum(request.draws));
        for (std::size_t i = 0; i < block.recon.size(); ++i) {
            sums[i / block.draws].add(-block.recon[i] - block.log_ratio[i]);
        }
        const std::size_t before = block.first_row * request.draws;
        if (on_draws) on_draws(before + block.rows * (block.first_draw + block.draws));
        if (block.first_draw + block.draws < request.draws) return;
        for (const ImportanceSum& sum : sums) {
            estimate.log_px.push_back(sum.log_px());
            estimate.error.push_back(sum.error());
            estimate.effective_draws.push_back(sum.effective_draws());
            const std::vector<double> bounds = sum.bounds();
            for (std::size_t i = 0; i < bounds.size(); ++i) estimate.bounds[i].mean += bounds[i];
        }
    });
    for (ImportanceBound& bound : estimate.bounds) {
        bound.mean /= static_cast<double>(estimate.log_px.size());
    }
    return estimate;
}

}  // namespace vae
