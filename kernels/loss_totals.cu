#include "kernels/loss_totals.h"

#include "kernels/check.h"
#include "kernels/launch.h"
#include "kernels/reduce.cuh"
#include "kernels/shared_memory.cuh"
#include "kernels/step_state.cuh"

namespace vae::kernels {
namespace {

constexpr unsigned kThreads = 512;
constexpr unsigned kWarps = kThreads / kWarpSize;

__global__ void __launch_bounds__(kThreads)
    add_losses_kernel(const float* recon, const float* kl, const float* loss, unsigned rows,
                      double beta, const StepState* state, LossSums* totals) {
    double* const memory = dynamic_shared<double>();
    double recon_sum = 0;
    double kl_sum = 0;
    double loss_sum = 0;
    for (unsigned row = threadIdx.x; row < rows; row += kThreads) {
        recon_sum += recon[row];
        kl_sum += kl[row];
        if (loss != nullptr) loss_sum += loss[row];
    }
    recon_sum = block_sum(recon_sum, memory);
    kl_sum = block_sum(kl_sum, memory + kWarps);
    if (loss != nullptr) loss_sum = block_sum(loss_sum, memory + 2 * kWarps);
    if (threadIdx.x == 0) {
        totals->recon += recon_sum;
        totals->kl += kl_sum;
        totals->loss += loss != nullptr ? loss_sum : recon_sum + with_beta(beta, state) * kl_sum;
        totals->examples += rows;
    }
}

}  // namespace

void add_losses(const float* recon, const float* kl, const float* loss, int rows, double beta,
                const StepState* state, LossSums* totals, cudaStream_t stream) {
    require(rows >= 0, "add_losses", "rows must not be negative");
    if (rows == 0) return;
    const LaunchShape shape{dim3(1), dim3(kThreads), 3 * kWarps * sizeof(double)};
    launch("add_losses", add_losses_kernel, shape, stream, recon, kl, loss,
           static_cast<unsigned>(rows), beta, state, totals);
}

}  // namespace vae::kernels
