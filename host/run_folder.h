// Where a run's files are.
#pragma once

#include <filesystem>
#include <string>

namespace vae {

struct RunFolder {
    std::filesystem::path root;

    std::filesystem::path config() const { return root / "config.toml"; }
    std::filesystem::path metrics() const { return root / "metrics.jsonl"; }
    std::filesystem::path checkpoint() const { return root / "checkpoint.safetensors"; }
    std::filesystem::path samples() const { return root / "samples.png"; }
    std::filesystem::path reconstructions() const { return root / "reconstructions.png"; }
};

// Creates a folder for a new run and removes it again, with what was written into it, unless
// keep() is called: a run that cannot start leaves nothing behind.
class NewRunFolder {
  public:
    // An empty `out` stands for runs/<name of the data>-<first free number>. Throws InputError when
    // `out` exists and is not an empty folder, or cannot be created.
    NewRunFolder(const std::filesystem::path& out, const std::string& data_source);
    ~NewRunFolder();
    NewRunFolder(const NewRunFolder&) = delete;
    NewRunFolder& operator=(const NewRunFolder&) = delete;

    const RunFolder& folder() const { return folder_; }
    void keep() { first_created_.clear(); }

  private:
    RunFolder folder_;
    std::filesystem::path first_created_;  // the outermost folder that was not there before
};

// Throws InputError unless a new run may be put at `out` (empty: always), before any work is done.
void check_new_run_folder(const std::filesystem::path& out);

// RUN of the command line is a run's folder or a checkpoint file: the checkpoint's path. Throws
// InputError when there is none.
std::filesystem::path find_checkpoint(const std::filesystem::path& run);

}  // namespace vae
