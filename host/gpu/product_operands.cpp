#include "host/gpu/product_operands.h"

#include <algorithm>
#include <array>
#include <random>

#include "kernels/reals.h"

namespace vae::gpu {
namespace {

constexpr std::size_t kLeastCopies = 2;
constexpr std::size_t kMostCopies = 64;

std::size_t second_level_cache_bytes() {
    int bytes = 0;
    int device = 0;
    cuda_check(cudaGetDevice(&device), "cudaGetDevice");
    cuda_check(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, device),
               "cudaDeviceGetAttribute");
    return static_cast<std::size_t>(bytes);
}

// Standard normals; to draw as many as a large matrix has takes seconds.
template <class T>
std::vector<unsigned char> random_block() {
    std::vector<T> values(std::size_t{1} << 16);
    std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    for (T& value : values) value = static_cast<T>(normal(generator));
    const auto* const bytes = reinterpret_cast<const unsigned char*>(values.data());
    return {bytes, bytes + values.size() * sizeof(T)};
}

// With the same block over and over.
void fill(DeviceArray<unsigned char>& array, const std::vector<unsigned char>& block,
          const Stream& stream) {
    for (std::size_t first = 0; first < array.size(); first += block.size()) {
        cuda_check(cudaMemcpyAsync(array.data() + first, block.data(),
                                   std::min(block.size(), array.size() - first),
                                   cudaMemcpyHostToDevice, stream.get()),
                   "cudaMemcpyAsync to the device");
    }
}

}  // namespace

ProductOperands::Copy ProductOperands::reserve() {
    const auto elements = [](int rows, int columns) {
        return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
    };
    const auto array = [this](std::size_t bytes) { return Bytes(arena_, bytes, kUse); };
    const std::size_t weight = elements(product_.out, product_.in);
    const std::size_t input = elements(product_.rows, product_.in);
    const std::size_t output = elements(product_.rows, product_.out);
    std::array<std::size_t, 3> sizes = {};  // of a, b and d
    switch (product_.kind) {
        case MatmulKind::forward:
            sizes = {weight, input, output};
            break;
        case MatmulKind::backward_input:
            sizes = {weight, output, input};
            break;
        case MatmulKind::backward_weight:
            sizes = {input, output, weight};
            break;
    }
    const std::size_t factor = is_of_floats(product_.types) ? sizeof(float) : sizeof(kernels::Bf16);
    const std::size_t result = product_.types == MatmulTypes::bf16 ? factor : sizeof(float);
    const int widest = std::max(product_.in, product_.out);
    return {.a = array(sizes[0] * factor),
            .b = array(sizes[1] * factor),
            .d = array(sizes[2] * result),
            .bias = array(elements(1, widest) * sizeof(float)),
            .bits = array(elements(product_.rows, relu_bits_pitch(widest)))};
}

ProductOperands::ProductOperands(const MatmulProduct& product, const Stream& stream, Copies copies)
    : product_(product) {
    copies_.push_back(reserve());
    if (copies == Copies::beyond_cache) {
        const std::size_t count = std::clamp(2 * second_level_cache_bytes() / arena_.bytes() + 1,
                                             kLeastCopies, kMostCopies);
        while (copies_.size() < count) copies_.push_back(reserve());
    }
    arena_.allocate();
    const std::vector<unsigned char> block =
        is_of_floats(product.types) ? random_block<float>() : random_block<kernels::Bf16>();
    for (Copy& copy : copies_) {
        for (Bytes* array : {&copy.a, &copy.b, &copy.d, &copy.bias, &copy.bits}) {
            fill(*array, block, stream);
        }
    }
    stream.synchronize();
}

void ProductOperands::multiply(cublasLtHandle_t handle, const MatmulLane& lane, MatmulPlan& plan,
                               std::size_t copy) {
    run_plan(handle, lane, plan, a(copy), b(copy), d(copy),
             {.bias = has_bias(product_.epilogue) ? bias(copy) : nullptr,
              .bits = has_bits(product_.epilogue) ? bits(copy) : nullptr});
}

}  // namespace vae::gpu
