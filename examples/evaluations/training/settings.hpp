// Training settings.
#pragma once
#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "../../models/model.hpp"
#include "record.hpp"
#include "schedule.hpp"

namespace tcnca::training {

/// The options shared by the training programs, read by command_line. A program may change the defaults before it
/// creates its command_line.
struct options {
  options() { config.threads = int(std::max(1u, std::thread::hardware_concurrency())); }

  std::string program;  ///< name of the program, set by command_line
  std::string model = "tcnca", preset = "default";
  models::model_config
      config;      ///< the program sets head, vocabulary, classes, embedding and length; `batch` is for training
  schedule rates;  ///< `steps` is the total
  long every = 100;
  double time_limit = 0, expect_loss = 0;
  std::string output;
  bool resume = false;
  std::vector<std::string> compare;
};

/// Sets the fields of `config` that the name `model` implies.
inline void choose_model(options& o) {
  o.config.mixer = o.model == "mega"       ? models::mixer_kind::ema
                   : o.model == "mega-fft" ? models::mixer_kind::ema_by_fft
                                           : models::mixer_kind::convolution;
  o.config.gates = o.model != "tcnca-simple";
}

/// The common options that determine the result, which must be the same to resume. Backend, threads, duration and
/// reports may differ.
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
