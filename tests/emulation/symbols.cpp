// Names of kernels. They are local symbols, unknown to the dynamic linker, so the symbol table of
// the binary's file is read.
#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <fmt/format.h>
#include <link.h>

#include <cctype>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "runtime.h"

namespace emulation {
namespace {

template <class T>
std::vector<T> read_table(std::ifstream& file, std::uint64_t offset, std::uint64_t bytes) {
    std::vector<T> table(bytes / sizeof(T));
    file.seekg(static_cast<std::streamoff>(offset));
    file.read(reinterpret_cast<char*>(table.data()),
              static_cast<std::streamsize>(table.size() * sizeof(T)));
    if (!file) table.clear();
    return table;
}

// The mangled name of the function at `address` of the file, as linked; empty if there is none.
std::string find_symbol(const std::string& path, std::uint64_t address) {
    std::ifstream file(path, std::ios::binary);
    const auto header = read_table<Elf64_Ehdr>(file, 0, sizeof(Elf64_Ehdr));
    if (header.empty() || std::memcmp(header[0].e_ident, ELFMAG, SELFMAG) != 0) return {};
    const auto sections = read_table<Elf64_Shdr>(
        file, header[0].e_shoff, std::uint64_t{header[0].e_shnum} * sizeof(Elf64_Shdr));
    for (const Elf64_Shdr& section : sections) {
        if (section.sh_type != SHT_SYMTAB || section.sh_link >= sections.size()) continue;
        const Elf64_Shdr& names = sections[section.sh_link];
        for (const auto& symbol : read_table<Elf64_Sym>(file, section.sh_offset, section.sh_size)) {
            if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || symbol.st_value != address) continue;
            file.seekg(static_cast<std::streamoff>(names.sh_offset + symbol.st_name));
            std::string name;
            std::getline(file, name, '\0');
            return name;
        }
    }
    return {};
}

std::string demangle(const std::string& name) {
    int status = 0;
    const std::unique_ptr<char, decltype(&std::free)> text(
        abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status), &std::free);
    return status == 0 ? text.get() : name;
}

void remove_all(std::string& text, const std::string& part) {
    for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at)) {
        text.erase(at, part.size());
    }
}

bool is_word(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
}

// "void a::b<c::D>(int)" becomes "b<D>".
std::string shorten(std::string text) {
    remove_all(text, "(anonymous namespace)::");
    std::string result;
    int depth = 0;  // of template arguments
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (c == '<') ++depth;
        if (c == '>') --depth;
        if (c == '(' && depth == 0) break;
        if (c == ' ' && depth == 0) {
            result.clear();
        } else if (c == ':' && i + 1 < text.size() && text[i + 1] == ':') {
            while (!result.empty() && is_word(result.back())) result.pop_back();
            ++i;
        } else {
            result += c;
        }
    }
    return result;
}

}  // namespace

std::string name_of_kernel(const void* function) {
    Dl_info info{};
    link_map* map = nullptr;
    std::string name;
    if (dladdr1(function, &info, reinterpret_cast<void**>(&map), RTLD_DL_LINKMAP) != 0 &&
        map != nullptr) {
        const std::string path = map->l_name[0] == '\0' ? "/proc/self/exe" : map->l_name;
        name = find_symbol(path, reinterpret_cast<std::uintptr_t>(function) - map->l_addr);
    }
    if (name.empty()) return fmt::format("kernel at {}", function);
    return shorten(demangle(name));
}

}  // namespace emulation
