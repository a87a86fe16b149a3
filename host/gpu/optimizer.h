// What a training step does with its gradients, on the device: their statistics, the update, and
// the losses and skipped steps until somebody asks.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "host/backend.h"
#include "host/config.h"
#include "host/gpu/device_array.h"
#include "host/parameters.h"
#include "kernels/arena.h"
#include "kernels/gradient_statistics.h"
#include "kernels/loss_totals.h"
#include "kernels/optimizer.h"
#include "kernels/step_state.h"

namespace vae::gpu {

class DeviceOptimizer {
  public:
    DeviceOptimizer(const TrainConfig& train, const ParameterLayout& layout, const Stream& stream,
                    DeviceArena& arena);
    // Once the arena is allocated, before all else: moments and average are zero.
    void start();

    // The moments and the average of a state that fits. Both wait.
    void upload(const TrainingState& state);
    void download(TrainingState& state) const;

    // Where the losses of the coming step are added up, before it is taken.
    kernels::LossSums* batch_losses() { return batch_losses_.data(); }
    // What the device needs to know of step number `index` of the run, counted from 0.
    kernels::StepState state_of(std::uint64_t index, const StepSchedule& schedule) const;
    // The step of a state on the device: moves the parameters, and their copy in bf16 if there is
    // one, against the gradients unless a gradient or the losses are not finite.
    void step(const kernels::StepState* state, const float* gradients, float* parameters,
              kernels::Bf16* rounded);
    // Whether the last step was taken, 1 or 0 on the device.
    const unsigned* is_taken() const { return is_taken_.data(); }
    // As those of Backend.
    void close_totals();
    TrainTotals take_totals();

    float* ema_arena() { return ema_.data(); }  // null if there is none
    bool has_ema() const { return ema_.size() > 0; }
    const DeviceArray<float>& ema() const { return ema_; }

  private:
    float* moment(std::size_t i) { return i < moments_.size() ? moments_[i].data() : nullptr; }

    const TrainConfig train_;
    const kernels::OptimizerSettings settings_;
    const std::size_t arena_size_;
    const Stream& stream_;
    std::vector<std::string> tensors_;  // names
    std::vector<DeviceArray<float>> moments_;
    DeviceArray<float> ema_;
    const kernels::ArenaPieces cut_;
    DeviceArray<kernels::ArenaPiece> pieces_;
    DeviceArray<unsigned> first_piece_;
    kernels::ArenaTable table_;  // the two above
    DeviceArray<double> squares_;
    DeviceArray<float> scales_;
    DeviceArray<double> partials_;
    DeviceArray<unsigned> ticket_;
    DeviceArray<unsigned> is_taken_;
    DeviceArray<kernels::LossSums> batch_losses_;
    DeviceArray<kernels::StepRecord> record_;
    PinnedArray<kernels::StepRecord> closed_{kClosedTotals};  // in turn
    std::array<Event, kClosedTotals> is_there_;               // of each: it was copied
    std::size_t times_closed_ = 0;
    std::size_t times_taken_ = 0;
};

}  // namespace vae::gpu
