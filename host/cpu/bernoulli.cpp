#include "host/cpu/bernoulli.h"

#include <cmath>

#include "host/cpu/pixel_loops.h"
#include "host/cpu/scalar_math.h"

namespace vae::cpu {
namespace {

// exp(−|l|) serves both the loss and the sigmoid.
struct BernoulliPixel {
    static constexpr std::size_t kOutputs = 1;

    template <class T>
    VAE_CPU_INLINE T operator()(T l, T x, T& d_l) const {
        const T t = std::exp(-std::abs(l));
        d_l = (l < 0 ? t : T(1)) / (1 + t) - x;
        return positive_part(l) - l * x + std::log1p(t);
    }
};

struct Sigmoid {
    template <class T>
    VAE_CPU_INLINE T operator()(T l) const {
        return sigmoid(l);
    }
};

}  // namespace

template <class T>
void bernoulli_forward(const LikelihoodInput<T>& in, T* recon) {
    pixels_forward(BernoulliPixel{}, in, recon);
}

template <class T>
void bernoulli_forward_backward(const LikelihoodInput<T>& in, const LikelihoodGradient<T>& gradient,
                                T* recon) {
    pixels_forward_backward(BernoulliPixel{}, in, gradient, recon);
}

template <class T>
void bernoulli_mean(const LikelihoodInput<T>& in, T* mean) {
    map_outputs(Sigmoid{}, in.product, in.bias, in.rows, in.pixels, in.pixels, mean);
}

template void bernoulli_forward(const LikelihoodInput<float>&, float*);
template void bernoulli_forward(const LikelihoodInput<double>&, double*);
template void bernoulli_forward_backward(const LikelihoodInput<float>&,
                                         const LikelihoodGradient<float>&, float*);
template void bernoulli_forward_backward(const LikelihoodInput<double>&,
                                         const LikelihoodGradient<double>&, double*);
template void bernoulli_mean(const LikelihoodInput<float>&, float*);
template void bernoulli_mean(const LikelihoodInput<double>&, double*);

}  // namespace vae::cpu
