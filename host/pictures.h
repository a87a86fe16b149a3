// Samples and reconstructions, as arrays and as pictures.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <span>
#include <vector>

#include "host/backend.h"
#include "host/prior_sampler.h"
#include "host/row_blocks.h"

namespace vae {

// Whether examples of this shape can be drawn: more than one row, grey or RGB.
bool is_drawable(const ImageShape& shape);

// Examples of `count` codes z from the prior, [count, pixels]: the likelihood's means, or what
// `sampler` draws. Codes have addresses of their own and are decoded in blocks of one size, so the
// first samples do not depend on how many are asked for, to the bit.
std::vector<float> prior_samples(Backend& backend, const PriorSampler& prior, std::size_t latent,
                                 std::uint64_t seed, std::size_t count,
                                 const LikelihoodSampler* sampler = nullptr,
                                 const RowsDone& on_rows = {});

// Examples [0, count) of a split as the model sees them, and what their codes' posterior means
// decode to: the likelihood's means, or what `sampler` draws; [count, pixels] each.
struct Reconstructions {
    std::vector<float> originals;
    std::vector<float> decoded;
};
Reconstructions reconstruct(Backend& backend, Split split, std::size_t count,
                            const LikelihoodSampler* sampler = nullptr);

// Values as they are drawn, black at 0 and white at 1. Counts are divided by the largest of all
// arrays; the values of other likelihoods stay.
void scale_for_picture(Likelihood likelihood, std::initializer_list<std::vector<float>*> arrays);

// Throws InputError when write_reconstruction_grid would refuse as many pairs.
void check_reconstruction_grid(const ImageShape& shape, std::size_t count);

// A picture with rows of originals, each above the row of its reconstructions.
void write_reconstruction_grid(const std::filesystem::path& path, const Reconstructions& pairs,
                               const ImageShape& shape);

// How many columns a grid of `count` pictures has: as square as can be.
std::size_t grid_columns(std::size_t count);

}  // namespace vae
