// The speed of the models of one configuration.
#pragma once
#include <time.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "experiment.hpp"

namespace lra {

/// Times of the fastest call.
struct seconds {
  double wall = 1e300,
         cpu = 1e300;  ///< `cpu`: processor time of all threads, which does not depend on other programs
};
struct speed {
  std::string model;
  std::size_t parameters, bytes;
  seconds inference, learning;
};

/// Runs `f` and keeps its time if it is the minimum.
inline void time(seconds& best, auto const& f) {
  auto const cpu = [] {
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
  };
  double const cpu_start = cpu();
  auto const start = std::chrono::steady_clock::now();
  f();
  best.wall = std::min(best.wall, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  best.cpu = std::min(best.cpu, cpu() - cpu_start);
}

/// Measures tcnca, mega and mega-fft in turn, as often as about `limit` seconds allow, at least three times. Models
/// that do not exist for the configuration are skipped with a message.
inline std::vector<speed> measure(options const& o, double limit) {
  long const examples = o.speed_batch, sequences = examples * (o.config.head == models::head_kind::pair_class ? 2 : 1),
             length = o.config.length;
  random_source random(o.config.seed);
  std::vector<int> tokens(std::size_t(sequences * length)), targets(static_cast<std::size_t>(examples)),
      predictions(targets.size());
  for (int& t : tokens) t = int(random.below(o.config.vocabulary));
  for (int& t : targets) t = int(random.below(o.config.classes));
  models::examples const batch{sequences, length, tokens.data(), targets.data(), nullptr};

  std::vector<speed> result;
  std::vector<std::unique_ptr<models::model>> all;
  for (char const* const name : {"tcnca", "mega", "mega-fft"}) {
    options own = o;
    own.model = name;
    training::choose_model(own);
    try {
      all.push_back(make_model(own, examples));
    } catch (std::invalid_argument const& e) {
      std::fprintf(stderr, "lra: %s is left out: %s\n", name, e.what());
      continue;
    }
    result.push_back({name, all.back()->parameter_count(), all.back()->memory_bytes(), {}, {}});
  }
  auto const start = std::chrono::steady_clock::now();
  auto const passed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  for (long round = 0; round < 4 || passed() < limit; round++)
    for (std::size_t i = 0; i < all.size(); i++) {
      seconds first;  // warm-up: caches, plans, threads
      time(round == 0 ? first : result[i].inference, [&] { all[i]->evaluate(batch, predictions.data()); });
      time(round == 0 ? first : result[i].learning, [&] { all[i]->learn(batch, round + 1, 1e-6); });
    }
  return result;
}

/// Prints a table; with --output also writes speed.md and speed.json.
inline void report_speed(options const& o) {
  auto const all = measure(o, o.time_limit > 0 ? o.time_limit : 20);
  auto const base = std::find_if(all.begin(), all.end(), [](speed const& s) { return s.model == "mega-fft"; });
  auto const scan = std::find_if(all.begin(), all.end(), [](speed const& s) { return s.model == "mega"; });
  std::string table, json = "[\n";
  char text[400];
  std::snprintf(text, sizeof text,
                "%s on %s, %d threads: %ld examples of %ld tokens side by side, %ld layers, %ld channels, value_dim "
                "%ld, key_dim %ld, chunk %ld, "
                "stack %s; the fastest of several calls\n\n",
                o.task.c_str(), o.config.backend.c_str(), o.config.threads, o.speed_batch, o.config.length,
                o.config.layers, o.config.channels, o.config.value_dim, o.config.key_dim, o.config.chunk,
                o.config.stack.c_str());
  table += text;
  table +=
      "| model | parameters | inference ms | cpu ms | examples/s | over mega-fft | over mega "
      "| learning ms | cpu ms | over mega-fft | over mega |\n"
      "|---|---|---|---|---|---|---|---|---|---|---|\n";
  auto const ratio = [&](auto const& of, seconds speed::*of_what, speed const& s) -> std::string {
    if (of == all.end()) return "-";
    std::snprintf(text, sizeof text, "%.2fx", ((*of).*of_what).wall / (s.*of_what).wall);
    return text;
  };
  for (speed const& s : all) {
    std::snprintf(text, sizeof text, "| %s | %zu | %.2f | %.2f | %.2f | ", s.model.c_str(), s.parameters,
                  1e3 * s.inference.wall, 1e3 * s.inference.cpu, double(o.speed_batch) / s.inference.wall);
    table += text;
    table += ratio(base, &speed::inference, s) + " | " + ratio(scan, &speed::inference, s) + " | ";
    std::snprintf(text, sizeof text, "%.2f | %.2f | ", 1e3 * s.learning.wall, 1e3 * s.learning.cpu);
    table += text;
    table += ratio(base, &speed::learning, s) + " | " + ratio(scan, &speed::learning, s) + " |\n";
    training::record r;
    r.set("task", o.task)
        .set("model", s.model)
        .set("backend", o.config.backend)
        .set("threads", o.config.threads)
        .set("examples", o.speed_batch);
    r.set("length", o.config.length)
        .set("chunk", o.config.chunk)
        .set("stack", o.config.stack)
        .set("parameters", s.parameters);
    r.set("memory_bytes", s.bytes)
        .set("inference_seconds", s.inference.wall)
        .set("inference_cpu_seconds", s.inference.cpu);
    r.set("learning_seconds", s.learning.wall).set("learning_cpu_seconds", s.learning.cpu);
    json += (&s == all.data() ? "  " : ",\n  ") + r.line();
  }
  json += "\n]\n";
  std::fputs(table.c_str(), stdout);
  if (o.output.empty()) return;
  std::filesystem::path const folder = o.output;
  std::filesystem::create_directories(folder);
  training::replace_file(folder / "speed.md", table);
  training::replace_file(folder / "speed.json", json);
}

}  // namespace lra
