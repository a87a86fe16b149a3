#include "kernels/logistic.h"

#include "kernels/functions.cuh"
#include "kernels/likelihood.cuh"

namespace vae::kernels {
namespace {

struct LogisticPixel : PlainPixel {
    static constexpr int kOutputs = 2;

    LogBounds bounds;
    float half_bin;

    __device__ void operator()(const float (&m)[2], float x, float& loss,
                               float (&gradient)[2]) const {
        float slope = 0;
        const float inverse = expf(-bounded(m[1], bounds.least, bounds.most, slope));
        const float centre = x - m[0];
        const float a = (centre + half_bin) * inverse;
        const float b = (centre - half_bin) * inverse;
        const float a_e = expf(-fabsf(a));
        const float b_e = expf(-fabsf(b));
        const float above = sigmoid_from(-a, a_e);
        const float below = sigmoid_from(b, b_e);
        const float loss_a = (a > 0 ? 0.0f : -a) + log1pf(a_e);  // −log σ(a); NaN passes
        const float loss_b = (b < 0 ? 0.0f : b) + log1pf(b_e);   // −log σ(−b)
        if (x < half_bin) {
            loss = loss_a;
            gradient[0] = inverse * above;
            gradient[1] = a * above * slope;
        } else if (x > 1.0f - half_bin) {
            loss = loss_b;
            gradient[0] = -inverse * below;
            gradient[1] = -b * below * slope;
        } else {
            const float width = 2.0f * half_bin * inverse;
            loss = loss_a + loss_b - logf(-expm1f(-width));
            gradient[0] = inverse * (above - below);
            gradient[1] = (width / expm1f(width) + a * above - b * below) * slope;
        }
    }
};

LogisticPixel pixel_of(const LogisticSettings& settings, const char* launcher) {
    require(settings.levels >= 2, launcher, "there must be at least 2 levels");
    LogisticPixel pixel = {};
    pixel.bounds = settings.bounds;
    pixel.half_bin = static_cast<float>(0.5 / (settings.levels - 1));
    return pixel;
}

struct LogisticMeanOp {
    static constexpr bool kRowSums = false;
    static constexpr int kColumnSums = 0;
    // Two outputs of four pixels, and a sum in double: 128 registers.
    static constexpr unsigned kResidentBlocks = 2;
    template <int V>
    struct Columns {
        Pack<V> m;
        Pack<V> s;
    };
    template <int V>
    using Loaded = Columns<V>;

    const float* product;
    const float* bias;
    std::size_t pixels;
    LogBounds bounds;
    int steps;   // between levels
    float step;  // 1/steps
    float* mean;

    template <int V>
    __device__ Columns<V> columns(unsigned col) const {
        return {load_pack<V>(bias + col), load_pack<V>(bias + pixels + col)};
    }
    template <int V>
    __device__ Loaded<V> load(unsigned row, unsigned col, const Columns<V>&) const {
        const float* const at = product + row * 2 * pixels + col;
        return {load_pack<V>(at), load_pack<V>(at + pixels)};
    }
    template <int V>
    __device__ void apply(unsigned row, unsigned col, const Columns<V>& columns,
                          const Loaded<V>& loaded, float&, float (&)[V]) const {
        Pack<V> result;
#pragma unroll
        for (int i = 0; i < V; ++i) {
            const float m = loaded.m.v[i] + columns.m.v[i];
            float slope = 0;
            const float inverse =
                expf(-bounded(loaded.s.v[i] + columns.s.v[i], bounds.least, bounds.most, slope));
            double sum = 0;
#pragma unroll 1
            for (int k = 0; k < steps; ++k) {
                const float edge = (static_cast<float>(k) + 0.5f) * step;
                sum += static_cast<double>(sigmoid((m - edge) * inverse));
            }
            result.v[i] = static_cast<float>(sum / steps);
        }
        store_pack<V>(mean + row * pixels + col, result);
    }
};

}  // namespace

void logistic_forward(const LikelihoodInput& in, const LogisticSettings& settings, float* recon,
                      const Scratch& scratch, cudaStream_t stream) {
    constexpr const char* kLauncher = "logistic_forward";
    launch_likelihood<false>(kLauncher, pixel_of(settings, kLauncher), in, {}, recon, scratch,
                             stream);
}

void logistic_forward_backward(const LikelihoodInput& in, const LogisticSettings& settings,
                               const LikelihoodGradient& gradient, float* recon,
                               const Scratch& scratch, cudaStream_t stream) {
    constexpr const char* kLauncher = "logistic_forward_backward";
    launch_likelihood<true>(kLauncher, pixel_of(settings, kLauncher), in, gradient, recon, scratch,
                            stream);
}

void logistic_mean(const LikelihoodInput& in, const LogisticSettings& settings, float* mean,
                   cudaStream_t stream) {
    constexpr const char* kLauncher = "logistic_mean";
    require_shape(in.rows, in.pixels, kLauncher);
    require(settings.levels >= 2, kLauncher, "there must be at least 2 levels");
    if (in.rows == 0 || in.pixels == 0) return;
    const int steps = settings.levels - 1;
    const LogisticMeanOp op = {.product = in.product,
                               .bias = in.bias,
                               .pixels = static_cast<std::size_t>(in.pixels),
                               .bounds = settings.bounds,
                               .steps = steps,
                               .step = static_cast<float>(1.0 / steps),
                               .mean = mean};
    const bool wide = in.pixels % 4 == 0 && aligned_to_four(in.product, in.bias, mean);
    launch_tiles(kLauncher, op, in.rows, in.pixels, wide, Scratch{}, stream);
}

}  // namespace vae::kernels
