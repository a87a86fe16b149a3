#include "kernels/gather.h"

#include <type_traits>

#include "kernels/philox.cuh"
#include "kernels/storage.cuh"
#include "kernels/tile.cuh"

namespace vae::kernels {
namespace {

template <Pixels kPixels>
__device__ inline float pixel(float value) {
    return value;
}
template <Pixels kPixels>
__device__ inline float pixel(std::uint8_t value) {
    const auto number = static_cast<float>(value);
    return kPixels == Pixels::counts ? number : number / 255.0f;
}

// 1 with probability p; NaN stays NaN.
__device__ inline float draw(float u, float p) {
    if (u <= p) return 1.0f;
    return u > p ? 0.0f : p;
}

template <class T, Pixels kPixels>
struct GatherOp {
    static constexpr bool kRowSums = false;
    static constexpr bool kColumnSums = false;
    template <int V>
    struct Columns {
        std::uint32_t step;
    };
    template <int V>
    struct Loaded {
        Pack<V, T> values;
        std::uint32_t number;
    };

    const T* data;
    const std::uint32_t* index;
    const std::uint32_t* number;  // may be null
    std::size_t cols;
    NoiseStream noise;
    std::uint32_t first_index;
    float* x;
    Bf16* rounded_x;  // may be null

    template <int V>
    __device__ Columns<V> columns(unsigned) const {
        return {kPixels == Pixels::binary ? at_its_step(noise).step : 0};
    }
    template <int V>
    __device__ Loaded<V> load(unsigned row, unsigned col, const Columns<V>&) const {
        const std::uint32_t at = index[row];
        const bool is_elsewhere = kPixels == Pixels::binary && number != nullptr;
        return {load_pack<V>(data + at * cols + col), is_elsewhere ? number[row] : at};
    }
    template <int V>
    __device__ void apply(unsigned row, unsigned col, const Columns<V>& columns,
                          const Loaded<V>& loaded, float&, float (&)[V]) const {
        Pack<V> result;
#pragma unroll
        for (int i = 0; i < V; ++i) result.v[i] = pixel<kPixels>(loaded.values.v[i]);
        if constexpr (kPixels == Pixels::binary) {
            NoiseStream at = noise;
            at.step = columns.step;
            const float4 u = uniform4(at, first_index + loaded.number, col / 4);
#pragma unroll
            for (unsigned i = 0; i < V; ++i) {
                result.v[i] = draw(member(u, V == 4 ? i : col % 4), result.v[i]);
            }
        }
        store_pack<V>(x + row * cols + col, result);
        if (rounded_x != nullptr) store_floats<V>(rounded_x + row * cols + col, result);
    }
};

template <class T>
void gather_any(const T* data, const std::uint32_t* index, const std::uint32_t* number, int rows,
                int cols, Pixels pixels, const NoiseStream& noise, std::uint32_t first_index,
                float* x, Bf16* rounded_x, cudaStream_t stream) {
    constexpr const char* kLauncher = "gather";
    require_shape(rows, cols, kLauncher);
    if (rows == 0 || cols == 0) return;
    const auto width = static_cast<std::size_t>(cols);
    const bool wide = cols % 4 == 0 && aligned_to_four(data, x, rounded_x);  // null is aligned
    const auto launch_as = [&](auto kind) {
        const GatherOp<T, decltype(kind)::value> op{data,  index,       number, width,
                                                    noise, first_index, x,      rounded_x};
        launch_tiles(kLauncher, op, rows, cols, wide, Scratch{}, stream);
    };
    switch (pixels) {
        case Pixels::grey:
            return launch_as(std::integral_constant<Pixels, Pixels::grey>{});
        case Pixels::counts:
            return launch_as(std::integral_constant<Pixels, Pixels::counts>{});
        case Pixels::binary:
            return launch_as(std::integral_constant<Pixels, Pixels::binary>{});
    }
    require(false, kLauncher, "unknown kind of pixels");
}

}  // namespace

void gather(const std::uint8_t* data, const std::uint32_t* index, const std::uint32_t* number,
            int rows, int cols, Pixels pixels, const NoiseStream& noise, std::uint32_t first_index,
            float* x, Bf16* rounded_x, cudaStream_t stream) {
    gather_any(data, index, number, rows, cols, pixels, noise, first_index, x, rounded_x, stream);
}

void gather(const float* data, const std::uint32_t* index, const std::uint32_t* number, int rows,
            int cols, Pixels pixels, const NoiseStream& noise, std::uint32_t first_index, float* x,
            Bf16* rounded_x, cudaStream_t stream) {
    gather_any(data, index, number, rows, cols, pixels, noise, first_index, x, rounded_x, stream);
}

}  // namespace vae::kernels
