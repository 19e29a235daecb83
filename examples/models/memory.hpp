// Memory of a model, planned once: parts ask for regions while they are built, then there is one allocation a pool, and none in a step.
#pragma once
#include <tcnca/core/executor.hpp>
#include <tcnca/core/numeric.hpp>
#include <tcnca/core/status.hpp>
#include <tcnca/core/tensor.hpp>
#include <tcnca/core/workspace.hpp>

#include <algorithm>
#include <memory>
#include <new>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace tcnca::models {

/// A stretch of a pool, in elements.
struct region {
  size offset = 0, count = 0;
};

/// Elements that are laid out first and allocated later, zeroed. Regions begin on cache lines.
template <class T>
class pool {
 public:
  region take(index count) {
    region const r{end_, size(count)};
    end_ += (r.count + line - 1) / line * line;
    most_ = std::max(most_, end_);
    return r;
  }
  /// What is taken after `end` was read is given back by `rewind`: for regions that do not live at the same time.
  size end() const { return end_; }
  void rewind(size end) { end_ = end; }

  void commit() {
    size const bytes = std::max(size(1), most_) * sizeof(T);
    memory_.reset(static_cast<T*>(::operator new(bytes, std::align_val_t(workspace::alignment))));
    std::fill_n(memory_.get(), most_, T(0));
  }
  T* operator[](region r) const { return memory_.get() + r.offset; }
  T* data() const { return memory_.get(); }
  size count() const { return most_; }

 private:
  static constexpr size line = 64 / sizeof(T);
  struct release {
    void operator()(T* p) const { ::operator delete(p, std::align_val_t(workspace::alignment)); }
  };
  std::unique_ptr<T, release> memory_;
  size end_ = 0, most_ = 0;
};

/// How a parameter begins: normal, around a mean (whose sign may alternate).
struct initial {
  double mean = 0, deviation = 0;
  bool alternating = false;
};

/// Where a model runs (E, an executor of the library), what it is made of and what it remembers. Parts take regions when they are made, `commit`
/// follows, then steps.
template <class T, class E>
class context {
 public:
  /// The extents are those of the largest batch.
  context(int workers, index most_sequences, index most_positions) : threads(workers), batch(most_sequences), length(most_positions) {}

  int const threads;
  index batch, length;           ///< of the step at hand
  bool training = true;          ///< dropout is on
  uint64 seed = 0, step = 0;     ///< of dropout
  pool<T> values, gradients;     ///< of parameters: the same regions in both
  pool<T> kept;                  ///< from the forward to the backward pass
  pool<T> temporary;             ///< within one part's forward or backward pass

  index rows() const { return batch * length; }
  E executor() const { return {threads}; }

  region parameter(index count, initial begin) {
    parameters_.push_back({values.take(count), begin});
    return gradients.take(count);
  }
  struct entry {
    region where;
    initial begin;
  };
  std::vector<entry> const& parameters() const { return parameters_; }
  /// Numbers that are learned.
  size parameter_count() const {
    size n = 0;
    for (entry const& e : parameters_) n += e.where.count;
    return n;
  }

  /// Workspace that a call will ask for.
  void reserve(size bytes) { scratch_bytes_ = std::max(scratch_bytes_, bytes); }
  workspace scratch() const { return {scratch_.data(), scratch_bytes_}; }

  void commit() {
    values.commit(), gradients.commit(), kept.commit(), temporary.commit();
  }
  /// After all parts have reserved, with their pointers at hand.
  void commit_scratch() {
    scratch_.take(index(scratch_bytes_));
    scratch_.commit();
  }

  void initialise(uint64 with) {
    std::mt19937_64 random(with);
    for (entry const& e : parameters_) {
      std::normal_distribution<double> normal(0, 1);
      T* const v = values[e.where];
      for (size i = 0; i < e.where.count; i++)
        v[i] = T((e.begin.alternating && i % 2 == 1 ? -e.begin.mean : e.begin.mean) + (e.begin.deviation > 0 ? e.begin.deviation * normal(random) : 0));
    }
  }

 private:
  std::vector<entry> parameters_;
  pool<char> scratch_;
  size scratch_bytes_ = 0;
};

/// A model's calls are right by construction: a status that says otherwise is a mistake in the model.
inline void require(status s) {
  if (!s.ok()) throw std::logic_error(std::string(s.argument()) + ": " + to_string(s));
}

/// A matrix whose rows are the positions of a batch of sequences, as the gates see it; `stride` elements from row to row.
template <class T>
tensor_view<T, 3> rows_view(T* data, index batch, index length, index columns, index stride) {
  return {data, {batch, length, columns}, {length * stride, stride, 1}};
}
/// The same, as attention sees it: one head.
template <class T>
tensor_view<T, 4> head_view(T* data, index batch, index length, index columns) {
  return {data, {batch, 1, length, columns}, {length * columns, length * columns, columns, 1}};
}

}  // namespace tcnca::models
