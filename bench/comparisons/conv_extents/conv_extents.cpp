// Convolution stacks at other extents than those of conv_vs_fft, forward and backward on the CPU in fp32: both layouts,
// a few tokens with a state, many short sequences, and two sizes of pages. The ceilings are measured in the same run.
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../../baselines/ceilings.hpp"
#include "../../support/commit.hpp"
#include "../../support/device_cpu.hpp"
#include "../../support/limit.hpp"
#include "../../support/machine.hpp"
#include "../../support/paired.hpp"
#include "../../support/progress.hpp"
#include "../../support/table.hpp"
#include "../../support/text.hpp"
#include "options.hpp"
#include "stacks.hpp"

namespace tcnca::bench {
namespace {

/// A row: what identifies it, and its figures; both as keys and JSON values. The terminal shows the same.
struct extents_row {
  std::vector<std::pair<std::string, std::string>> values;
  void add(std::string const& key, std::string const& value) { values.emplace_back(key, value); }
  void add(std::string const& key, double value) { values.emplace_back(key, detail::json(value)); }
  std::string to_json() const {
    std::string text;
    for (auto const& [key, value] : values) text += (text.empty() ? "{\"" : ", \"") + key + "\": " + value;
    return text + "}";
  }
};

/// The tensors of the contenders of a row, and its limit.
class row_tensors {
 public:
  row_tensors(problem p, int which)
      : p_(p), which_(which), x_(count()), grad_y_(count()), y_(count()), grad_x_(count()), weight_(weights()) {
    text::noise(contiguous(x_.data(), 1, 1, p_.elements()), 1);
    text::noise(contiguous(grad_y_.data(), 1, 1, p_.elements()), 2);
    auto const taps = static_cast<float>(stacks<first>[static_cast<size_t>(which)].taps);
    text::noise(contiguous(weight_.data(), 1, 1, static_cast<index_t>(weights())), 3, 1 / std::sqrt(taps));
  }

  /// With other extents of as many elements, or with fewer threads.
  contender bind(layout order, use how, pass direction, problem const& p) {
    sequences<float> const s{p, x_.data(), grad_y_.data(), y_.data(), grad_x_.data()};
    auto* const bind = order == first ? &bind_cpu<first> : &bind_cpu<last>;
    return bind(how, which_, direction, s, weight_.data());
  }

 private:
  size_t count() const { return static_cast<size_t>(p_.elements()); }
  size_t weights() const {
    auto const& s = stacks<first>[static_cast<size_t>(which_)];
    return static_cast<size_t>(s.layers() * s.taps * p_.channels);
  }
  problem p_;
  int which_;
  buffer<float> x_, grad_y_, y_, grad_x_, weight_;
};

class extents_run {
 public:
  explicit extents_run(extents_options const& o)
      : options_(o), machine_(o.threads, built_commit()), progress_(static_cast<int>(o.tables.size())) {}

  int run() {
    for (auto const& table : options_.tables) {
      progress_.begin(table);
      ceilings_.measure_fma(0.2);
      size_t const begin = rows_.size();
      if (table == "layouts") layouts();
      else if (table == "tokens") tokens();
      else if (table == "short") short_sequences();
      else pages();
      progress_.clear();
      print(begin);
      progress_.end();
    }
    machine_.finish(rows_.size());
    std::vector<std::string> lines;
    for (auto const& r : rows_) lines.push_back(r.to_json());
    std::ofstream out(options_.output);
    write_json(out, machine_,
               {{"fma_gflops", detail::json(ceilings_.of(options_.threads).fma_rate() * 1e-9)},
                {"copy_gbytes_per_s", detail::json(ceilings_.of(options_.threads).copy_rate(size_t{1} << 30) * 1e-9)}},
               lines);
    if (!out.flush()) throw std::runtime_error(options_.output + " cannot be written.");
    if (auto const warning = machine_.warning(); !warning.empty()) std::printf("WARNING: %s\n", warning.c_str());
    std::printf("%s\n%.0f s. Wrote %s\n", machine_.sentence().c_str(), progress_.elapsed(), options_.output.c_str());
    return 0;
  }

