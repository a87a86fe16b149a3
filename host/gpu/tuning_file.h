// The file of what was measured on the GPUs of a home, for every later run there: lists of entries,
// each of which says what it is of and what was found (matmul_cache.h, plan_cache.h). Where it is:
// tuned_device.h.
#pragma once

#include <filesystem>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "host/gpu/tuned_device.h"

namespace vae::gpu {

using TuningEntry = nlohmann::ordered_json;

// What a key begins with: an entry is of the key whose members it has. All entries of a list differ
// in their keys.
TuningEntry key_of(const TunedDevice& device);
bool is_of(const TuningEntry& entry, const TuningEntry& key);

// The value of that name; throws std::invalid_argument when there is none, and as json's functions
// do when it is no string.
template <class T>
T enumerator(const TuningEntry& name, std::initializer_list<T> all) {
    for (const T each : all) {
        if (name.get<std::string>() == name_of(each)) return each;
    }
    throw std::invalid_argument("an unknown name");
}

// The entries of a list; none where there is no file, or one that nobody can read.
std::vector<TuningEntry> read_tuning(const std::string& list);

// A key, and the members that an entry has beside it.
struct TuningResult {
    TuningEntry key;
    TuningEntry found;
};

// Puts entries into a list, in the place of those of the same keys; all else in the file stays.
// Returns the file, or nothing where there is no home. Throws RunError when it cannot be written.
std::optional<std::filesystem::path> save_tuning(const std::string& list,
                                                 const std::vector<TuningResult>& results);

}  // namespace vae::gpu
