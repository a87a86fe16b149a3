#include "kernels/loss_totals.h"

#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>
#include <vector>

#include "tests/device_memory.h"
#include "tests/kernel_reference.h"

namespace vae::test {
namespace {

using kernels::LossSums;

class LossTotals : public KernelTest {};

TEST_F(LossTotals, AddToWhatIsThere) {
    constexpr double kBeta = 0.3;
    for (const int rows : {0, 1, 31, 32, 33, 101, 511, 512, 513, 5000}) {
        SCOPED_TRACE(rows);
        const auto recon = random_normals(static_cast<std::size_t>(rows), 1, 100);
        const auto kl = random_normals(static_cast<std::size_t>(rows), 2, 10);
        const auto loss = random_normals(static_cast<std::size_t>(rows), 3, 100);
        auto device_recon = upload(recon);
        auto device_kl = upload(kl);
        auto device_loss = upload(loss);
        auto totals = upload(std::vector<LossSums>{{7, -2, 1, 3}});
        double recon_sum = 0;
        double kl_sum = 0;
        double loss_sum = 0;
        for (const float value : recon) recon_sum += value;
        for (const float value : kl) kl_sum += value;
        for (const float value : loss) loss_sum += value;
        for (int call = 1; call <= 2; ++call) {
            kernels::add_losses(device_recon.data(), device_kl.data(), nullptr, rows, kBeta,
                                nullptr, totals.data(), stream().get());
            const LossSums got = totals.download()[0];
            // Sums of at most 5000 terms of about 100 in double: far below 1e-8.
            EXPECT_NEAR(got.recon, 7 + call * recon_sum, 1e-8);
            EXPECT_NEAR(got.kl, -2 + call * kl_sum, 1e-8);
            EXPECT_NEAR(got.loss, 1 + call * (recon_sum + kBeta * kl_sum), 1e-8);
            EXPECT_EQ(got.examples, static_cast<unsigned>(3 + call * rows));
        }
        kernels::add_losses(device_recon.data(), device_kl.data(), device_loss.data(), rows, kBeta,
                            nullptr, totals.data(), stream().get());
        const LossSums got = totals.download()[0];
        EXPECT_NEAR(got.recon, 7 + 3 * recon_sum, 1e-8);
        EXPECT_NEAR(got.loss, 1 + 2 * (recon_sum + kBeta * kl_sum) + loss_sum, 1e-8);
    }
}

TEST_F(LossTotals, NanComesThrough) {
    auto recon = upload(std::vector<float>{1, 2, kNan});
    auto kl = upload(std::vector<float>{1, 2, 3});
    auto totals = upload(std::vector<LossSums>{{0, 0, 0, 0}});
    kernels::add_losses(recon.data(), kl.data(), nullptr, 3, 1, nullptr, totals.data(),
                        stream().get());
    const LossSums got = totals.download()[0];
    EXPECT_TRUE(std::isnan(got.recon));
    EXPECT_TRUE(std::isnan(got.loss));
    EXPECT_EQ(got.kl, 6);
}

TEST_F(LossTotals, NegativeRowsThrow) {
    auto totals = upload(std::vector<LossSums>{{0, 0, 0, 0}});
    EXPECT_THROW(kernels::add_losses(nullptr, nullptr, nullptr, -1, 1, nullptr, totals.data(),
                                     stream().get()),
                 std::invalid_argument);
}

}  // namespace
}  // namespace vae::test