 private:
  /// Channels-last against channels-first, in the same rounds.
  void layouts() {
    for (int which = 0; which < stack_count; which++)
      for (index_t const length : {1024, 4096, 16384, 131072}) {
        problem const p{2, 64, length, options_.threads};
        row_tensors t(p, which);
        for (pass const direction : {pass::forward, pass::backward}) {
          extents_row r = describe("layouts", which, p, direction);
          auto const ms =
              measure(r, {t.bind(first, use::whole, direction, p).run, t.bind(last, use::whole, direction, p).run});
          if (ms.empty()) continue;
          time_limit const limit = limit_of(which, p, direction);
          r.add("channels_first_ms", ms[0]), r.add("channels_first_percent", limit.percent(ms[0]));
          r.add("channels_last_ms", ms[1]), r.add("channels_last_percent", limit.percent(ms[1]));
          r.add("limit", detail::json(std::string(limit.name()))), r.add("ratio", ms[1] / ms[0]);
          rows_.push_back(r);
        }
      }
  }

  /// Forward with the state in place, as a decoder calls it: nanoseconds per token and channel.
  void tokens() {
    for (int which = 0; which < stack_count; which++)
      for (index_t const length : {1, 4, 16}) {
        problem const p{4, 256, length, options_.threads}, alone{4, 256, length, 1};
        row_tensors t(p, which);
        extents_row r = describe("tokens", which, p, pass::forward);
        auto const call = [&](layout order, problem const& q) {
          return paired_call(t.bind(order, use::decode, pass::forward, q).run, q.threads);
        };
        auto const ms = measure(r, {call(first, alone), call(first, p), call(last, alone), call(last, p)});
        if (ms.empty()) continue;
        double const ns = 1e6 / static_cast<double>(p.elements());
        r.add("channels_first_one_thread_ns", ms[0] * ns), r.add("channels_first_ns", ms[1] * ns);
        r.add("channels_last_one_thread_ns", ms[2] * ns), r.add("channels_last_ns", ms[3] * ns);
        rows_.push_back(r);
      }
  }

  /// Many short sequences. Their overhead is relative to their arithmetic: their multiply-adds at the time that one
  /// takes in one long row of as many positions, in the levels of which the short sequences have more than the newest
  /// tap. The long row has the same bytes in the same caches; what it lacks are the starts and ends of rows.
  void short_sequences() {
    for (layout const order : {first, last})
      for (int which = 0; which < stack_count; which++)
        for (index_t const batch : {64, 4096}) {
          problem const p{batch, 64, short_length, options_.threads}, row{1, 64, batch * short_length, p.threads};
          row_tensors t(p, which);
          for (pass const direction : {pass::forward, pass::backward}) {
            extents_row r = describe("short", which, p, direction);
            r.add("layout", detail::json(std::string(layout_name(order))));
            auto const ms =
                measure(r, {t.bind(order, use::whole, direction, p).run, t.bind(order, use::live, direction, row).run});
            if (ms.empty()) continue;
            auto const& shape = stacks<first>[static_cast<size_t>(which)];
            time_limit const limit = limit_of(which, p, direction);
            double const arithmetic = ms[1] * limit.operations / useful_operations(live_levels(shape), row, direction);
            r.add("ms", ms[0]), r.add("percent", limit.percent(ms[0]));
            r.add("limit", detail::json(std::string(limit.name())));
            r.add("long_row_ms", ms[1]), r.add("overhead_percent", 100 * (ms[0] / arithmetic - 1));
            rows_.push_back(r);
          }
        }
  }

