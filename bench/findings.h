// What benchmarks of this run found, for a summary at its end.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace vae::bench {

class Findings {
  public:
    // Of the same name the last value counts.
    void note(const std::string& name, double value) { values_[name] = value; }
    std::optional<double> find(const std::string& name) const {
        const auto found = values_.find(name);
        return found == values_.end() ? std::nullopt : std::optional(found->second);
    }
    // All values whose names start so.
    std::vector<double> under(std::string_view prefix) const {
        std::vector<double> found;
        for (auto each = values_.lower_bound(std::string(prefix));
             each != values_.end() && each->first.starts_with(prefix); ++each) {
            found.push_back(each->second);
        }
        return found;
    }

  private:
    std::map<std::string, double> values_;
};

// The run's.
inline Findings& findings() {
    static Findings all;
    return all;
}

}  // namespace vae::bench
