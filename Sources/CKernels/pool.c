// Soundness: the fields of a region are written while the gate is closed and nobody is inside, and read only between
// entering the gate (acquire) and leaving it (release). The caller returns after the gate is closed and empty again, so
// neither the fields nor the caller's context outlive their readers, however late a helper wakes up.
#define _GNU_SOURCE
#include "CKernels.h"
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SPINS = 2000, LINE = 64, STACK_BYTES = 1 << 20 };
#define GATE_OPEN 0x80000000u    // helpers may enter
#define GATE_AWAITED 0x40000000u // the caller sleeps until the gate is empty
                                 // the other bits count the helpers inside

// The pieces that one worker takes first; others help when they are done with theirs.
typedef struct {
  _Alignas(LINE) _Atomic size_t next; // first index not yet taken
  size_t end;
} segment;

struct at_pool {
  _Alignas(LINE) _Atomic uint32_t generation; // changes when there is something new to see; helpers sleep on it
  _Atomic uint32_t sleepers;
  _Atomic bool stopping;
  _Alignas(LINE) _Atomic uint32_t gate;
  _Alignas(LINE) at_task task;
  void *context;
  size_t grain;
  segment *segments; // [helpers + 1]
  _Atomic bool busy;
  _Atomic int named; // helpers that have taken a number
  int helpers;
  pthread_t helper[];
};

static inline void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}

// A wait may end early for any reason: callers look again.
static void futex_wait(_Atomic uint32_t *word, uint32_t value) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int threads) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, threads, NULL, NULL, 0);
}

// From region to region a worker takes about the same part of the indices: what it wrote is still in its caches.
static void divide(at_pool *pool, size_t count, size_t grain) {
  const size_t workers = (size_t)pool->helpers + 1, pieces = (count + grain - 1) / grain;
  const size_t share = pieces / workers, more = pieces % workers; // some take one more
  for (size_t w = 0; w < workers; w++) {
    const size_t first = (w * share + (w < more ? w : more)) * grain;
    const size_t end = first + (share + (w < more)) * grain;
    atomic_store_explicit(&pool->segments[w].next, first, memory_order_relaxed);
    pool->segments[w].end = end < count ? end : count;
  }
}

static void take_pieces(at_pool *pool, size_t worker) {
  const size_t workers = (size_t)pool->helpers + 1, grain = pool->grain;
  for (size_t i = 0; i < workers; i++) {
    segment *s = &pool->segments[(worker + i) % workers];
    for (;;) {
      const size_t begin = atomic_fetch_add_explicit(&s->next, grain, memory_order_relaxed);
      if (begin >= s->end) break;
      pool->task(pool->context, worker, begin, s->end - begin < grain ? s->end : begin + grain);
    }
  }
}

static void run_alone(size_t count, size_t grain, at_task task, void *context) {
  for (size_t begin = 0; begin < count;) {
    size_t end = count - begin < grain ? count : begin + grain;
    task(context, 0, begin, end);
    begin = end;
  }
}

static bool enter(at_pool *pool) {
  uint32_t gate = atomic_load_explicit(&pool->gate, memory_order_relaxed);
  while (gate & GATE_OPEN) {
    if (atomic_compare_exchange_weak_explicit(&pool->gate, &gate, gate + 1, memory_order_acquire, memory_order_relaxed))
      return true;
  }
  return false;
}

static void leave(at_pool *pool) {
  if (atomic_fetch_sub_explicit(&pool->gate, 1, memory_order_release) == (GATE_AWAITED | 1)) futex_wake(&pool->gate, 1);
}

static uint32_t await_news(at_pool *pool, uint32_t seen) {
  for (int spin = 0; spin < SPINS; spin++) {
    uint32_t generation = atomic_load_explicit(&pool->generation, memory_order_acquire);
    if (generation != seen) return generation;
    relax();
  }
  // Counted as a sleeper before the kernel compares the generation, as run() changes the generation before it looks
  // for sleepers: one of the two sees the other.
  atomic_fetch_add(&pool->sleepers, 1);
  uint32_t generation;
  while ((generation = atomic_load(&pool->generation)) == seen) futex_wait(&pool->generation, seen);
  atomic_fetch_sub(&pool->sleepers, 1);
  return generation;
}

static void *help(void *argument) {
  at_pool *pool = argument;
  const size_t worker = (size_t)atomic_fetch_add(&pool->named, 1) + 1;
  uint32_t seen = 0;
  for (;;) {
    seen = await_news(pool, seen);
    if (atomic_load(&pool->stopping)) return NULL;
    if (enter(pool)) {
      take_pieces(pool, worker);
      leave(pool);
    }
  }
}

static void announce(at_pool *pool, size_t wanted) {
  atomic_fetch_add(&pool->generation, 1);
  if (atomic_load(&pool->sleepers) > 0) futex_wake(&pool->generation, wanted < INT_MAX ? (int)wanted : INT_MAX);
}

static void close_gate(at_pool *pool) {
  uint32_t gate = atomic_fetch_and_explicit(&pool->gate, ~GATE_OPEN, memory_order_acquire) & ~GATE_OPEN;
  for (int spin = 0; gate != 0 && spin < SPINS; spin++) {
    relax();
    gate = atomic_load_explicit(&pool->gate, memory_order_acquire);
  }
  if (gate == 0) return;
  gate = atomic_fetch_or_explicit(&pool->gate, GATE_AWAITED, memory_order_acquire) | GATE_AWAITED;
  while (gate != GATE_AWAITED) {
    futex_wait(&pool->gate, gate);
    gate = atomic_load_explicit(&pool->gate, memory_order_acquire);
  }
}

void at_pool_run(at_pool *pool, size_t count, size_t grain, at_task task, void *context) {
  if (grain == 0) grain = 1;
  if (pool->helpers == 0 || count <= grain || atomic_exchange_explicit(&pool->busy, true, memory_order_acquire)) {
    run_alone(count, grain, task, context);
    return;
  }
  pool->task = task;
  pool->context = context;
  pool->grain = grain;
  divide(pool, count, grain);
  atomic_store_explicit(&pool->gate, GATE_OPEN, memory_order_release);
  announce(pool, (count - 1) / grain);
  take_pieces(pool, 0);
  close_gate(pool);
  atomic_store_explicit(&pool->busy, false, memory_order_release);
}

void at_pool_destroy(at_pool *pool) {
  atomic_store(&pool->stopping, true);
  announce(pool, INT_MAX);
  for (int i = 0; i < pool->helpers; i++) pthread_join(pool->helper[i], NULL);
  free(pool->segments);
  free(pool);
}

at_pool *at_pool_create(int threads) {
  if (threads < 1) threads = 1;
  size_t bytes = sizeof(at_pool) + (size_t)(threads - 1) * sizeof(pthread_t);
  at_pool *pool = aligned_alloc(LINE, (bytes + LINE - 1) / LINE * LINE);
  if (!pool) return NULL;
  *pool = (at_pool){.segments = aligned_alloc(LINE, (size_t)threads * sizeof(segment))};
  if (!pool->segments) {
    free(pool);
    return NULL;
  }
  // Signals are the business of the threads that the program made itself.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_attr_t attributes;
  bool started = true;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  while (started && pool->helpers < threads - 1) {
    started = pthread_create(&pool->helper[pool->helpers], &attributes, help, pool) == 0;
    if (started) pool->helpers++;
  }
  pthread_attr_destroy(&attributes);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (!started) {
    at_pool_destroy(pool);
    return NULL;
  }
  return pool;
}
