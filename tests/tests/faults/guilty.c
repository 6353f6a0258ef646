/* Handlers that end their thread, or try to end the process. PATH_INFO says in which way; without one it answers. */
#define _GNU_SOURCE
#include "host.h"
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int zero;
static int *volatile nowhere = (int *)16;

/* Not inlined, so that a crash in it has a name. */
__attribute__((noinline)) static void write_to_nowhere(void) { *nowhere = 1; }

__attribute__((noinline)) static long use_up_the_stack(long depth) {
    volatile char room[4096];
    room[0] = (char)depth;
    return use_up_the_stack(depth + 1) + room[0];
}

static void execute_nothing(void) {
    void (*volatile function)(void) = (void (*)(void))nowhere;
    function();
}

__attribute__((noinline)) static void map_past_the_end(void) {
    char name[] = "/tmp/guiltyXXXXXX";
    int file = mkstemp(name);
    unlink(name);
    char *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0);
    zero = map[0];
}

static host_body *start(host_env *env, host_start_response *response, const char *text) {
    host_header headers[] = {{HOST_STR("Content-Type"), HOST_STR("text/plain")}};
    response->call(response, HOST_STR("200 OK"), headers, 1, NULL);
    return text ? env->bytes(env, (host_str){text, strlen(text)}) : NULL;
}

typedef struct body { host_body base; int chunks, crash_in_next, crash_in_close; } body;

static int32_t next(host_body *base, host_str *chunk) {
    body *self = (body *)base;
    if (self->chunks-- > 0) {
        *chunk = self->crash_in_next == 2 ? (host_str){(char *)nowhere, 8} : HOST_STR("some ");
        return 1;
    }
    if (self->crash_in_next) write_to_nowhere();
    return 0;
}

static void close_body(host_body *base) {
    if (((body *)base)->crash_in_close) write_to_nowhere();
    free(base);
}

static host_body *stream(int chunks, int crash_in_next, int crash_in_close) {
    body *self = calloc(1, sizeof *self);
    self->base = (host_body){.size = sizeof self->base, .count = -1, .next = next, .close = close_body};
    self->chunks = chunks;
    self->crash_in_next = crash_in_next;
    self->crash_in_close = crash_in_close;
    return &self->base;
}

static pthread_mutex_t own = PTHREAD_MUTEX_INITIALIZER;

/* Damages the list of free chunks, so that malloc fails while it holds its arena. */
__attribute__((noinline)) static void crash_within_malloc(void) {
    void *volatile chunk = malloc(3000), *volatile fence = malloc(24);
    free(chunk);
    ((void *volatile *)chunk)[1] = nowhere;
    zero = malloc(9000) == fence;
}

static int crash_in_callback(struct dl_phdr_info *info, size_t size, void *data) {
    write_to_nowhere();
    return info == data && size;
}

static int look_at_callback(struct dl_phdr_info *info, size_t size, void *data) { return info == data && size; }

__attribute__((noinline)) static void compute_for_ever(void) {
    for (;;) zero = 0;
}

__attribute__((noinline)) static void wait_for_ever(void) {
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&mutex);
    pthread_mutex_lock(&mutex);
}

static int32_t next_that_hangs(host_body *base, host_str *chunk) {
    (void)chunk;
    body *self = (body *)base;
    if (self->chunks-- > 0) return *chunk = HOST_STR("some "), 1;
    for (;;) pause();
}

static void close_that_hangs(host_body *base) {
    (void)base;
    wait_for_ever();
}

static int32_t next_that_is_slow(host_body *base, host_str *chunk) {
    body *self = (body *)base;
    usleep(300 * 1000);
    *chunk = HOST_STR("some ");
    return self->chunks-- > 0;
}

static void *crash_on_a_thread(void *unused) {
    write_to_nowhere();
    return unused;
}

