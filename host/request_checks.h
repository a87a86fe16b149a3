// What every backend refuses, in the same words. All throw std::invalid_argument.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "host/backend.h"
#include "host/dataset.h"
#include "host/parameters.h"

namespace vae {

// Every split that has examples has the model's number of pixels.
void check_data(const Splits& splits, const ParameterLayout& layout);

// Parameters, and the moments and average of the configuration, in arenas of layout.arena_size.
void check_state(const TrainingState& state, const ParameterLayout& layout,
                 const TrainConfig& train);

// Every row is one of the split's examples.
void check_rows(std::span<const std::uint32_t> rows, Split split, std::size_t examples);

// check_rows, and a number of draws that can be addressed.
void check_draws(const DrawRequest& request, std::size_t examples);

// Rows or part of the training split, a batch of at least 1, steps that 32 bits can address, and a
// schedule for them.
void check_request(const TrainRequest& request, std::size_t training_examples);

// check_request, and the request goes on where the state is: at step steps_done.
void check_training(const TrainRequest& request, std::size_t training_examples,
                    std::uint64_t steps_done);

// check_request, and the request is one step of at least one row.
void check_trace(const TrainRequest& request, std::size_t training_examples);

// The number of rows of `width` in an array of `values` elements, which must be whole.
std::size_t whole_rows(std::size_t values, std::size_t width, const char* caller);

}  // namespace vae
