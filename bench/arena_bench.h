// An arena of one tensor on the device, for benchmarks of what goes over arenas.
#pragma once

#include <vector>

#include "bench/gpu_fixture.h"
#include "kernels/arena.h"

namespace vae::bench {

// The parameters of 784-400-20 and of 3072-4096-4096-z256, both mirrored.
inline constexpr std::int64_t kSmallArena = 652'864;
inline constexpr std::int64_t kLargeArena = 61'900'032;

inline void arena_sizes(benchmark::internal::Benchmark* benchmark) {
    benchmark->ArgName("size")->Arg(kSmallArena)->Arg(kLargeArena);
    benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
}

// Of the large one alone, for a row under "machine/": a few times, which are over soon.
inline void beyond_cache(benchmark::internal::Benchmark* benchmark) {
    benchmark->ArgName("size")->Arg(kLargeArena)->Iterations(20);
    benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
}

template <class T>
DeviceBuffer<T> uploaded(const std::vector<T>& values) {
    DeviceBuffer<T> buffer(values.size());
    kernels::cuda_check(
        cudaMemcpy(buffer.data(), values.data(), buffer.bytes(), cudaMemcpyHostToDevice),
        "cudaMemcpy");
    return buffer;
}

class BenchArena {
  public:
    explicit BenchArena(std::size_t size)
        : BenchArena(kernels::cut_arena(std::vector<kernels::ArenaTensor>{{0, size}})) {}

    kernels::ArenaTable table() const {
        return {pieces_.data(), first_piece_.data(), static_cast<unsigned>(pieces_.size()), 1};
    }

  private:
    explicit BenchArena(const kernels::ArenaPieces& cut)
        : pieces_(uploaded(cut.pieces)), first_piece_(uploaded(cut.first_piece)) {}

    DeviceBuffer<kernels::ArenaPiece> pieces_;
    DeviceBuffer<unsigned> first_piece_;
};

}  // namespace vae::bench
