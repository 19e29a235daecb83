// Memory of a model, planned once: parts request regions in their constructors, then each pool is allocated once. A
// step allocates nothing.
#pragma once
#include <tcnca/core/numeric.hpp>
#include <tcnca/core/status.hpp>
#include <tcnca/core/tensor.hpp>

#include <algorithm>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "device.hpp"

namespace tcnca::models {

/// A range of a pool, in elements.
struct region {
  size_t offset = 0, count = 0;
};

/// A pool of elements in an executor's memory: regions are planned first and allocated later, zeroed. Regions begin on
/// cache lines.
template <class T, class E>
class pool {
 public:
  region take(index_t count) {
    region const r{end_, size_t(count)};
    end_ += (r.count + line - 1) / line * line;
    most_ = std::max(most_, end_);
    return r;
  }
  /// Regions taken after `end` was read are released by `rewind`, so that regions with disjoint lifetimes share memory.
  size_t end() const { return end_; }
  void rewind(size_t end) { end_ = end; }

  void commit() { memory_.reset(static_cast<T*>(device<E>::allocate(bytes()))); }
  T* operator[](region r) const { return memory_.get() + r.offset; }
  T* data() const { return memory_.get(); }
  size_t count() const { return most_; }
  size_t bytes() const { return std::max(size_t(1), most_) * sizeof(T); }

 private:
  static constexpr size_t line = 64 / sizeof(T);
  struct release {
    void operator()(T* p) const { device<E>::release(p); }
  };
  std::unique_ptr<T, release> memory_;
  size_t end_ = 0, most_ = 0;
};

/// Initial values of a parameter: normally distributed around a mean, whose sign may alternate.
struct initial {
  double mean = 0, deviation = 0;
  bool alternating = false;
};

/// The executor of a model (E), its parameters and its activations. Parts take regions in their constructors; `commit`
/// allocates them; then steps may run.
template <class T, class E>
class context {
  device<E> device_;

 public:
  /// The extents are those of the largest batch. `workers` is the number of CPU threads.
  context(int workers, index_t most_sequences, index_t most_positions)
      : device_(workers),
        threads(workers),
        batch(most_sequences),
        length(most_positions),
        any_total_(totals.take(1)),
        lengths_place_(lengths_pool_.take(most_sequences)) {}

  int const threads;
  index_t batch, length;         ///< extents of the current batch
  bool training = true;          ///< dropout is on, and batch norm uses the statistics of the batch
  uint64 seed = 0, step = 0;     ///< select the dropout masks
  pool<T, E> values, gradients;  ///< of parameters: the same regions in both pools
  pool<T, E> statistics,
      next_statistics;     ///< not learned: the current values, and those after a step that succeeds
  pool<T, E> kept;         ///< from the forward to the backward pass
  pool<T, E> temporary;    ///< within the forward or backward pass of one part
  pool<double, E> totals;  ///< sums to be downloaded
  pool<int, E> integers;   ///< tokens, targets, predictions

  index_t rows() const { return batch * length; }
  E executor() const { return device_.executor(); }
  device<E> const& backend() const { return device_; }

  /// One number for temporary use by a call.
  double* any_total() const { return totals[any_total_]; }

  /// Valid positions at the front of each sequence, in the executor's memory; null: all.
  index_t const* lengths() const { return padded_ ? lengths_pool_[lengths_place_] : nullptr; }
  /// Number of valid positions.
  index_t valid_rows() const { return padded_ ? valid_rows_ : rows(); }
  /// `host` has `batch` lengths, or is null. Call after `commit`.
  void set_lengths(std::int64_t const* host) {
    padded_ = host != nullptr, valid_rows_ = 0;
    if (!padded_) return;
    for (index_t b = 0; b < batch; b++) {
      if (host[b] < 0 || host[b] > length)
        throw std::invalid_argument("a sequence cannot have " + std::to_string(host[b]) + " of " +
                                    std::to_string(length) + " positions");
      valid_rows_ += host[b];
    }
    upload(host, lengths_pool_[lengths_place_], size_t(batch));
  }

  /// Packed sequences: the batch is 1, and sequence s is at the positions offsets[s] .. offsets[s + 1] - 1 of it.
  bool packed() const { return packed_sequences_ > 0; }
  index_t sequences() const { return packed() ? packed_sequences_ : batch; }
  /// The table in the executor's memory, absent without packed sequences; and the greatest length, else 0.
  tensor_view<int32 const, 1> offsets() const {
    if (!packed()) return {};
    return contiguous<int32 const>(offsets_pool_.data(), packed_sequences_ + 1);
  }
  index_t longest() const { return packed() ? longest_ : 0; }
  /// `host` has `sequences` + 1 offsets, from 0 to `length`, or is null.
  void set_offsets(int const* host, index_t sequences) {
    packed_sequences_ = 0, longest_ = 0;
    if (host == nullptr) return;
    for (index_t s = 0; s < sequences; s++) {
      if (host[s + 1] <= host[s]) throw std::invalid_argument("a packed sequence without tokens");
      longest_ = std::max(longest_, index_t(host[s + 1] - host[s]));
    }
    if (offsets_pool_.count() < size_t(sequences + 1)) {
      offsets_pool_.rewind(0), offsets_pool_.take(sequences + 1);
      offsets_pool_.commit();
    }
    upload(host, offsets_pool_.data(), size_t(sequences + 1));
    packed_sequences_ = sequences;
  }

