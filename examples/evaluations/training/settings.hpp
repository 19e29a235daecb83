// What is to be trained and how.
#pragma once
#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "../../models/model.hpp"
#include "record.hpp"
#include "schedule.hpp"

namespace tcnca::training {

/// The options that training programs share; command_line reads them. The defaults are a program's to change before it makes its command_line.
struct options {
  options() { config.threads = int(std::max(1u, std::thread::hardware_concurrency())); }

  std::string program;  ///< its name, set by command_line
  std::string model = "tcnca", preset = "default";
  models::model_config
      config;  ///< `head`, `vocabulary`, `classes`, `embedding` and `length` are the program's; `batch` is that of learning
  schedule rates;  ///< `steps` are those of the whole training
  long every = 100;
  double time_limit = 0, expect_loss = 0;
  std::string output;
  bool resume = false;
  std::vector<std::string> compare;
};

/// Sets in `config` what `model` names.
inline void choose_model(options& o) {
  o.config.mixer = o.model == "mega"       ? models::mixer_kind::ema
                   : o.model == "mega-fft" ? models::mixer_kind::ema_by_fft
                                           : models::mixer_kind::convolution;
  o.config.gates = o.model != "tcnca-simple";
}

/// All of the common options that determines what is learned, and so must be the same to resume. Where it runs (backend, threads), how long and with
/// what reports may differ.
inline record configuration(options const& o) {
  auto const& c = o.config;
  record r;
  r.set("program", o.program)
      .set("model", o.model)
      .set("vocabulary", c.vocabulary)
      .set("classes", c.classes)
      .set("length", c.length);
  r.set("layers", c.layers)
      .set("channels", c.channels)
      .set("value_dim", c.value_dim)
      .set("key_dim", c.key_dim)
      .set("hidden", c.hidden);
  r.set("chunk", c.chunk)
      .set("stack", c.stack)
      .set("norm", int(c.norm))
      .set("pre_norm", c.pre_norm)
      .set("bias", int(c.bias));
  r.set("attention", int(c.attention)).set("dropout", c.dropout).set("attention_dropout", c.attention_dropout);
  r.set("hidden_dropout", c.hidden_dropout)
      .set("batch", c.batch)
      .set("rate", o.rates.rate)
      .set("warmup", o.rates.warmup);
  r.set("schedule", o.rates.kind)
      .set("decay", c.decay)
      .set("clip", c.clip)
      .set("beta1", c.beta1)
      .set("beta2", c.beta2)
      .set("seed", c.seed);
  if (o.rates.depends_on_steps()) r.set("steps", o.rates.steps);
  return r;
}

}  // namespace tcnca::training
