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

}  // namespace vae::kernels
