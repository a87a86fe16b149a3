// Any number of rows through a backend, in blocks of one size. The last block is filled up with
// zeros and the surplus dropped: a matrix product may round differently for another number of
// rows, and this way a row's result is the same, to the bit, however many rows are asked for.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "host/backend.h"
#include "host/likelihood_sample.h"

namespace vae {

// Told after each block how many rows are done.
using RowsDone = std::function<void(std::size_t)>;

// Examples [0, count) of a split as the model sees them, [count, pixels].
std::vector<float> first_examples(Backend& backend, Split split, std::size_t count);

// The posteriors of examples [0, count) of a split.
Posterior encode_examples(Backend& backend, Split split, std::size_t count,
                          const RowsDone& on_rows = {});

// An example for each row of z[rows, latent], [rows, pixels]: the likelihood's mean, or what
// `sampler` draws, row r as its example r.
std::vector<float> decode_codes(Backend& backend, std::span<const float> z, std::size_t latent,
                                const LikelihoodSampler* sampler = nullptr,
                                const RowsDone& on_rows = {});

}  // namespace vae
