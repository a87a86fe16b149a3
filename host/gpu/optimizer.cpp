#include "host/gpu/optimizer.h"

#include <cmath>
#include <span>
#include <stdexcept>

namespace vae::gpu {
namespace {

bool is_adam(const TrainConfig& train) {
    return train.optimizer == Optimizer::adam || train.optimizer == Optimizer::adamw;
}

kernels::UpdateRule update_rule(const TrainConfig& train) {
    switch (train.optimizer) {
        case Optimizer::adam:
        case Optimizer::adamw:
            return kernels::UpdateRule::adam;
        case Optimizer::adagrad:
            return kernels::UpdateRule::adagrad;
        case Optimizer::sgd:
            return train.momentum == 0 ? kernels::UpdateRule::sgd : kernels::UpdateRule::momentum;
    }
    throw std::logic_error("an optimiser without a kernel");
}

kernels::OptimizerSettings settings_of(const TrainConfig& train) {
    kernels::OptimizerSettings settings;
    settings.rule = update_rule(train);
    settings.weight_decay = static_cast<float>(train.weight_decay);
    settings.average_decay = train.ema;
    if (train.optimizer == Optimizer::adamw) settings.weight_decay = 0;  // it is StepState::shrink
    if (is_adam(train)) {
        settings.beta1 = train.adam_beta1;
        settings.beta2 = train.adam_beta2;
        settings.epsilon = static_cast<float>(train.adam_epsilon);
    } else {
        settings.epsilon = static_cast<float>(train.adagrad_epsilon);
        settings.momentum = static_cast<float>(train.momentum);
    }
    return settings;
}

kernels::ArenaPieces pieces_of(const ParameterLayout& layout) {
    std::vector<kernels::ArenaTensor> tensors;
    for (const Tensor& tensor : layout.tensors()) tensors.push_back({tensor.offset, tensor.size});
    return kernels::cut_arena(tensors);
}

}  // namespace

DeviceOptimizer::DeviceOptimizer(const TrainConfig& train, const ParameterLayout& layout,
                                 const Stream& stream, DeviceArena& arena)
    : train_(train),
      settings_(settings_of(train)),
      arena_size_(layout.arena_size),
      stream_(stream),
      cut_(pieces_of(layout)),
      pieces_(arena, cut_.pieces.size(), "the table of tensors"),
      first_piece_(arena, cut_.first_piece.size(), "the table of tensors"),
      squares_(arena, layout.tensors().size(), "the gradient statistics"),
      scales_(arena, layout.tensors().size(), "the gradient statistics"),
      partials_(arena, cut_.pieces.size(), "the gradient statistics"),
      ticket_(arena, 1, "the gradient statistics"),
      is_taken_(arena, 1, "the gradient statistics"),
      batch_losses_(arena, 1, "the loss totals"),
      record_(arena, 1, "the loss totals") {
    for (const Tensor& tensor : layout.tensors()) tensors_.push_back(tensor.name);
    const std::size_t moments = moment_names(train).size();
    for (std::size_t i = 0; i < moments; ++i) {
        moments_.emplace_back(arena, arena_size_, "a moment of the optimiser");
    }
    if (train.ema > 0) ema_ = {arena, arena_size_, "the average of the parameters"};
}

void DeviceOptimizer::start() {
    for (DeviceArray<float>& moment : moments_) moment.zero(stream_);
    ema_.zero(stream_);
    pieces_.upload(cut_.pieces, stream_);
    first_piece_.upload(cut_.first_piece, stream_);
    table_ = {.pieces = pieces_.data(),
              .first_piece = first_piece_.data(),
              .piece_count = static_cast<unsigned>(cut_.pieces.size()),
              .tensor_count = static_cast<unsigned>(tensors_.size())};
    ticket_.zero(stream_);
    batch_losses_.zero(stream_);
    record_.zero(stream_);
}

void DeviceOptimizer::upload(const TrainingState& state) {
    for (std::size_t i = 0; i < moments_.size(); ++i) {
        moments_[i].upload(state.moments[i], stream_);
    }
    ema_.upload(state.ema, stream_);
}

void DeviceOptimizer::download(TrainingState& state) const {
    state.moments.resize(moments_.size());
    for (std::size_t i = 0; i < moments_.size(); ++i) {
        state.moments[i].resize(arena_size_);
        moments_[i].download(state.moments[i], stream_);
    }
    state.ema.resize(ema_.size());
    ema_.download(state.ema, stream_);
}

kernels::StepState DeviceOptimizer::state_of(std::uint64_t index,
                                             const StepSchedule& schedule) const {
    kernels::StepState state;
    state.step = index;
    state.beta = schedule.beta;
    state.step_size = static_cast<float>(schedule.learning_rate);
    if (train_.optimizer == Optimizer::adamw) {
        state.shrink = static_cast<float>(1 - schedule.learning_rate * train_.weight_decay);
    }
    if (is_adam(train_)) {
        const auto t = static_cast<double>(index + 1);
        state.step_size =
            static_cast<float>(schedule.learning_rate / (1 - std::pow(train_.adam_beta1, t)));
        state.inverse_sqrt_correction2 =
            static_cast<float>(1 / std::sqrt(1 - std::pow(train_.adam_beta2, t)));
    }
    return state;
}

void DeviceOptimizer::step(const kernels::StepState* state, const float* gradients,
                           float* parameters, kernels::Bf16* rounded) {
    kernels::gradient_statistics(
        table_, gradients, {.normalize = train_.normalize_gradients, .clip_norm = train_.clip_norm},
        state,
        {.squares = squares_.data(),
         .scales = scales_.data(),
         .is_taken = is_taken_.data(),
         .batch = batch_losses_.data(),
         .record = record_.data(),
         .partials = partials_.data(),
         .ticket = ticket_.data()},
        stream_.get());
    kernels::optimizer(settings_, state, table_, scales_.data(), is_taken_.data(),
                       {.gradients = gradients,
                        .parameters = parameters,
                        .moment1 = moment(0),
                        .moment2 = moment(1),
                        .average = ema_.data(),
                        .copy = rounded},
                       stream_.get());
}

void DeviceOptimizer::close_totals() {
    if (times_closed_ - times_taken_ == kClosedTotals) {
        throw std::logic_error("totals that nobody takes");
    }
    const std::size_t slot = times_closed_ % kClosedTotals;
    cuda_check(cudaMemcpyAsync(closed_.data() + slot, record_.data(), record_.bytes(),
                               cudaMemcpyDeviceToHost, stream_.get()),
               "cudaMemcpyAsync of the totals");
    is_there_[slot].record(stream_);
    record_.zero(stream_);
    ++times_closed_;
}

TrainTotals DeviceOptimizer::take_totals() {
    if (times_closed_ == times_taken_) close_totals();
    const std::size_t slot = times_taken_ % kClosedTotals;
    is_there_[slot].synchronize();
    ++times_taken_;
    const kernels::StepRecord record = closed_.data()[slot];
    TrainTotals totals;
    totals.losses = {.recon = record.losses.recon,
                     .kl = record.losses.kl,
                     .loss = record.losses.loss,
                     .examples = record.losses.examples};
    if (record.skipped > 0) {
        const std::size_t bad = record.first_tensor;
        totals.skipped = {.count = record.skipped,
                          .first_step = record.first_step,
                          .first_tensor = bad < tensors_.size() ? tensors_[bad] : ""};
    }
    return totals;
}

}  // namespace vae::gpu
