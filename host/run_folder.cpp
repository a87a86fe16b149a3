#include "host/run_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
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
    const bool is_empty = fs::is_empty(out, error);
    if (error) throw InputError(fmt::format("--out {}: {}", out.string(), error.message()));
    if (!is_empty) {
        const bool is_run = fs::exists(RunFolder{out}.checkpoint(), error);
        throw InputError(fmt::format("--out {}: {}; choose another folder{}", out.string(),
                                     is_run ? "there is a run already" : "the folder is not empty",
                                     is_run ? " or go on with the run by --resume" : ""));
    }
}

RunLock::RunLock(const fs::path& folder)
    : descriptor_(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (descriptor_ < 0) {
        throw InputError(fmt::format("{}: the folder cannot be opened: {}", folder.string(),
                                     std::generic_category().message(errno)));
    }
    if (flock(descriptor_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
    close(descriptor_);
    throw InputError(
        fmt::format("{}: the folder is in use: another vae train is running in it; wait for it to "
                    "end, or stop it",
                    folder.string()));
}

RunLock::~RunLock() {
    close(descriptor_);
}

NewRunFolder::NewRunFolder(const fs::path& out, const std::string& data_source) {
    check_new_run_folder(out);
    folder_.root = out.empty() ? fresh_path(data_source) : out;
    // A trailing slash would make the last part empty.
    create(folder_.root.has_filename() ? folder_.root : folder_.root.parent_path());
    // Another run may have been as quick; the folder is then its own, and stays.
    lock_.emplace(folder_.root);
    check_new_run_folder(folder_.root);
}

NewRunFolder::~NewRunFolder() {
    if (is_kept_) return;
    std::error_code ignored;
    for (const auto& file : {folder_.config(), folder_.metrics(), folder_.checkpoint()}) {
        fs::remove(file, ignored);
    }
    remove_folders();
}

void NewRunFolder::create(const fs::path& target) {
    std::error_code error;
    for (fs::path part = target; !part.empty() && !fs::exists(part, error);
         part = part.parent_path()) {
        created_.push_back(part);
        if (part == part.parent_path()) break;
    }
    fs::create_directories(target, error);
    if (!error) return;
    remove_folders();
    throw InputError(fmt::format("--out {}: the folder cannot be created: {}",
                                 folder_.root.string(), error.message()));
}

void NewRunFolder::remove_folders() const {
    std::error_code ignored;
    // From the inside out; one that holds something else stays.
    for (const fs::path& folder : created_) fs::remove(folder, ignored);
}

fs::path find_checkpoint(const fs::path& run) {
    const auto exists = [&run](const fs::path& path) {
        std::error_code error;
        const bool is_there = fs::exists(path, error);
        if (error) throw InputError(fmt::format("{}: {}", run.string(), error.message()));
        return is_there;
    };
    if (!exists(run)) {
        throw InputError(
            fmt::format("{}: there is no such run folder or checkpoint; "
                        "`vae train` makes one",
                        run.string()));
    }
    std::error_code error;
    if (!fs::is_directory(run, error)) return run;
    fs::path checkpoint = RunFolder{run}.checkpoint();
    if (!exists(checkpoint)) {
        throw InputError(
            fmt::format("{}: the folder holds no checkpoint.safetensors; "
                        "is it the folder of a run?",
                        run.string()));
    }
    return checkpoint;
}

}  // namespace vae
