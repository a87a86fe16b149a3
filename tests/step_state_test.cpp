// Kernels of a training step read its number and beta from the device. Each gives the bits that it
// gives when it is told.
#include "kernels/step_state.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/cholesky_posterior.h"
#include "kernels/gather.h"
#include "kernels/loss_totals.h"
#include "kernels/mixture_prior.h"
#include "kernels/objective.h"
#include "kernels/reparameterize.h"
#include "tests/device_memory.h"
#include "tests/kernel_reference.h"

namespace vae::test {
namespace {

using kernels::StepState;

constexpr std::uint32_t kStep = 41;
constexpr double kBeta = 0.37;
constexpr double kFactor = 0.21;
constexpr int kExamples = 5;
constexpr int kSamples = 3;
constexpr int kLatent = 6;
constexpr int kStride = 8;
constexpr std::size_t kRows = std::size_t{kExamples} * kSamples;

class StepStateTest : public KernelTest {
  protected:
    // What `compute` makes of a step that it is told, and of one that it has to look up: it gets
    // the number, the state and the factor of the KL term.
    template <class Compute>
    void check(const Compute& compute) {
        // Its upper half is not part of the noise's address.
        auto state = upload(std::vector<StepState>{{.step = kStep + (1ULL << 32), .beta = kBeta}});
        const std::vector<float> told = compute(kStep, nullptr, kFactor * kBeta);
        const std::vector<float> read = compute(0, state.data(), kFactor);
        expect_same_bits(read, told, "what was read");
        EXPECT_NE(compute(0, nullptr, kFactor), told) << "the step changes nothing";
    }
    kernels::NoiseStream noise(std::uint32_t step, const StepState* state) const {
        return {.seed = 3, .purpose = 4, .step = step, .state = state};
    }
};

TEST_F(StepStateTest, GatherDrawsItsPixels) {
    auto data = upload(std::vector<std::uint8_t>(40, 128));
    auto index = upload(std::vector<std::uint32_t>{3, 1, 0});
    check([&](std::uint32_t step, const StepState* state, double) {
        auto x = output(30);
        kernels::gather(data.data(), index.data(), nullptr, 3, 10, kernels::Pixels::binary,
                        noise(step, state), 0, x.data(), nullptr, stream().get());
        return x.download();
    });
}

TEST_F(StepStateTest, ReparameterizationForwardAndBackward) {
    auto product = upload(random_normals(std::size_t{kExamples} * 2 * kStride, 1));
    auto bias = upload(random_normals(kLatent, 2));
    auto d_z = upload(random_normals(kRows * kLatent, 3));
    auto index = upload(std::vector<std::uint32_t>{4, 0, 2, 1, 3});
    DeviceScratch scratch(stream(), kExamples, 2 * kStride);
    const kernels::HeadsView heads = {product.data(), bias.data(), bias.data(), kExamples, kSamples,
                                      kLatent,        kStride,     -5,          5};
    check([&](std::uint32_t step, const StepState* state, double factor) {
        const kernels::EpsilonSource source = {noise(step, state), index.data(), 0};
        auto z = output(kRows * kLatent);
        kernels::reparameterize_forward(heads, source, {.z = z.data()}, stream().get());
        auto d_product = output(std::size_t{kExamples} * 2 * kStride);
        auto d_mu = output(kLatent);
        auto d_logvar = output(kLatent);
        kernels::reparameterize_backward(
            heads, source, {.d_z = d_z.data(), .kl_scale = factor, .state = state},
            d_product.data(), d_mu.data(), d_logvar.data(), scratch.get(), stream().get());
        std::vector<float> all = z.download();
        for (const float d : d_product.download()) all.push_back(d);
        return all;
    });
}

TEST_F(StepStateTest, CholeskyForwardAndBackward) {
    constexpr int kTril = kLatent * (kLatent - 1) / 2;
    constexpr int kTrilStride = 16;
    const std::size_t size = std::size_t{kExamples} * (2 * kStride + kTrilStride);
    auto product = upload(random_normals(size, 1));
    auto bias = upload(random_normals(kTril, 2));
    auto d_z = upload(random_normals(kRows * kLatent, 3));
    auto index = upload(std::vector<std::uint32_t>{4, 0, 2, 1, 3});
    DeviceScratch scratch(stream(), kExamples, 2 * kStride + kTrilStride);
    const kernels::CholeskyHeads heads = {.heads = {product.data(), bias.data(), bias.data(),
                                                    kExamples, kSamples, kLatent, kStride, -5, 5},
                                          .tril_bias = bias.data(),
                                          .tril_stride = kTrilStride};
    check([&](std::uint32_t step, const StepState* state, double factor) {
        auto epsilon = output(kRows * kLatent);
        auto z = output(kRows * kLatent);
        kernels::cholesky_forward(heads, {noise(step, state), index.data(), 0},
                                  {.epsilon = epsilon.data(), .z = z.data()}, stream().get());
        auto d_product = output(size);
        auto d_mu = output(kLatent);
        auto d_logvar = output(kLatent);
        auto d_tril = output(kTril);
        auto draws = output(kRows * kLatent);
        kernels::cholesky_backward(
            heads, {epsilon.data(), z.data()},
            {.d_z = d_z.data(), .kl_scale = factor, .state = state},
            {d_product.data(), d_mu.data(), d_logvar.data(), d_tril.data(), draws.data()},
            scratch.get(), stream().get());
        std::vector<float> all = z.download();
        for (const float d : d_product.download()) all.push_back(d);
        return all;
    });
}

TEST_F(StepStateTest, ObjectiveAndTotals) {
    auto recon = upload(random_normals(kRows, 1));
    auto log_ratio = upload(random_normals(kRows, 2));
    check([&](std::uint32_t, const StepState* state, double factor) {
        auto loss = output(kExamples);
        auto ratio = output(kRows);
        kernels::objective(kernels::Objective::iwae,
                           {.recon = recon.data(),
                            .log_ratio = log_ratio.data(),
                            .examples = kExamples,
                            .samples = kSamples,
                            .beta = factor,
                            .state = state},
                           nullptr, {.loss = loss.data(), .ratio = ratio.data()}, stream().get());
        auto totals = upload(std::vector<kernels::LossSums>{{}});
        kernels::add_losses(recon.data(), log_ratio.data(), nullptr, kExamples, factor, state,
                            totals.data(), stream().get());
        std::vector<float> all = loss.download();
        for (const float r : ratio.download()) all.push_back(r);
        all.push_back(static_cast<float>(totals.download()[0].loss));
        return all;
    });
}

TEST_F(StepStateTest, MixturePrior) {
    constexpr int kComponents = 3;
    const std::size_t size = std::size_t{kComponents} * kLatent;
    auto mean = upload(random_normals(size, 1));
    auto logvar = upload(random_normals(size, 2));
    auto logits = upload(random_normals(kComponents, 3));
    auto z = upload(random_normals(kRows * kLatent, 4));
    auto weight = upload(random_normals(kRows, 5));
    const kernels::MixtureSource source = {.mean = mean.data(),
                                           .logvar = logvar.data(),
                                           .row_stride = kLatent,
                                           .logits = logits.data(),
                                           .components = kComponents,
                                           .latent = kLatent,
                                           .logvar_min = -5,
                                           .logvar_max = 5};
    auto of_mean = output(size);
    auto inverse_sigma = output(size);
    auto excess = output(size);
    auto offset = output(kComponents);
    DeviceArray<double> log_weight(stream(), kComponents);
    const kernels::MixtureComponents components = {.mean = of_mean.data(),
                                                   .inverse_sigma = inverse_sigma.data(),
                                                   .excess = excess.data(),
                                                   .offset = offset.data(),
                                                   .log_weight = log_weight.data()};
    const kernels::ScratchSize needed =
        kernels::mixture_scratch_size(static_cast<int>(kRows), kComponents, kLatent);
    auto partials = output(needed.partials);
    auto tickets = upload(std::vector<unsigned>(needed.tickets, 0));
    check([&](std::uint32_t, const StepState* state, double factor) {
        auto ratio = upload(std::vector<float>(kRows, 0));
        auto score = output(kRows * kLatent);
        auto gamma = output(kRows * kComponents);
        kernels::mixture_components(source, components, stream().get());
        kernels::mixture_forward(
            source, components, z.data(), static_cast<int>(kRows),
            {.log_ratio = ratio.data(), .score = score.data(), .gamma = gamma.data()},
            stream().get());
        auto d_mean = output(size);
        auto d_logvar = output(size);
        auto d_logits = output(kComponents);
        kernels::mixture_backward(
            source, components,
            {.z = z.data(),
             .gamma = gamma.data(),
             .weight = weight.data(),
             .rows = static_cast<int>(kRows),
             .scale = factor,
             .state = state},
            {.mean = d_mean.data(), .logvar = d_logvar.data(), .logits = d_logits.data()},
            {partials.data(), needed.partials, tickets.data(), needed.tickets}, stream().get());
        std::vector<float> all = d_mean.download();
        for (const float d : d_logits.download()) all.push_back(d);
        return all;
    });
}

}  // namespace
}  // namespace vae::test