HOST_EXPORT host_body *application(host_env *env, host_start_response *response) {
    host_str path = env->get(env, HOST_STR("PATH_INFO"));
    host_str bad = {(char *)nowhere, 64};
#define IS(text) (path.len == sizeof(text) - 1 && memcmp(path.ptr, text, sizeof(text) - 1) == 0)
    if (IS("/segv")) write_to_nowhere();
    if (IS("/jump")) execute_nothing();
    if (IS("/divide")) zero = 100 / zero;
    if (IS("/illegal")) __builtin_trap();
    if (IS("/abort")) abort();
    if (IS("/bus")) map_past_the_end();
    if (IS("/stack")) zero = (int)use_up_the_stack(0);
    if (IS("/exit")) exit(3);
    if (IS("/pthread_exit")) pthread_exit(NULL);
    if (IS("/double_free")) { char *memory = malloc(64); free(memory); free(memory); }
    if (IS("/raise")) raise(SIGSEGV);
    /* Bad pointers, in each argument of each callback. */
    if (IS("/bad/get")) env->get(env, bad);
    if (IS("/bad/get/env")) env->get((host_env *)nowhere, HOST_STR("PATH_INFO"));
    if (IS("/bad/each")) env->each(env, (int32_t (*)(void *, host_str, host_str))nowhere, NULL);
    if (IS("/bad/read")) env->read(env, nowhere, 64);
    if (IS("/bad/readline")) env->readline(env, nowhere, 64);
    if (IS("/bad/errors")) env->errors(env, bad);
    if (IS("/bad/bytes")) return start(env, response, NULL), env->bytes(env, bad);
    if (IS("/bad/status")) response->call(response, bad, NULL, 0, NULL);
    if (IS("/bad/headers")) response->call(response, HOST_STR("200 OK"), (host_header *)nowhere, 2, NULL);
    if (IS("/bad/header/name")) { host_header one = {bad, HOST_STR("x")}; response->call(response, HOST_STR("200 OK"), &one, 1, NULL); }
    if (IS("/bad/header/value")) { host_header one = {HOST_STR("x"), bad}; response->call(response, HOST_STR("200 OK"), &one, 1, NULL); }
    if (IS("/bad/exc_info")) response->call(response, HOST_STR("200 OK"), NULL, 0, (host_exc_info *)nowhere);
    if (IS("/bad/body")) return start(env, response, NULL), (host_body *)nowhere;
    if (IS("/bad/chunk")) return start(env, response, NULL), stream(1, 2, 0);
    /* In the middle of a response. */
    if (IS("/written") || IS("/bad/write")) {
        host_writer *writer = response->call(response, HOST_STR("200 OK"), NULL, 0, NULL);
        writer->write(writer, IS("/written") ? HOST_STR("some ") : bad);
        write_to_nowhere();
    }
    if (IS("/complete")) {
        host_header length = {HOST_STR("Content-Length"), HOST_STR("6")};
        host_writer *writer = response->call(response, HOST_STR("200 OK"), &length, 1, NULL);
        writer->write(writer, HOST_STR("whole\n"));
        write_to_nowhere();
    }
    if (IS("/next")) return start(env, response, NULL), stream(0, 1, 0);
    if (IS("/next/later")) return start(env, response, NULL), stream(2, 1, 0);
    if (IS("/close")) return start(env, response, NULL), stream(1, 0, 1);
    /* Within a lock of the process, and what needs that lock. */
    if (IS("/lock/malloc")) crash_within_malloc();
    if (IS("/lock/stdio")) flockfile(stdout), write_to_nowhere();
    if (IS("/lock/dl")) dl_iterate_phdr(crash_in_callback, NULL);
    if (IS("/lock/own")) pthread_mutex_lock(&own), write_to_nowhere();
    if (IS("/take/malloc")) for (int i = 0; i < 8; i++) free(malloc(5000 + 1000 * i));
    if (IS("/take/stdio")) flockfile(stdout), funlockfile(stdout);
    if (IS("/take/dl")) dl_iterate_phdr(look_at_callback, NULL);
    if (IS("/take/own")) pthread_mutex_lock(&own), pthread_mutex_unlock(&own);
    /* Without an end. */
    if (IS("/hang/loop")) compute_for_ever();
    if (IS("/hang/lock")) wait_for_ever();
    if (IS("/hang/sleep")) for (;;) sleep(1000);
    if (IS("/hang/get")) for (;;) env->get(env, HOST_STR("HTTP_X_NOTHING"));
    if (IS("/hang/read")) { char byte; for (;;) env->read(env, &byte, 1); }
    if (IS("/hang/malloc")) for (;;) free(malloc(100));
    if (IS("/hang/write")) {
        host_writer *writer = response->call(response, HOST_STR("200 OK"), NULL, 0, NULL);
        writer->write(writer, HOST_STR("some "));
        wait_for_ever();
    }
    if (IS("/hang/next") || IS("/hang/next/later")) {
        start(env, response, NULL);
        host_body *body = stream(IS("/hang/next") ? 0 : 2, 0, 0);
        return body->next = next_that_hangs, body;
    }
    if (IS("/hang/close")) {
        start(env, response, NULL);
        host_body *body = stream(1, 0, 0);
        return body->close = close_that_hangs, body;
    }
    if (IS("/hang/masked")) {
        /* As the system knows it, and not as the C library does. */
        unsigned long all = ~0ul;
        syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, NULL, sizeof all);
        for (;;) pause();
    }
    /* Slow, but not without progress. */
    if (IS("/slow/next")) {
        start(env, response, NULL);
        host_body *body = stream(8, 0, 0);
        return body->next = next_that_is_slow, body;
    }
    if (IS("/slow/write")) {
        host_writer *writer = response->call(response, HOST_STR("200 OK"), NULL, 0, NULL);
        for (int i = 0; i < 8; i++) usleep(300 * 1000), writer->write(writer, HOST_STR("some "));
        return NULL;
    }
    if (IS("/slow/read")) {
        char byte;
        while (env->read(env, &byte, 1) > 0) ;
    }
    if (IS("/slow/client")) {
        static char much[1 << 20];
        host_writer *writer = response->call(response, HOST_STR("200 OK"), NULL, 0, NULL);
        for (int i = 0; i < 32; i++) writer->write(writer, (host_str){much, sizeof much});
        return NULL;
    }
    /* The whole process. */
    if (IS("/_exit")) _exit(4);
    if (IS("/kill")) kill(getpid(), SIGKILL);
    if (IS("/close/all")) for (int fd = 3; fd < 1024; fd++) close(fd);
    if (IS("/thread")) {
        pthread_t thread;
        pthread_create(&thread, NULL, crash_on_a_thread, NULL);
        pthread_join(thread, NULL);
    }
    /* What does no harm. */
    if (IS("/fork")) {
        /* The child comes back from the handler, too. */
        pid_t child = fork();
        if (child > 0) waitpid(child, NULL, 0);
    }
    if (IS("/fork/exit")) {
        pid_t child = fork();
        if (child == 0) exit(0);
        waitpid(child, NULL, 0);
    }
    if (IS("/sigpipe")) raise(SIGPIPE);
    if (IS("/chdir") && chdir("/") != 0) abort();
    if (IS("/wait")) waitpid(-1, NULL, WNOHANG);
    if (IS("/mask")) {
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_BLOCK, &all, NULL);
    }
    if (IS("/mask/segv")) {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, NULL);
        write_to_nowhere();
    }
    return start(env, response, "answered\n");
}
