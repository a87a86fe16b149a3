#include "host/pictures.h"

#include <algorithm>
#include <cmath>

#include "host/image.h"

namespace vae {

namespace {

constexpr std::size_t kPairColumns = 8;

void append(std::vector<float>& to, std::span<const float> from) {
    to.insert(to.end(), from.begin(), from.end());
}

}  // namespace

bool is_drawable(const ImageShape& shape) {
    return shape.height > 1 && (shape.channels == 1 || shape.channels == 3);
}

std::vector<float> prior_samples(Backend& backend, const PriorSampler& prior, std::size_t latent,
                                 std::uint64_t seed, std::size_t count,
                                 const LikelihoodSampler* sampler, const RowsDone& on_rows) {
    return decode_codes(backend, prior.draw(seed, count), latent, sampler, on_rows);
}

Reconstructions reconstruct(Backend& backend, Split split, std::size_t count,
                            const LikelihoodSampler* sampler) {
    if (count == 0) return {};
    const std::vector<float> mu = encode_examples(backend, split, count).mu;
    return {first_examples(backend, split, count),
            decode_codes(backend, mu, mu.size() / count, sampler)};
}

void scale_for_picture(Likelihood likelihood, std::initializer_list<std::vector<float>*> arrays) {
    if (likelihood != Likelihood::poisson) return;
    float largest = 0;
    for (const auto* values : arrays) {
        for (const float value : *values) largest = std::max(largest, value);
    }
    if (largest == 0) return;
    for (auto* values : arrays) {
        for (float& value : *values) value /= largest;
    }
}

void check_reconstruction_grid(const ImageShape& shape, std::size_t count) {
    const std::size_t columns = std::min(count, kPairColumns);
    if (count > 0) check_png_grid(shape, (count + columns - 1) / columns * columns * 2, columns);
}

void write_reconstruction_grid(const std::filesystem::path& path, const Reconstructions& pairs,
                               const ImageShape& shape) {
    const std::size_t count = pairs.originals.size() / shape.pixels();
    const std::size_t columns = std::min(count, kPairColumns);
    std::vector<float> grid;
    for (std::size_t begin = 0; begin < count; begin += columns) {
        const std::size_t filled = std::min(columns, count - begin) * shape.pixels();
        for (const auto* images : {&pairs.originals, &pairs.decoded}) {
            append(grid, std::span(*images).subspan(begin * shape.pixels(), filled));
            grid.resize(grid.size() + columns * shape.pixels() - filled, 0.0F);
        }
    }
    write_png_grid(path, grid, shape, columns);
}

std::size_t grid_columns(std::size_t count) {
    return static_cast<std::size_t>(std::ceil(std::sqrt(static_cast<double>(count))));
}

}  // namespace vae
