#include "host/request_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "host/shuffle.h"

namespace vae {

void check_data(const Splits& splits, const ParameterLayout& layout) {
    for (const Split split : {Split::train, Split::validation, Split::test}) {
        const Dataset& data = splits.of(split);
        if (data.size > 0 && data.shape.pixels() != layout.pixels) {
            throw std::invalid_argument(fmt::format("{} examples have {} pixels, the model has {}",
                                                    name_of(split), data.shape.pixels(),
                                                    layout.pixels));
        }
    }
}

void check_state(const TrainingState& state, const ParameterLayout& layout,
                 const TrainConfig& train) {
    const auto check_size = [](std::size_t size, std::size_t wanted) {
        if (size == wanted) return;
        throw std::invalid_argument(
            fmt::format("set_state: an arena of {} elements, not {}", size, wanted));
    };
    const std::size_t moments = moment_names(train).size();
    if (state.moments.size() != moments) {
        throw std::invalid_argument(fmt::format("set_state: {} moments; the optimiser has {}",
                                                state.moments.size(), moments));
    }
    check_size(state.parameters.size(), layout.arena_size);
    for (const auto& moment : state.moments) check_size(moment.size(), layout.arena_size);
    check_size(state.ema.size(), train.ema > 0 ? layout.arena_size : 0);
}

void check_rows(std::span<const std::uint32_t> rows, Split split, std::size_t examples) {
    const auto wrong =
        std::find_if(rows.begin(), rows.end(), [&](std::uint32_t row) { return row >= examples; });
    if (wrong != rows.end()) {
        throw std::invalid_argument(
            fmt::format("row {} of the {} split, which has {}", *wrong, name_of(split), examples));
    }
}

void check_draws(const DrawRequest& request, std::size_t examples) {
    check_rows(request.rows, request.split, examples);
    if (request.draws < 1 || request.draws > kMostDraws) {
        throw std::invalid_argument(
            fmt::format("draw: {} draws, not 1 to {}", request.draws, kMostDraws));
    }
}

void check_request(const TrainRequest& request, std::size_t training_examples) {
    if (request.batch == 0) throw std::invalid_argument("a batch of 0 rows");
    check_rows(request.rows, Split::train, training_examples);
    const EpochPart& part = request.part;
    if (request.rows.empty() && std::uint64_t{part.first} + part.count > training_examples) {
        throw std::invalid_argument(fmt::format("positions {} to {} of an epoch of {} examples",
                                                part.first, std::uint64_t{part.first} + part.count,
                                                training_examples));
    }
    const std::uint64_t steps = steps_per_epoch(request.examples(), request.batch);
    constexpr std::uint64_t kMostSteps = std::numeric_limits<std::uint32_t>::max();
    if (steps > kMostSteps || request.first_step > kMostSteps - steps) {
        throw std::invalid_argument("noise is addressed by a step of 32 bits");
    }
    if (request.schedule.size() != 1 && request.schedule.size() != steps) {
        throw std::invalid_argument(
            fmt::format("a schedule of {} for {} steps", request.schedule.size(), steps));
    }
}

void check_training(const TrainRequest& request, std::size_t training_examples,
                    std::uint64_t steps_done) {
    check_request(request, training_examples);
    if (request.first_step != steps_done) {
        throw std::invalid_argument(fmt::format("training from step {} with the state of step {}",
                                                request.first_step, steps_done));
    }
}

void check_trace(const TrainRequest& request, std::size_t training_examples) {
    check_request(request, training_examples);
    if (request.rows.empty() || request.rows.size() > request.batch) {
        throw std::invalid_argument(
            fmt::format("trace: {} rows for one batch of {}", request.rows.size(), request.batch));
    }
}

std::size_t whole_rows(std::size_t values, std::size_t width, const char* caller) {
    if (values % width != 0) {
        throw std::invalid_argument(
            fmt::format("{}: {} values are not rows of {}", caller, values, width));
    }
    return values / width;
}

}  // namespace vae
