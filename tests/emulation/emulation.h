// What tests can ask of the emulated device, and do to it. The environment can do the same to a
// program that does not know it is emulated:
//   VAE_EMULATION_ORDER=ascending|descending|random:SEED     as set_order
//   VAE_EMULATION_FAIL=CALL:N:STATUS[,CALL:N:STATUS…]        as fail_call
//   VAE_EMULATION_MEMORY=BYTES                               of the device, in all
//   VAE_EMULATION_ROUNDING=host|random:SEED|up|down          as set_rounding
//   VAE_EMULATION_RELU=number|nan                            what cuBLASLt's makes of a NaN; number
//   VAE_EMULATION_TF32=round|cut                             as set_tf32
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "rounding.h"

namespace emulation {

enum class Order { ascending, descending, random };

// In which order blocks run, threads start, and waiting threads and streams go on. A copy into
// shared memory by __pipeline_memcpy_async takes place in an ascending order as late as it may,
// when its thread waits for it (and never, if it does not); in a descending one at once; in a
// random one either way, each by chance. The default is ascending, or what the environment says.
void set_order(Order order, std::uint64_t seed = 0);

// What expf, expm1f, logf, log1pf, tanhf and erfcf return: the host library's result; or one that
// is as far from the nearest float as CUDA's manual allows, up, down, or anything in between at
// random, for an argument always the same. What a GPU may give lies in that range, so a tolerance
// is right only if it holds under all of them. The default is the host's, or what the environment
// says.
void set_rounding(Rounding rounding, std::uint64_t seed = 0);

// From now on the device works while the host goes on: with each operation that a stream is given,
// some of those that wait are run, of any streams, at random. Without, nothing runs before somebody
// waits for it; and what is read too early then is never seen if the host itself waits in between.
void run_meanwhile(std::uint64_t seed);

// Makes the n-th call from now (1 is the next) of a runtime or library function, e.g. "cudaMalloc"
// or "cublasLtMatmul", return `status` and do nothing else: with the status of success it is left
// out, as by a program that forgot it. The call "execution" stands for any operation on a stream at
// the moment it runs: the device then fails with the status for good.
void fail_call(const std::string& call, std::uint64_t n, int status);

// How many bytes more can be allocated on the device; 8 GiB in all unless set here or in the
// environment.
void set_free_memory(std::size_t bytes);

// The device's compute capability; 9.0 unless set.
void set_compute_capability(int major, int minor);

// How cuBLASLt computes an epilogue (a cublasLtEpilogue_t): as part of the product's kernel, in a
// kernel of its own behind it, or not at all. by_type, the default, is in bf16 a part of the
// product's and else one of its own.
//
// A ReLU makes 0 of NaN, or leaves it with VAE_EMULATION_RELU=nan. The bits that its mask has of 0
// and of NaN, of which the library says nothing, are set in descending order, as CUTLASS sets them,
// and else are not.
enum class EpilogueWay { by_type, fused, apart, none };
void set_epilogue(std::uint32_t epilogue, EpilogueWay way);

// How cuBLASLt makes TF32 of a float, which is not documented: to nearest, ties away from zero, as
// the instruction that does it, or by cutting the mantissa, as tensor cores do with a float that
// nobody rounded. The default is to round, or what the environment says.
enum class Tf32 { round, cut };
void set_tf32(Tf32 how);

// From now on cuBLASLt proposes nothing but to split a sum and to add its parts one after the
// other, rounded to the type of the result.
void propose_only_serial_sums();

// How often each function was called, and each kernel launched (captured launches count when their
// graph runs), since the last reset. A kernel's name is without its namespaces and parameters.
std::map<std::string, std::uint64_t> calls();
std::map<std::string, std::uint64_t> launches();
// Of those with programmatic stream serialization, which may begin before what is ahead of them
// ends.
std::map<std::string, std::uint64_t> early_launches();

// What was created and not yet destroyed.
struct Live {
    std::size_t device_allocations = 0;
    std::size_t device_bytes = 0;
    std::size_t pinned_allocations = 0;
    std::size_t streams = 0;
    std::size_t events = 0;
    std::size_t graphs = 0;             // cudaGraph_t
    std::size_t executable_graphs = 0;  // cudaGraphExec_t
    std::size_t cublas_handles = 0;

    bool operator==(const Live&) const = default;
};
Live live();
std::size_t live_allocations();  // on the device

// Operations that wait on streams for somebody to synchronize.
std::size_t pending_operations();

// Why the last call was refused or the last kernel died; empty if nothing did. Also on stderr.
std::string last_message();

// The state of a fresh process, but for what is live: no error, fault, count or pending operation,
// and the order and the rounding of the environment.
void reset();

}  // namespace emulation
