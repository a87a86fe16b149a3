#include "host/pictures.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "host/image.h"
#include "host/noise.h"

namespace vae {

namespace {

constexpr std::size_t kRowsAtOnce = 1024;  // bounds a backend's memory
constexpr std::size_t kPairColumns = 8;

void append(std::vector<float>& to, std::span<const float> from) {
    to.insert(to.end(), from.begin(), from.end());
}

}  // namespace

bool is_drawable(const ImageShape& shape) {
    return shape.height > 1 && (shape.channels == 1 || shape.channels == 3);
}

std::vector<float> prior_samples(Backend& backend, std::size_t latent, std::uint64_t seed,
                                 std::size_t count) {
    std::vector<float> samples;
    NoiseAddress address{.seed = seed, .purpose = Purpose::prior_sample};
    for (std::size_t begin = 0; begin < count; begin += kRowsAtOnce) {
        const std::size_t rows = std::min(kRowsAtOnce, count - begin);
        std::vector<float> z(rows * latent);
        for (std::size_t row = 0; row < rows; ++row) {
            address.example = static_cast<std::uint32_t>(begin + row);
            fill_normal(address, std::span<float>(z).subspan(row * latent, latent));
        }
        append(samples, backend.decode(z));
    }
    return samples;
}

Reconstructions reconstruct(Backend& backend, Split split, std::size_t count) {
    Reconstructions pairs;
    for (std::size_t begin = 0; begin < count; begin += kRowsAtOnce) {
        std::vector<std::uint32_t> rows(std::min(kRowsAtOnce, count - begin));
        std::iota(rows.begin(), rows.end(), static_cast<std::uint32_t>(begin));
        const std::vector<float> x = backend.examples(split, rows);
        append(pairs.originals, x);
        append(pairs.means, backend.decode(backend.encode(x).mu));
    }
    return pairs;
}

void write_reconstruction_grid(const std::filesystem::path& path, const Reconstructions& pairs,
                               const ImageShape& shape) {
    const std::size_t count = pairs.originals.size() / shape.pixels();
    const std::size_t columns = std::min(count, kPairColumns);
    std::vector<float> grid;
    for (std::size_t begin = 0; begin < count; begin += columns) {
        const std::size_t filled = std::min(columns, count - begin) * shape.pixels();
        for (const auto* images : {&pairs.originals, &pairs.means}) {
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
