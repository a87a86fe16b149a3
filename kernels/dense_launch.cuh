// How launchers of products check what they are given, and start the kernel of
// kernels/dense_product.cuh.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <initializer_list>
#include <limits>
#include <type_traits>

#include "kernels/check.h"
#include "kernels/dense.h"
#include "kernels/dense_product.cuh"
#include "kernels/launch.h"

namespace vae::kernels {

// rows and columns of the result, at least 1. Copies of 16 bytes need units of 16 in both factors.
template <FactorKind kKind, Order kOrderA, Order kOrderB, class Epilogue>
void launch_dense(const char* launcher, const FactorMatrix<FactorElement<kKind>>& a,
                  const FactorMatrix<FactorElement<kKind>>& b, const DenseResult& result,
                  const Epilogue& epilogue, const DenseStream& on) {
    if constexpr (Epilogue::kRowSums) {
        const ScratchSize size = scratch_size(result.rows, Epilogue::kSums * result.columns);
        require(epilogue.scratch.partials_size >= size.partials &&
                    epilogue.scratch.tickets_size >= size.tickets,
                launcher, "scratch is smaller than scratch_size says");
    }
    const auto launch_as = [&](auto is_wide) {
        constexpr bool kIsWide = decltype(is_wide)::value;
        const std::size_t tiles =
            (static_cast<std::size_t>(result.rows - 1) / kDenseTile + 1) *
            DenseBlock<kKind, kOrderA, kOrderB, Epilogue, kIsWide>::tiles_of_columns(result);
        require(tiles <= std::numeric_limits<int>::max(), launcher, "the result is too large");
        const LaunchShape shape = {
            .grid = dim3(static_cast<unsigned>(tiles)),
            .block = dim3(static_cast<unsigned>(kDenseThreads)),
            .shared_bytes = dense_shared_bytes<FactorElement<kKind>, kOrderA, kOrderB>(),
            .starts_early = on.starts_early};
        launch(launcher, dense_kernel<kKind, kOrderA, kOrderB, Epilogue, kIsWide>, shape, on.stream,
               a, b, result, epilogue);
    };
    if (a.is_of_units(16) && b.is_of_units(16)) {
        launch_as(std::true_type{});
    } else {
        launch_as(std::false_type{});
    }
}

// Throws std::invalid_argument unless the sizes are a layer's and the arrays are stored alike.
inline void require_dense(const char* launcher, const DenseSize& size,
                          std::initializer_list<ConstReals> arrays) {
    require(size.rows >= 0, launcher, "rows must not be negative");
    require(size.in >= 1 && size.out >= 1, launcher, "a layer has at least one input and output");
    for (const ConstReals& array : arrays) {
        require(array.storage == arrays.begin()->storage, launcher, "arrays are not stored alike");
    }
}

inline void require_gate(const char* launcher, const DenseGate& gate, int columns) {
    require(gate.stride >= columns, launcher,
            "stride must not be less than a gated layer's outputs");
    require(gate.stride <= std::numeric_limits<int>::max() / 2, launcher, "stride is too large");
}

// Calls body with the kind of factors as a constant.
template <class Body>
void with_factors(Storage storage, FloatFactors factors, const Body& body) {
    if (storage == Storage::bf16) {
        body(std::integral_constant<FactorKind, FactorKind::bf16>{});
    } else if (factors == FloatFactors::tf32) {
        body(std::integral_constant<FactorKind, FactorKind::tf32>{});
    } else {
        body(std::integral_constant<FactorKind, FactorKind::two_tf32>{});
    }
}

}  // namespace vae::kernels
