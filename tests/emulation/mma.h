// Found before the real header of this name, which only nvcc reads: the part of nvcuda::wmma that
// multiplies tiles of TF32 (16x16x8) and of bfloat16 (16x16x16) and sums in float.
//
// mma_sync is an operation of the whole warp. A load or store is each lane's own, of the elements
// that its fragment holds, and waits for nobody: a kernel that reads what other lanes stored needs
// a
// __syncwarp() between, which on a GPU it needs, too.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "fragments.h"
#include "number_formats.h"

// The names are CUDA's.
// NOLINTBEGIN(readability-identifier-naming, bugprone-reserved-identifier)
namespace nvcuda::wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major, mem_col_major };
namespace precision {
struct tf32;
}

}  // namespace nvcuda::wmma

namespace emulation {

// The elements that a lane holds of a tile of kRows x kColumns. They are NaN until they are loaded
// or filled, as memory that nobody wrote.
template <class Type, class Stored, unsigned kRows, unsigned kColumns, unsigned kOrder>
struct Fragment {
    enum { num_elements = kRows * kColumns / kWarpSize, num_storage_elements = num_elements };
    using element_type = Type;
    using storage_element_type = Stored;

    Stored x[num_elements];

    Fragment() { std::memset(static_cast<void*>(x), 0xff, sizeof x); }

    // Calls action(element, at) with where each element is in memory, by rows or columns `ldm`
    // apart.
    template <class Action>
    static void for_each(unsigned ldm, bool by_rows, Action action) {
        const unsigned first = run_of(lane_of_thread(), kOrder) * num_elements;
        for (unsigned i = 0; i < num_elements; ++i) {
            const std::size_t row = (first + i) / kColumns;
            const std::size_t column = (first + i) % kColumns;
            action(i, by_rows ? row * ldm + column : column * ldm + row);
        }
    }
};

template <class Layout>
concept TileLayout =
    std::same_as<Layout, nvcuda::wmma::row_major> || std::same_as<Layout, nvcuda::wmma::col_major>;

template <TileLayout Layout>
inline constexpr bool kByRows = std::same_as<Layout, nvcuda::wmma::row_major>;

// What CUDA asks of every tile in memory.
template <class T>
void check_tile(const char* call, const T* p, unsigned ldm, SourceLine where) {
    if (p == nullptr) trap_thread(call, where, " with a null pointer");
    if (reinterpret_cast<std::uintptr_t>(p) % 32 != 0) {
        trap_thread(call, where, " with a pointer that is no multiple of 32 bytes");
    }
    if (ldm * sizeof(T) % 16 != 0) {
        trap_thread(call, where, " with a leading dimension that is no multiple of 16 bytes");
    }
}

inline bool is_by_rows(const char* call, nvcuda::wmma::layout_t layout, SourceLine where) {
    if (layout != nvcuda::wmma::mem_row_major && layout != nvcuda::wmma::mem_col_major) {
        trap_thread(call, where, " with a layout that there is not");
    }
    return layout == nvcuda::wmma::mem_row_major;
}

template <class Fragment>
void load_tile(Fragment& tile, const typename Fragment::storage_element_type* p, unsigned ldm,
               bool by_rows, SourceLine where) {
    check_tile("load_matrix_sync", p, ldm, where);
    Fragment::for_each(ldm, by_rows, [&](unsigned i, std::size_t at) { tile.x[i] = p[at]; });
}

}  // namespace emulation

