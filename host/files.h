// Whole files in and out. A file is read whole or refused, and replaced whole or left as it was.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vae {

// The file's bytes. InputError names the path and the system's reason.
std::string read_file(const std::filesystem::path& path);

// Whether a file starts as gzip does.
bool is_gzip(std::span<const std::uint8_t> file);

// As read_file, and unpacked when it starts as gzip does (RFC 1952; several members are joined).
// InputError when the gzip data is truncated, damaged or followed by something else.
std::vector<std::uint8_t> read_maybe_gzip(const std::filesystem::path& path);

// Replaces the file at `path`: writes a temporary file in the same folder, syncs it, renames it
// over the old one and syncs the folder, so at every instant either the old or the new content is
// there whole. A symbolic link is followed, also to a file that is not there yet. On failure the
// temporary file is removed, the old file is untouched, and RunError names the path and the
// system's reason.
void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> content);
void write_file_atomically(const std::filesystem::path& path, std::string_view content);
// The content is the parts laid end to end.
void write_file_atomically(const std::filesystem::path& path,
                           std::span<const std::span<const std::byte>> parts);

// Removes the temporary files that a process left in the folder when it was killed in
// write_file_atomically. Those being written stay, and so does what cannot be removed.
void remove_stale_temporaries(const std::filesystem::path& folder);

// Where `path` points, link by link; the last one may point to what is not there. The path itself
// when it is no link, or when its links never end.
std::filesystem::path follow_links(const std::filesystem::path& path);

// "." for a file that is named without one.
std::filesystem::path folder_of(const std::filesystem::path& file);

// Throws InputError when `path` can be no file: its folder is missing or may not be written, or it
// is a folder. To be called before the work that a failed write would waste.
void check_writable(const std::filesystem::path& path);

// Whether both are one file, or would be once they are written.
bool same_file(const std::filesystem::path& a, const std::filesystem::path& b);

}  // namespace vae
