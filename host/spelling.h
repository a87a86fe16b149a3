// Words for people: how they are counted, and which one was meant.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vae {

// "1 step", "2 steps".
std::string counted(std::uint64_t count, const std::string& what);

// Levenshtein's distance: insertions, deletions and replacements.
std::size_t edit_distance(std::string_view a, std::string_view b);

// The first word nearest to `word`, or "" if every one is more edits away than half of what `word`
// has behind its dashes.
std::string nearest_word(std::string_view word, const std::vector<std::string>& words);

}  // namespace vae
