#include "host/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#define ZLIB_CONST  // next_in points to const
#include <zlib.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <system_error>
#include <utility>

#include "host/error.h"
#include "host/file_descriptor.h"

namespace vae {
namespace {

namespace fs = std::filesystem;

// Between them stand the process and a number.
constexpr std::string_view kTemporaryStart = ".vae-";
constexpr std::string_view kTemporaryEnd = ".tmp";

// A temporary file that is removed unless it was renamed into place.
class TemporaryName {
  public:
    explicit TemporaryName(fs::path path) : path_(std::move(path)) {}
    ~TemporaryName() {
        if (!path_.empty()) ::unlink(path_.c_str());
    }
    TemporaryName(const TemporaryName&) = delete;
    TemporaryName& operator=(const TemporaryName&) = delete;
    TemporaryName(TemporaryName&&) = delete;
    TemporaryName& operator=(TemporaryName&&) = delete;

    const fs::path& path() const { return path_; }
    void release() { path_.clear(); }

  private:
    fs::path path_;
};

[[noreturn]] void cannot_write(const fs::path& path, int error) {
    throw RunError(fmt::format("cannot write {}: {}", path.string(), system_reason(error)));
}

// Locks a temporary file, which says that it is in use; where there are no locks nobody asks. False
// when remove_stale_temporaries was quicker.
bool claim(int descriptor) {
    if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return false;
    struct stat status = {};
    return ::fstat(descriptor, &status) != 0 || status.st_nlink > 0;
}

// A file that nobody else has, in `folder`. Returns its descriptor, or -1 with errno set.
int create_temporary(const fs::path& folder, fs::path& name) {
    static std::atomic<unsigned> counter{0};  // threads of one process must not meet
    constexpr int kMostTries = 10000;
    for (int i = 0; i < kMostTries; ++i) {
        name = folder /
               fmt::format("{}{}-{}{}", kTemporaryStart, ::getpid(), counter++, kTemporaryEnd);
        const int descriptor = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        // An old one may be left by a process of the same number that was killed.
        if (descriptor < 0 && errno == EEXIST) continue;
        if (descriptor < 0 || claim(descriptor)) return descriptor;
        ::close(descriptor);
    }
    errno = EAGAIN;
    return -1;
}

bool is_temporary(std::string_view name) {
    if (!name.starts_with(kTemporaryStart) || !name.ends_with(kTemporaryEnd)) return false;
    name.remove_prefix(kTemporaryStart.size());
    name.remove_suffix(kTemporaryEnd.size());
    return name.find_first_not_of("0123456789-") == std::string_view::npos;
}

// Returns 0 or the error.
int write_all(int descriptor, std::span<const std::byte> content) {
    while (!content.empty()) {
        const ssize_t written = ::write(descriptor, content.data(), content.size());
        if (written < 0) {
            if (errno == EINTR) continue;
            return errno;
        }
        content = content.subspan(static_cast<std::size_t>(written));
    }
    return 0;
}

void sync_folder(const fs::path& folder, const fs::path& path) {
    const FileDescriptor descriptor(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    // A folder that may be written but not read cannot be synced, and some file systems do not
    // sync folders; the file itself is whole all the same.
    if (!descriptor.is_open()) return;
    if (::fsync(descriptor.get()) != 0 && errno != EINVAL && errno != ENOTSUP) {
        cannot_write(path, errno);
    }
}

// The file that is to be replaced: `path`, or where it points.
fs::path resolve_target(const fs::path& path) {
    std::error_code error;
    fs::path target = follow_links(path);
    if (fs::is_symlink(target, error)) cannot_write(path, ELOOP);
    if (fs::exists(target, error) && !fs::is_regular_file(target, error)) {
        throw RunError(fmt::format("cannot write {}: it exists and is {}", path.string(),
                                   fs::is_directory(target, error) ? "a folder" : "not a file"));
    }
    return target;
}

}  // namespace

fs::path folder_of(const fs::path& file) {
    return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

fs::path follow_links(const fs::path& path) {
    constexpr int kMostLinks = 40;  // as Linux does
    fs::path target = path;
    for (int i = 0; i < kMostLinks; ++i) {
        std::error_code error;
        const fs::path next = fs::read_symlink(target, error);
        if (error) return target;
        target = target.parent_path() / next;  // `next` alone if it is absolute
    }
    return path;
}

std::string read_file(const fs::path& path) {
    const auto fail = [&path](int error) {
        throw InputError(fmt::format("cannot read {}: {}", path.string(), system_reason(error)));
    };
    const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file.is_open()) fail(errno);
    struct stat status = {};
    if (::fstat(file.get(), &status) != 0) fail(errno);
    if (S_ISDIR(status.st_mode)) fail(EISDIR);
    if (!S_ISREG(status.st_mode) && !S_ISFIFO(status.st_mode)) {  // /dev/zero never ends
        throw InputError(fmt::format("cannot read {}: it is not a file", path.string()));
    }
    std::string content;
    std::size_t size = 0;
    // One byte more than the file has shows the end without growing the buffer.
    content.resize(static_cast<std::size_t>(std::max<off_t>(status.st_size, 0)) + 1);
    for (;;) {
        if (size == content.size()) content.resize(2 * content.size() + 65536);
        const ssize_t got = ::read(file.get(), content.data() + size, content.size() - size);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) fail(errno);
        if (got == 0) break;
        size += static_cast<std::size_t>(got);
    }
    content.resize(size);
    return content;
}

namespace {

class Inflater {
  public:
    // 15: the largest window; + 16: gzip only.
    Inflater() : ok_(inflateInit2(&stream_, 15 + 16) == Z_OK) {}
    ~Inflater() {
        if (ok_) inflateEnd(&stream_);
    }
    Inflater(const Inflater&) = delete;
    Inflater& operator=(const Inflater&) = delete;
    Inflater(Inflater&&) = delete;
    Inflater& operator=(Inflater&&) = delete;

