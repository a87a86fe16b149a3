#include "host/cpu/softmax.h"

#include <cmath>
#include <limits>

#include "host/cpu/pixel_loops.h"

namespace vae::cpu {
namespace {

// The largest logit, and Σ exp(l − largest). A NaN anywhere makes the sum NaN.
template <class T>
struct Peak {
    T largest;
    T sum;
};

template <class T>
VAE_CPU_INLINE Peak<T> peak_of(const T* product, const T* bias, std::size_t classes) {
    T largest = -std::numeric_limits<T>::infinity();
#pragma omp simd reduction(max : largest)
    for (std::size_t k = 0; k < classes; ++k) {
        const T l = product[k] + bias[k];
        largest = largest < l ? l : largest;
    }
    const T sum = row_sum<T>(
        classes, [=](std::size_t k) { return std::exp(product[k] + bias[k] - largest); });
    return {largest, sum};
}

// weight·exp(l − largest)/sum, added to sums; the target's own 1 is still to be taken off.
template <class T>
VAE_CPU_INLINE void gradient_of(const T* product, const T* bias, std::size_t classes,
                                const Peak<T>& peak, T weight, T* d_product, T* sums) {
    const T factor = weight / peak.sum;
#pragma omp simd
    for (std::size_t k = 0; k < classes; ++k) {
        const T d = factor * std::exp(product[k] + bias[k] - peak.largest);
        d_product[k] = d;
        sums[k] += d;
    }
}

// VAE_CPU_CLONES versions for float, plain ones for double.
VAE_CPU_CLONES Peak<float> peak(const float* product, const float* bias, std::size_t classes) {
    return peak_of(product, bias, classes);
}
Peak<double> peak(const double* product, const double* bias, std::size_t classes) {
    return peak_of(product, bias, classes);
}
VAE_CPU_CLONES void softmax(const float* product, const float* bias, std::size_t classes,
                            const Peak<float>& peak, float weight, float* d_product, float* sums) {
    gradient_of(product, bias, classes, peak, weight, d_product, sums);
}
void softmax(const double* product, const double* bias, std::size_t classes,
             const Peak<double>& peak, double weight, double* d_product, double* sums) {
    gradient_of(product, bias, classes, peak, weight, d_product, sums);
}

// The class that the data say, and what makes a loss NaN where they do not.
template <class T>
struct Target {
    std::size_t index = 0;
    T flaw = 0;
};

template <class T>
Target<T> target_of(const T* x, std::size_t group, const SoftmaxSettings& settings) {
    Target<T> target;
    if (settings.is_onehot) {
        const T* values = x + group * settings.classes;
        for (std::size_t k = 0; k < settings.classes; ++k) {
            if (values[k] == 1) target.index = k;
            target.flaw += 0 * values[k];  // NaN passes
        }
        return target;
    }
    const T level = x[group] * static_cast<T>(settings.classes - 1);
    target.flaw = 0 * x[group];
    if (level >= 0 && level <= static_cast<T>(settings.classes - 1)) {
        target.index = static_cast<std::size_t>(std::lround(level));
    }
    return target;
}

// How the arrays are cut.
template <class T>
struct Groups {
    Groups(const LikelihoodInput<T>& in, const SoftmaxSettings& settings)
        : count(settings.is_onehot ? in.pixels / settings.classes : in.pixels),
          outputs(count * settings.classes) {}
    std::size_t count;
    std::size_t outputs;
};

// Of one group, and what is left of it for the gradient.
template <class T>
double group_loss(const T* product, const T* bias, const Target<T>& target, const Peak<T>& peak) {
    const T l = product[target.index] + bias[target.index];
    return static_cast<double>(peak.largest - l + target.flaw) +
           std::log(static_cast<double>(peak.sum));
}

}  // namespace

template <class T>
void softmax_forward(const LikelihoodInput<T>& in, const SoftmaxSettings& settings, T* recon) {
    const Groups<T> groups(in, settings);
    const std::size_t classes = settings.classes;
    for_each_row(in.rows, groups.outputs, [=](std::size_t r) {
        double loss = 0;
        for (std::size_t g = 0; g < groups.count; ++g) {
            const T* product = in.product + r * groups.outputs + g * classes;
            const T* bias = in.bias + g * classes;
            loss += group_loss(product, bias, target_of(in.x_of(r), g, settings),
                               peak(product, bias, classes));
        }
        recon[r] = static_cast<T>(loss);
    });
}

template <class T>
void softmax_forward_backward(const LikelihoodInput<T>& in, const SoftmaxSettings& settings,
                              const LikelihoodGradient<T>& gradient, T* recon) {
    const Groups<T> groups(in, settings);
    const std::size_t classes = settings.classes;
    for_each_row_with_sums(in.rows, groups.outputs, gradient, [=](std::size_t r, T* sums) {
        double loss = 0;
        const T weight = gradient.weight(r);
        for (std::size_t g = 0; g < groups.count; ++g) {
            const std::size_t at = r * groups.outputs + g * classes;
            const T* product = in.product + at;
            const T* bias = in.bias + g * classes;
            T* d_product = gradient.d_product + at;
            T* column = sums + g * classes;
            const Target<T> target = target_of(in.x_of(r), g, settings);
            const Peak<T> top = peak(product, bias, classes);
            loss += group_loss(product, bias, target, top);
            softmax(product, bias, classes, top, weight + target.flaw, d_product, column);
            d_product[target.index] -= weight;
            column[target.index] -= weight;
        }
        recon[r] = static_cast<T>(loss);
    });
}

template <class T>
void softmax_mean(const LikelihoodInput<T>& in, const SoftmaxSettings& settings, T* mean) {
    const Groups<T> groups(in, settings);
    const std::size_t classes = settings.classes;
    for_each_row(in.rows, groups.outputs, [=](std::size_t r) {
        for (std::size_t g = 0; g < groups.count; ++g) {
            const T* product = in.product + r * groups.outputs + g * classes;
            const T* bias = in.bias + g * classes;
            const Peak<T> top = peak(product, bias, classes);
            double expected = 0;
            for (std::size_t k = 0; k < classes; ++k) {
                const T p = std::exp(product[k] + bias[k] - top.largest) / top.sum;
                if (settings.is_onehot) mean[r * in.pixels + g * classes + k] = p;
                expected += static_cast<double>(p) * static_cast<double>(k);
            }
            if (settings.is_onehot) continue;
            mean[r * in.pixels + g] = static_cast<T>(expected / static_cast<double>(classes - 1));
        }
    });
}

template void softmax_forward(const LikelihoodInput<float>&, const SoftmaxSettings&, float*);
template void softmax_forward(const LikelihoodInput<double>&, const SoftmaxSettings&, double*);
template void softmax_forward_backward(const LikelihoodInput<float>&, const SoftmaxSettings&,
                                       const LikelihoodGradient<float>&, float*);
template void softmax_forward_backward(const LikelihoodInput<double>&, const SoftmaxSettings&,
                                       const LikelihoodGradient<double>&, double*);
template void softmax_mean(const LikelihoodInput<float>&, const SoftmaxSettings&, float*);
template void softmax_mean(const LikelihoodInput<double>&, const SoftmaxSettings&, double*);

}  // namespace vae::cpu
