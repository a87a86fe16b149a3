#include "host/shuffle.h"

#include <algorithm>
#include <utility>

#include "host/noise.h"

namespace vae {

std::vector<std::uint32_t> shuffled_rows(std::uint64_t seed, std::uint32_t epoch,
                                         std::uint32_t count) {
    std::vector<std::pair<std::uint64_t, std::uint32_t>> keyed(count);
    NoiseAddress address{.seed = seed, .purpose = Purpose::shuffle, .step = epoch};
    for (std::uint32_t row = 0; row < count; ++row) {
        address.example = row;
        const PhiloxBlock words = noise_block(address, 0);
        keyed[row] = {words[0] | std::uint64_t{words[1]} << 32, row};
    }
    std::sort(keyed.begin(), keyed.end());
    std::vector<std::uint32_t> rows(count);
    std::transform(keyed.begin(), keyed.end(), rows.begin(),
                   [](const auto& pair) { return pair.second; });
    return rows;
}

}  // namespace vae