    bool ok() const { return ok_; }
    z_stream& stream() { return stream_; }

  private:
    z_stream stream_ = {};
    bool ok_;
};

std::vector<std::uint8_t> gunzip(const std::string& packed, const fs::path& path) {
    const auto fail = [&path](const std::string& what) {
        throw InputError(fmt::format("{}: {}: get the file again", path.string(), what));
    };
    Inflater inflater;
    if (!inflater.ok()) throw RunError("zlib cannot start: out of memory");
    z_stream& stream = inflater.stream();
    std::array<std::uint8_t, 65536> chunk;
    std::vector<std::uint8_t> content;
    std::size_t used = 0;
    for (;;) {
        // zlib counts input in 32 bits, so a turn may be given less than there is.
        const auto given = static_cast<uInt>(std::min<std::size_t>(packed.size() - used, INT_MAX));
        stream.next_in = reinterpret_cast<const Bytef*>(packed.data()) + used;
        stream.avail_in = given;
        stream.next_out = chunk.data();
        stream.avail_out = static_cast<uInt>(chunk.size());
        const int status = inflate(&stream, Z_NO_FLUSH);
        used += given - stream.avail_in;
        content.insert(content.end(), chunk.data(), stream.next_out);
        if (status == Z_STREAM_END) {
            if (used == packed.size()) return content;
            inflateReset(&stream);           // another member, or rubbish
        } else if (status == Z_BUF_ERROR) {  // no progress: it wants input, and there is none
            fail("the gzip data ends too early");
        } else if (status == Z_MEM_ERROR) {
            throw RunError(fmt::format("{}: out of memory while unpacking", path.string()));
        } else if (status != Z_OK) {
            fail("the gzip data is damaged, or followed by something else");
        }
    }
}

}  // namespace

bool is_gzip(std::span<const std::uint8_t> file) {
    return file.size() >= 2 && file[0] == 0x1f && file[1] == 0x8b;
}

std::vector<std::uint8_t> read_maybe_gzip(const fs::path& path) {
    const std::string content = read_file(path);
    const auto* const bytes = reinterpret_cast<const std::uint8_t*>(content.data());
    if (is_gzip({bytes, content.size()})) return gunzip(content, path);
    return {content.begin(), content.end()};
}

void write_file_atomically(const fs::path& path, std::span<const std::byte> content) {
    write_file_atomically(path, std::span(&content, 1));
}

void write_file_atomically(const fs::path& path, std::string_view content) {
    write_file_atomically(path, std::as_bytes(std::span(content)));
}

void write_file_atomically(const fs::path& path,
                           std::span<const std::span<const std::byte>> parts) {
    const fs::path target = resolve_target(path);
    const fs::path folder = folder_of(target);
    fs::path name;
    FileDescriptor file(create_temporary(folder, name));
    if (!file.is_open()) cannot_write(path, errno);
    TemporaryName temporary(std::move(name));
    const FileDescriptor locked(::dup(file.get()));  // until it has its name
    for (const std::span<const std::byte> part : parts) {
        if (const int error = write_all(file.get(), part)) cannot_write(path, error);
    }
    if (::fsync(file.get()) != 0) cannot_write(path, errno);
    if (const int error = file.close()) cannot_write(path, error);
    if (::rename(temporary.path().c_str(), target.c_str()) != 0) cannot_write(path, errno);
    temporary.release();
    sync_folder(folder, path);
}

void remove_stale_temporaries(const fs::path& folder) {
    std::error_code error;
    for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
        if (!is_temporary(at->path().filename().string())) continue;
        const FileDescriptor file(::open(at->path().c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
        if (!file.is_open() || ::flock(file.get(), LOCK_EX | LOCK_NB) != 0) continue;
        ::unlink(at->path().c_str());
    }
}

void check_writable(const fs::path& path) {
    try {
        const fs::path folder = folder_of(resolve_target(path));
        if (::access(folder.c_str(), F_OK) != 0) cannot_write(path, errno);
        std::error_code error;
        if (!fs::is_directory(folder, error)) cannot_write(path, ENOTDIR);
        if (::access(folder.c_str(), W_OK | X_OK) != 0) cannot_write(path, errno);
    } catch (const RunError& error) {
        // Whoever asks before any work has asked for the wrong place.
        throw InputError(error.what());
    }
}

bool same_file(const fs::path& a, const fs::path& b) {
    std::error_code error;  // what cannot be resolved cannot be written either
    const auto plain = [&error](const fs::path& path) {
        return fs::weakly_canonical(fs::absolute(follow_links(path), error), error);
    };
    return plain(a) == plain(b);
}

}  // namespace vae
