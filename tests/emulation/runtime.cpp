#include "runtime.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <system_error>

namespace emulation {
namespace {

[[noreturn]] void reject(const char* variable, std::string_view value, const char* expected) {
    fmt::print(stderr, "emulation: {}={}: expected {}\n", variable, value, expected);
    std::exit(2);
}

template <class T>
T parse_number(const char* variable, std::string_view text, const char* expected) {
    T value{};
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc() || stop != end) reject(variable, text, expected);
    return value;
}

std::string_view environment(const char* variable) {
    const char* const value = std::getenv(variable);
    return value == nullptr ? std::string_view() : value;
}

// Of "random:SEED".
std::uint64_t parse_seed(const char* variable, std::string_view value, const char* expected) {
    constexpr std::string_view kRandom = "random:";
    if (!value.starts_with(kRandom)) reject(variable, value, expected);
    return parse_number<std::uint64_t>(variable, value.substr(kRandom.size()), expected);
}

Turns turns_of_environment() {
    constexpr const char* kVariable = "VAE_EMULATION_ORDER";
    constexpr const char* kExpected = "ascending, descending or random:SEED";
    const std::string_view value = environment(kVariable);
    if (value.empty() || value == "ascending") return {};
    if (value == "descending") return {Turns::Order::descending, {}};
    return {Turns::Order::random, {parse_seed(kVariable, value, kExpected)}};
}

FunctionRounding rounding_of_environment() {
    constexpr const char* kVariable = "VAE_EMULATION_ROUNDING";
    constexpr const char* kExpected = "host, random:SEED, up or down";
    const std::string_view value = environment(kVariable);
    if (value.empty() || value == "host") return {};
    if (value == "up") return {Rounding::up, 0};
    if (value == "down") return {Rounding::down, 0};
    return {Rounding::random, parse_seed(kVariable, value, kExpected)};
}

std::vector<Fault> faults_of_environment() {
    constexpr const char* kVariable = "VAE_EMULATION_FAIL";
    constexpr const char* kExpected = "CALL:N:STATUS[,CALL:N:STATUS...]";
    std::vector<Fault> faults;
    std::string_view rest = environment(kVariable);
    while (!rest.empty()) {
        const std::string_view item = rest.substr(0, rest.find(','));
        rest.remove_prefix(std::min(rest.size(), item.size() + 1));
        const std::size_t first = item.find(':');
        const std::size_t second = item.rfind(':');
        if (first == 0 || first == second) reject(kVariable, item, kExpected);
        const auto n = parse_number<std::uint64_t>(
            kVariable, item.substr(first + 1, second - first - 1), kExpected);
        const auto status = parse_number<int>(kVariable, item.substr(second + 1), kExpected);
        faults.push_back({std::string(item.substr(0, first)), n, status});
    }
    return faults;
}

std::size_t memory_of_environment() {
    constexpr const char* kVariable = "VAE_EMULATION_MEMORY";
    constexpr std::size_t kUsual = std::size_t{8} << 30;
    const std::string_view value = environment(kVariable);
    return value.empty() ? kUsual : parse_number<std::size_t>(kVariable, value, "bytes");
}

bool relu_of_environment() {
    constexpr const char* kVariable = "VAE_EMULATION_RELU";
    const std::string_view value = environment(kVariable);
    if (!value.empty() && value != "number" && value != "nan") {
        reject(kVariable, value, "number or nan");
    }
    return value == "nan";
}

Tf32 tf32_of_environment() {
    constexpr const char* kVariable = "VAE_EMULATION_TF32";
    const std::string_view value = environment(kVariable);
    if (value.empty() || value == "round") return Tf32::round;
    if (value != "cut") reject(kVariable, value, "round or cut");
    return Tf32::cut;
}

void say(const std::string& message) {
    runtime().message = message;
    fmt::print(stderr, "emulation: {}\n", message);
}

}  // namespace

Runtime::Runtime()
    : turns(turns_of_environment()),
      faults(faults_of_environment()),
      device_memory(memory_of_environment()),
      relu_keeps_nan(relu_of_environment()),
      tf32(tf32_of_environment()) {
    function_rounding = rounding_of_environment();
}

// Never destroyed: objects of static storage may use it when the program ends.
Runtime& runtime() {
    static Runtime& instance = *new Runtime;
    return instance;
}

std::optional<int> injected_fault(const char* call) {
    Runtime& device = runtime();
    const std::uint64_t number = ++device.calls.try_emplace(call).first->second;
    for (const Fault& fault : device.faults) {
        if (fault.at == number && fault.call == call) return fault.status;
    }
    return std::nullopt;
}

