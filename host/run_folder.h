// Where a run's files are.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "host/file_descriptor.h"

namespace vae {

struct RunFolder {
    std::filesystem::path root;

    std::filesystem::path config() const { return root / "config.toml"; }
    std::filesystem::path metrics() const { return root / "metrics.jsonl"; }
    std::filesystem::path checkpoint() const { return root / "checkpoint.safetensors"; }
    // The checkpoint of the best epoch so far, of a run that may stop early.
    std::filesystem::path best() const { return root / "best.safetensors"; }
    std::filesystem::path samples() const { return root / "samples.png"; }
    std::filesystem::path reconstructions() const { return root / "reconstructions.png"; }
};

// While it lives no other process trains in the folder. It leaves no file, and ends with the
// process however that ends.
class RunLock {
  public:
    // Throws InputError when another process holds the lock or the folder cannot be opened. Where
    // the file system has no locks there is none.
    explicit RunLock(const std::filesystem::path& folder);

  private:
    FileDescriptor folder_;  // the lock goes when it is closed
};

// Creates and locks a folder for a new run. Unless keep() is called, removes again the run's files
// and the folders that were not there before: a run that cannot start leaves nothing behind.
class NewRunFolder {
  public:
    // An empty `out` stands for runs/<name of the data>-<first free number>. Throws InputError when
    // `out` exists and is not an empty folder, or cannot be created. Several processes without an
    // `out` get a folder each.
    NewRunFolder(const std::filesystem::path& out, const std::string& data_source);
    ~NewRunFolder();
    NewRunFolder(const NewRunFolder&) = delete;
    NewRunFolder& operator=(const NewRunFolder&) = delete;
    NewRunFolder(NewRunFolder&&) = delete;
    NewRunFolder& operator=(NewRunFolder&&) = delete;

    const RunFolder& folder() const { return folder_; }
    void keep() { is_kept_ = true; }

  private:
    void create_fresh(const std::string& data_source);
    // Whether the last part of it was not there before.
    bool create(const std::filesystem::path& target);
    void remove_folders() const;

    RunFolder folder_;
    std::vector<std::filesystem::path> created_;  // by this object, from the inside out
    std::optional<RunLock> lock_;
    bool is_kept_ = false;
};

// Throws InputError unless a new run may be put at `out` (empty: always), before any work is done.
void check_new_run_folder(const std::filesystem::path& out);

// RUN of the command line is a run's folder or a checkpoint file: the checkpoint's path. Throws
// InputError when there is none.
std::filesystem::path find_checkpoint(const std::filesystem::path& run);

}  // namespace vae
