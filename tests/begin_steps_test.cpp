#include "kernels/begin_steps.h"

#include <gtest/gtest.h>

#include <numeric>
#include <stdexcept>
#include <vector>

#include "host/noise.h"
#include "host/shuffle.h"
#include "tests/device_memory.h"
#include "tests/kernel_reference.h"

namespace vae::test {
namespace {

using kernels::StepQueue;
using kernels::StepState;

constexpr std::uint64_t kSeed = 0x123456789abcdefULL;

std::vector<StepState> table_of(std::size_t steps) {
    std::vector<StepState> table(steps);
    for (std::size_t i = 0; i < steps; ++i) {
        table[i] = {.step = (1ULL << 33) + i,
                    .beta = 0.5 + static_cast<double>(i),
                    .step_size = 1.0f / static_cast<float>(i + 1)};
    }
    return table;
}

class BeginSteps : public KernelTest {
  protected:
    // Takes `calls` times `steps` steps of `batch` from where the queue stands, and holds each
    // against what `row_of` says of a position.
    template <class RowOf>
    void check(const StepQueue& start, std::uint32_t count, int steps, int batch, int calls,
               const std::vector<std::uint32_t>& rows, const RowOf& row_of,
               std::uint32_t ring = 0) {
        SCOPED_TRACE(testing::Message() << count << " examples, " << steps << " x " << batch);
        const auto size = static_cast<std::size_t>(steps) * static_cast<std::size_t>(batch);
        const auto table = table_of(start.next + static_cast<std::size_t>(steps * calls));
        auto device_table = upload(table);
        auto queue = upload(std::vector<StepQueue>{start});
        auto device_rows = upload(rows);
        DeviceArray<StepState> states(stream(), static_cast<std::size_t>(steps));
        DeviceArray<std::uint32_t> index(stream(), size);
        DeviceArray<std::uint32_t> slots(stream(), size);
        const kernels::StepOrder order = {
            .queue = queue.data(),
            .table = device_table.data(),
            .rows = rows.empty() ? nullptr : device_rows.data(),
            .shuffle = {.seed = kSeed, .purpose = static_cast<std::uint32_t>(Purpose::shuffle)},
            .count = count,
            .ring = ring};
        for (int call = 0; call < calls; ++call) {
            kernels::begin_steps(order, steps, batch, states.data(), index.data(),
                                 ring == 0 ? nullptr : slots.data(), stream().get());
            const unsigned begun = static_cast<unsigned>(call * steps);
            const auto now = states.download();
            for (std::size_t k = 0; k < now.size(); ++k) {
                const StepState& want = table[start.next + begun + k];
                EXPECT_EQ(now[k].step, want.step);
                EXPECT_EQ(now[k].beta, want.beta);
                EXPECT_EQ(now[k].step_size, want.step_size);
            }
            const unsigned position = start.position + begun * static_cast<unsigned>(batch);
            const auto got = index.download();
            for (std::size_t i = 0; i < size; ++i) {
                ASSERT_EQ(got[i], row_of(position + static_cast<std::uint32_t>(i))) << i;
            }
            if (ring == 0) continue;
            const auto lie = slots.download();
            for (std::size_t i = 0; i < size; ++i) {
                ASSERT_EQ(lie[i], (start.slot + static_cast<std::size_t>(call) * size + i) % ring)
                    << i;
            }
        }
        const StepQueue end = queue.download()[0];
        EXPECT_EQ(end.next, start.next + static_cast<unsigned>(steps * calls));
        EXPECT_EQ(end.position, start.position + static_cast<unsigned>(steps * calls * batch));
        const auto taken = static_cast<unsigned>(calls) * size;
        EXPECT_EQ(end.slot, ring == 0 ? start.slot : (start.slot + taken) % ring);
        EXPECT_EQ(end.ticket, 0U);
    }
};

// The host's permutation was written on its own.
TEST_F(BeginSteps, TakesTheShuffledOrderOfTheHost) {
    for (const std::uint32_t count : {1U, 2U, 3U, 31U, 32U, 33U, 255U, 256U, 257U, 1009U}) {
        const Shuffle shuffle(kSeed, 7, count);
        const auto row_of = [&](std::uint32_t position) { return shuffle.row(position); };
        check({.epoch = 7}, count, 1, static_cast<int>(count), 1, {}, row_of);
    }
    const Shuffle shuffle(kSeed, 7, 60000);
    check({.next = 2, .position = 101, .epoch = 7}, 60000, 5, 127, 3, {},
          [&](std::uint32_t position) { return shuffle.row(position); });
}

TEST_F(BeginSteps, TakesGivenRows) {
    std::vector<std::uint32_t> rows(1000);
    std::iota(rows.begin(), rows.end(), 5U);
    check({.position = 3, .has_rows = 1}, 2000, 4, 33, 2, rows,
          [&](std::uint32_t position) { return rows[position]; });
}

// Through a ring that just holds a call's examples, or that they divide, or not.
TEST_F(BeginSteps, ExamplesComeThroughARing) {
    const Shuffle shuffle(kSeed, 0, 700);
    const auto row_of = [&](std::uint32_t position) { return shuffle.row(position); };
    for (const std::uint32_t ring : {132U, 133U, 264U, 1000U}) {
        for (const unsigned slot : {0U, 1U, ring - 1}) {
            check({.slot = slot}, 700, 4, 33, 5, {}, row_of, ring);
        }
    }
}

// More steps than examples, and than a block has threads.
TEST_F(BeginSteps, StepsOfOneExample) {
    const Shuffle shuffle(kSeed, 0, 600);
    check({}, 600, 300, 1, 2, {}, [&](std::uint32_t position) { return shuffle.row(position); });
}

TEST_F(BeginSteps, WhatCannotBeIsRefused) {
    const kernels::StepOrder order = {.count = 10};
    const auto refused = [&](const kernels::StepOrder& of, int steps, int batch) {
        EXPECT_THROW(
            kernels::begin_steps(of, steps, batch, nullptr, nullptr, nullptr, stream().get()),
            std::invalid_argument);
    };
    refused(order, 0, 1);
    refused(order, 1, 0);
    refused(order, 1 << 20, 1 << 20);
    refused({}, 1, 1);
    refused({.count = 10, .ring = 7}, 2, 4);
}

}  // namespace
}  // namespace vae::test
