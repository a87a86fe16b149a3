#include "host/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "host/error.h"
#include "host/file_descriptor.h"

namespace vae {
namespace {

namespace fs = std::filesystem;

// Of the pages that the memory lies in.
void advise(std::span<const std::byte> memory, int advice) {
    if (memory.empty()) return;
    static const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    const std::uintptr_t before = address % page;
    auto* const start = const_cast<std::byte*>(memory.data()) - before;
    (void)::posix_madvise(start, memory.size() + before, advice);
}

}  // namespace

MappedFile::MappedFile(const fs::path& path) {
    const auto fail = [&path](const char* what, int error) {
        throw InputError(
            fmt::format("cannot {} {}: {}", what, path.string(), system_reason(error)));
    };
    const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file.is_open()) fail("read", errno);
    struct stat status = {};
    if (::fstat(file.get(), &status) != 0) fail("read", errno);
    const auto size = static_cast<std::size_t>(status.st_size);
    void* const memory = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (memory == MAP_FAILED && errno == ENOMEM) {
        throw RunError(fmt::format(
            "cannot map {}: the process may not have so many addresses: raise their limit (ulimit "
            "-v), or use less data",
            path.string()));
    }
    if (memory == MAP_FAILED) fail("map", errno);
    bytes_ = {static_cast<const std::uint8_t*>(memory), size};
}

MappedFile::~MappedFile() {
    (void)::munmap(const_cast<std::uint8_t*>(bytes_.data()), bytes_.size());
}

std::shared_ptr<const MappedFile> map_file(const fs::path& path) {
    // Asked before it is opened: what a pipe gives its first reader is lost to the next.
    struct stat status = {};
    const bool is_known = ::stat(path.c_str(), &status) == 0;
    if (!is_known || !S_ISREG(status.st_mode) || status.st_size <= 0) return nullptr;
    return std::make_shared<const MappedFile>(path);
}

void advise_scattered(std::span<const std::byte> memory) {
    advise(memory, POSIX_MADV_RANDOM);
}

void advise_soon(std::span<const std::byte> memory) {
    advise(memory, POSIX_MADV_WILLNEED);
}

}  // namespace vae
