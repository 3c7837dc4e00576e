/* Counts what each thread of a process allocates, by thread name, in a file mapped by both sides: preload it.
 *
 * RINGWAY_ALLOCATIONS names the file: places of 24 bytes, a name of 16 and a count of 8. A thread takes its place at its
 * first allocation; a name given later is seen, because each allocation looks until the thread has one of its own.
 * glibc's own entry points do the work, so nothing here looks up symbols, which could allocate. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { PLACES = 64 };
struct place { char name[16]; uint64_t count; };

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static struct place *places;
static int taken;
static __thread struct place *mine;

__attribute__((constructor)) static void begin(void) {
  const char *file = getenv("RINGWAY_ALLOCATIONS");
  int fd = file ? open(file, O_RDWR | O_CLOEXEC) : -1;
  if (fd < 0) return;
  void *at = mmap(NULL, PLACES * sizeof(struct place), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (at != MAP_FAILED) places = at;
}

static void count(void) {
  if (!places) return;
  if (!mine) {
    int n = __atomic_fetch_add(&taken, 1, __ATOMIC_RELAXED);
    mine = &places[n < PLACES ? n : PLACES - 1];
  }
  /* The kernel's name of a thread changes after its first allocations. */
  if (mine->count < 64) prctl(PR_GET_NAME, mine->name);
  __atomic_fetch_add(&mine->count, 1, __ATOMIC_RELAXED);
}

void *malloc(size_t size) { count(); return __libc_malloc(size); }
void *calloc(size_t n, size_t size) { count(); return __libc_calloc(n, size); }
void *realloc(void *at, size_t size) { count(); return __libc_realloc(at, size); }
void *memalign(size_t align, size_t size) { count(); return __libc_memalign(align, size); }
void *aligned_alloc(size_t align, size_t size) { count(); return __libc_memalign(align, size); }
int posix_memalign(void **out, size_t align, size_t size) {
  count();
  void *at = __libc_memalign(align, size);
  if (!at) return ENOMEM;
  *out = at;
  return 0;
}