  region parameter(index_t count, initial begin) {
    parameters_.push_back({values.take(count), begin});
    return gradients.take(count);
  }
  /// Numbers that are part of the model but not learned, such as running means. Checkpoints save them.
  region statistic(index_t count, initial begin) {
    statistics_.push_back({statistics.take(count), begin});
    return next_statistics.take(count);
  }
  struct entry {
    region where;
    initial begin;
  };
  std::vector<entry> const& parameters() const { return parameters_; }
  /// Number of learned values.
  size_t parameter_count() const {
    size_t n = 0;
    for (entry const& e : parameters_) n += e.where.count;
    return n;
  }
  /// Bytes allocated.
  size_t bytes() const {
    return values.bytes() + gradients.bytes() + statistics.bytes() + next_statistics.bytes() + kept.bytes() +
           temporary.bytes() + totals.bytes() + integers.bytes() + lengths_pool_.bytes() +
           offsets_pool_.count() * sizeof(int32) + scratch_.bytes() + device_.bytes();
  }

  /// Requests workspace for a call.
  void reserve(size_t bytes) { scratch_bytes_ = std::max(scratch_bytes_, bytes); }
  workspace scratch() const { return {scratch_.data(), scratch_bytes_}; }

  void commit() {
    values.commit(), gradients.commit(), statistics.commit(), next_statistics.commit(), kept.commit(),
        temporary.commit(), totals.commit();
    integers.commit(), lengths_pool_.commit();
  }
  /// Call after all parts have reserved their workspace. Keeps a sufficient one.
  void commit_scratch() {
    if (scratch_.data() != nullptr && scratch_.count() >= scratch_bytes_) return;
    scratch_.rewind(0);
    scratch_.take(index_t(scratch_bytes_));
    scratch_.commit();
  }

  void initialise(uint64 with) {
    std::mt19937_64 random(with);
    sample(random, parameters_, values);
    sample(random, statistics_, statistics), sample(random, statistics_, next_statistics);
  }

  /// Copies between host and executor memory. The call returns when the copy is complete.
  template <class U>
  void upload(U const* host, U* to, size_t count) const {
    device_.upload(host, to, count * sizeof(U));
  }
  template <class U>
  void download(U const* from, U* host, size_t count) const {
    device_.download(from, host, count * sizeof(U));
  }

 private:
  void sample(std::mt19937_64& random, std::vector<entry> const& entries, pool<T, E> const& to) const {
    std::vector<T> v;
    for (entry const& e : entries) {
      std::normal_distribution<double> normal(0, 1);
      v.resize(e.where.count);
      for (size_t i = 0; i < v.size(); i++) {
        double const mean = e.begin.alternating && i % 2 == 1 ? -e.begin.mean : e.begin.mean;
        v[i] = T(mean + (e.begin.deviation > 0 ? e.begin.deviation * normal(random) : 0));
      }
      upload(v.data(), to[e.where], v.size());
    }
  }

  std::vector<entry> parameters_, statistics_;
  pool<char, E> scratch_;
  size_t scratch_bytes_ = 0;
  region any_total_;
  pool<index_t, E> lengths_pool_;
  region lengths_place_;
  bool padded_ = false;
  index_t valid_rows_ = 0;
  pool<int32, E> offsets_pool_;
  index_t packed_sequences_ = 0, longest_ = 0;
};

/// Calls of operations within a model are correct by construction; a failing status is a bug of the model.
inline void require(status s) {
  if (!s.ok())
    throw std::logic_error(std::string("an operation refused its argument ") + s.argument() + ": " + to_string(s));
}

/// A matrix with one row per position, as [batch, length, columns]; `stride` elements from row to row.
template <class T>
tensor_view<T, 3> rows_view(T* data, index_t batch, index_t length, index_t columns, index_t stride) {
  return {data, {batch, length, columns}, {length * stride, stride, 1}};
}
/// The same as a view with one head, [batch, 1, length, columns].
template <class T>
tensor_view<T, 4> head_view(T* data, index_t batch, index_t length, index_t columns) {
  return {data, {batch, 1, length, columns}, {length * columns, length * columns, columns, 1}};
}

}  // namespace tcnca::models