  /// The same calls on tensors in 4 KB pages and in 2 MB pages, as far as the system has both.
  void pages() {
    problem const p{2, 64, 131072, options_.threads};
    for (int which = 0; which < stack_count; which++) {
      // Workspaces are made with a contender, tensors here.
      auto const in = [](page_choice c, auto const& make) {
        buffer_pages() = c;
        auto made = make();
        buffer_pages() = page_choice::system;
        return made;
      };
      auto const tensors = [&] { return row_tensors(p, which); };
      row_tensors small = in(page_choice::small, tensors), huge = in(page_choice::huge, tensors);
      for (pass const direction : {pass::forward, pass::backward}) {
        extents_row r = describe("pages", which, p, direction);
        auto const bind = [&](page_choice c, row_tensors& t) {
          return in(c, [&] { return t.bind(first, use::whole, direction, p).run; });
        };
        auto const ms = measure(r, {bind(page_choice::small, small), bind(page_choice::huge, huge)});
        if (ms.empty()) continue;
        time_limit const limit = limit_of(which, p, direction);
        r.add("small_pages_ms", ms[0]), r.add("small_pages_percent", limit.percent(ms[0]));
        r.add("huge_pages_ms", ms[1]), r.add("huge_pages_percent", limit.percent(ms[1]));
        r.add("limit", detail::json(std::string(limit.name()))), r.add("ratio", ms[0] / ms[1]);
        rows_.push_back(r);
      }
    }
  }

  extents_row describe(char const* table, int which, problem const& p, pass direction) const {
    auto const& shape = stacks<first>[static_cast<size_t>(which)];
    extents_row r;
    r.add("table", detail::json(std::string(table))),
        r.add("direction", detail::json(std::string(to_string(direction))));
    r.add("taps", shape.taps), r.add("depth", shape.depth), r.add("dilation_base", shape.dilation_base);
    r.add("batch", detail::json(p.batch)), r.add("channels", detail::json(p.channels));
    r.add("length", detail::json(p.length));
    return r;
  }
  time_limit limit_of(int which, problem const& p, pass direction) {
    double const bytes = useful_bytes(p, direction, sizeof(float));
    return {useful_operations(stacks<first>[static_cast<size_t>(which)], p, direction), bytes,
            ceilings_.of(p.threads).fma_rate(), ceilings_.of(p.threads).copy_rate(static_cast<size_t>(bytes))};
  }
  /// Milliseconds of each contender; none if other programs disturbed them.
  std::vector<double> measure(extents_row const& r, std::vector<paired_call> const& contenders) {
    auto const times = measure_paired(contenders, {options_.threads, options_.row_seconds});
    if (times.reliable) return times.ms;
    machine_.drop(r.to_json());
    return {};
  }
  /// The rows from `begin` on as a Markdown table: all have the same keys.
  void print(size_t begin) const {
    for (size_t i = begin; i < rows_.size(); i++) {
      if (i == begin) {
        std::string head = "\n|", line = "\n|";
        for (auto const& [key, value] : rows_[i].values) head += " " + key + " |", line += "---|";
        std::printf("%s%s\n", head.c_str(), line.c_str());
      }
      for (auto const& [key, value] : rows_[i].values) std::printf("| %s ", shown(value).c_str());
      std::printf("|\n");
    }
  }

  /// A JSON value in a table: without quotes, three digits after the point.
  static std::string shown(std::string const& value) {
    if (value.front() == '"') return value.substr(1, value.size() - 2);
    auto const point = value.find('.');
    return point == std::string::npos ? value : value.substr(0, point + 4);
  }

  extents_options options_;
  ceilings_by_threads ceilings_;
  machine_record machine_;
  progress progress_;
  std::vector<extents_row> rows_;
};

}  // namespace
}  // namespace tcnca::bench

int main(int argc, char** argv) {
  using namespace tcnca::bench;
  return guarded("conv_extents", [&] {
    auto const o = parse_extents(argc, argv);
    return extents_run(o).run();
  });
}
