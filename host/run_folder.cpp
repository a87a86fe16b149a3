#include "host/run_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>

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

}  // namespace

void check_new_run_folder(const fs::path& out) {
    std::error_code error;
    if (out.empty()) return;
    if (!fs::exists(out, error)) {
        // Without the slash at its end, behind which a link is followed.
        const fs::path name = out.has_filename() ? out : out.parent_path();
        if (!fs::is_symlink(name, error)) return;
        throw InputError(fmt::format(
            "--out {}: is a symbolic link to {}, where there is nothing; make that folder, or "
            "choose another",
            out.string(), fs::read_symlink(name, error).string()));
    }
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
    : folder_(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (!folder_.is_open()) {
        throw InputError(fmt::format("{}: the folder cannot be opened: {}", folder.string(),
                                     system_reason(errno)));
    }
    if (flock(folder_.get(), LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
    throw InputError(
        fmt::format("{}: the folder is in use: another vae train is running in it; wait for it to "
                    "end, or stop it",
                    folder.string()));
}

NewRunFolder::NewRunFolder(const fs::path& out, const std::string& data_source) {
    check_new_run_folder(out);
    if (out.empty()) {
        create_fresh(data_source);
    } else {
        folder_.root = out;
        create(out);
    }
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

void NewRunFolder::create_fresh(const std::string& data_source) {
    const std::string name = short_name(data_source);
    for (int number = 1;; ++number) {
        folder_.root = fs::path("runs") / fmt::format("{}-{}", name, number);
        std::error_code error;
        if (fs::exists(fs::symlink_status(folder_.root, error))) continue;
        if (create(folder_.root)) return;
    }
}

bool NewRunFolder::create(const fs::path& target) {
    bool is_new = false;
    fs::path part;
    for (const fs::path& name : target) {
        part /= name;
        std::error_code error;
        is_new = false;
        if (fs::is_directory(part, error)) continue;
        is_new = fs::create_directory(part, error);
        if (is_new) created_.insert(created_.begin(), part);
        if (!error) continue;
        remove_folders();
        throw InputError(fmt::format("--out {}: the folder {} cannot be created: {}",
                                     folder_.root.string(), part.string(), error.message()));
    }
    return is_new;
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
