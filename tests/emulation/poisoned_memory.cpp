#include "poisoned_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

namespace emulation {
namespace {

constexpr int kPoison = 0xff;
constexpr std::align_val_t kAlignment{256};
constexpr std::size_t kLarge = std::size_t{1} << 20;
constexpr std::size_t kSourceBytes = std::size_t{8} << 20;

std::size_t page_bytes() {
    static const auto bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    return bytes;
}

// A file without a name, full of poison; -1 if there can be none. Never closed.
int poison_source() {
    static const int file = [] {
        const int made = memfd_create("poison", MFD_CLOEXEC);
        const std::vector<char> bytes(kSourceBytes, static_cast<char>(kPoison));
        if (made >= 0 && write(made, bytes.data(), bytes.size()) != ssize_t{kSourceBytes}) {
            close(made);
            return -1;
        }
        return made;
    }();
    return file;
}

// A large block: whole pages, and on either side one that nobody may touch.
struct Pages {
    explicit Pages(std::size_t size)
        : inside((size + page_bytes() - 1) / page_bytes() * page_bytes()),
          all(inside + 2 * page_bytes()) {}
    std::size_t inside;
    std::size_t all;
};

void* map_poisoned(std::size_t size) {
    const Pages pages(size);
    void* const all =
        mmap(nullptr, pages.all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) return nullptr;
    char* const first = static_cast<char*>(all) + page_bytes();
    for (std::size_t done = 0; done < pages.inside; done += kSourceBytes) {
        const std::size_t part = std::min(kSourceBytes, pages.inside - done);
        if (mmap(first + done, part, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, poison_source(), 0) == MAP_FAILED) {
            munmap(all, pages.all);
            return nullptr;
        }
    }
    ASAN_POISON_MEMORY_REGION(first + size, pages.inside - size);
    return first;
}

}  // namespace

void* allocate_poisoned(std::size_t size) {
    if (size >= kLarge) return poison_source() < 0 ? nullptr : map_poisoned(size);
    void* const memory = ::operator new(size, kAlignment, std::nothrow);
    if (memory != nullptr) std::memset(memory, kPoison, size);
    return memory;
}

void release_poisoned(void* memory, std::size_t size) {
    if (size < kLarge) {
        ::operator delete(memory, kAlignment);
        return;
    }
    // The address space is everybody's again.
    ASAN_UNPOISON_MEMORY_REGION(memory, Pages(size).inside);
    munmap(static_cast<char*>(memory) - page_bytes(), Pages(size).all);
}

}  // namespace emulation
