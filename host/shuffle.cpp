#include "host/shuffle.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <stdexcept>

#include "host/noise.h"

namespace vae {
namespace {

std::uint32_t mask(unsigned bits) {
    return (std::uint32_t{1} << bits) - 1;
}

}  // namespace

Shuffle::Shuffle(std::uint64_t seed, std::uint32_t epoch, std::uint32_t count) : count_(count) {
    if (count == 0) throw std::invalid_argument("an order of no examples");
    const auto bits =
        static_cast<unsigned>(std::max(2, static_cast<int>(std::bit_width(count - 1))));
    low_bits_ = bits / 2;
    high_bits_ = bits - low_bits_;
    NoiseAddress address{.seed = seed, .purpose = Purpose::shuffle, .step = epoch};
    for (std::uint32_t i = 0; i < kRounds; ++i) {
        const bool from_low = i % 2 == 0;
        const std::uint32_t cut = mask(from_low ? high_bits_ : low_bits_);
        address.sample = i;
        words_[i].resize(std::size_t{1} << (from_low ? low_bits_ : high_bits_));
        for (std::size_t half = 0; half < words_[i].size(); ++half) {
            address.example = static_cast<std::uint32_t>(half);
            words_[i][half] = noise_block(address, 0)[0] & cut;
        }
    }
}

std::uint32_t Shuffle::row(std::uint32_t position) const {
    if (position >= count_) {
        throw std::invalid_argument(
            fmt::format("position {} in an order of {} examples", position, count_));
    }
    std::uint32_t value = position;
    do {
        std::uint32_t low = value & mask(low_bits_);
        std::uint32_t high = value >> low_bits_;
        for (std::uint32_t i = 0; i < kRounds; i += 2) {
            high ^= words_[i][low];
            low ^= words_[i + 1][high];
        }
        value = high << low_bits_ | low;
    } while (value >= count_);
    return value;
}

std::vector<std::uint32_t> shuffled_rows(std::uint64_t seed, std::uint32_t epoch,
                                         std::uint32_t count) {
    std::vector<std::uint32_t> rows(count);
    if (count == 0) return rows;
    const Shuffle shuffle(seed, epoch, count);
    for (std::uint32_t position = 0; position < count; ++position) {
        rows[position] = shuffle.row(position);
    }
    return rows;
}

}  // namespace vae
