// A file as memory that the system fills where it is read, so that files larger than the memory can
// be used: pages that are not needed any more go, and nothing is written back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

namespace vae {

// Read-only, and there until it goes. A file that is made shorter meanwhile ends the program with
// SIGBUS when what it lost is read; one that is replaced, as this program replaces files, stays as
// it was.
class MappedFile {
  public:
    // InputError names the path and the system's reason; RunError when the process may not have so
    // many addresses.
    explicit MappedFile(const std::filesystem::path& path);
    ~MappedFile();
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;
    MappedFile(MappedFile&&) = delete;
    MappedFile& operator=(MappedFile&&) = delete;

    // As many as the file had when it was mapped.
    std::span<const std::uint8_t> bytes() const { return bytes_; }

  private:
    std::span<const std::uint8_t> bytes_;
};

// Null for what has no bytes to map: an empty file, a pipe, a folder, what is not there.
std::shared_ptr<const MappedFile> map_file(const std::filesystem::path& path);

// How memory that may be a file's will be read: here and there, so that the system reads no more
// than what is asked for; or soon, so that it starts reading. Advice: nothing fails.
void advise_scattered(std::span<const std::byte> memory);
void advise_soon(std::span<const std::byte> memory);

}  // namespace vae
