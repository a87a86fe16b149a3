// What a person sees of a long run: on a terminal one line that is kept up to date, elsewhere a
// plain line now and then.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>

#include "host/metrics.h"

namespace vae {

// "3 h 05 min", "2 min 07 s", "12 s".
std::string duration_text(double seconds);

// "9876", "12.3 k", "1.23 M": examples a second.
std::string rate_text(double per_second);

// "cpu: 300 of 2000 steps, 12 s left" after so many seconds.
std::string work_text(const std::string& what, std::uint64_t done, std::uint64_t total,
                      const std::string& unit, double seconds);

class Progress {
  public:
    // A null stream shows nothing. A stream that cannot be written stops no run; std::ferror tells.
    Progress(std::FILE* out, bool is_terminal);
    // Takes the status line and an echoed ^C off the terminal: an error starts a line of its own.
    ~Progress();
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    Progress(Progress&&) = delete;
    Progress& operator=(Progress&&) = delete;
    // On standard output.
    static Progress standard();
    // On standard error: for commands whose output is read by others.
    static Progress standard_error();

    // A line that stays.
    void line(const std::string& text);

    // Where the running epoch is. Shown at most every tenth of a second on a terminal, and
    // elsewhere at most every ten seconds.
    struct Status {
        std::uint32_t epoch = 0;  // from 1
        std::uint32_t epochs = 0;
        std::uint64_t step = 0;
        std::uint64_t steps = 0;  // of the whole run
        LossTotals totals;        // of the running epoch
        double examples_per_second = 0;
        double seconds_left = 0;
    };
    void update(const Status& status);
    // The same for other work than training; cut where a terminal's line ends.
    void update(const std::string& text);

  private:
    using Clock = std::chrono::steady_clock;

    bool is_due();
    std::size_t columns() const;
    void show(const std::string& status);
    void clear();

    std::FILE* out_;
    bool is_terminal_;
    bool has_status_ = false;  // a status line is on the terminal
    Clock::time_point shown_;
};

// Shows on a Progress how far `what` is with `total` of `unit`, when it is told how many are done.
class ShownWork {
  public:
    ShownWork(Progress& progress, std::string what, std::uint64_t total, std::string unit)
        : progress_(&progress), what_(std::move(what)), total_(total), unit_(std::move(unit)) {}

    void operator()(std::uint64_t done) const;

  private:
    Progress* progress_;
    std::string what_;
    std::uint64_t total_;
    std::string unit_;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// What update() shows: the most important fields first, and of them as many as fit.
std::string status_text(const Progress::Status& status, std::size_t columns);

}  // namespace vae
