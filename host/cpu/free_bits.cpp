#include "host/cpu/free_bits.h"

#include <algorithm>
#include <cmath>

#include "host/cpu/sums.h"
#include "host/cpu/vector_math.h"

namespace vae::cpu {
namespace {

// Not `sum > floor`, which a NaN would fail.
bool is_above(double sum, double floor) {
    return !(sum <= floor);
}

template <class T>
VAE_CPU_INLINE T kl_of(T mu, T logvar) {
    return (mu * mu + std::expm1(logvar) - logvar) / 2;
}

template <class T>
VAE_CPU_INLINE void add_row(const T* mu, const T* logvar, std::size_t latent, T* sums) {
#pragma omp simd
    for (std::size_t j = 0; j < latent; ++j) sums[j] += kl_of(mu[j], logvar[j]);
}

template <class T>
VAE_CPU_INLINE T floored_row(const T* mu, const T* logvar, const T* kl_mask, std::size_t latent,
                             T nats) {
    return row_sum<T>(
        latent, [=](std::size_t j) { return kl_mask[j] == 0 ? nats : kl_of(mu[j], logvar[j]); });
}

VAE_CPU_CLONES void add(const float* mu, const float* logvar, std::size_t latent, float* sums) {
    add_row(mu, logvar, latent, sums);
}

void add(const double* mu, const double* logvar, std::size_t latent, double* sums) {
    add_row(mu, logvar, latent, sums);
}

VAE_CPU_CLONES float floored(const float* mu, const float* logvar, const float* kl_mask,
                             std::size_t latent, float nats) {
    return floored_row(mu, logvar, kl_mask, latent, nats);
}

double floored(const double* mu, const double* logvar, const double* kl_mask, std::size_t latent,
               double nats) {
    return floored_row(mu, logvar, kl_mask, latent, nats);
}

}  // namespace

template <class T>
void free_bits_per_dimension(const T* mu, const T* logvar, std::size_t examples, std::size_t latent,
                             double nats, T* kl_mask, T* loss_kl, T* partials) {
    for_each_chunk(examples, latent, [=](std::size_t chunk, std::size_t first, std::size_t last) {
        T* sums = partials + chunk * latent;
        std::fill_n(sums, latent, T(0));
        for (std::size_t b = first; b < last; ++b) {
            add(mu + b * latent, logvar + b * latent, latent, sums);
        }
    });
    add_chunks(partials, chunk_count(examples), latent, latent, kl_mask);
    const double floor = nats * static_cast<double>(examples);
    for (std::size_t j = 0; j < latent; ++j) {
        kl_mask[j] = is_above(static_cast<double>(kl_mask[j]), floor) ? T(1) : T(0);
    }
    for_each_chunk(examples, latent, [=](std::size_t, std::size_t first, std::size_t last) {
        for (std::size_t b = first; b < last; ++b) {
            loss_kl[b] = floored(mu + b * latent, logvar + b * latent, kl_mask, latent,
                                 static_cast<T>(nats));
        }
    });
}

template <class T>
void free_bits_in_total(const T* kl, std::size_t examples, std::size_t latent, double nats,
                        T* kl_mask, T* loss_kl) {
    double sum = 0;
    for (std::size_t b = 0; b < examples; ++b) sum += static_cast<double>(kl[b]);
    const bool above = is_above(sum, nats * static_cast<double>(examples));
    std::fill_n(kl_mask, latent, above ? T(1) : T(0));
    for (std::size_t b = 0; b < examples; ++b) loss_kl[b] = above ? kl[b] : static_cast<T>(nats);
}

template void free_bits_per_dimension(const float*, const float*, std::size_t, std::size_t, double,
                                      float*, float*, float*);
template void free_bits_per_dimension(const double*, const double*, std::size_t, std::size_t,
                                      double, double*, double*, double*);
template void free_bits_in_total(const float*, std::size_t, std::size_t, double, float*, float*);
template void free_bits_in_total(const double*, std::size_t, std::size_t, double, double*, double*);

}  // namespace vae::cpu