cudaError_t refuse(cudaError_t status, const std::string& message) {
    say(message);
    return status;
}

void break_device(cudaError_t status, const std::string& message) {
    Runtime& device = runtime();
    if (device.broken != cudaSuccess) return;
    device.broken = status;
    for (const cudaStream_t stream : device.streams) stream->pending.clear();
    say(message);
}

void set_order(Order order, std::uint64_t seed) {
    const std::scoped_lock lock(runtime().mutex);
    switch (order) {
        case Order::ascending:
            runtime().turns = {Turns::Order::ascending, {}};
            break;
        case Order::descending:
            runtime().turns = {Turns::Order::descending, {}};
            break;
        case Order::random:
            runtime().turns = {Turns::Order::random, {seed}};
            break;
    }
}

void set_rounding(Rounding rounding, std::uint64_t seed) {
    const std::scoped_lock lock(runtime().mutex);
    function_rounding = {rounding, seed};
}

void run_meanwhile(std::uint64_t seed) {
    const std::scoped_lock lock(runtime().mutex);
    runtime().meanwhile = Random{seed};
}

void fail_call(const std::string& call, std::uint64_t n, int status) {
    Runtime& device = runtime();
    const std::scoped_lock lock(device.mutex);
    const auto counted = device.calls.find(call);
    const std::uint64_t so_far = counted == device.calls.end() ? 0 : counted->second;
    device.faults.push_back({call, so_far + n, status});
}

void set_free_memory(std::size_t bytes) {
    Runtime& device = runtime();
    const std::scoped_lock lock(device.mutex);
    device.device_memory = device.device_bytes + bytes;
}

void set_compute_capability(int major, int minor) {
    const std::scoped_lock lock(runtime().mutex);
    runtime().capability_major = major;
    runtime().capability_minor = minor;
}

void set_epilogue(std::uint32_t epilogue, EpilogueWay way) {
    const std::scoped_lock lock(runtime().mutex);
    runtime().epilogues[epilogue] = way;
}

void set_tf32(Tf32 how) {
    const std::scoped_lock lock(runtime().mutex);
    runtime().tf32 = how;
}

void propose_only_serial_sums() {
    const std::scoped_lock lock(runtime().mutex);
    runtime().only_serial_sums = true;
}

std::map<std::string, std::uint64_t> calls() {
    const std::scoped_lock lock(runtime().mutex);
    return {runtime().calls.begin(), runtime().calls.end()};
}

std::map<std::string, std::uint64_t> launches() {
    const std::scoped_lock lock(runtime().mutex);
    return {runtime().launches.begin(), runtime().launches.end()};
}

std::map<std::string, std::uint64_t> early_launches() {
    const std::scoped_lock lock(runtime().mutex);
    return {runtime().early_launches.begin(), runtime().early_launches.end()};
}

Live live() {
    const Runtime& device = runtime();
    const std::scoped_lock lock(runtime().mutex);
    Live result;
    for (const auto& [address, allocation] : device.allocations) {
        ++(allocation.kind == MemoryKind::device ? result.device_allocations
                                                 : result.pinned_allocations);
    }
    result.device_bytes = device.device_bytes;
    result.streams = device.streams.size();
    result.events = device.events.size();
    result.graphs = device.graphs.size();
    result.executable_graphs = device.executable_graphs.size();
    result.cublas_handles = device.cublas_handles;
    return result;
}

std::size_t live_allocations() {
    return live().device_allocations;
}

std::size_t pending_operations() {
    const std::scoped_lock lock(runtime().mutex);
    std::size_t count = 0;
    for (const cudaStream_t stream : runtime().streams) count += stream->pending.size();
    return count;
}

std::string last_message() {
    const std::scoped_lock lock(runtime().mutex);
    return runtime().message;
}

void reset() {
    Runtime& device = runtime();
    const std::scoped_lock lock(device.mutex);
    for (const cudaStream_t stream : device.streams) {
        stream->pending.clear();
        stream->capture = nullptr;
    }
    for (const cudaEvent_t event : device.events) event->capture = nullptr;
    device.captures.clear();
    device.last_error = cudaSuccess;
    device.broken = cudaSuccess;
    device.message.clear();
    device.calls.clear();
    device.launches.clear();
    device.early_launches.clear();
    device.capability_major = 9;
    device.capability_minor = 0;
    device.epilogues.clear();
    device.relu_keeps_nan = relu_of_environment();
    device.only_serial_sums = false;
    device.tf32 = tf32_of_environment();
    device.device_memory = memory_of_environment();
    device.turns = turns_of_environment();
    device.meanwhile.reset();
    device.faults = faults_of_environment();
    function_rounding = rounding_of_environment();
}

}  // namespace emulation
