// Small dense matrices for models whose numbers have closed forms.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <utility>
#include <vector>

namespace vae::test {

using Matrix = std::vector<std::vector<double>>;

inline Matrix zeros(std::size_t rows, std::size_t cols) {
    return Matrix(rows, std::vector<double>(cols, 0.0));
}

// Solves a x = b for square a by elimination with pivoting; returns x and log |det a|.
inline std::pair<std::vector<double>, double> solve(Matrix a, std::vector<double> b) {
    const std::size_t n = b.size();
    double log_det = 0;
    for (std::size_t k = 0; k < n; ++k) {
        std::size_t pivot = k;
        for (std::size_t i = k; i < n; ++i) {
            if (std::abs(a[i][k]) > std::abs(a[pivot][k])) pivot = i;
        }
        std::swap(a[k], a[pivot]);
        std::swap(b[k], b[pivot]);
        log_det += std::log(std::abs(a[k][k]));
        for (std::size_t i = 0; i < n; ++i) {
            if (i == k) continue;
            const double factor = a[i][k] / a[k][k];
            for (std::size_t j = k; j < n; ++j) a[i][j] -= factor * a[k][j];
            b[i] -= factor * b[k];
        }
    }
    for (std::size_t i = 0; i < n; ++i) b[i] /= a[i][i];
    return {b, log_det};
}

// log N(x; mean, covariance).
inline double log_normal(const std::vector<double>& x, const std::vector<double>& mean,
                         const Matrix& covariance) {
    std::vector<double> error(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) error[i] = x[i] - mean[i];
    const auto [solution, log_det] = solve(covariance, error);
    double quadratic = 0;
    for (std::size_t i = 0; i < x.size(); ++i) quadratic += error[i] * solution[i];
    const double constant = static_cast<double>(x.size()) * std::log(2 * std::numbers::pi);
    return -(quadratic + log_det + constant) / 2;
}

// Eigenvalues of a symmetric matrix in descending order, and their unit vectors as rows, by
// Jacobi's rotations until nothing is left off the diagonal.
struct Eigen {
    std::vector<double> values;
    Matrix vectors;
};

inline Eigen eigen_of(Matrix a) {
    const std::size_t n = a.size();
    Matrix v = zeros(n, n);
    for (std::size_t i = 0; i < n; ++i) v[i][i] = 1;
    constexpr int kSweeps = 30;  // each squares what is left; ten are enough for double
    for (int sweep = 0; sweep < kSweeps; ++sweep) {
        for (std::size_t p = 0; p + 1 < n; ++p) {
            for (std::size_t q = p + 1; q < n; ++q) {
                if (a[p][q] == 0) continue;
                const double angle = std::atan2(2 * a[p][q], a[q][q] - a[p][p]) / 2;
                const double c = std::cos(angle);
                const double s = std::sin(angle);
                for (std::size_t k = 0; k < n; ++k) {
                    const double kp = a[k][p];
                    a[k][p] = c * kp - s * a[k][q];
                    a[k][q] = s * kp + c * a[k][q];
                }
                for (std::size_t k = 0; k < n; ++k) {
                    const double pk = a[p][k];
                    a[p][k] = c * pk - s * a[q][k];
                    a[q][k] = s * pk + c * a[q][k];
                    const double vp = v[p][k];
                    v[p][k] = c * vp - s * v[q][k];
                    v[q][k] = s * vp + c * v[q][k];
                }
            }
        }
    }
    std::vector<std::size_t> order(n);
    for (std::size_t i = 0; i < n; ++i) order[i] = i;
    std::sort(order.begin(), order.end(),
              [&a](std::size_t i, std::size_t j) { return a[i][i] > a[j][j]; });
    Eigen result;
    for (const std::size_t i : order) {
        result.values.push_back(a[i][i]);
        result.vectors.push_back(v[i]);
    }
    return result;
}

}  // namespace vae::test
