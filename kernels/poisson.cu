#include "kernels/poisson.h"

#include "kernels/elementwise.cuh"
#include "kernels/functions.cuh"
#include "kernels/likelihood.cuh"
#include "kernels/storage.cuh"

namespace vae::kernels {
namespace {

// x − x·log x + log x! of a count: ½ log(2πx) + 1/(12x) − 1/(360x³) + 1/(1260x⁵), whose next term
// is below 4e-8 from x = 4 on; exact below.
__device__ inline float stirling(float x, float log_x) {
    constexpr float kHalfLogTwoPi = 0.91893853320467274f;
    constexpr float kOfTwo = 1.3068528194400546f;    // 2 − log 2
    constexpr float kOfThree = 1.4959226032237259f;  // 3 − 3 log 3 + log 6
    if (x <= 1) return x;
    if (x == 2) return kOfTwo;
    if (x == 3) return kOfThree;
    const float r = 1.0f / x;
    const float square = r * r;
    const float series = r * (1.0f / 12.0f - square * (1.0f / 360.0f - square * (1.0f / 1260.0f)));
    return 0.5f * log_x + kHalfLogTwoPi + series;
}

struct PoissonPixel : PlainPixel {
    static constexpr int kOutputs = 1;

    __device__ void operator()(const float (&l)[1], float x, float& loss,
                               float (&gradient)[1]) const {
        const float rate = expf(l[0]);
        gradient[0] = rate - x;
        if (x == 0) {
            loss = rate;
            return;
        }
        const float log_x = logf(x);
        const float t = l[0] - log_x;
        loss = x * (expm1f(t) - t) + stirling(x, log_x);
    }
};

}  // namespace

void poisson_forward(const LikelihoodInput& in, float* recon, const Scratch& scratch,
                     cudaStream_t stream) {
    launch_likelihood<false>("poisson_forward", PoissonPixel{}, in, {}, recon, scratch, stream);
}

void poisson_forward_backward(const LikelihoodInput& in, const LikelihoodGradient& gradient,
                              float* recon, const Scratch& scratch, cudaStream_t stream) {
    launch_likelihood<true>("poisson_forward_backward", PoissonPixel{}, in, gradient, recon,
                            scratch, stream);
}

void poisson_mean(const LikelihoodInput& in, float* mean, cudaStream_t stream) {
    launch_biased<Exponential>("poisson_mean", in.product, in.bias, in.rows, in.pixels, mean,
                               stream);
}

void log_counts(const float* x, int rows, int cols, Reals out, cudaStream_t stream) {
    constexpr const char* kLauncher = "log_counts";
    require(out.storage == Storage::fp32 || out.data != x, kLauncher,
            "bf16 cannot take the place of x");
    with_storage(kLauncher, {out}, [&](auto element) {
        launch_biased<LogCount>(kLauncher, x, nullptr, rows, cols, out.of<decltype(element)>(),
                                stream);
    });
}

}  // namespace vae::kernels
