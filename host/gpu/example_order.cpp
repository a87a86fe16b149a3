#include "host/gpu/example_order.h"

#include <algorithm>

namespace vae::gpu {

void ExampleOrder::set_examples(std::uint32_t examples) {
    examples_ = examples;
    shuffle_.reset();
}

void ExampleOrder::start(const TrainRequest& request, std::size_t skipped) {
    rows_ = request.rows;
    at_ = skipped;
    end_ = request.examples();
    known_ = end_;
    if (!rows_.empty()) return;
    const EpochPart& part = request.part;
    at_ += part.first;
    end_ += part.first;
    known_ = examples_;
    if (end_ == at_) return;
    if (shuffle_ && epoch_ == part.epoch) return;
    shuffle_.emplace(seed_, part.epoch, examples_);
    epoch_ = part.epoch;
}

std::span<const std::uint32_t> ExampleOrder::next(std::size_t count) {
    const std::span<const std::uint32_t> result = peek(std::min(count, end_ - at_));
    at_ += result.size();
    return result;
}

std::span<const std::uint32_t> ExampleOrder::peek(std::size_t count) {
    count = std::min(count, known_ - at_);
    if (!rows_.empty()) return rows_.subspan(at_, count);
    positions_.resize(count);
    for (std::size_t i = 0; i < count; ++i) {
        positions_[i] = shuffle_->row(static_cast<std::uint32_t>(at_ + i));
    }
    return positions_;
}

}  // namespace vae::gpu
