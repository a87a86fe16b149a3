// Numbers that lie somewhere, with who keeps them there: a vector of their own, or a mapped file.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "host/mapped_file.h"

namespace vae {

// Copies and parts share the memory, which lives as long as one of them. It is never written.
template <class T>
class Values {
  public:
    Values() = default;
    // Takes the vector.
    Values(std::vector<T> values) {
        const auto owner = std::make_shared<const std::vector<T>>(std::move(values));
        values_ = *owner;
        owner_ = owner;
    }
    // `values` lie in the file.
    Values(std::shared_ptr<const MappedFile> file, std::span<const T> values)
        : owner_(std::move(file)), values_(values), is_in_file_(true) {}

    const T* data() const { return values_.data(); }
    std::size_t size() const { return values_.size(); }
    const T* begin() const { return data(); }
    const T* end() const { return data() + size(); }
    const T& operator[](std::size_t i) const { return values_[i]; }
    operator std::span<const T>() const { return values_; }
    // Whether the memory is a mapped file's.
    bool is_in_file() const { return is_in_file_; }

    // std::invalid_argument unless [first, first + count) lies in the values.
    Values part(std::size_t first, std::size_t count) const {
        if (first > size() || count > size() - first) {
            throw std::invalid_argument("Values: a part that is not there");
        }
        Values result = *this;
        result.values_ = values_.subspan(first, count);
        return result;
    }
    // Whole values of another type from the same memory, which must be aligned for it.
    template <class U>
    Values<U> as() const {
        Values<U> result;
        result.owner_ = owner_;
        result.values_ = {reinterpret_cast<const U*>(data()), values_.size_bytes() / sizeof(U)};
        result.is_in_file_ = is_in_file_;
        return result;
    }

    friend bool operator==(const Values& a, const Values& b) {
        return std::equal(a.begin(), a.end(), b.begin(), b.end());
    }

  private:
    template <class U>
    friend class Values;

    std::shared_ptr<const void> owner_;
    std::span<const T> values_;
    bool is_in_file_ = false;
};

using ByteValues = Values<std::uint8_t>;
using FloatValues = Values<float>;

}  // namespace vae
