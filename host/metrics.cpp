#include "host/metrics.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "host/error.h"
#include "host/files.h"

namespace vae {

LossMeans means(const LossTotals& totals) {
    const double n = static_cast<double>(totals.examples);
    return {.recon = totals.recon / n,
            .kl = totals.kl / n,
            .elbo = -(totals.recon + totals.kl) / n,
            .loss = totals.loss / n};
}

std::string kl_is(const Config& config) {
    return effective_objective(config).kl == KlTerm::sampled ? "estimated" : "closed form";
}

std::string kl_note(const Config& config) {
    return effective_objective(config).kl == KlTerm::sampled ? "kl is estimated from draws"
                                                             : "kl is in closed form";
}

std::string to_json_line(const MetricsRow& row) {
    const LossMeans mean = means(row.totals);
    const double examples = static_cast<double>(row.totals.examples);
    nlohmann::ordered_json line;
    line["step"] = row.step;
    line["epoch"] = row.epoch;
    line["split"] = name_of(row.split);
    line["recon"] = mean.recon;
    line["kl"] = mean.kl;
    line["elbo"] = mean.elbo;
    line["loss"] = mean.loss;
    line["beta"] = row.beta;
    line["kl_is"] = row.kl_is;
    line["examples_per_second"] = row.seconds > 0 ? examples / row.seconds : 0.0;
    line["examples"] = row.totals.examples;
    line["seconds"] = row.seconds;
    if (row.split == Split::train) line["skipped"] = row.skipped;
    return line.dump();
}

MetricsLog::MetricsLog(const std::filesystem::path& path)
    : path_(path.string()), out_(path, std::ios::app | std::ios::binary) {
    if (!out_) throw RunError(fmt::format("{}: cannot be written", path_));
}

void MetricsLog::write(const MetricsRow& row) {
    out_ << to_json_line(row) + '\n' << std::flush;
    if (!out_) throw RunError(fmt::format("{}: cannot be written; is the disk full?", path_));
}

std::vector<std::string> metrics_lines_until(const std::filesystem::path& path,
                                             std::uint64_t step) {
    std::vector<std::string> lines;
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored)) return lines;
    std::istringstream in(read_file(path));
    for (std::string line; std::getline(in, line);) {
        const auto row = nlohmann::json::parse(line, nullptr, false);
        const bool is_row =
            row.is_object() && row.contains("step") && row["step"].is_number_unsigned();
        if (is_row && row["step"].get<std::uint64_t>() <= step) lines.push_back(line);
    }
    return lines;
}

}  // namespace vae
