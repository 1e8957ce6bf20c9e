#include "parallel.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#if defined(_WIN32)
#include <process.h>
#define SPLAT_PROCESS _getpid()
#else
#include <unistd.h>
#define SPLAT_PROCESS getpid()
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#define SPLAT_PAUSE() __builtin_ia32_pause()
#else
#define SPLAT_PAUSE() std::this_thread::yield()
#endif

namespace splat {
namespace {

// To wake a sleeper takes longer than many a task. So whoever waits looks again for this long and
// only then goes to sleep: a team that spins on slows whatever else the machine does, and other
// programs slow it even more. It does not yield meanwhile: on a busy machine that costs a time
// slice.
constexpr std::chrono::microseconds kPatience(50);

template <typename Ready>
void look_for(Ready ready) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!ready() && std::chrono::steady_clock::now() < end) {
    for (int i = 0; i < 16 && !ready(); ++i) SPLAT_PAUSE();
  }
}

class Pool {
 public:
  bool run(int threads, int64_t count, const std::function<void(int64_t)>& task) {
    std::unique_lock<std::mutex> owner(busy_, std::try_to_lock);
    if (!owner) return false;
    while (static_cast<int>(workers_.size()) < threads - 1) {
      workers_.emplace_back([this] { serve(); });
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      task_ = &task;
      next_.store(0, std::memory_order_relaxed);
      count_ = count;
      places_ = threads - 1;
    }
    wake_.notify_all();
    work();
    {
      std::lock_guard<std::mutex> lock(mutex_);
      places_ = 0;  // who wakes only now has nothing left to do
    }
    look_for([this] { return working_ == 0; });
    std::unique_lock<std::mutex> lock(mutex_);
    idle_.wait(lock, [this] { return working_ == 0; });
    return true;
  }

 private:
  void work() {
    for (int64_t i = next_.fetch_add(1); i < count_; i = next_.fetch_add(1)) (*task_)(i);
  }

  void serve() {
    for (;;) {
      look_for([this] { return places_ > 0; });
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [this] { return places_ > 0; });
        --places_;
        ++working_;
      }
      work();
      std::lock_guard<std::mutex> lock(mutex_);
      if (--working_ == 0) idle_.notify_one();
    }
  }

  std::mutex busy_, mutex_;
  std::condition_variable wake_, idle_;
  std::vector<std::thread> workers_;
  const std::function<void(int64_t)>* task_ = nullptr;
  std::atomic<int64_t> next_{0};
  int64_t count_ = 0;
  std::atomic<int> places_{0}, working_{0};  // changed under the mutex
};

// A forked child has none of its parent's threads, so each process makes its own pool. None is
// ever destroyed: at exit the workers may outlive whatever they would need to end well.
Pool& pool() {
  static std::mutex mutex;
  static Pool* pool = nullptr;
  static auto owner = SPLAT_PROCESS;
  std::lock_guard<std::mutex> lock(mutex);
  if (pool == nullptr || owner != SPLAT_PROCESS) {
    pool = new Pool();
    owner = SPLAT_PROCESS;
  }
  return *pool;
}

}  // namespace

void parallel_for(int threads, int64_t count, const std::function<void(int64_t)>& task) {
  const int useful = static_cast<int>(threads < count ? threads : count);
  if (useful > 1 && pool().run(useful, count, task)) return;
  for (int64_t i = 0; i < count; ++i) task(i);
}

}  // namespace splat
