#include "host/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace vae {

namespace {

// A line that wraps could not be written over.
std::size_t columns_of(std::FILE* terminal) {
    winsize size = {};
    const bool is_known = ioctl(fileno(terminal), TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    return is_known ? size.ws_col : 80;
}

}  // namespace

std::string duration_text(double seconds) {
    const auto whole = static_cast<std::int64_t>(std::lround(std::max(seconds, 0.0)));
    if (whole >= 3600) return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
    if (whole >= 60) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
    return fmt::format("{} s", whole);
}

std::string rate_text(double per_second) {
    if (per_second >= 1e6) return fmt::format("{:.2f} M", per_second / 1e6);
    if (per_second >= 1e4) return fmt::format("{:.1f} k", per_second / 1e3);
    return fmt::format("{:.0f}", per_second);
}

std::string work_text(const std::string& what, std::uint64_t done, std::uint64_t total,
                      const std::string& unit, double seconds) {
    std::string text = fmt::format("{}: {} of {} {}", what, done, total, unit);
    if (done == 0 || done >= total) return text;
    const double left = seconds / static_cast<double>(done) * static_cast<double>(total - done);
    return fmt::format("{}, {} left", text, duration_text(left));
}

std::string status_text(const Progress::Status& status, std::size_t columns) {
    const LossMeans mean = means(status.totals);
    const std::string fields[] = {
        fmt::format("epoch {}/{}", status.epoch, status.epochs),
        fmt::format("-elbo {:.2f}", -mean.elbo),
        fmt::format("{} examples/s", rate_text(status.examples_per_second)),
        fmt::format("{} left", duration_text(status.seconds_left)),
        fmt::format("recon {:.2f}", mean.recon),
        fmt::format("kl {:.2f}", mean.kl),
        fmt::format("step {}/{}", status.step, status.steps),
    };
    std::string text;
    for (const std::string& field : fields) {
        const char* gap = text.empty() ? "" : "  ";
        const std::string longer = fmt::format("{}{}{}", text, gap, field);
        if (longer.size() > columns) break;
        text = longer;
    }
    return text;
}

Progress::Progress(std::FILE* out, bool is_terminal)
    : out_(out), is_terminal_(is_terminal), shown_(Clock::now()) {}

Progress::~Progress() {
    if (out_ == nullptr) return;
    has_status_ = is_terminal_;  // the terminal's ^C takes room like one
    clear();
    std::fflush(out_);
}

Progress Progress::standard() {
    return {stdout, isatty(STDOUT_FILENO) != 0};
}

Progress Progress::standard_error() {
    return {stderr, isatty(STDERR_FILENO) != 0};
}

void Progress::clear() {
    if (has_status_) std::fputs("\r\033[K", out_);
    has_status_ = false;
}

void Progress::line(const std::string& text) {
    if (out_ == nullptr) return;
    clear();
    std::fputs((text + '\n').c_str(), out_);
    std::fflush(out_);
    shown_ = Clock::now();
}

bool Progress::is_due() {
    const auto interval = std::chrono::milliseconds(is_terminal_ ? 100 : 10'000);
    const auto now = Clock::now();
    if (out_ == nullptr || now - shown_ < interval) return false;
    shown_ = now;
    return true;
}

std::size_t Progress::columns() const {
    return is_terminal_ ? columns_of(out_) - 1 : std::numeric_limits<std::size_t>::max();
}

void Progress::show(const std::string& status) {
    std::fputs(
        fmt::format("{}{}{}", is_terminal_ ? "\r" : "", status, is_terminal_ ? "\033[K" : "\n")
            .c_str(),
        out_);
    has_status_ = is_terminal_;
    std::fflush(out_);
}

void Progress::update(const Status& status) {
    if (status.totals.examples > 0 && is_due()) show(status_text(status, columns()));
}

void Progress::update(const std::string& text) {
    if (is_due()) show(text.substr(0, columns()));
}

void ShownWork::operator()(std::uint64_t done) const {
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start_;
    progress_->update(work_text(what_, done, total_, unit_, passed.count()));
}

}  // namespace vae
