// Hidden layers, each in every way that there is, and every mix of ways from layer to layer and
// from forward to backward, against plain products with kernels between them. Runs on a GPU or
// under the emulation.
#include <gtest/gtest.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "host/gpu/hidden_layers.h"
#include "kernels/convert.h"
#include "kernels/dense.h"
#include "tests/model_fixtures.h"

namespace vae::gpu {
namespace {

constexpr int kRows = 19;
constexpr int kFewerRows = 5;
constexpr std::uint32_t kLatent = 9;
constexpr std::size_t kPixels = 41;
constexpr std::size_t kWidest = 50;     // hidden layer
constexpr int kWidestProduct = 2 * 64;  // of a gated one, with its padding

Config config_of(FusionPlan plan, Activation activation) {
    Config config;
    config.model.latent = kLatent;
    config.model.decoder_hidden = {50, 37};
    config.model.activation = activation;
    config.train.plan = plan;
    return config;
}

// A decoder's hidden layers with all that their passes read and write.
class Decoder {
  public:
    Decoder(const Config& config, Precision precision)
        : layout_(config.model, kPixels),
          storage_(precision == Precision::bf16 ? Storage::bf16 : Storage::fp32),
          products_(precision, stream_, arena_),
          layers_({.layers = layout_.decoder,
                   .behind = layout_.output,
                   .capacity = kRows,
                   .training_rows = kRows},
                  config, storage_, products_, arena_),
          parameters_(arena_, layout_.arena_size, "parameters"),
          gradients_(arena_, layout_.arena_size, "gradients"),
          operands_(arena_, layout_.arena_size, storage_, "factors"),
          x_(arena_, kRows * kLatent, storage_, "x"),
          d_behind_(arena_, kRows * kPixels, storage_, "the gradient of the output"),
          d_h_(arena_, kRows * kWidest, storage_, "the gradient of h"),
          values_(arena_, kRows * kPixels, "values") {
        const kernels::ScratchSize size = kernels::scratch_size(kRows, kWidestProduct);
        partials_ = {arena_, size.partials, "partial sums"};
        tickets_ = {arena_, size.tickets, "tickets"};
        arena_.allocate();
        tickets_.zero(stream_);
        gradients_.zero(stream_);
        // Biases are not 0, and so what forgets them is seen.
        parameters_.upload(random(layout_.arena_size, 1, 0.5F), stream_);
        write(parameters_, operands_);
        fill(x_, kRows * kLatent, 2);
        fill(d_behind_, kRows * kPixels, 3);
        products_.read(parameters_.data(), operands_.get());
        products_.write(gradients_.data());
    }

    void start(const std::vector<LayerPlan>& wanted) { layers_.start(wanted); }
    const std::vector<LayerPlan>& plan() const { return layers_.plan(); }

    // What the layers give of so many rows: h of each, the first product's gradient, and those of
    // all parameters.
    std::vector<std::vector<double>> run(int rows) {
        layers_.forward(x_.get(), rows, true);
        layers_.backward(x_.get(), d_behind_.get(), rows, d_h_.get(),
                         {partials_.data(), partials_.size(), tickets_.data(), tickets_.size()});
        products_.join();
        std::vector<std::vector<double>> result;
        for (std::size_t i = 0; i < layout_.decoder.size(); ++i) {
            std::vector<float> h(static_cast<std::size_t>(rows) * layout_.decoder[i].out);
            layers_.h(i).download(h, stream_);
            result.emplace_back(h.begin(), h.end());
        }
        std::vector<float> gradients(layout_.arena_size);
        gradients_.download(gradients, stream_);
        for (const DenseLayer& layer : layout_.decoder) {
            for (const Tensor& tensor : layer.tensors()) {
                const auto first = gradients.begin() + static_cast<std::ptrdiff_t>(tensor.offset);
                result.emplace_back(first, first + static_cast<std::ptrdiff_t>(tensor.size));
            }
        }
        return result;
    }

  private:
    static std::vector<float> random(std::size_t size, std::uint32_t seed, float scale) {
        std::vector<float> values(size);
        fill_uniform({seed, Purpose::synthetic_data, 0, 0, 0}, values);
        for (float& value : values) value = scale * (2 * value - 1);
        return values;
    }
    void fill(RealArray& array, std::size_t size, std::uint32_t seed) {
        values_.upload(random(values_.size(), seed, 1), stream_);
        ASSERT_LE(size, values_.size());
        write(values_, array, size);
    }
    void write(const DeviceArray<float>& from, RealArray& to) { write(from, to, from.size()); }
    void write(const DeviceArray<float>& from, RealArray& to, std::size_t size) {
        const Reals target = to.get();
        if (storage_ == Storage::bf16) {
            kernels::round_to_bf16(from.data(), size, target.of<Bf16>(), stream_.get());
        } else {
            kernels::cuda_check(
                cudaMemcpyAsync(target.of<float>(), from.data(), size * sizeof(float),
                                cudaMemcpyDeviceToDevice, stream_.get()),
                "cudaMemcpyAsync");
        }
        stream_.synchronize();
    }

