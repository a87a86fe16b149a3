#include "host/gpu/tuning_file.h"

#include <cublasLt.h>
#include <cuda_runtime.h>
#include <fmt/format.h>

#include <cstdlib>
#include <system_error>

#include "host/error.h"
#include "host/files.h"
#include "kernels/launch.h"

namespace vae::gpu {
namespace {

constexpr const char* kFile = "matmul-plans.json";

// The lists of the file; none of one that is not there or is not such a file.
TuningEntry read_lists(const std::filesystem::path& path) {
    try {
        TuningEntry file = TuningEntry::parse(read_file(path));
        return file.is_object() ? file : TuningEntry::object();
    } catch (const InputError&) {
        return TuningEntry::object();
    } catch (const TuningEntry::exception&) {
        return TuningEntry::object();
    }
}

std::vector<TuningEntry> entries_of(const TuningEntry& lists, const std::string& list) {
    const auto found = lists.find(list);
    if (found == lists.end() || !found->is_array()) return {};
    return found->get<std::vector<TuningEntry>>();
}

// An entry a line.
std::string text_of(const TuningEntry& lists) {
    std::string text;
    for (const auto& [name, list] : lists.items()) {
        text += fmt::format("{}{}: ", text.empty() ? "{" : ",\n", TuningEntry(name).dump());
        if (!list.is_array()) {
            text += list.dump();
            continue;
        }
        text += "[";
        for (std::size_t i = 0; i < list.size(); ++i) {
            text += (i == 0 ? "\n  " : ",\n  ") + list[i].dump();
        }
        text += "\n]";
    }
    return text + "}\n";
}

}  // namespace

TunedDevice current_tuned_device() {
    int index = 0;
    kernels::cuda_check(cudaGetDevice(&index), "cudaGetDevice");
    cudaDeviceProp properties = {};
    kernels::cuda_check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
    return {.gpu = properties.name,
            .capability = fmt::format("{}.{}", properties.major, properties.minor),
            .cublaslt = cublasLtGetVersion()};
}

std::optional<std::filesystem::path> tuning_file_path() {
    // A relative path in it is to be ignored, says its specification.
    const char* cache = std::getenv("XDG_CACHE_HOME");
    if (cache != nullptr && std::filesystem::path(cache).is_absolute()) {
        return std::filesystem::path(cache) / "vae" / kFile;
    }
    const char* home = std::getenv("HOME");
    if (home == nullptr || !std::filesystem::path(home).is_absolute()) return std::nullopt;
    return std::filesystem::path(home) / ".cache" / "vae" / kFile;
}

TuningEntry key_of(const TunedDevice& device) {
    return {{"gpu", device.gpu}, {"capability", device.capability}, {"cublaslt", device.cublaslt}};
}

bool is_of(const TuningEntry& entry, const TuningEntry& key) {
    if (!entry.is_object()) return false;
    for (const auto& [name, value] : key.items()) {
        const auto found = entry.find(name);
        if (found == entry.end() || *found != value) return false;
    }
    return true;
}

std::vector<TuningEntry> read_tuning(const std::string& list) {
    const auto path = tuning_file_path();
    return path ? entries_of(read_lists(*path), list) : std::vector<TuningEntry>();
}

std::optional<std::filesystem::path> save_tuning(const std::string& list,
                                                 const std::vector<TuningResult>& results) {
    auto path = tuning_file_path();
    if (!path) return std::nullopt;
    TuningEntry lists = read_lists(*path);
    std::vector<TuningEntry> entries = entries_of(lists, list);
    for (const TuningResult& result : results) {
        std::erase_if(entries, [&](const TuningEntry& each) { return is_of(each, result.key); });
        TuningEntry entry = result.key;
        entry.update(result.found);
        entries.push_back(std::move(entry));
    }
    lists[list] = std::move(entries);
    std::error_code error;
    std::filesystem::create_directories(path->parent_path(), error);
    if (error) {
        throw RunError(fmt::format("{}: {}", path->parent_path().string(), error.message()));
    }
    write_file_atomically(*path, text_of(lists));
    return path;
}

}  // namespace vae::gpu