namespace nvcuda::wmma {

// To nearest, ties away from zero. What a kernel does not round, mma_sync cuts.
inline float __float_to_tf32(float value) {
    return emulation::round_to_tf32(value);
}

template <class Use, int m, int n, int k, class T, class Layout = void>
class fragment;

template <emulation::TileLayout Layout>
class fragment<matrix_a, 16, 16, 8, precision::tf32, Layout>
    : public emulation::Fragment<precision::tf32, float, 16, 8,
                                 emulation::order_of_a(emulation::kByRows<Layout>)> {};
template <emulation::TileLayout Layout>
class fragment<matrix_b, 16, 16, 8, precision::tf32, Layout>
    : public emulation::Fragment<precision::tf32, float, 8, 16,
                                 emulation::order_of_b(emulation::kByRows<Layout>)> {};
template <emulation::TileLayout Layout>
class fragment<matrix_a, 16, 16, 16, __nv_bfloat16, Layout>
    : public emulation::Fragment<__nv_bfloat16, __nv_bfloat16, 16, 16,
                                 emulation::order_of_a(emulation::kByRows<Layout>)> {};
template <emulation::TileLayout Layout>
class fragment<matrix_b, 16, 16, 16, __nv_bfloat16, Layout>
    : public emulation::Fragment<__nv_bfloat16, __nv_bfloat16, 16, 16,
                                 emulation::order_of_b(emulation::kByRows<Layout>)> {};
template <>
class fragment<accumulator, 16, 16, 8, float>
    : public emulation::Fragment<float, float, 16, 16, emulation::kOrderOfSum> {};
template <>
class fragment<accumulator, 16, 16, 16, float>
    : public emulation::Fragment<float, float, 16, 16, emulation::kOrderOfSum> {};

template <class Use, int k, class T, class Layout>
void fill_fragment(
    fragment<Use, 16, 16, k, T, Layout>& f,
    const typename fragment<Use, 16, 16, k, T, Layout>::storage_element_type& value) {
    for (auto& element : f.x) element = value;
}

template <class Use, int k, class T, emulation::TileLayout Layout>
void load_matrix_sync(fragment<Use, 16, 16, k, T, Layout>& f,
                      const typename fragment<Use, 16, 16, k, T, Layout>::storage_element_type* p,
                      unsigned ldm, emulation::SourceLine where = emulation::SourceLine::here()) {
    emulation::load_tile(f, p, ldm, emulation::kByRows<Layout>, where);
}

template <int k>
void load_matrix_sync(fragment<accumulator, 16, 16, k, float>& f, const float* p, unsigned ldm,
                      layout_t layout,
                      emulation::SourceLine where = emulation::SourceLine::here()) {
    emulation::load_tile(f, p, ldm, emulation::is_by_rows("load_matrix_sync", layout, where),
                         where);
}

template <int k>
void store_matrix_sync(float* p, const fragment<accumulator, 16, 16, k, float>& f, unsigned ldm,
                       layout_t layout,
                       emulation::SourceLine where = emulation::SourceLine::here()) {
    constexpr const char* kCall = "store_matrix_sync";
    emulation::check_tile(kCall, p, ldm, where);
    if (ldm < emulation::kTileSide) {
        emulation::trap_thread(kCall, where, " with a leading dimension that lets rows overlap");
    }
    f.for_each(ldm, emulation::is_by_rows(kCall, layout, where),
               [&](unsigned i, std::size_t at) { p[at] = f.x[i]; });
}

// d = a b + c, where d may be c; how it rounds, warp_matrices.cpp says.
template <int k, class T, emulation::TileLayout OfA, emulation::TileLayout OfB>
void mma_sync(fragment<accumulator, 16, 16, k, float>& d,
              const fragment<matrix_a, 16, 16, k, T, OfA>& a,
              const fragment<matrix_b, 16, 16, k, T, OfB>& b,
              const fragment<accumulator, 16, 16, k, float>& c,
              emulation::SourceLine where = emulation::SourceLine::here()) {
    const emulation::MatrixFragments own = {a.x, b.x, c.x, d.x};
    emulation::warp_collective(
        {std::same_as<T, __nv_bfloat16> ? emulation::WarpOperation::multiply_bf16
                                        : emulation::WarpOperation::multiply_tf32,
         0xffffffffu, emulation::to_bits(&own),
         emulation::orders_of(emulation::kByRows<OfA>, emulation::kByRows<OfB>)},
        where);
}

}  // namespace nvcuda::wmma
// NOLINTEND(readability-identifier-naming, bugprone-reserved-identifier)
