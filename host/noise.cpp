#include "host/noise.h"

#include <algorithm>
#include <cmath>

namespace vae {
namespace {

// Multipliers and Weyl increments of the published generator.
constexpr std::uint32_t kMultiplier0 = 0xD2511F53;
constexpr std::uint32_t kMultiplier1 = 0xCD9E8D57;
constexpr std::uint32_t kWeyl0 = 0x9E3779B9;
constexpr std::uint32_t kWeyl1 = 0xBB67AE85;
constexpr int kRounds = 10;
constexpr std::size_t kWords = 4;  // of a block

constexpr float kUnit = 0x1p-32F;               // words to (0, 1]
constexpr float kTurn = 0x1p-32F * 6.2831855F;  // words to (0, 2π], rounded as cuRAND rounds it

float scaled(std::uint32_t word, float unit) {
    return static_cast<float>(word) * unit + unit / 2;
}

// Normals of two words. T is what follows the float uniforms.
template <class T>
std::array<T, 2> box_muller(std::uint32_t a, std::uint32_t b) {
    const auto u = static_cast<T>(scaled(a, kUnit));
    const auto v = static_cast<T>(scaled(b, kTurn));
    const T s = std::sqrt(T(-2) * std::log(u));
    return {s * std::sin(v), s * std::cos(v)};
}

// Calls values(block) -> array of four for each block that out needs, and copies what fits.
template <class T, class Values>
void fill(const NoiseAddress& address, std::span<T> out, Values values) {
    for (std::size_t i = 0; i < out.size(); i += kWords) {
        const auto block = noise_block(address, static_cast<std::uint32_t>(i / kWords));
        const std::array<T, kWords> four = values(block);
        std::copy_n(four.begin(), std::min(kWords, out.size() - i),
                    out.begin() + static_cast<std::ptrdiff_t>(i));
    }
}

template <class T>
void fill_normals(const NoiseAddress& address, std::span<T> out) {
    fill(address, out, [](const PhiloxBlock& block) {
        const auto first = box_muller<T>(block[0], block[1]);
        const auto second = box_muller<T>(block[2], block[3]);
        return std::array<T, kWords>{first[0], first[1], second[0], second[1]};
    });
}

}  // namespace

PhiloxBlock philox4x32_10(PhiloxBlock counter, std::array<std::uint32_t, 2> key) {
    for (int round = 0; round < kRounds; ++round) {
        const std::uint64_t p0 = std::uint64_t{kMultiplier0} * counter[0];
        const std::uint64_t p1 = std::uint64_t{kMultiplier1} * counter[2];
        counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ key[0],
                   static_cast<std::uint32_t>(p1),
                   static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ key[1],
                   static_cast<std::uint32_t>(p0)};
        key[0] += kWeyl0;
        key[1] += kWeyl1;
    }
    return counter;
}

PhiloxBlock noise_block(const NoiseAddress& address, std::uint32_t block) {
    const std::uint32_t purpose = static_cast<std::uint32_t>(address.purpose) << 24;
    return philox4x32_10(
        {block, address.sample | purpose, address.example, address.step},
        {static_cast<std::uint32_t>(address.seed), static_cast<std::uint32_t>(address.seed >> 32)});
}

void fill_uniform(const NoiseAddress& address, std::span<float> out) {
    fill(address, out, [](const PhiloxBlock& block) {
        return std::array<float, kWords>{scaled(block[0], kUnit), scaled(block[1], kUnit),
                                         scaled(block[2], kUnit), scaled(block[3], kUnit)};
    });
}

void fill_normal(const NoiseAddress& address, std::span<float> out) {
    fill_normals(address, out);
}

void fill_normal(const NoiseAddress& address, std::span<double> out) {
    fill_normals(address, out);
}

}  // namespace vae
