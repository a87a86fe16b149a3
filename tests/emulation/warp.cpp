#include "warp.h"

#include <algorithm>
#include <bit>

namespace emulation {
namespace {

template <class Action>
void for_each_lane(unsigned mask, Action action) {
    for (; mask != 0; mask &= mask - 1) action(static_cast<unsigned>(std::countr_zero(mask)));
}

// The lane that a shuffle reads, or its own where the source is outside its segment.
unsigned source_of(const WarpCall& call, unsigned lane) {
    const unsigned first = lane & ~(call.width - 1);
    const unsigned last = first + call.width - 1;
    const unsigned argument = call.argument;
    switch (call.operation) {
        case WarpOperation::shuffle:
            return first + (argument & (call.width - 1));
        case WarpOperation::shuffle_up:
            return argument <= lane - first ? lane - argument : lane;
        case WarpOperation::shuffle_down:
            return argument <= last - lane ? lane + argument : lane;
        default: {
            const unsigned source = lane ^ argument;  // an earlier segment may be read
            return source <= last ? source : lane;
        }
    }
}

std::uint64_t reduced(WarpOperation operation, std::uint64_t left, std::uint64_t right) {
    const auto a = static_cast<std::uint32_t>(left);
    const auto b = static_cast<std::uint32_t>(right);
    const auto signed_a = static_cast<std::int32_t>(a);
    const auto signed_b = static_cast<std::int32_t>(b);
    switch (operation) {
        case WarpOperation::add:
            return a + b;
        case WarpOperation::minimum:
            return std::min(a, b);
        case WarpOperation::maximum:
            return std::max(a, b);
        case WarpOperation::signed_minimum:
            return static_cast<std::uint32_t>(std::min(signed_a, signed_b));
        case WarpOperation::signed_maximum:
            return static_cast<std::uint32_t>(std::max(signed_a, signed_b));
        case WarpOperation::bit_and:
            return a & b;
        case WarpOperation::bit_or:
            return a | b;
        default:
            return a ^ b;
    }
}

void reduce(Warp& warp, unsigned mask) {
    const auto first = static_cast<unsigned>(std::countr_zero(mask));
    std::uint64_t result = warp.calls[first].value;
    for_each_lane(mask & (mask - 1), [&](unsigned lane) {
        result = reduced(warp.calls[first].operation, result, warp.calls[lane].value);
    });
    for_each_lane(mask, [&](unsigned lane) { warp.results[lane] = result; });
}

}  // namespace

bool agree(const Warp& warp, unsigned mask) {
    const WarpCall& first = warp.calls[static_cast<unsigned>(std::countr_zero(mask))];
    bool same = true;
    for_each_lane(mask, [&](unsigned lane) {
        const WarpCall& call = warp.calls[lane];
        same = same && call.operation == first.operation && call.mask == mask;
    });
    return same;
}

void compute(Warp& warp, unsigned mask) {
    switch (warp.calls[static_cast<unsigned>(std::countr_zero(mask))].operation) {
        case WarpOperation::sync:
            break;
        case WarpOperation::shuffle:
        case WarpOperation::shuffle_up:
        case WarpOperation::shuffle_down:
        case WarpOperation::shuffle_xor:
            for_each_lane(mask, [&](unsigned lane) {
                const unsigned source = source_of(warp.calls[lane], lane);
                const bool defined = ((mask >> source) & 1u) != 0;
                warp.results[lane] = defined ? warp.calls[source].value : ~std::uint64_t{0};
            });
            break;
        case WarpOperation::ballot: {
            std::uint64_t votes = 0;
            for_each_lane(mask, [&](unsigned lane) { votes |= warp.calls[lane].value << lane; });
            for_each_lane(mask, [&](unsigned lane) { warp.results[lane] = votes; });
            break;
        }
        case WarpOperation::match:
            for_each_lane(mask, [&](unsigned lane) {
                std::uint64_t equal = 0;
                for_each_lane(mask, [&](unsigned other) {
                    const bool same = warp.calls[other].value == warp.calls[lane].value;
                    equal |= std::uint64_t{same} << other;
                });
                warp.results[lane] = equal;
            });
            break;
        case WarpOperation::multiply_tf32:
        case WarpOperation::multiply_bf16:
            multiply_matrices(warp);
            break;
        default:
            reduce(warp, mask);
    }
}

const char* name_of(WarpOperation operation) {
    switch (operation) {
        case WarpOperation::sync:
            return "__syncwarp";
        case WarpOperation::shuffle:
            return "__shfl_sync";
        case WarpOperation::shuffle_up:
            return "__shfl_up_sync";
        case WarpOperation::shuffle_down:
            return "__shfl_down_sync";
        case WarpOperation::shuffle_xor:
            return "__shfl_xor_sync";
        case WarpOperation::ballot:
            return "__ballot_sync, __any_sync or __all_sync";
        case WarpOperation::match:
            return "__match_any_sync";
        case WarpOperation::multiply_tf32:
        case WarpOperation::multiply_bf16:
            return "a matrix instruction";
        default:
            return "__reduce_*_sync";
    }
}

}  // namespace emulation
