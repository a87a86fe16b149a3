#include "kernels/gaussian.h"

#include "kernels/elementwise.cuh"
#include "kernels/functions.cuh"
#include "kernels/likelihood.cuh"

namespace vae::kernels {
namespace {

constexpr double kHalfLogTwoPi = 0.91893853320467274178;

// The loss is (m − x)² here: what it is multiplied by is the same for all pixels, and comes in
// after the sum, in double.
struct SharedPixel {
    static constexpr int kOutputs = 1;

    const GaussianVariance* variance;
    float* squares;  // may be null
    float inverse_variance;

    __device__ void load() { inverse_variance = static_cast<float>(variance->precision); }
    __device__ void operator()(const float (&m)[1], float x, float& loss,
                               float (&gradient)[1]) const {
        const float difference = m[0] - x;
        loss = difference * difference;
        gradient[0] = difference * inverse_variance;
    }
    __device__ double recon(unsigned row, std::size_t pixels, double sum) const {
        if (squares != nullptr) squares[row] = static_cast<float>(sum);
        return 0.5 * sum * variance->precision +
               static_cast<double>(pixels) * (0.5 * variance->logvar + kHalfLogTwoPi);
    }
};

struct SquarePixel : PlainPixel {
    static constexpr int kOutputs = 1;

    __device__ void operator()(const float (&m)[1], float x, float& loss, float (&)[1]) const {
        const float difference = m[0] - x;
        loss = difference * difference;
    }
};

// Without ½ log 2π, which comes in after the sum.
struct ScaledPixel {
    static constexpr int kOutputs = 2;

    LogBounds bounds;

    __device__ void load() {}
    __device__ void operator()(const float (&m)[2], float x, float& loss,
                               float (&gradient)[2]) const {
        float slope = 0;
        const float logvar = bounded(m[1], bounds.least, bounds.most, slope);
        const float difference = m[0] - x;
        gradient[0] = difference * expf(-logvar);
        const float square = difference * gradient[0];
        gradient[1] = 0.5f * (1.0f - square) * slope;
        loss = 0.5f * (square + logvar);
    }
    __device__ double recon(unsigned, std::size_t pixels, double sum) const {
        return sum + static_cast<double>(pixels) * kHalfLogTwoPi;
    }
};

}  // namespace

void gaussian_forward(const LikelihoodInput& in, const GaussianVariance* variance, float* recon,
                      const Scratch& scratch, cudaStream_t stream) {
    launch_likelihood<false>("gaussian_forward", SharedPixel{variance, nullptr, 0}, in, {}, recon,
                             scratch, stream);
}

void gaussian_forward_backward(const LikelihoodInput& in, const GaussianVariance* variance,
                               const LikelihoodGradient& gradient, float* recon, float* squares,
                               const Scratch& scratch, cudaStream_t stream) {
    launch_likelihood<true>("gaussian_forward_backward", SharedPixel{variance, squares, 0}, in,
                            gradient, recon, scratch, stream);
}

void gaussian_squares(const LikelihoodInput& in, float* squares, const Scratch& scratch,
                      cudaStream_t stream) {
    launch_likelihood<false>("gaussian_squares", SquarePixel{}, in, {}, squares, scratch, stream);
}

void gaussian_pixel_forward(const LikelihoodInput& in, const LogBounds& bounds, float* recon,
                            const Scratch& scratch, cudaStream_t stream) {
    launch_likelihood<false>("gaussian_pixel_forward", ScaledPixel{bounds}, in, {}, recon, scratch,
                             stream);
}

void gaussian_pixel_forward_backward(const LikelihoodInput& in, const LogBounds& bounds,
                                     const LikelihoodGradient& gradient, float* recon,
                                     const Scratch& scratch, cudaStream_t stream) {
    launch_likelihood<true>("gaussian_pixel_forward_backward", ScaledPixel{bounds}, in, gradient,
                            recon, scratch, stream);
}

void add_bias(const float* product, const float* bias, int rows, int stride, int cols, float* out,
              cudaStream_t stream) {
    launch_biased<Identity>("add_bias", product, bias, rows, stride, cols, out, stream);
}

}  // namespace vae::kernels
