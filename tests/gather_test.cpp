#include "kernels/gather.h"

#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "host/noise.h"
#include "tests/device_memory.h"
#include "tests/kernel_reference.h"
#include "tests/stored_reals.h"

namespace vae::test {
namespace {

using kernels::NoiseStream;
using kernels::Pixels;

constexpr std::size_t kExamples = 50;
constexpr std::uint32_t kFirstIndex = 4000000000u;

NoiseStream noise_stream() {
    return {.seed = 0x123456789abcdef0u,
            .purpose = static_cast<std::uint32_t>(Purpose::dynamic_binarization),
            .step = 3000000001u,
            .sample = 0xabcdef};
}

NoiseAddress address_of(const NoiseStream& noise, std::uint32_t example) {
    return {noise.seed, static_cast<Purpose>(noise.purpose), noise.step, example, noise.sample};
}

// The resident examples: some pixels are 0 and 1, which are never drawn as anything else.
template <class T>
std::vector<T> make_data(std::size_t cols) {
    const std::vector<float> uniforms = random_uniforms(kExamples * cols, 1);
    std::vector<T> data(uniforms.size());
    for (std::size_t i = 0; i < data.size(); ++i) {
        float value = uniforms[i];
        if (i % 3 == 0) value = i % 2 == 0 ? 0.0f : 1.0f;
        if constexpr (std::is_same_v<T, float>) {
            data[i] = value;
        } else {
            data[i] = static_cast<T>(std::lround(255 * value));
        }
    }
    return data;
}

float pixel_of(float value, Pixels) {
    return value;
}
float pixel_of(std::uint8_t value, Pixels pixels) {
    return pixels == Pixels::counts ? static_cast<float>(value) : static_cast<float>(value / 255.0);
}

const char* name_of(Pixels pixels) {
    return pixels == Pixels::grey ? " grey" : pixels == Pixels::counts ? " counts" : " binary";
}

template <class T>
class Gather : public KernelTest {
  protected:
    // With the copy in bf16 and without it, and where examples lie at their numbers and elsewhere.
    void check(const Shape& shape, Pixels pixels, std::size_t shift = 0) {
        SCOPED_TRACE(testing::Message() << shape << name_of(pixels));
        check(shape, pixels, shift, false, false);
        check(shape, pixels, shift, true, false);
        check(shape, pixels, shift, false, true);
    }

