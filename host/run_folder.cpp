#include "host/run_folder.h"

#include <fmt/format.h>

#include <cctype>
#include <system_error>

#include "host/error.h"

namespace vae {

namespace fs = std::filesystem;

namespace {

// "synthetic:bars" -> "synthetic-bars", "/data/faces.npy" -> "faces".
std::string short_name(const std::string& data_source) {
    const std::string stem = fs::path(data_source).stem().string();
    std::string name;
    for (const char c : stem.empty() ? std::string("run") : stem) {
        const bool is_plain =
            std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.';
        name += is_plain ? c : '-';
    }
    return name;
}

// The outermost part of `path` that does not exist.
fs::path first_missing(const fs::path& path) {
    fs::path missing;
    std::error_code error;
    for (fs::path part = path; !part.empty() && !fs::exists(part, error);
         part = part.parent_path()) {
        missing = part;
        if (part == part.parent_path()) break;
    }
    return missing;
}

fs::path fresh_path(const std::string& data_source) {
    const std::string name = short_name(data_source);
    std::error_code error;
    for (int number = 1;; ++number) {
        fs::path path = fs::path("runs") / fmt::format("{}-{}", name, number);
        if (!fs::exists(path, error)) return path;
    }
}

}  // namespace

void check_new_run_folder(const fs::path& out) {
    std::error_code error;
    if (out.empty() || !fs::exists(out, error)) return;
    if (!fs::is_directory(out, error)) {
        throw InputError(
            fmt::format("--out {}: there is a file of that name; choose another", out.string()));
    }
    if (!fs::is_empty(out, error)) {
        const bool is_run = fs::exists(RunFolder{out}.checkpoint(), error);
        throw InputError(fmt::format("--out {}: {}; choose another folder{}", out.string(),
                                     is_run ? "there is a run already" : "the folder is not empty",
                                     is_run ? " or go on with the run by --resume" : ""));
    }
}

NewRunFolder::NewRunFolder(const fs::path& out, const std::string& data_source) {
    check_new_run_folder(out);
    folder_.root = out.empty() ? fresh_path(data_source) : out;
    // A trailing slash would make the last part empty.
    const fs::path target = folder_.root.has_filename() ? folder_.root : folder_.root.parent_path();
    const fs::path missing = first_missing(target);
    std::error_code error;
    fs::create_directories(target, error);
    if (error) {
        throw InputError(fmt::format("--out {}: the folder cannot be created: {}",
                                     folder_.root.string(), error.message()));
    }
    first_created_ = missing;
}

NewRunFolder::~NewRunFolder() {
    std::error_code ignored;
    if (!first_created_.empty()) fs::remove_all(first_created_, ignored);
}

fs::path find_checkpoint(const fs::path& run) {
    std::error_code error;
    if (!fs::exists(run, error)) {
        throw InputError(
            fmt::format("{}: there is no such run folder or checkpoint; "
                        "`vae train` makes one",
                        run.string()));
    }
    if (!fs::is_directory(run, error)) return run;
    const fs::path checkpoint = RunFolder{run}.checkpoint();
    if (!fs::exists(checkpoint, error)) {
        throw InputError(
            fmt::format("{}: the folder holds no checkpoint.safetensors; "
                        "is it the folder of a run?",
                        run.string()));
    }
    return checkpoint;
}

}  // namespace vae
