#include "host/row_blocks.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace vae {

namespace {

constexpr std::size_t kBlockRows = 256;  // bounds a backend's memory

// Calls visit(first row, number of rows) for each block.
template <class Visit>
void for_each_block(std::size_t count, const RowsDone& on_rows, const Visit& visit) {
    for (std::size_t begin = 0; begin < count; begin += kBlockRows) {
        const std::size_t rows = std::min(kBlockRows, count - begin);
        visit(begin, rows);
        if (on_rows) on_rows(begin + rows);
    }
}

std::vector<float> block_of_examples(Backend& backend, Split split, std::size_t begin,
                                     std::size_t rows) {
    std::vector<std::uint32_t> indices(rows);
    std::iota(indices.begin(), indices.end(), static_cast<std::uint32_t>(begin));
    return backend.examples(split, indices);
}

// Appends the first `rows` of a block's rows.
void append_rows(std::vector<float>& to, const std::vector<float>& block, std::size_t rows) {
    const std::size_t size = block.size() / kBlockRows * rows;
    to.insert(to.end(), block.begin(), block.begin() + static_cast<std::ptrdiff_t>(size));
}

}  // namespace

std::vector<float> first_examples(Backend& backend, Split split, std::size_t count) {
    std::vector<float> all;
    for_each_block(count, {}, [&](std::size_t begin, std::size_t rows) {
        const std::vector<float> x = block_of_examples(backend, split, begin, rows);
        all.insert(all.end(), x.begin(), x.end());
    });
    return all;
}

Posterior encode_examples(Backend& backend, Split split, std::size_t count,
                          const RowsDone& on_rows) {
    Posterior all;
    for_each_block(count, on_rows, [&](std::size_t begin, std::size_t rows) {
        std::vector<float> x = block_of_examples(backend, split, begin, rows);
        x.resize(x.size() / rows * kBlockRows, 0.0F);
        const Posterior block = backend.encode(x);
        append_rows(all.mu, block.mu, rows);
        append_rows(all.logvar, block.logvar, rows);
        append_rows(all.tril, block.tril, rows);
    });
    return all;
}

std::vector<float> decode_codes(Backend& backend, std::span<const float> z, std::size_t latent,
                                const LikelihoodSampler* sampler, const RowsDone& on_rows) {
    std::vector<float> all;
    for_each_block(z.size() / latent, on_rows, [&](std::size_t begin, std::size_t rows) {
        const std::span<const float> codes = z.subspan(begin * latent, rows * latent);
        std::vector<float> block(codes.begin(), codes.end());
        block.resize(kBlockRows * latent, 0.0F);
        if (sampler == nullptr) {
            append_rows(all, backend.decode(block), rows);
            return;
        }
        std::vector<float> outputs;
        append_rows(outputs, backend.outputs(block), rows);
        const std::vector<float> x = sampler->draw(outputs, static_cast<std::uint32_t>(begin));
        all.insert(all.end(), x.begin(), x.end());
    });
    return all;
}

}  // namespace vae