    // Exactly equal, binary too: both sides have the same uniforms, to the bit.
    void check(const Shape& shape, Pixels pixels, std::size_t shift, bool is_copied,
               bool is_elsewhere) {
        const std::vector<T> data = make_data<T>(shape.width());
        std::vector<std::uint32_t> index(shape.height());
        for (std::size_t r = 0; r < index.size(); ++r) {
            index[r] = static_cast<std::uint32_t>((r * 17 + 3) % kExamples);
        }
        auto device_data = upload(data, shift);
        std::vector<std::uint32_t> number = index;
        if (is_elsewhere) {
            for (std::size_t r = 0; r < number.size(); ++r) {
                number[r] = 1000003 * static_cast<std::uint32_t>(r);
            }
        }
        auto device_index = upload(index);
        auto device_number = upload(number);
        auto x = output(shape.size(), shift);
        DeviceArray<Bf16> rounded_x(stream(), shape.size(), shift);
        kernels::gather(device_data.data(), device_index.data(),
                        is_elsewhere ? device_number.data() : nullptr, shape.rows, shape.cols,
                        pixels, noise_stream(), kFirstIndex, x.data(),
                        is_copied ? rounded_x.data() : nullptr, stream().get());
        const std::vector<float> got = x.download();
        ASSERT_EQ(got.size(), shape.size());
        if (is_copied) expect_rounded(rounded_x.download(), got, "rounded_x");
        std::vector<float> uniforms(shape.width());
        for (std::size_t r = 0; r < shape.height(); ++r) {
            fill_uniform(address_of(noise_stream(), kFirstIndex + number[r]), uniforms);
            for (std::size_t c = 0; c < shape.width(); ++c) {
                const float pixel = pixel_of(data[index[r] * shape.width() + c], pixels);
                const float drawn = uniforms[c] <= pixel ? 1.0f : 0.0f;
                ASSERT_EQ(got[r * shape.width() + c], pixels == Pixels::binary ? drawn : pixel)
                    << r << ", " << c;
            }
        }
    }
};

using DataTypes = testing::Types<std::uint8_t, float>;
TYPED_TEST_SUITE(Gather, DataTypes);

TYPED_TEST(Gather, EveryRaggedSize) {
    for (const Shape& shape : ragged_shapes()) {
        this->check(shape, Pixels::grey);
        this->check(shape, Pixels::counts);
        this->check(shape, Pixels::binary);
    }
}

TYPED_TEST(Gather, LargeSizes) {
    for (const Shape& shape : {Shape{128, 784}, Shape{3, 5000}}) {
        this->check(shape, Pixels::grey);
        this->check(shape, Pixels::counts);
        this->check(shape, Pixels::binary);
    }
}

TYPED_TEST(Gather, LaunchPaths) {
    for (const Shape& shape : launch_paths()) this->check(shape, Pixels::binary);
}

TYPED_TEST(Gather, UnalignedArrays) {
    this->check({33, 128}, Pixels::grey, 1);
    this->check({33, 128}, Pixels::counts, 1);
    this->check({33, 128}, Pixels::binary, 1);
}

TYPED_TEST(Gather, NegativeSizesThrow) {
    EXPECT_THROW(kernels::gather(static_cast<const TypeParam*>(nullptr), nullptr, nullptr, -1, 1,
                                 Pixels::grey, {}, 0, nullptr, nullptr, this->stream().get()),
                 std::invalid_argument);
}

class Binarize : public KernelTest {};

// A pixel equal to its uniform is drawn as 1, the next smaller float as 0. So the kernel's uniforms
// are host/noise.h's to the last bit.
TEST_F(Binarize, UniformsAreTheHostsToTheBit) {
    const Shape shape{64, 300};
    const NoiseStream noise = noise_stream();
    std::vector<float> uniforms(shape.size());
    std::vector<float> below(shape.size());
    std::vector<std::uint32_t> index(shape.height());
    for (std::size_t r = 0; r < shape.height(); ++r) {
        index[r] = static_cast<std::uint32_t>(r);
        fill_uniform(address_of(noise, kFirstIndex + index[r]),
                     std::span(uniforms).subspan(r * shape.width(), shape.width()));
    }
    for (std::size_t i = 0; i < shape.size(); ++i) below[i] = std::nextafter(uniforms[i], 0.0f);
    auto device_index = upload(index);
    for (const bool at : {false, true}) {
        auto data = upload(at ? uniforms : below);
        auto x = output(shape.size());
        kernels::gather(data.data(), device_index.data(), nullptr, shape.rows, shape.cols,
                        Pixels::binary, noise, kFirstIndex, x.data(), nullptr, stream().get());
        EXPECT_EQ(x.download(), std::vector<float>(shape.size(), at ? 1.0f : 0.0f));
    }
}

TEST_F(Binarize, NanComesThrough) {
    auto data = upload(std::vector<float>{0, 1, kNan, 1});
    auto index = upload(std::vector<std::uint32_t>{0});
    for (const Pixels pixels : {Pixels::grey, Pixels::counts, Pixels::binary}) {
        auto x = output(4);
        DeviceArray<Bf16> rounded_x(stream(), 4);
        kernels::gather(data.data(), index.data(), nullptr, 1, 4, pixels, noise_stream(), 0,
                        x.data(), rounded_x.data(), stream().get());
        for (const std::vector<float>& got : {x.download(), from_bf16(rounded_x.download())}) {
            EXPECT_EQ(got[0], 0);
            EXPECT_EQ(got[1], 1);
            EXPECT_TRUE(std::isnan(got[2]));
            EXPECT_EQ(got[3], 1);
        }
    }
}

}  // namespace
}  // namespace vae::test
