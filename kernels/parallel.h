#pragma once

#include <cstdint>
#include <functional>

namespace splat {

// Runs task(i) for every i in [0, count) on the caller and up to threads - 1 sleeping workers, and
// returns when all are done. Which thread runs which i is left to chance, so no result may depend
// on it. A caller that finds the workers busy with another caller's tasks runs its own alone.
void parallel_for(int threads, int64_t count, const std::function<void(int64_t)>& task);

}  // namespace splat
