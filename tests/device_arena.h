// Arenas of ragged tensors for tests of the kernels that go over them piece by piece.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "kernels/arena.h"
#include "tests/device_memory.h"
#include "tests/kernel_reference.h"

namespace vae::test {

// Tensors of these sizes, each aligned to 64 elements, with what lies between them.
struct Layout {
    explicit Layout(const std::vector<std::size_t>& sizes) {
        for (const std::size_t size : sizes) {
            tensors.push_back({arena_size, size});
            arena_size += (size + 63) / 64 * 64 + 64;
        }
    }

    // The arena with only the tensors' elements, the rest NaN.
    std::vector<float> padded(const std::vector<float>& values) const {
        std::vector<float> arena(arena_size, kNan);
        for (const auto& [offset, size] : tensors) {
            for (std::size_t i = offset; i < offset + size; ++i) arena[i] = values[i];
        }
        return arena;
    }
    // The tensors' elements, one tensor after the other.
    std::vector<float> packed(const std::vector<float>& arena) const {
        std::vector<float> values;
        for (const auto& [offset, size] : tensors) {
            for (std::size_t i = offset; i < offset + size; ++i) values.push_back(arena[i]);
        }
        return values;
    }
    std::vector<float> normals(std::uint32_t stream, float scale = 1) const {
        return padded(random_normals(arena_size, stream, scale));
    }

    std::vector<kernels::ArenaTensor> tensors;
    std::size_t arena_size = 0;
};

// Sizes at which warps, fours, pieces and their tails begin and end, and one of many pieces.
inline std::vector<std::size_t> ragged_sizes() {
    return {1, 3, 4, 31, 32, 33, 0, 101, 255, 257, 1023, 1024, 1025, 1028, 4099, 65537};
}

// A layout's pieces on the device.
class DeviceArena {
  public:
    DeviceArena(const TestStream& stream, const Layout& layout)
        : DeviceArena(stream, kernels::cut_arena(layout.tensors)) {}

    kernels::ArenaTable table() {
        return {pieces_.data(), first_piece_.data(), static_cast<unsigned>(pieces_.size()),
                static_cast<unsigned>(first_piece_.size() - 1)};
    }

  private:
    DeviceArena(const TestStream& stream, const kernels::ArenaPieces& cut)
        : pieces_(stream, cut.pieces), first_piece_(stream, cut.first_piece) {}

    DeviceArray<kernels::ArenaPiece> pieces_;
    DeviceArray<unsigned> first_piece_;
};

}  // namespace vae::test