    const ParameterLayout layout_;
    const Storage storage_;
    const Stream stream_;
    DeviceArena arena_{"a decoder"};
    LayerProducts products_;
    HiddenLayers layers_;
    DeviceArray<float> parameters_;
    DeviceArray<float> gradients_;
    RealArray operands_;
    RealArray x_;
    RealArray d_behind_;
    RealArray d_h_;
    DeviceArray<float> values_;
    DeviceArray<float> partials_;
    DeviceArray<unsigned> tickets_;
};

// All ways of a layer, those of cuBLASLt's epilogues if asked for.
std::vector<LayerPlan> ways(bool with_epilogues) {
    std::vector<LayerPlan> all;
    for (const LayerWay forward : {LayerWay::products, LayerWay::epilogue, LayerWay::fused}) {
        for (const LayerWay backward : {LayerWay::products, LayerWay::epilogue, LayerWay::fused}) {
            const bool has_epilogue =
                forward == LayerWay::epilogue || backward == LayerWay::epilogue;
            if (has_epilogue && !with_epilogues) continue;
            if (backward == LayerWay::epilogue && forward != LayerWay::epilogue) continue;
            all.push_back({forward, backward});
        }
    }
    return all;
}

class HiddenLayersTest : public testing::TestWithParam<Precision> {
  protected:
    void SetUp() override {
        if (!kernels::has_dense_kernels()) GTEST_SKIP() << "this GPU has no products of ours";
    }

    // Every mix for two layers, at the rows of a training step and at fewer.
    static void expect_equal(const Config& config, bool with_epilogues) {
        // Of bf16 a unit next to ReLU's kink may be on for one way alone.
        const double gate = GetParam() == Precision::bf16   ? 1e-1
                            : GetParam() == Precision::tf32 ? 2e-2
                                                            : 1e-5;
        Decoder decoder(config, GetParam());
        decoder.start({{}, {}});
        const auto expected = decoder.run(kRows);
        const auto expected_of_fewer = decoder.run(kFewerRows);
        for (const LayerPlan& first : ways(with_epilogues)) {
            for (const LayerPlan& second : ways(with_epilogues)) {
                SCOPED_TRACE(name_of(first) + ", " + name_of(second));
                decoder.start({first, second});
                expect_ways(decoder.plan()[0], first);
                expect_ways(decoder.plan()[1], second);
                expect_near(decoder.run(kRows), expected, gate);
                expect_near(decoder.run(kFewerRows), expected_of_fewer, gate);
            }
        }
    }

  private:
    // Of epilogues a layer has those that cuBLASLt has here, and products else.
    static void expect_ways(const LayerPlan& got, const LayerPlan& wanted) {
        const auto is_as_wanted = [](LayerWay way, LayerWay wish) {
            return way == wish || (wish == LayerWay::epilogue && way == LayerWay::products);
        };
        EXPECT_TRUE(is_as_wanted(got.forward, wanted.forward)) << name_of(got);
        EXPECT_TRUE(is_as_wanted(got.backward, wanted.backward)) << name_of(got);
    }
    static std::string name_of(const LayerPlan& plan) {
        const std::vector<std::string> names = {"products", "epilogue", "fused"};
        return names[static_cast<std::size_t>(plan.forward)] + "/" +
               names[static_cast<std::size_t>(plan.backward)];
    }
    static void expect_near(const std::vector<std::vector<double>>& a,
                            const std::vector<std::vector<double>>& b, double gate) {
        ASSERT_EQ(a.size(), b.size());
        for (std::size_t i = 0; i < a.size(); ++i) {
            EXPECT_LE(test::relative_l2(a[i], b[i]), gate) << i;
        }
    }
};

TEST_P(HiddenLayersTest, ComputeTheSameInEveryMixOfWays) {
    expect_equal(config_of(FusionPlan::epilogue, Activation::relu), true);
}

TEST_P(HiddenLayersTest, ComputeTheSameOfEveryActivation) {
    for (const Activation activation : {Activation::tanh, Activation::softplus, Activation::gelu,
                                        Activation::silu, Activation::gated}) {
        SCOPED_TRACE(static_cast<int>(activation));
        expect_equal(config_of(FusionPlan::fused, activation), false);
    }
}

INSTANTIATE_TEST_SUITE_P(Precisions, HiddenLayersTest,
                         testing::Values(Precision::fp32, Precision::tf32, Precision::bf16),
                         [](const auto& precision) {
                             return std::string(vae::name_of(precision.param));
                         });

}  // namespace
}  // namespace vae::gpu
